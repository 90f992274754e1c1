"""Token embedding and its transpose, the tied output layer."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from minillm.params import ParamSpec, Specs


def embedding_specs(vocabulary: int, width: int, *, axis: str = "vocab", scale: float = 0.02) -> Specs:
    """Row of a lookup table [vocabulary, width]."""
    return {"table": ParamSpec((vocabulary, width), (axis, "model"), "normal", scale)}


def embed_tokens(params: dict, tokens: Int[Array, "*batch"], dtype=jnp.float32) -> Float[Array, "*batch model"]:
    """Row `tokens[i]` of the table for every token.

    The rows are cast, not the table: the gradient of a lookup is a sum over all occurrences of a token, and in bfloat16
    a sum of ones stops at 256.
    """
    return jnp.asarray(params["table"])[tokens].astype(dtype)


def unembed(params: dict, hidden: Float[Array, "*batch model"]) -> Float[Array, "*batch vocab"]:
    """Logits = hidden table^T (weight tying: Press and Wolf 2017)."""
    table = params["table"].astype(hidden.dtype)
    logits = hidden.reshape(-1, hidden.shape[-1]) @ table.T
    return logits.reshape(*hidden.shape[:-1], table.shape[0])
