"""T5: every task from text to text, by an encoder-decoder that knows positions only as distances.

Raffel et al. 2020, section 2.1: pre-norm with RMSNorm, no bias anywhere, no 1/sqrt(head) (the query kernel begins
smaller instead), and a learned bias per head and bucket of distances, shared by the layers of a stack. The defaults are
version 1.0; version 1.1 (Shazeer 2020) is activation = "gelu", gated = true, tied = false.
Deviation: no dropout inside the feed-forward network, between its two kernels.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from minillm.models.contract import Batch, Output
from minillm.nn import attention, dropout, embedding, feedforward, linear, norm
from minillm.nn.adapter import adapt
from minillm.nn.layers import keep, run_layers, write_cache
from minillm.params import Params, ParamSpec, Specs, prefix, stack, unstack

CAPTURES = ("encoder_attention", "encoder_hidden", "attention", "cross_attention", "hidden")


@dataclass(frozen=True)
class Config:
    """The defaults are T5 small, without dropout; `vocabulary` comes from the tokenizer and has room for sentinels."""

    __pydantic_config__ = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # noqa: RUF012

    vocabulary: int
    context: int = 512  # longest source and longest target, in tokens; costs no parameters
    layers: int = 6  # of the encoder
    decoder_layers: int | None = None  # None: as many as the encoder's
    width: int = 512
    heads: int = 8
    head: int | None = None  # size of a head; None: width / heads
    hidden: int | None = None  # feed-forward width; None: 4 * width
    buckets: int = 32  # of distances: half of them one distance each, the others growing up to `distance`
    distance: int = 128  # from here on, all is equally far
    activation: Literal["relu", "gelu", "gelu_exact", "silu"] = "relu"
    gated: bool = False
    tied: bool = True  # output layer = transpose of the embedding / sqrt(width)
    dropout: float = 0.0
    norm_epsilon: float = 1e-6
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters stay float32
    remat: bool = False  # recompute each block in the backward pass: less memory, one more forward
    scan: bool = False  # one compiled block for all layers of a stack: compiles faster, runs a little slower

    def __post_init__(self):
        for name in ("vocabulary", "context", "layers", "decoder_layers", "width", "heads", "head", "hidden"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.head is None and self.width % self.heads:
            raise ValueError(f"heads must divide width: {self.width} % {self.heads} = {self.width % self.heads}")
        if self.buckets < 4 or self.buckets % 4:
            raise ValueError(f"buckets must be a multiple of 4 (two directions, two halves), got {self.buckets}")
        if self.distance <= self.buckets // 2:
            raise ValueError(f"distance must be above buckets / 2 = {self.buckets // 2}, got {self.distance}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not self.norm_epsilon > 0.0:
            raise ValueError(f"norm_epsilon must be above 0, got {self.norm_epsilon}")

    @property
    def decoder_depth(self) -> int:
        """Layers of the decoder."""
        return self.layers if self.decoder_layers is None else self.decoder_layers

    @property
    def head_size(self) -> int:
        """Size of one attention head."""
        return self.width // self.heads if self.head is None else self.head


def param_specs(config: Config) -> Specs:
    """The parameter table, with the initial variances of the released code: 1 / inputs, and for the query kernel, which
    carries what others divide scores by, 1 / (inputs * head)."""
    width, hidden, inner = config.width, config.hidden or 4 * config.width, config.heads * config.head_size
    layer = lambda inputs, outputs, axes, scale=None: linear.linear_specs(
        inputs, outputs, axes, bias=False, scale=inputs**-0.5 if scale is None else scale
    )
    norms = norm.rms_norm_specs(width)
    heads = prefix(layer(width, inner, ("model", "attention"), (width * config.head_size) ** -0.5), "query")
    heads |= prefix(layer(width, inner, ("model", "attention")), "key")
    heads |= prefix(layer(width, inner, ("model", "attention")), "value")
    heads |= prefix(layer(inner, width, ("attention", "model")), "output")
    up = layer(width, hidden, ("model", "hidden"))
    mlp = prefix(up, "up") | prefix(layer(hidden, width, ("hidden", "model")), "down")
    mlp |= prefix(up, "gate") if config.gated else {}
    sublayer = lambda specs, name: prefix(specs, name) | prefix(norms, f"{name}_norm")

    encoder = sublayer(heads, "self_attention") | sublayer(mlp, "feedforward")
    decoder = encoder | sublayer(heads, "cross_attention")
    specs = prefix(embedding.embedding_specs(config.vocabulary, width, scale=1.0), "embedding")
    distances = {"distance/table": ParamSpec((config.buckets, config.heads), (None, None), "normal", width**-0.5)}
    for name, block, layers in (("encoder", encoder, config.layers), ("decoder", decoder, config.decoder_depth)):
        parts = distances | prefix(stack(block, layers), "blocks") | prefix(norms, "final_norm")
        specs |= prefix(parts, name)
    if not config.tied:
        specs |= prefix(layer(width, config.vocabulary, ("model", "vocab")), "head")
    return specs


def bucket_table(size: int, furthest: int) -> np.ndarray:
    """Distance 0 ... furthest -> bucket 0 ... size - 1: the first half are single distances, then they grow evenly in
    the logarithm of the distance (Raffel et al. 2020, section 2.1; the formula is the released code's)."""
    exact, distance = size // 2, np.arange(furthest + 1)
    grown = np.log(np.maximum(distance, exact) / exact) / math.log(furthest / exact) * (size - exact)
    return np.where(distance < exact, distance, np.minimum(exact + grown.astype(int), size - 1)).astype(np.int32)


def distance_bias(
    params: Params, positions: Int[Array, "#batch length"], keys: int, config: Config, *, causal: bool
) -> Float[Array, "#batch heads length keys"]:
    """What is added to the scores of queries at `positions` and keys 0 ... keys - 1, from the learned table.

    Causal: all buckets count backwards; else half of them, and half forwards. The lookup is a product with one-hot rows:
    XLA on the CPU can take minutes to compile the gradient of indexing with constants.
    """
    ahead = jnp.arange(keys) - positions[..., None]
    size = config.buckets if causal else config.buckets // 2
    away = jnp.maximum(-ahead, 0) if causal else jnp.abs(ahead)
    bucket = jnp.asarray(bucket_table(size, config.distance))[jnp.minimum(away, config.distance)]
    bucket = bucket if causal else bucket + size * (ahead > 0)
    hit = jax.nn.one_hot(bucket, config.buckets)
    return jnp.einsum("blkn,nh->bhlk", hit, params["table"], precision=jax.lax.Precision.HIGHEST)


def embed(params: Params, batch: Batch, config: Config) -> dict[str, Array]:
    """{"source", "tokens"}, those that the batch has: rows of the shared table, [batch, length, model]."""
    names, dtype = [name for name in ("source", "tokens") if name in batch], jnp.dtype(config.dtype)
    return {name: embedding.embed_tokens(params["embedding"], batch[name], dtype) for name in names}


def project_memory(params: Params, x: Float[Array, "batch keys model"], config: Config) -> dict[str, Array]:
    """What is looked at, x -> {"key", "value"} [batch, keys, heads, head]."""
    return {name: attention.split_heads(linear.linear(params[name], x), config.heads) for name in ("key", "value")}


def attend(params: Params, x: Float[Array, "batch length model"], memory: dict, bias, mask, config: Config, keys):
    """softmax(Q K^T + bias) V W^O, unscaled -> (attended [batch, length, model], weights [batch, heads, length, keys]).

    A row with no key to look at is all zeros.
    """
    query = attention.split_heads(linear.linear(params["query"], x), config.heads)
    key, value, mask = attention.with_prefix(params.get("prefix"), memory["key"], memory["value"], mask)
    bias = attention.grow(params.get("prefix"), bias)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32) + bias
    weights = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(jnp.float32).min), axis=-1)
    weights = jnp.where(mask, weights, 0.0)
    dropped = dropout.dropout(weights, keys, config.dropout).astype(x.dtype)
    attended = jnp.einsum("bhqk,bkhd->bqhd", dropped, value)
    return linear.linear(params["output"], attention.merge_heads(attended)), weights


