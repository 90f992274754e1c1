"""Dropout whose noise belongs to an example, not to a place in a batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def example_keys(key: Key[Array, ""], index: Int[Array, "batch"]) -> Key[Array, "batch"]:
    """One key per example, from its index in the whole batch: micro-batches then see the full batch's noise."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def fold_keys(keys: Key[Array, "batch"] | None, place: int | Int[Array, ""]) -> Key[Array, "batch"] | None:
    """The same examples' keys for another layer or place (None stays None: no dropout)."""
    return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, place)


def dropout(
    x: Float[Array, "batch *rest"], keys: Key[Array, "batch"] | None, rate: float
) -> Float[Array, "batch *rest"]:
    """Zeroes entries with probability `rate` and scales the others by 1 / (1 - rate). Srivastava et al. 2014.

    Without keys (evaluation) or at rate 0 it is the identity.
    """
    if keys is None or rate == 0.0:
        return x
    keep = jax.vmap(lambda key, row: jax.random.bernoulli(key, 1.0 - rate, row.shape))(keys, x)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))
