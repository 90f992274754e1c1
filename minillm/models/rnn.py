"""RNN: the simplest network with a memory, a stack of layers h_t = tanh(W x_t + b + U h_{t-1}).

Elman 1990; as a language model Mikolov et al. 2010; with ReLU in place of tanh Le et al. 2015. Deviations from
torch.nn.RNN: one bias in place of two that are only ever added.

Its gradient over k steps is a product of k Jacobians, which vanishes or explodes (Bengio et al. 1994): the page to read
before `lstm.py`, which it equals but for the cell.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from minillm.models.contract import Batch, Output
from minillm.nn import dropout, embedding, linear, recurrent
from minillm.nn.layers import keep, run_layers
from minillm.params import Params, Specs, prefix, stack

CAPTURES = ("hidden",)


@dataclass(frozen=True)
class Config:
    """The RNN's own settings; `vocabulary` comes from the tokenizer."""

    __pydantic_config__ = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # noqa: RUF012

    vocabulary: int
    context: int = 256  # tokens per training segment, through which gradients flow; the state itself has no limit
    layers: int = 2
    width: int = 256  # of the embedding and of every layer
    activation: Literal["tanh", "relu"] = "tanh"
    tied: bool = True  # output layer = transpose of the embedding
    dropout: float = 0.0  # between layers
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters stay float32

    def __post_init__(self):
        if min(self.vocabulary, self.context, self.layers, self.width) < 1:
            raise ValueError("vocabulary, context, layers and width must be at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.dropout and self.layers == 1:
            raise ValueError(f"dropout stands between layers: {self.dropout} needs at least 2 layers, got 1")


def param_specs(config: Config) -> Specs:
    """The parameter table. Every layer is as wide as the embedding, so that layers are equal and stacked."""
    layer = recurrent.recurrent_specs(config.width, config.width)
    specs = prefix(embedding.embedding_specs(config.vocabulary, config.width, scale=config.width**-0.5), "embedding")
    specs |= prefix(stack(layer, config.layers), "blocks")
    if not config.tied:
        specs |= prefix(linear.linear_specs(config.width, config.vocabulary, ("model", "vocab"), bias=False), "head")
    return specs


def embed(params: Params, batch: Batch, config: Config) -> Float[Array, "batch length model"]:
    """Token embedding; order needs no position, the recurrence knows it."""
    return embedding.embed_tokens(params["embedding"], batch["tokens"], jnp.dtype(config.dtype))


def init_carry(params: Params, batch: Batch, config: Config, length: int) -> dict:
    """The state before the first token, whatever the `length` to come: {"hidden": [batch, layers, model]}."""
    shape = (batch["tokens"].shape[0], config.layers, config.width)
    return {"hidden": jnp.zeros(shape, jnp.dtype(config.dtype))}


def apply(params: Params, batch: Batch, config: Config, *, embeddings=None, carry=None, key=None, capture=()) -> Output:
    """tokens [batch, length] -> hidden states [batch, length, model]; see `models/contract.py`.

    `carry` continues the rows from where they stopped, and `batch["lengths"]` [batch] (default: all) says how many of
    each row's tokens are real: the new carry is that of the last real one. The state is forgotten before tokens where
    `batch["reset"]` [batch, length] is true, and where `batch["segments"]` goes from one packed document to the next.
    `key` turns dropout on. `capture` may name "hidden", [layers, batch, length, model].
    """
    unknown = set(capture) - set(CAPTURES)
    if unknown:
        raise ValueError(f"unknown capture {sorted(unknown)}, known: {CAPTURES}")
    x = embed(params, batch, config) if embeddings is None else embeddings
    keys = None if key is None or config.dropout == 0.0 else dropout.example_keys(key, batch["index"])
    starts, lengths = recurrent.document_starts(batch.get("reset"), batch.get("segments")), batch.get("lengths")
    before = init_carry(params, batch, config, x.shape[1]) if carry is None else carry

    def layer(layer_params, x, number, state):
        if number > 0:
            x = dropout.dropout(x, dropout.fold_keys(keys, number), config.dropout)
        cell = functools.partial(recurrent.rnn_cell, layer_params, activation=config.activation)
        projected = linear.linear(layer_params["input"], x)
        states, last = recurrent.run_over_time(cell, state, projected, starts, lengths)
        return states["hidden"], last, keep(capture, **states)

    states = [{name: leaf[:, number] for name, leaf in before.items()} for number in range(config.layers)]
    x, after, captured = run_layers(layer, params["blocks"], x, states=states)
    if carry is not None:
        carry = jax.tree.map(lambda *rows: jnp.stack(rows, axis=1), *after)
    return Output(x, carry, captured)


def logits(params: Params, hidden: Float[Array, "batch length model"]) -> Float[Array, "batch length vocab"]:
    """Next-token scores, through the head or the transposed embedding."""
    return linear.linear(params["head"], hidden) if "head" in params else embedding.unembed(params["embedding"], hidden)
