"""Checks of lesson 20: they name the mistake, not only the failure."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array, close, parse
from minillm.course.contract import Mistake
from minillm.nn import attention
from minillm.nn.linear import LowRank
from minillm.tuning.lora import merge

numbers = functools.partial(as_array, infinite="is something divided by 0 or by a rank that is not there?")
RANDOM = np.random.default_rng(20)


def pair(value, shapes, names: tuple[str, str]) -> list[np.ndarray]:
    """A result of two arrays."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise Mistake(f"the function should return two arrays: ({names[0]}, {names[1]})")
    return [numbers(part, shape, name) for part, shape, name in zip(value, shapes, names, strict=True)]


# lora_start

INPUTS, OUTPUTS, RANK = 24, 16, 3
STARTS = {
    "zeros": "both factors are zero: the gradient of each is multiplied by the other, so neither ever leaves zero",
    "random": "neither factor is zero: the product changes the pretrained model before it has learned anything",
    "equal": "the columns of down are all equal: their gradients are too, so the part learns with rank 1 whatever the rank",
    "fixed": "down is the same whatever the generator: draw it from `generator`, or every kernel and seed starts alike",
}


def _start(inputs, outputs, rank, generator, slip=None):
    down, up = generator.normal(0.0, inputs**-0.5, size=(inputs, rank)), np.zeros((rank, outputs))
    if slip == "fixed":
        down = np.random.default_rng(0).normal(size=(inputs, rank))
    down = np.zeros_like(down) if slip == "zeros" else np.ones_like(down) if slip == "equal" else down
    return down, generator.normal(0.0, 0.02, size=up.shape) if slip == "random" else up


def _transposed(inputs, outputs, rank, generator):
    return generator.normal(size=(rank, inputs)), np.zeros((outputs, rank))


def check_lora_start(function: Callable) -> None:
    """The product is zero, and one factor is random: from the generator, with columns of its own."""
    shapes, names = ((INPUTS, RANK), (RANK, OUTPUTS)), ("down", "up")
    down, up = pair(function(INPUTS, OUTPUTS, RANK, np.random.default_rng(1)), shapes, names)
    if not (down.any() or up.any()):
        raise Mistake(STARTS["zeros"])
    if (down @ up).any():
        raise Mistake(STARTS["random"])
    rows = down.T if down.any() else up  # zeros in down and noise in up do as well
    if np.linalg.matrix_rank(rows) < RANK:
        raise Mistake(STARTS["equal"] if down.any() else STARTS["equal"].replace("columns of down", "rows of up"))
    again = pair(function(INPUTS, OUTPUTS, RANK, np.random.default_rng(2)), shapes, names)
    if np.array_equal(down, again[0]) and np.array_equal(up, again[1]):
        raise Mistake(STARTS["fixed"])


# switch

KERNEL = RANDOM.normal(size=(INPUTS, OUTPUTS))
OLD = RANDOM.normal(size=(INPUTS, 2)), RANDOM.normal(size=(2, OUTPUTS))
NEW = RANDOM.normal(size=(INPUTS, 4)), RANDOM.normal(size=(4, OUTPUTS))
ALPHA = 6.0
SWITCHES = {
    "on top": "the old adapter is still in: the kernel now holds two adapters at once; take `off` out first",
    "alpha": "alpha is not divided by the rank: the scale is alpha / rank",
    "no scale": "the products are not scaled: the scale is alpha / rank",
    "one rank": "both products have one scale: each adapter is scaled by its own rank",
    "twice": "`off` is added once more: it is merged already, so subtract it",
    "only off": "`off` is taken out, but `on` is not put in",
}


def _switch(kernel, off, on, alpha, slip=None):
    ranks = [part[0].shape[1] for part in (off, on) if part is not None]

    def product(part):
        if part is None:
            return 0.0
        rank = ranks[-1] if slip == "one rank" else part[0].shape[1]
        scale = {"alpha": alpha, "no scale": 1.0}.get(slip, alpha / rank)
        return scale * (part[0] @ part[1])

    old = {"on top": 0.0, "twice": -product(off)}.get(slip, product(off))
    return kernel - old + (0.0 if slip == "only off" else product(on))


def _in_place(kernel, off, on, alpha):
    kernel -= _switch(np.zeros_like(kernel), None, off, alpha)
    kernel += _switch(np.zeros_like(kernel), None, on, alpha)
    return kernel


def _forgets_none(kernel, off, on, alpha):
    return kernel if off is None or on is None else _switch(kernel, off, on, alpha)


def check_switch(function: Callable) -> None:
    """From one adapter to another, from none to one, from one to none."""
    merged = lambda part: KERNEL if part is None else _merged(part)
    for off, on in ((OLD, NEW), (None, NEW), (OLD, None)):
        given = merged(off).copy()
        result = numbers(function(given, off, on, ALPHA), KERNEL.shape, "the kernel")
        if not np.array_equal(given, merged(off)):
            raise Mistake(
                "switch changed its argument: whoever still holds that kernel now has another one; build a new array"
            )
        if close(result, merged(on)):
            continue
        for slip, message in SWITCHES.items():
            if off and on and close(result, _switch(merged(off), off, on, ALPHA, slip)):
                raise Mistake(message)
        what = ("None" if off is None else "an adapter"), ("None" if on is None else "an adapter")
        raise Mistake(f"the kernel is wrong where off is {what[0]} and on is {what[1]}")


def _merged(part: tuple) -> np.ndarray:
    """By the library, in float32."""
    leaf = LowRank(*map(jnp.asarray, (KERNEL, *part)), scale=ALPHA / part[0].shape[1])
    return np.asarray(merge({"kernel": leaf})["kernel"], np.float64)


# prefix_attention