class Scope(NamedTuple):
    """What every block of a stack sees besides its parameters and its input."""

    source_mask: Bool[Array, "batch keys"]  # True: a token, False: padding
    bias: Float[Array, "#batch heads length keys"]  # of self-attention, the same in all layers
    capture: tuple[str, ...]
    positions: Int[Array, "#batch length"] | None = None  # of the target
    encoded: Float[Array, "batch keys model"] | None = None  # None where the carry has its projections


def normalise(params: Params, name: str, x: Float[Array, "batch length model"], config: Config):
    """A sublayer's input: RMSNorm(x)."""
    return norm.rms_norm(params[f"{name}_norm"], x, config.norm_epsilon)


def after(params: Params, name: str, x: Float[Array, "batch length model"], y, config: Config, keys):
    """A sublayer's output y back in the residual stream: x + dropout(y)."""
    return x + adapt(params[name].get("adapter"), dropout.dropout(y, keys, config.dropout))


def encoder_block(params: Params, x, config: Config, scope: Scope, keys=None):
    """Every source token looks at every other, then the feed-forward network -> (x, no state, captured)."""
    branch = normalise(params, "self_attention", x, config)
    memory, mask = project_memory(params["self_attention"], branch, config), attention.padding_mask(scope.source_mask)
    y, weights = attend(params["self_attention"], branch, memory, scope.bias, mask, config, dropout.fold_keys(keys, 0))
    x = after(params, "self_attention", x, y, config, dropout.fold_keys(keys, 1))

    branch = normalise(params, "feedforward", x, config)
    y = feedforward.feedforward(params["feedforward"], branch, config.activation)
    x = after(params, "feedforward", x, y, config, dropout.fold_keys(keys, 2))
    return x, None, keep(scope.capture, encoder_attention=weights, encoder_hidden=x)


