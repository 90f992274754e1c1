"""The Transformer: an encoder reads the source, a decoder writes the target and looks at both.

Vaswani et al. 2017. Sinusoidal positions, post-norm, and one table for source, target and output layer (section 3.4).
Deviations: attention weights are dropped out too (as in the released tensor2tensor); `bias` also gives query, key, value
and output a bias (as in torch.nn.Transformer). placement = "pre" is the later variant of Xiong et al. 2020.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from minillm.models.contract import Batch, Output
from minillm.nn import attention, dropout, embedding, feedforward, linear, norm, position
from minillm.nn.adapter import adapt
from minillm.nn.layers import keep, run_layers, write_cache
from minillm.params import Params, Specs, prefix, stack, unstack

CAPTURES = ("encoder_attention", "encoder_hidden", "attention", "cross_attention", "hidden")


@dataclass(frozen=True)
class Config:
    """The defaults are the paper's base model (table 3), without dropout; `vocabulary` comes from the tokenizer."""

    __pydantic_config__ = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # noqa: RUF012

    vocabulary: int
    context: int = 256  # longest source and longest target, in tokens
    layers: int = 6  # of the encoder
    decoder_layers: int | None = None  # None: as many as the encoder's
    width: int = 512
    heads: int = 8
    hidden: int | None = None  # feed-forward width; None: 4 * width
    placement: Literal["post", "pre"] = "post"  # norm after each residual sum, or before each sublayer
    activation: Literal["relu", "gelu", "gelu_exact", "silu"] = "relu"
    bias: bool = True
    tied: bool = True  # output layer = transpose of the embedding
    dropout: float = 0.0
    norm_epsilon: float = 1e-5
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters stay float32
    remat: bool = False  # recompute each block in the backward pass: less memory, one more forward
    scan: bool = False  # one compiled block for all layers of a stack: compiles faster, runs a little slower

    def __post_init__(self):
        if min(self.vocabulary, self.context, self.layers, self.decoder_depth, self.width, self.heads) < 1:
            raise ValueError("vocabulary, context, layers, decoder_layers, width and heads must be at least 1")
        if self.hidden is not None and self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {self.hidden}")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width: {self.width} % {self.heads} = {self.width % self.heads}")
        if self.width % 2:
            raise ValueError(f"sinusoidal positions need an even width, got {self.width}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not self.norm_epsilon > 0.0:
            raise ValueError(f"norm_epsilon must be above 0, got {self.norm_epsilon}")

    @property
    def decoder_depth(self) -> int:
        """Layers of the decoder."""
        return self.layers if self.decoder_layers is None else self.decoder_layers


def param_specs(config: Config) -> Specs:
    """The parameter table. Kernels are drawn with variance 2 / (inputs + outputs) (Glorot and Bengio 2010), the table
    with variance 1 / width, so that embeddings times sqrt(width) and logits both begin near variance 1."""
    width, hidden, bias = config.width, config.hidden or 4 * config.width, config.bias
    layer = lambda inputs, outputs, axes: linear.linear_specs(
        inputs, outputs, axes, bias=bias, scale=(2 / (inputs + outputs)) ** 0.5
    )
    heads = {}
    for name in ("query", "key", "value"):
        heads |= prefix(layer(width, width, ("model", "attention")), name)
    heads |= prefix(layer(width, width, ("attention", "model")), "output")
    mlp = prefix(layer(width, hidden, ("model", "hidden")), "up")
    mlp |= prefix(layer(hidden, width, ("hidden", "model")), "down")
    norms = norm.layer_norm_specs(width, bias=bias)
    sublayer = lambda specs, name: prefix(specs, name) | prefix(norms, f"{name}_norm")

    encoder = sublayer(heads, "self_attention") | sublayer(mlp, "feedforward")
    decoder = encoder | sublayer(heads, "cross_attention")
    specs = prefix(embedding.embedding_specs(config.vocabulary, width, scale=width**-0.5), "embedding")
    specs |= prefix(stack(encoder, config.layers), "encoder/blocks")
    specs |= prefix(stack(decoder, config.decoder_depth), "decoder/blocks")
    if config.placement == "pre":
        specs |= prefix(norms, "encoder/final_norm") | prefix(norms, "decoder/final_norm")
    if not config.tied:
        head = linear.linear_specs(width, config.vocabulary, ("model", "vocab"), bias=False, scale=width**-0.5)
        specs |= prefix(head, "head")
    return specs


def embed(params: Params, batch: Batch, config: Config, positions=None) -> dict[str, Array]:
    """{"source", "tokens"}, those that the batch has: table[token] * sqrt(width) + PE(position) [batch, length, model].

    `positions` [batch, length] are those of "tokens", which continue a carry; None: 0, 1, 2, ...
    """
    embedded = {}
    for name in ("source", "tokens"):
        if name in batch:
            places = positions if name == "tokens" and positions is not None else jnp.arange(batch[name].shape[1])
            x = embedding.embed_tokens(params["embedding"], batch[name], jnp.dtype(config.dtype)) * config.width**0.5
            embedded[name] = x + position.sinusoidal_positions(places, config.width).astype(x.dtype)
    return embedded


def before(params: Params, name: str, x: Float[Array, "batch length model"], config: Config):
    """A sublayer's input: pre-norm norm(x), post-norm x."""
    return norm.layer_norm(params[f"{name}_norm"], x, config.norm_epsilon) if config.placement == "pre" else x


def after(params: Params, name: str, x: Float[Array, "batch length model"], y, config: Config, keys):
    """A sublayer's output y back in the residual stream: pre-norm x + y, post-norm norm(x + y) (section 3.1)."""
    x = x + adapt(params[name].get("adapter"), dropout.dropout(y, keys, config.dropout))
    return x if config.placement == "pre" else norm.layer_norm(params[f"{name}_norm"], x, config.norm_epsilon)


def project_memory(params: Params, x: Float[Array, "batch keys model"], config: Config) -> dict[str, Array]:
    """What is looked at, x -> {"key", "value"} [batch, keys, heads, head]."""
    return {name: attention.split_heads(linear.linear(params[name], x), config.heads) for name in ("key", "value")}


def attend(params: Params, x: Float[Array, "batch length model"], memory: dict, mask, config: Config, keys):
    """x looks at the memory -> (attended [batch, length, model], weights [batch, heads, length, keys])."""
    query = attention.split_heads(linear.linear(params["query"], x), config.heads)
    key, value, mask = attention.with_prefix(params.get("prefix"), memory["key"], memory["value"], mask)
    weights = attention.attention_weights(query, key, mask)
    dropped = dropout.dropout(weights, keys, config.dropout).astype(x.dtype)
    attended = jnp.einsum("bhqk,bkhd->bqhd", dropped, value)
    return linear.linear(params["output"], attention.merge_heads(attended)), weights


class Scope(NamedTuple):
    """What every block of a stack sees besides its parameters and its input."""

    source_mask: Bool[Array, "batch keys"]  # True: a token, False: padding
    capture: tuple[str, ...]
    positions: Int[Array, "batch length"] | None = None  # of the target
    encoded: Float[Array, "batch keys model"] | None = None  # None where the carry has its projections


def encoder_block(params: Params, x, config: Config, scope: Scope, keys=None):
    """Every source token looks at every other, then the feed-forward network -> (x, captured)."""
    branch = before(params, "self_attention", x, config)
    memory = project_memory(params["self_attention"], branch, config)
    mask = _everywhere(scope.source_mask, x)
    y, weights = attend(params["self_attention"], branch, memory, mask, config, dropout.fold_keys(keys, 0))
    x = after(params, "self_attention", x, y, config, dropout.fold_keys(keys, 1))

    branch = before(params, "feedforward", x, config)
    y = feedforward.feedforward(params["feedforward"], branch, config.activation)
    x = after(params, "feedforward", x, y, config, dropout.fold_keys(keys, 2))
    return x, keep(scope.capture, encoder_attention=weights, encoder_hidden=x)


def decoder_block(params: Params, x, config: Config, scope: Scope, state=None, keys=None):
    """The target looks at itself up to here, then at the source, then feed-forward -> (x, new state, captured).

    `state` = (cache, memory): this layer's keys and values of the target so far, and of the source. None: training.
    """
    branch = before(params, "self_attention", x, config)
    cache = project_memory(params["self_attention"], branch, config)
    if state is not None:
        cache = {name: write_cache(state[0][name], new, scope.positions[:, 0]) for name, new in cache.items()}
    mask = (jnp.arange(cache["key"].shape[1]) <= scope.positions[..., None])[:, None]
    y, weights = attend(params["self_attention"], branch, cache, mask, config, dropout.fold_keys(keys, 0))
    x = after(params, "self_attention", x, y, config, dropout.fold_keys(keys, 1))

    branch = before(params, "cross_attention", x, config)
    memory = project_memory(params["cross_attention"], scope.encoded, config) if state is None else state[1]
    mask = _everywhere(scope.source_mask, x)
    y, cross = attend(params["cross_attention"], branch, memory, mask, config, dropout.fold_keys(keys, 2))
    x = after(params, "cross_attention", x, y, config, dropout.fold_keys(keys, 3))

    branch = before(params, "feedforward", x, config)
    y = feedforward.feedforward(params["feedforward"], branch, config.activation)
    x = after(params, "feedforward", x, y, config, dropout.fold_keys(keys, 4))
    captured = keep(scope.capture, attention=weights, cross_attention=cross, hidden=x)
    return x, None if state is None else (cache, memory), captured


def encode(params: Params, x, source_mask, config: Config, keys=None, capture=()):
    """Embedded source [batch, keys, model] -> (encoded [batch, keys, model], captured)."""
    scope = Scope(source_mask, tuple(capture))

    def run(layer_params, x, layer, state):
        x, captured = encoder_block(layer_params, x, config, scope, dropout.fold_keys(keys, 1 + layer))
        return x, state, captured

    x = dropout.dropout(x, dropout.fold_keys(keys, 0), config.dropout)
    x, _, captured = run_layers(run, params["blocks"], x, scan=config.scan, remat=config.remat)
    return before(params, "final", x, config), captured


def decode(params: Params, x, config: Config, scope: Scope, states=None, keys=None):
    """Embedded target [batch, length, model] -> (hidden [batch, length, model], new states, captured)."""

    def run(layer_params, x, layer, state):
        return decoder_block(layer_params, x, config, scope, state, dropout.fold_keys(keys, 1 + layer))

    x = dropout.dropout(x, dropout.fold_keys(keys, 0), config.dropout)
    x, states, captured = run_layers(run, params["blocks"], x, states=states, scan=config.scan, remat=config.remat)
    return before(params, "final", x, config), states, captured


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
    empty = lambda: jnp.zeros((mask.shape[0], length, config.heads, config.width // config.heads), encoded.dtype)
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
    rows, length = batch["tokens"].shape
    start = jnp.zeros((rows,), jnp.int32) if carry is None else carry["index"]
    positions = start[:, None] + jnp.arange(length, dtype=jnp.int32)
    embeddings = embed(params, batch, config, positions) if embeddings is None else embeddings
    if carry is None:
        mask, states = _source_mask(batch), None
        encoder_keys = dropout.fold_keys(keys, 0)
        encoded, found = encode(params["encoder"], embeddings["source"], mask, config, encoder_keys, capture)
    else:
        mask, states = carry["memory_mask"], tuple(zip(carry["cache"], carry["memory"], strict=True))
        encoded, found = None, {}
    scope = Scope(mask, tuple(capture), positions, encoded)
    decoder_keys = dropout.fold_keys(keys, 1)
    x, states, captured = decode(params["decoder"], embeddings["tokens"], config, scope, states, decoder_keys)
    if carry is not None:
        index = carry["index"] + batch.get("lengths", length)
        carry = carry | {"cache": tuple(cache for cache, _ in states), "index": index}
    return Output(x, carry, found | captured)


def logits(params: Params, hidden: Float[Array, "batch length model"]) -> Float[Array, "batch length vocab"]:
    """Next-token scores, through the head or the transposed embedding."""
    return linear.linear(params["head"], hidden) if "head" in params else embedding.unembed(params["embedding"], hidden)


def _check(batch: Batch, config: Config):
    if "segments" in batch:
        raise ValueError("an encoder-decoder takes one source per row: packed batches (segments) are not supported")
    for name in ("source", "tokens"):
        if name in batch and batch[name].shape[1] > config.context:
            raise ValueError(f"{name} of {batch[name].shape[1]} tokens is longer than the context of {config.context}")


def _source_mask(batch: Batch) -> Bool[Array, "batch keys"]:
    return jnp.asarray(batch.get("source_mask", jnp.ones(batch["source"].shape)), bool)


def _everywhere(source_mask, x) -> Bool[Array, "batch 1 length keys"]:
    """Every position of x may look at every real token of the source."""
    rows, keys = source_mask.shape
    return jnp.broadcast_to(attention.padding_mask(source_mask), (rows, 1, x.shape[1], keys))