LENGTH, HEAD, PREFIX = 7, 6, 3
QUERY, KEY, VALUE = RANDOM.normal(size=(3, LENGTH, HEAD))
PREFIX_KEY, PREFIX_VALUE = RANDOM.normal(size=(2, PREFIX, HEAD))
MASK = np.tril(np.ones((LENGTH, LENGTH), bool))  # of a causal model, whose last but one token is padding
MASK[:, -2] = False

ATTENTIONS = {
    "hidden": "nobody sees the prefix: the mask's new columns are True for every query",
    "behind": "the mask grew on the wrong side: its new columns stand before the tokens' columns, as the prefix stands before "
    "the keys",
    "all": "the mask is lost: every query sees every token; it grows by the prefix and goes on hiding tokens",
    "scale": "the scores are not divided by sqrt(head)",
    "after": "the mask is applied after the softmax, so the weights of a query do not sum to 1: set hidden scores to -inf before",
    "two": "prefix and tokens have a softmax each: it is one softmax over both, in which they compete",
    "values": "the prefix has values of zero: prefix_value is not used",
    "keys": "the prefix has keys of zero: prefix_key is not used",
}


def _softmax(scores, seen):
    odds = np.where(seen, np.exp(scores - scores.max(axis=1, keepdims=True)), 0.0)
    return odds / odds.sum(axis=1, keepdims=True)


def _prefix_attention(query, key, value, mask, prefix_key, prefix_value, slip=None):
    keys = np.concatenate([0 * prefix_key if slip == "keys" else prefix_key, key])
    values = np.concatenate([0 * prefix_value if slip == "values" else prefix_value, value])
    new = np.full((len(query), len(prefix_key)), slip != "hidden")
    mask = np.ones_like(mask) if slip == "all" else mask
    seen = np.concatenate([mask, new] if slip == "behind" else [new, mask], axis=1)
    scores = query @ keys.T / (1.0 if slip == "scale" else query.shape[1] ** 0.5)
    if slip == "after":
        return _softmax(scores, np.ones_like(seen)) * seen @ values
    if slip == "two":
        size = len(prefix_key)
        return _softmax(scores[:, :size], new) @ prefix_value + _softmax(scores[:, size:], mask) @ value
    return _softmax(scores, seen) @ values


def _asks(query, key, value, mask, prefix_key, prefix_value):
    """Treats the prefix like words, which have queries too."""
    size = len(prefix_key)
    grown = np.pad(mask, ((size, 0), (size, 0)), constant_values=True)
    keys, values = np.concatenate([prefix_key, key]), np.concatenate([prefix_value, value])
    queries = np.concatenate([prefix_key, query])
    return _softmax(queries @ keys.T / queries.shape[1] ** 0.5, grown) @ values


def check_prefix_attention(function: Callable) -> None:
    """One head of the library's attention, on a causal row with padding."""
    inputs = QUERY, KEY, VALUE, MASK, PREFIX_KEY, PREFIX_VALUE
    result = function(*(leaf.copy() for leaf in inputs))
    if parse(result, "the result").shape == (LENGTH + PREFIX, HEAD):
        raise Mistake(
            "there is a vector for every place of the prefix too: it has keys and values, but asks no queries"
        )
    result = as_array(result, (LENGTH, HEAD), "the result", infinite="does a query see nothing at all?")
    heads = lambda x: jnp.asarray(x, jnp.float32)[None, :, None]
    rows = {"key": jnp.asarray(PREFIX_KEY, jnp.float32), "value": jnp.asarray(PREFIX_VALUE, jnp.float32)}
    key, value, mask = attention.with_prefix(rows, heads(KEY), heads(VALUE), jnp.asarray(MASK)[None, None])
    expected = np.asarray(attention.dot_product_attention(heads(QUERY), key, value, mask))[0, :, 0]
    if close(result, expected):
        return
    for slip, message in ATTENTIONS.items():
        if close(result, _prefix_attention(*inputs, slip=slip)):
            raise Mistake(message)
    if close(result, _softmax(QUERY @ KEY.T / HEAD**0.5, MASK) @ VALUE):
        raise Mistake("this is attention without the prefix")
    row = int(np.abs(result - expected).max(axis=1).argmax())
    raise Mistake(f"row {row} is wrong: print its weights; there are {PREFIX + LENGTH} of them, and they sum to 1")


CHECKS = {"lora_start": check_lora_start, "switch": check_switch, "prefix_attention": check_prefix_attention}

HINTS = {
    "lora_start": (
        "For y = (x A) B, dL/dB = (x A)^T dL/dy and dL/dA = x^T (dL/dy B^T): where is each of them zero?",
        "generator.normal(0.0, inputs ** -0.5, size=(inputs, rank)) for down, np.zeros((rank, outputs)) for up.",
    ),
    "switch": (
        "Write a small function for the product of one adapter, scaled; for None it gives 0.0.",
        "kernel - product(off) + product(on) is a new array; `kernel -= ...` would change the caller's.",
    ),
    "prefix_attention": (
        "np.concatenate([prefix_key, key]) has length prefix + length; the mask needs as many columns, the first ones True.",
        "np.where(grown mask, scores, -np.inf), then a softmax over axis 1, then times the concatenated values.",
    ),
}

MISTAKES = {
    "lora_start": [
        *((functools.partial(_start, slip=slip), message) for slip, message in STARTS.items()),
        (_transposed, "should have the shape"),
    ],
    "switch": [
        *((functools.partial(_switch, slip=slip), message) for slip, message in SWITCHES.items()),
        (_in_place, "changed its argument"),
        (_forgets_none, "where off is None"),
    ],
    "prefix_attention": [
        *((functools.partial(_prefix_attention, slip=slip), message) for slip, message in ATTENTIONS.items()),
        (_asks, "asks no queries"),
    ],
}
