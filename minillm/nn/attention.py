"""Scaled dot-product and multi-head attention.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(head)) V          Vaswani et al. 2017, equation 1

`dot_product_attention` is that line, for any mask. `causal_attention` is the same function for a causal mask, without
computing the half that the mask throws away; a test and lesson 06 hold the two equal.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from minillm.nn.dropout import dropout, fold_keys
from minillm.nn.linear import linear, linear_specs
from minillm.params import Specs, prefix

Heads = Float[Array, "batch length heads head"]
KeyHeads = Float[Array, "batch keys heads head"]
CachedHeads = Float[Array, "batch heads keys head"]
Mask = Bool[Array, "batch #heads length keys"] | Bool[Array, "1 #heads length keys"]  # True: may be looked at
GrownHeads = Float[Array, "batch more heads head"]  # with a prefix's keys or values before the others
GrownMask = Bool[Array, "batch #heads length more"] | Bool[Array, "1 #heads length more"]
LOWEST = jnp.finfo(jnp.float32).min  # a masked score; minus infinity would make NaN of a row without a key


def attention_specs(width: int, attention: int, *, bias: bool = True, output_scale: float = 0.02) -> Specs:
    """Rows of multi-head attention: query, key, value [width, attention] and output [attention, width]."""
    specs = {}
    for name in ("query", "key", "value"):
        specs |= prefix(linear_specs(width, attention, ("model", "attention"), bias=bias), name)
    output = linear_specs(attention, width, ("attention", "model"), bias=bias, scale=output_scale)
    return specs | prefix(output, "output")


def split_heads(x: Float[Array, "batch length attention"], heads: int) -> Heads:
    """[batch, length, heads * head] -> [batch, length, heads, head]."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def merge_heads(x: Heads) -> Float[Array, "batch length attention"]:
    """[batch, length, heads, head] -> [batch, length, heads * head]."""
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def causal_mask(length: int) -> Bool[Array, "1 1 length length"]:
    """Position i may look at positions j <= i."""
    return jnp.tril(jnp.ones((length, length), bool))[None, None]


def padding_mask(valid: Bool[Array, "batch keys"]) -> Bool[Array, "batch 1 1 keys"]:
    """Nobody looks at padding."""
    return valid[:, None, None, :]


def segment_mask(segments: Int[Array, "batch length"]) -> Bool[Array, "batch 1 length length"]:
    """Packed documents do not see each other: query and key must belong to the same segment."""
    return (segments[:, :, None] == segments[:, None, :])[:, None]


