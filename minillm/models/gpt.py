"""GPT: a stack of causal self-attention blocks that predicts the next token.

Radford et al. 2018 (post-norm) and 2019 (GPT-2: pre-norm, the defaults below). The modern variant (Llama: Touvron et
al. 2023) is the same page with other settings: norm = "rms", position = "rotary", activation = "silu", gated = true,
bias = false, tied = false. Deviation from GPT-2: query, key and value are three kernels, not one (equal, and the
speed does not differ).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from minillm.models.contract import Batch, Output
from minillm.nn import attention, dropout, embedding, feedforward, linear, norm, position
from minillm.nn.adapter import adapt
from minillm.params import Params, Specs, prefix, stack, unstack, widen

CAPTURES = ("attention", "hidden")
Keys = Key[Array, "batch"] | None


@dataclass(frozen=True)
class Config:
    """GPT's own settings; `vocabulary` comes from the tokenizer."""

    __pydantic_config__ = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # noqa: RUF012

    vocabulary: int
    context: int = 256  # longest sequence, in tokens
    layers: int = 6
    width: int = 384
    heads: int = 6
    hidden: int | None = None  # feed-forward width; None: 4 * width
    norm: Literal["layer", "rms"] = "layer"
    placement: Literal["pre", "post"] = "pre"  # norm before each sublayer, or after each residual sum
    position: Literal["learned", "sinusoidal", "rotary"] = "learned"
    activation: Literal["gelu", "gelu_exact", "silu", "relu"] = "gelu"
    gated: bool = False  # SwiGLU and its kin
    bias: bool = True
    tied: bool = True  # output layer = transpose of the embedding
    tasks: tuple[Literal["classify"], ...] = ()  # heads besides the language model's
    labels: int = 2  # classes of "classify"
    dropout: float = 0.0
    init_scale: float = 0.02  # standard deviation of initial tables and kernels; try 0.02 * sqrt(768 / width)
    norm_epsilon: float = 1e-5
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters stay float32
    remat: bool = False  # recompute each block in the backward pass: less memory, one more forward
    scan: bool | None = None  # one compiled block for all layers; None: from 13 layers on
    kernel: Literal["auto", "own", "cudnn"] = "auto"  # of attention without a cache: `nn/attention.py:fused_is_faster`

    def __post_init__(self):
        if min(self.vocabulary, self.context, self.layers, self.width, self.heads, self.labels) < 1:
            raise ValueError("vocabulary, context, layers, width, heads and labels must be at least 1")
        if self.hidden is not None and self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {self.hidden}")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width: {self.width} % {self.heads} = {self.width % self.heads}")
        if self.position == "rotary" and (self.width // self.heads) % 2:
            raise ValueError(f"rotary positions need an even head size, got {self.width // self.heads}")
        if self.position == "sinusoidal" and self.width % 2:
            raise ValueError(f"sinusoidal positions need an even width, got {self.width}")
        if not self.init_scale > 0.0:
            raise ValueError(f"init_scale must be above 0, got {self.init_scale}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not self.norm_epsilon > 0.0:
            raise ValueError(f"norm_epsilon must be above 0, got {self.norm_epsilon}")
        if self.kernel == "cudnn" and (self.dtype != "bfloat16" or self.dropout):
            raise ValueError("the cudnn kernel needs dtype = 'bfloat16' and dropout = 0")

    @property
    def scans(self) -> bool:
        """Unrolled layers run 12 % faster on two cores, scanned ones compile 4 times faster at 12 layers."""
        return self.layers > 12 if self.scan is None else self.scan


def norm_specs(config: Config) -> Specs:
    """Rows of one normalisation."""
    return (
        norm.rms_norm_specs(config.width)
        if config.norm == "rms"
        else norm.layer_norm_specs(config.width, bias=config.bias)
    )


def param_specs(config: Config) -> Specs:
    """The parameter table. Kernels that write into the residual stream start smaller, by 1/sqrt(2 layers) (GPT-2)."""
    output_scale = 0.02 * (2 * config.layers) ** -0.5
    hidden = config.hidden or 4 * config.width
    mlp = feedforward.feedforward_specs(
        config.width, hidden, gated=config.gated, bias=config.bias, output_scale=output_scale
    )
    heads = attention.attention_specs(config.width, config.width, bias=config.bias, output_scale=output_scale)
    block = prefix(norm_specs(config), "attention_norm") | prefix(heads, "attention")
    block |= prefix(norm_specs(config), "feedforward_norm") | prefix(mlp, "feedforward")
    specs = prefix(embedding.embedding_specs(config.vocabulary, config.width), "embedding")
    if config.position == "learned":
        specs |= prefix(position.learned_position_specs(config.context, config.width), "position")
    specs |= prefix(stack(block, config.layers), "blocks")
    if config.placement == "pre":
        specs |= prefix(norm_specs(config), "final_norm")
    if not config.tied:
        specs |= prefix(linear.linear_specs(config.width, config.vocabulary, ("model", "vocab"), bias=False), "head")
    if "classify" in config.tasks:
        specs |= prefix(linear.linear_specs(config.width, config.labels, ("model", None)), "classify")
    return widen(specs, config.init_scale / 0.02)


class Scope(NamedTuple):
    """What every block of one call sees besides its parameters and its input."""

    positions: Int[Array, "batch length"]
    segments: Int[Array, "batch length"] | None
    capture: tuple[str, ...]


def embed(params: Params, batch: Batch, config: Config, positions=None) -> Float[Array, "batch length model"]:
    """Token embedding plus, unless rotary, position embedding."""
    tokens, dtype = batch["tokens"], jnp.dtype(config.dtype)
    positions = _positions(batch, None) if positions is None else positions
    x = embedding.embed_tokens(params["embedding"], tokens, dtype)
    if config.position == "learned":
        x = x + embedding.embed_tokens(params["position"], positions, dtype)
    if config.position == "sinusoidal":
        x = x + position.sinusoidal_positions(positions, config.width).astype(dtype)
    return x


def normalise(params: Params, x: Float[Array, "batch length model"], config: Config):
    """LayerNorm or RMSNorm."""
    return (norm.rms_norm if config.norm == "rms" else norm.layer_norm)(params, x, config.norm_epsilon)


def self_attention(params: Params, x, config: Config, scope: Scope, cache, keys):
    """x [batch, length, model] -> (attended [batch, length, model], new cache, captured weights)."""
    query, key, value = attention.project_heads(params, x, config.heads)
    if config.position == "rotary":
        query, key = position.rotate(query, scope.positions), position.rotate(key, scope.positions)
    if cache is None:
        fused = config.kernel == "auto" and attention.fused_is_faster(query, scope.segments, config.dropout)
        if fused or config.kernel == "cudnn":
            attended = attention.kernel_attention(query, key, value, scope.segments, kernel="cudnn")
        else:
            attended = attention.causal_attention(query, key, value, scope.segments, keys=keys, rate=config.dropout)
        mask = attention.causal_mask(x.shape[1])
        if scope.segments is not None:
            mask = mask & attention.segment_mask(scope.segments)
    else:
        start = scope.positions[:, 0]
        cache = {"key": _write(cache["key"], key, start), "value": _write(cache["value"], value, start)}
        mask = (jnp.arange(cache["key"].shape[2]) <= scope.positions[..., None])[:, None]
        attended = attention.cached_attention(query, cache["key"], cache["value"], mask)
        key = cache["key"].swapaxes(1, 2)
    if "prefix" in params:  # the plain form, over keys that the fast ones do not know
        value = value if cache is None else cache["value"].swapaxes(1, 2)
        key, value, mask = attention.with_prefix(params["prefix"], key, value, mask)
        attended = attention.dot_product_attention(query, key, value, mask, keys=keys, rate=config.dropout)
    captured = {}
    if "attention" in scope.capture:
        captured["attention"] = attention.attention_weights(query, key, mask)
    return linear.linear(params["output"], attention.merge_heads(attended)), cache, captured


def block(params: Params, x, config: Config, scope: Scope, cache=None, keys=None):
    """One Transformer block: attention, then feed-forward, each in a residual branch.

    pre-norm:  x = x + sublayer(norm(x))      post-norm:  x = norm(x + sublayer(x))
    """
    pre = config.placement == "pre"
    branch = normalise(params["attention_norm"], x, config) if pre else x
    attended, cache, captured = self_attention(params["attention"], branch, config, scope, cache, keys)
    attended = dropout.dropout(attended, dropout.fold_keys(keys, 1), config.dropout)
    x = x + adapt(params["attention"].get("adapter"), attended)
    x = x if pre else normalise(params["attention_norm"], x, config)

    branch = normalise(params["feedforward_norm"], x, config) if pre else x
    transformed = feedforward.feedforward(params["feedforward"], branch, config.activation)
    transformed = dropout.dropout(transformed, dropout.fold_keys(keys, 2), config.dropout)
    x = x + adapt(params["feedforward"].get("adapter"), transformed)
    x = x if pre else normalise(params["feedforward_norm"], x, config)
    if "hidden" in scope.capture:
        captured["hidden"] = x
    return x, cache, captured


def init_carry(params: Params, batch: Batch, config: Config, length: int) -> dict:
    """An empty key-value cache for `length` tokens per row.

    carry = {"cache": one {"key", "value"} [batch, heads, length, head] per layer, "index": [batch] tokens seen}.
    """
    if length > config.context:
        raise ValueError(f"a cache of {length} tokens is longer than the context of {config.context}")
    rows = batch["tokens"].shape[0]
    shape = (rows, config.heads, length, config.width // config.heads)
    empty = lambda: jnp.zeros(shape, jnp.dtype(config.dtype))
    cache = tuple({"key": empty(), "value": empty()} for _ in range(config.layers))
    return {"cache": cache, "index": jnp.zeros((rows,), jnp.int32)}


def apply(params: Params, batch: Batch, config: Config, *, embeddings=None, carry=None, key=None, capture=()) -> Output:
    """tokens [batch, length] -> hidden states [batch, length, model]; see `models/contract.py`.

    With `carry`, the tokens continue those already seen, and `batch["lengths"]` [batch] (default: all of them) says how
    many of each row's tokens are real: right padding is overwritten by what follows. `key` turns dropout on.
    `capture` may name "attention" [layers, batch, heads, length, keys] and "hidden" [layers, batch, length, model].
    """
    unknown = set(capture) - set(CAPTURES)
    if unknown:
        raise ValueError(f"unknown capture {sorted(unknown)}, known: {CAPTURES}")
    length = batch["tokens"].shape[1]
    if length > config.context:
        raise ValueError(f"a sequence of {length} tokens is longer than the context of {config.context}")
    scope = Scope(_positions(batch, carry), batch.get("segments"), tuple(capture))
    x = embed(params, batch, config, scope.positions) if embeddings is None else embeddings
    keys = None if key is None or config.dropout == 0.0 else dropout.example_keys(key, batch["index"])
    x = dropout.dropout(x, dropout.fold_keys(keys, 0), config.dropout)
    x, cache, captured = _run_blocks(params["blocks"], x, config, scope, carry, keys)
    if config.placement == "pre":
        x = normalise(params["final_norm"], x, config)
    if carry is not None:
        carry = {"cache": cache, "index": carry["index"] + batch.get("lengths", length)}
    return Output(x, carry, captured)


def logits(params: Params, hidden: Float[Array, "batch length model"]) -> Float[Array, "batch length vocab"]:
    """Next-token scores, through the head or the transposed embedding."""
    return linear.linear(params["head"], hidden) if "head" in params else embedding.unembed(params["embedding"], hidden)


def classify(
    params: Params, hidden: Float[Array, "batch length model"], config: Config, keys: Keys = None
) -> Float[Array, "batch labels"]:
    """Scores of the row's label, read off its last token, which alone has seen all (Radford et al. 2018, section 3.2)."""
    if "classify" not in params:
        raise ValueError("the table has no rows for the head 'classify': name the task in model.tasks")
    last = dropout.dropout(hidden[:, -1], dropout.fold_keys(keys, 1), config.dropout)
    return linear.linear(params["classify"], last)


HEADS = {"classify": classify}


def _run_blocks(params, x, config: Config, scope: Scope, carry, keys):
    """All blocks in turn: scanned, or unrolled (always so with a cache, whose layers are updated in place)."""

    def run(layer_params, x, layer, cache):
        return block(layer_params, x, config, scope, cache, dropout.fold_keys(keys, 3 + layer))

    run = jax.checkpoint(run) if config.remat else run
    if config.scans and carry is None:

        def body(x, row):
            x, _, captured = run(row[0], x, row[1], None)
            return x, captured

        x, captured = jax.lax.scan(body, x, (params, jnp.arange(config.layers)))
        return x, None, captured
    caches = (None,) * config.layers if carry is None else carry["cache"]
    new_caches, rows = [], []
    for layer, (layer_params, cache) in enumerate(zip(unstack(params), caches, strict=True)):
        x, cache, captured = run(layer_params, x, layer, cache)
        new_caches.append(cache)
        rows.append(captured)
    captured = {name: jnp.stack([row[name] for row in rows]) for name in rows[0]}
    return x, tuple(new_caches), captured


def _positions(batch: Batch, carry) -> Int[Array, "batch length"]:
    if "positions" in batch:
        return batch["positions"]
    rows, length = batch["tokens"].shape
    start = jnp.zeros((rows,), jnp.int32) if carry is None else carry["index"]
    return start[:, None] + jnp.arange(length, dtype=jnp.int32)


def _write(cache, new, start):
    """Writes `new` [batch, length, heads, head] into each row of the cache at that row's `start` [batch]."""
    new = new.swapaxes(1, 2)
    return jax.vmap(lambda row, piece, at: jax.lax.dynamic_update_slice(row, piece, (0, at, 0)))(cache, new, start)
