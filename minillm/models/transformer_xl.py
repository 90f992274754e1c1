"""Transformer-XL: attention that also sees a memory of the segments before, with positions relative to the query.

Dai et al. 2019. Segment recurrence (section 3.2): each layer's keys and values come from its inputs of the last
`memory` tokens, through which no gradient flows, and from its inputs now. Relative positions (section 3.3): a score
depends on the distance i - j, so that a memory's tokens need no absolute position.

Choices where the paper leaves one: u and v belong to each layer (as with `untie_r` in the authors' code; then layers are
equal); scores are divided by sqrt(head), as in their code. Deviations: no adaptive softmax, no scaling of the
embedding; sine and cosine are interleaved, not concatenated (a permutation of the rows of W_kR).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from minillm.models.contract import Batch, Output
from minillm.nn import attention, dropout, embedding, feedforward, linear, norm, position, recurrent
from minillm.nn.adapter import adapt
from minillm.nn.layers import keep, run_layers
from minillm.params import Params, ParamSpec, Specs, prefix, stack, widen

CAPTURES = ("attention", "hidden")


@dataclass(frozen=True)
class Config:
    """Transformer-XL's own settings; `vocabulary` comes from the tokenizer. No parameter depends on a length."""

    __pydantic_config__ = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # noqa: RUF012

    vocabulary: int
    context: int = 128  # tokens per training segment
    memory: int = 128  # tokens before the segment that a carry holds; may be longer in evaluation than in training
    span: int | None = None  # tokens that one token sees, itself included; None: the memory and its segment up to it
    layers: int = 6
    width: int = 384
    heads: int = 6
    hidden: int | None = None  # feed-forward width; None: 4 * width
    placement: Literal["pre", "post"] = "post"  # norm before each sublayer, or after each residual sum (the paper)
    activation: Literal["gelu", "gelu_exact", "silu", "relu"] = "relu"
    tied: bool = True  # output layer = transpose of the embedding
    dropout: float = 0.0
    init_scale: float = 0.02  # standard deviation of initial tables and kernels; try 0.02 * sqrt(768 / width)
    norm_epsilon: float = 1e-5
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters stay float32
    remat: bool = False  # recompute each block in the backward pass: less memory, one more forward
    scan: bool | None = None  # one compiled block for all layers; None: from 13 layers on, as in gpt.py

    def __post_init__(self):
        if min(self.vocabulary, self.context, self.memory, self.layers, self.width, self.heads) < 1:
            raise ValueError("vocabulary, context, memory, layers, width and heads must be at least 1")
        for name in ("hidden", "span"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width: {self.width} % {self.heads} = {self.width % self.heads}")
        if self.width % 2:
            raise ValueError(f"sinusoidal positions need an even width, got {self.width}")
        if not self.init_scale > 0.0:
            raise ValueError(f"init_scale must be above 0, got {self.init_scale}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not self.norm_epsilon > 0.0:
            raise ValueError(f"norm_epsilon must be above 0, got {self.norm_epsilon}")

    @property
    def scans(self) -> bool:
        """Whether layers run under `lax.scan`; with a carry they are unrolled."""
        return self.layers > 12 if self.scan is None else self.scan


def param_specs(config: Config) -> Specs:
    """The parameter table. Kernels that write into the residual stream start smaller, by 1/sqrt(2 layers)."""
    output_scale = 0.02 * (2 * config.layers) ** -0.5
    heads = attention.attention_specs(config.width, config.width, bias=False, output_scale=output_scale)
    heads |= prefix(linear.linear_specs(config.width, config.width, ("model", "attention"), bias=False), "position")
    for name in ("content_bias", "position_bias"):  # u and v
        heads[name] = ParamSpec((config.width,), ("attention",), "zeros")
    mlp = feedforward.feedforward_specs(config.width, config.hidden or 4 * config.width, output_scale=output_scale)
    block = prefix(norm.layer_norm_specs(config.width), "attention_norm") | prefix(heads, "attention")
    block |= prefix(norm.layer_norm_specs(config.width), "feedforward_norm") | prefix(mlp, "feedforward")
    specs = prefix(embedding.embedding_specs(config.vocabulary, config.width), "embedding")
    specs |= prefix(stack(block, config.layers), "blocks")
    if config.placement == "pre":
        specs |= prefix(norm.layer_norm_specs(config.width), "final_norm")
    if not config.tied:
        specs |= prefix(linear.linear_specs(config.width, config.vocabulary, ("model", "vocab"), bias=False), "head")
    return widen(specs, config.init_scale / 0.02)


class Scope(NamedTuple):
    """What every block of one call sees besides its parameters, its input and its memory."""

    encodings: Float[Array, "1 keys model"]  # of the distances from the last query to each key
    mask: Bool[Array, "batch 1 length keys"] | Bool[Array, "1 1 length keys"]
    capture: tuple[str, ...]


def embed(params: Params, batch: Batch, config: Config) -> Float[Array, "batch length model"]:
    """Token embedding alone: positions enter where queries meet keys."""
    return embedding.embed_tokens(params["embedding"], batch["tokens"], jnp.dtype(config.dtype))


def relative_shift(scores: Float[Array, "batch heads length keys"]) -> Float[Array, "batch heads length keys"]:
    """Scores by distance -> scores by key, without gathering. Dai et al. 2019, appendix B.

    Column c comes in as distance keys - 1 - c, for every query. Row i has to move left by length - 1 - i, so that its
    column j is the distance from query i to key j. One column of padding per row and a new reading of the same numbers
    as [keys + 1, length] move each row by one more than the row below it. What gets in from the right belongs to keys
    after the query: for the mask.
    """
    batch, heads, length, keys = scores.shape
    padded = jnp.pad(scores, ((0, 0), (0, 0), (0, 0), (1, 0)))
    return padded.reshape(batch, heads, keys + 1, length)[:, :, 1:].reshape(scores.shape)


def relative_attention(params: Params, x, memory, config: Config, scope: Scope, keys):
    """x [batch, length, model], memory [batch, memory, model] -> (attended [batch, length, model], weights).

    score_ij = q_i k_j + q_i W_kR R_{i-j} + u k_j + v W_kR R_{i-j} = (q_i + u) k_j + (q_i + v) W_kR R_{i-j}
    """
    seen = x if memory is None else jnp.concatenate([memory, x], axis=1)
    split = lambda y: attention.split_heads(y, config.heads)
    query = linear.linear(params["query"], x)
    key, value = (split(linear.linear(params[name], seen)) for name in ("key", "value"))
    distance = split(linear.linear(params["position"], scope.encodings))[0]
    by_content = split(query + params["content_bias"].astype(x.dtype))
    by_position = split(query + params["position_bias"].astype(x.dtype))
    shifted = relative_shift(jnp.einsum("bqhd,khd->bhqk", by_position, distance))
    key, value, mask = attention.with_prefix(params.get("prefix"), key, value, scope.mask)
    scores = jnp.einsum("bqhd,bkhd->bhqk", by_content, key) + attention.grow(params.get("prefix"), shifted)
    scores = scores.astype(jnp.float32) * key.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)  # a query sees itself: no row is empty
    dropped = dropout.dropout(weights, keys, config.dropout).astype(value.dtype)
    attended = attention.merge_heads(jnp.einsum("bhqk,bkhd->bqhd", dropped, value))
    return linear.linear(params["output"], attended), weights


def block(params: Params, x, memory, config: Config, scope: Scope, keys=None):
    """One block: relative attention over memory and segment, then feed-forward, each in a residual branch.

    post-norm:  x = norm(x + sublayer(x))      pre-norm:  x = x + sublayer(norm(x)), the memory under the same norm
    """
    pre = config.placement == "pre"
    normalise = lambda name, y: norm.layer_norm(params[name], y, config.norm_epsilon)
    branch = normalise("attention_norm", x) if pre else x
    memory = normalise("attention_norm", memory) if pre and memory is not None else memory
    attended, weights = relative_attention(params["attention"], branch, memory, config, scope, keys)
    attended = dropout.dropout(attended, dropout.fold_keys(keys, 1), config.dropout)
    x = x + adapt(params["attention"].get("adapter"), attended)
    x = x if pre else normalise("attention_norm", x)

    branch = normalise("feedforward_norm", x) if pre else x
    transformed = feedforward.feedforward(params["feedforward"], branch, config.activation)
    transformed = dropout.dropout(transformed, dropout.fold_keys(keys, 2), config.dropout)
    x = x + adapt(params["feedforward"].get("adapter"), transformed)
    x = x if pre else normalise("feedforward_norm", x)
    return x, keep(scope.capture, attention=weights, hidden=x)


def init_carry(params: Params, batch: Batch, config: Config, length: int) -> dict:
    """An empty memory of `config.memory` tokens per row, whatever the `length` to come.

    carry = {"memory": each layer's inputs [batch, layers, memory, model], "valid": [batch, memory] bool}; the newest
    token stands last.
    """
    rows = batch["tokens"].shape[0]
    memory = jnp.zeros((rows, config.layers, config.memory, config.width), jnp.dtype(config.dtype))
    return {"memory": memory, "valid": jnp.zeros((rows, config.memory), bool)}


def apply(params: Params, batch: Batch, config: Config, *, embeddings=None, carry=None, key=None, capture=()) -> Output:
    """tokens [batch, length] -> hidden states [batch, length, model]; see `models/contract.py`.

    With `carry`, the tokens continue those in memory, and `batch["lengths"]` [batch] (default: all of them) says how
    many of each row's tokens are real and enter the new memory. No token sees another across a true
    `batch["reset"]` [batch, length] (a document starts here) or a change of `batch["segments"]` (packed documents).
    `key` turns dropout on. `capture` may name "attention" [layers, batch, heads, length, keys] and
    "hidden" [layers, batch, length, model].
    """
    unknown = set(capture) - set(CAPTURES)
    if unknown:
        raise ValueError(f"unknown capture {sorted(unknown)}, known: {CAPTURES}")
    x = embed(params, batch, config) if embeddings is None else embeddings
    starts = recurrent.document_starts(batch.get("reset"), batch.get("segments"))
    valid = None if carry is None else carry["valid"]
    mask, documents = visible(x.shape[1], valid, starts, config.span)
    distances = jnp.arange(mask.shape[-1] - 1, -1, -1)
    encodings = position.sinusoidal_positions(distances, config.width).astype(x.dtype)[None]
    keys = None if key is None or config.dropout == 0.0 else dropout.example_keys(key, batch["index"])
    x = dropout.dropout(x, dropout.fold_keys(keys, 0), config.dropout)
    scope = Scope(encodings, mask, tuple(capture))

    def run(layer_params, x, layer, memory):
        output, captured = block(layer_params, x, memory, config, scope, dropout.fold_keys(keys, 3 + layer))
        return output, None if memory is None else x, captured

    memory = None if carry is None else [lax.stop_gradient(carry["memory"][:, n]) for n in range(config.layers)]
    x, inputs, captured = run_layers(run, params["blocks"], x, states=memory, scan=config.scans, remat=config.remat)
    if config.placement == "pre":
        x = norm.layer_norm(params["final_norm"], x, config.norm_epsilon)
    if carry is not None:
        carry = remember(carry, jnp.stack(inputs, axis=1), documents, batch.get("lengths"))
    return Output(x, carry, captured)


def visible(length: int, valid, starts, span: int | None):
    """Who sees whom: (mask [batch or 1, 1, length, keys], each key's document [batch, keys] or None).

    Keys are the memory's, then the segment's. Documents count from 0, what the memory holds; -1 is an empty slot.
    """
    memory = 0 if valid is None else valid.shape[1]
    distance = memory + jnp.arange(length)[:, None] - jnp.arange(memory + length)
    mask = (distance >= 0) if span is None else (distance >= 0) & (distance < span)
    if valid is None and starts is None:
        return mask[None, None], None
    rows = (valid if starts is None else starts).shape[0]
    now = jnp.zeros((rows, length), jnp.int32) if starts is None else jnp.cumsum(starts, axis=1, dtype=jnp.int32)
    documents = now if valid is None else jnp.concatenate([jnp.where(valid, 0, -1), now], axis=1)
    return (mask & (documents[:, None, :] == now[:, :, None]))[:, None], documents


def remember(carry: dict, inputs: Float[Array, "batch layers length model"], documents, lengths) -> dict:
    """The new carry: the last tokens of memory and segment up to each row's length, valid if of the newest document."""
    size, length = carry["valid"].shape[1], inputs.shape[2]
    lengths = jnp.full(inputs.shape[0], length) if lengths is None else lengths
    window = lambda leaf, axis: jax.vmap(lambda row, end: lax.dynamic_slice_in_dim(row, end, size, axis))(leaf, lengths)
    memory = window(jnp.concatenate([carry["memory"], inputs], axis=2), 1)
    documents = window(documents, 0)
    return {"memory": memory, "valid": (documents == documents[:, -1:]) & (documents >= 0)}


def logits(params: Params, hidden: Float[Array, "batch length model"]) -> Float[Array, "batch length vocab"]:
    """Next-token scores, through the head or the transposed embedding."""
    return linear.linear(params["head"], hidden) if "head" in params else embedding.unembed(params["embedding"], hidden)