def attention_weights(query: Heads, key: KeyHeads, mask: Mask | None = None) -> Float[Array, "batch heads length keys"]:
    """softmax(Q K^T / sqrt(head)) over the keys, in float32. A row with no key to look at is all zeros, not NaN."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32) * query.shape[-1] ** -0.5
    if mask is None:
        return jax.nn.softmax(scores, axis=-1)
    weights = jax.nn.softmax(jnp.where(mask, scores, LOWEST), axis=-1)
    return jnp.where(mask, weights, 0.0)


def dot_product_attention(
    query: Heads, key: KeyHeads, value: KeyHeads, mask: Mask | None = None, *, keys=None, rate: float = 0.0
) -> Heads:
    """The plain form: every score is computed, masked ones are thrown away. `keys`: dropout keys per example."""
    weights = dropout(attention_weights(query, key, mask), keys, rate).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def cached_attention(query: Heads, key: CachedHeads, value: CachedHeads, mask: Mask) -> Heads:
    """The same over a key-value cache, in which heads stand before positions: each head's keys are one matrix.

    With positions first, XLA on the CPU would transpose the whole cache for every token.
    """
    scores = jnp.einsum("bqhd,bhkd->bhqk", query, key).astype(jnp.float32) * query.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(mask, scores, LOWEST), axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bhkd->bqhd", weights, value)


def causal_attention(
    query: Heads,
    key: Heads,
    value: Heads,
    segments: Int[Array, "batch length"] | None = None,
    *,
    keys=None,
    rate: float = 0.0,
    blocks: int = 4,
) -> Heads:
    """Equal to `dot_product_attention` under a causal (and, with `segments`, packed-documents) mask, and faster.

    The queries are cut into `blocks`, and block i is multiplied only with the keys up to its own end. Heads stand before
    positions, so that each head's slice is one matrix, and scores are laid out [batch, heads, keys, queries], so that
    the softmax reduces over the second-to-last axis, which vectorises: at length 256 and width 384 the gradient takes
    26 ms of one CPU core so, 34 ms with positions before heads, and 49 ms plainly.
    """
    length = query.shape[1]
    blocks = blocks if length % blocks == 0 and length // blocks >= 16 else 1
    size, outputs = length // blocks, []
    query, key, value = (x.swapaxes(1, 2) for x in (query * query.shape[-1] ** -0.5, key, value))
    for start in range(0, length, size):
        end = start + size
        scores = jnp.einsum("bhkd,bhqd->bhkq", key[:, :, :end], query[:, :, start:end]).astype(jnp.float32)
        mask = (jnp.arange(end)[:, None] <= jnp.arange(start, end)[None, :])[None, None]
        if segments is not None:
            mask = mask & (segments[:, None, :end, None] == segments[:, None, None, start:end])
        weights = jax.nn.softmax(jnp.where(mask, scores, LOWEST), axis=-2)  # a query sees itself: no column is empty
        weights = dropout(weights, fold_keys(keys, start), rate).astype(value.dtype)
        outputs.append(jnp.einsum("bhkq,bhkd->bhqd", weights, value[:, :, :end]))
    return jnp.concatenate(outputs, axis=2).swapaxes(1, 2)


def kernel_attention(
    query: Heads, key: Heads, value: Heads, segments: Int[Array, "batch length"] | None = None, *, kernel: str
) -> Heads:
    """The same causal attention through a kernel of the platform, which keeps no scores (FlashAttention: Dao et al. 2022).

    `kernel`: "cudnn", for bfloat16 on NVIDIA GPUs, or "xla", jax's plain form, which shows on any machine that they agree.
    """
    mask = None if segments is None else segment_mask(segments)
    return jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=True, implementation=kernel)


def fused_is_faster(query: Heads, segments: Int[Array, "batch length"] | None, rate: float) -> bool:
    """Whether cuDNN's kernel is known to be faster than `causal_attention`: on NVIDIA GPUs, where `minillm bench --kernels`
    measured it, in bfloat16, without dropout or packed documents, at whole lengths from 256."""
    _, length, _, head = query.shape
    measured = segments is None and rate == 0.0 and length >= 256 and length % 64 == 0 and head % 8 == 0 and head <= 128
    return measured and query.dtype == jnp.bfloat16 and jax.default_backend() == "gpu"


def project_heads(params: dict, x: Float[Array, "batch length model"], heads: int) -> tuple[Heads, Heads, Heads]:
    """x -> query, key, value, split into heads."""
    query, key, value = (split_heads(linear(params[name], x), heads) for name in ("query", "key", "value"))
    return query, key, value


def with_prefix(
    params: dict | None, key: KeyHeads, value: KeyHeads, mask: Mask | None = None
) -> tuple[GrownHeads, GrownHeads, GrownMask | None]:
    """Trained keys and values before those of every row, seen by every query; None: nothing is added.

    params: key, value [prefix, attention]. They stand at no position, which with rotary queries is position 0.
    Li and Liang 2021, section 4.2.
    """
    if params is None:
        return key, value, mask

    def before(name: str, x: KeyHeads):
        first = split_heads(params[name].astype(x.dtype)[None], x.shape[2])
        return jnp.concatenate([jnp.broadcast_to(first, (len(x), *first.shape[1:])), x], axis=1)

    return before("key", key), before("value", value), None if mask is None else grow(params, mask, True)


def grow(params: dict | None, scores: Array | float, value: bool | float = 0.0) -> Array | float:
    """A mask or a bias [..., keys] -> [..., prefix + keys], with `value` for the prefix's; one number stays as it is."""
    if params is None or jnp.ndim(scores) == 0:
        return scores
    return jnp.pad(scores, [(0, 0)] * 3 + [(params["key"].shape[0], 0)], constant_values=value)


def multi_head_attention(
    params: dict, x: Float[Array, "batch length model"], heads: int, mask: Mask | None = None
) -> Float[Array, "batch length model"]:
    """MultiHead(x) = Concat(head_1 ... head_h) W^O. Vaswani et al. 2017, section 3.2.2: a whole layer."""
    query, key, value = project_heads(params, x, heads)
    return linear(params["output"], merge_heads(dot_product_attention(query, key, value, mask)))