def decoder_block(params: Params, x, config: Config, scope: Scope, state=None, keys=None):
    """The target looks at itself up to here, then at the source, then feed-forward -> (x, new state, captured).

    `state` = (cache, memory): this layer's keys and values of the target so far, and of the source. None: training.
    """
    branch = normalise(params, "self_attention", x, config)
    cache = project_memory(params["self_attention"], branch, config)
    if state is not None:
        cache = {name: write_cache(state[0][name], new, scope.positions[:, 0]) for name, new in cache.items()}
    mask = (jnp.arange(cache["key"].shape[1]) <= scope.positions[..., None])[:, None]
    y, weights = attend(params["self_attention"], branch, cache, scope.bias, mask, config, dropout.fold_keys(keys, 0))
    x = after(params, "self_attention", x, y, config, dropout.fold_keys(keys, 1))

    branch = normalise(params, "cross_attention", x, config)
    memory = project_memory(params["cross_attention"], scope.encoded, config) if state is None else state[1]
    mask = attention.padding_mask(scope.source_mask)
    y, cross = attend(params["cross_attention"], branch, memory, 0.0, mask, config, dropout.fold_keys(keys, 2))
    x = after(params, "cross_attention", x, y, config, dropout.fold_keys(keys, 3))

    branch = normalise(params, "feedforward", x, config)
    y = feedforward.feedforward(params["feedforward"], branch, config.activation)
    x = after(params, "feedforward", x, y, config, dropout.fold_keys(keys, 4))
    captured = keep(scope.capture, attention=weights, cross_attention=cross, hidden=x)
    return x, None if state is None else (cache, memory), captured


def run_stack(params: Params, x, config: Config, block, states=None, keys=None):
    """Dropout, all blocks, final norm, dropout -> (hidden [batch, length, model], new states, captured)."""
    run = lambda layer_params, x, layer, state: block(layer_params, x, state, dropout.fold_keys(keys, 2 + layer))
    x = dropout.dropout(x, dropout.fold_keys(keys, 0), config.dropout)
    x, states, captured = run_layers(run, params["blocks"], x, states=states, scan=config.scan, remat=config.remat)
    x = dropout.dropout(normalise(params, "final", x, config), dropout.fold_keys(keys, 1), config.dropout)
    return x, states, captured


def encode(params: Params, x, source_mask, config: Config, keys=None, capture=()):
    """Embedded source [batch, keys, model] -> (encoded [batch, keys, model], captured)."""
    positions = jnp.arange(x.shape[1])[None]
    bias = distance_bias(params["distance"], positions, x.shape[1], config, causal=False)
    scope = Scope(source_mask, bias, tuple(capture))
    block = lambda layer_params, x, state, keys: encoder_block(layer_params, x, config, scope, keys)
    x, _, captured = run_stack(params, x, config, block, keys=keys)
    return x, captured


def init_carry(params: Params, batch: Batch, config: Config, length: int, *, source=None) -> dict:
    """Runs the encoder on source and source_mask, and projects its output once for every layer of the decoder.

    `source` [batch, keys, model]: embedded already; None: by `embed`.
    carry = {"memory": one {"key", "value"} [batch, keys, heads, head] per layer, "memory_mask" [batch, keys], "cache":
    the same with room for `length` tokens of the target, "index" [batch]: target tokens seen}.
    """
    if length > config.context:
        raise ValueError(f"a cache of {length} tokens is longer than the context of {config.context}")
    _check(batch, config)
    mask = _source_mask(batch)
    source = embed(params, {"source": batch["source"]}, config)["source"] if source is None else source
    encoded, _ = encode(params["encoder"], source, mask, config)
    layers = unstack(params["decoder"]["blocks"]["cross_attention"])
    empty = lambda: jnp.zeros((mask.shape[0], length, config.heads, config.head_size), encoded.dtype)
    return {
        "memory": tuple(project_memory(layer, encoded, config) for layer in layers),
        "memory_mask": mask,
        "cache": tuple({"key": empty(), "value": empty()} for _ in layers),
        "index": jnp.zeros(mask.shape[:1], jnp.int32),
    }


def apply(params: Params, batch: Batch, config: Config, *, embeddings=None, carry=None, key=None, capture=()) -> Output:
    """source [batch, keys], source_mask, tokens [batch, length] -> the decoder's hidden states [batch, length, model].

    With `carry` the source is not read again; the tokens continue those already seen, and `batch["lengths"]` [batch]
    (default: all) says how many of each row's are real. `key` turns dropout on. `capture` may name "encoder_attention",
    "attention", "cross_attention" [layers, batch, heads, length, keys], "encoder_hidden" and "hidden".
    """
    unknown = set(capture) - set(CAPTURES)
    if unknown:
        raise ValueError(f"unknown capture {sorted(unknown)}, known: {CAPTURES}")
    _check(batch, config)
    keys = None if key is None or config.dropout == 0.0 else dropout.example_keys(key, batch["index"])
    embeddings = embed(params, batch, config) if embeddings is None else embeddings
    length = batch["tokens"].shape[1]
    positions = jnp.arange(length, dtype=jnp.int32)[None]
    if carry is None:
        mask, states, room = _source_mask(batch), None, length
        encoder_keys = dropout.fold_keys(keys, 0)
        encoded, found = encode(params["encoder"], embeddings["source"], mask, config, encoder_keys, capture)
    else:
        positions = positions + carry["index"][:, None]
        mask, states = carry["memory_mask"], tuple(zip(carry["cache"], carry["memory"], strict=True))
        encoded, found, room = None, {}, carry["cache"][0]["key"].shape[1]
    bias = distance_bias(params["decoder"]["distance"], positions, room, config, causal=True)
    scope = Scope(mask, bias, tuple(capture), positions, encoded)
    block = lambda layer_params, x, state, keys: decoder_block(layer_params, x, config, scope, state, keys)
    decoder_keys = dropout.fold_keys(keys, 1)
    x, states, captured = run_stack(params["decoder"], embeddings["tokens"], config, block, states, decoder_keys)
    if carry is not None:
        index = carry["index"] + batch.get("lengths", length)
        carry = carry | {"cache": tuple(cache for cache, _ in states), "index": index}
    return Output(x, carry, found | captured)


def logits(params: Params, hidden: Float[Array, "batch length model"]) -> Float[Array, "batch length vocab"]:
    """Next-token scores, through the head, or through the transposed embedding of hidden / sqrt(width)."""
    if "head" in params:
        return linear.linear(params["head"], hidden)
    return embedding.unembed(params["embedding"], hidden * hidden.shape[-1] ** -0.5)


def _check(batch: Batch, config: Config):
    if "segments" in batch:
        raise ValueError("an encoder-decoder takes one source per row: packed batches (segments) are not supported")
    for name in ("source", "tokens"):
        if name in batch and batch[name].shape[1] > config.context:
            raise ValueError(f"{name} of {batch[name].shape[1]} tokens is longer than the context of {config.context}")


def _source_mask(batch: Batch) -> Bool[Array, "batch keys"]:
    return jnp.asarray(batch.get("source_mask", jnp.ones(batch["source"].shape)), bool)
