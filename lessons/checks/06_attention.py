"""Checks of lesson 06: each wrong answer is compared with those that others have given before, and named."""

import functools

import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array, close
from minillm.course.contract import Mistake
from minillm.nn.attention import dot_product_attention
from minillm.nn.position import rotate

# scaled_attention

RANDOM = np.random.default_rng(6)
QUERY = RANDOM.normal(size=(4, 6)).astype(np.float32)
KEY = RANDOM.normal(size=(5, 6)).astype(np.float32)
VALUE = RANDOM.normal(size=(5, 3)).astype(np.float32)
MASK = np.arange(5) <= np.arange(4)[:, None]  # causal: key 4 is for nobody

ATTENTION_SLIPS = {
    "late": "rows of the attention matrix do not sum to 1: is the mask applied after the softmax?",
    "zero": "hidden scores are set to 0, but exp(0) = 1 is a weight: set them to -infinity before the softmax",
    "unscaled": "the scores are not divided by sqrt(d), d being the length of a query",
    "by d": "the scores are divided by d: divide by its square root",
    "by m": "the scores are divided by the square root of the number of keys: d is the length of one query",
    "axis": "the softmax runs along the queries: each query's weights over the keys must sum to 1",
    "unmasked": "the mask is not used: hidden keys still have weight",
    "inverted": "the mask is read the wrong way round: True means visible",
    "no softmax": "the scores are used as weights: a softmax along the keys must come between",
}


def _attention(query, key, value, mask, slip=None):
    d = {"unscaled": 1.0, "by d": query.shape[1] ** 2, "by m": key.shape[0]}.get(slip, query.shape[1])
    scores = query @ key.T / np.sqrt(d)
    if slip == "no softmax":
        return np.where(mask, scores, 0.0) @ value
    seen = np.ones_like(mask) if slip in ("late", "unmasked") else ~mask if slip == "inverted" else mask
    scores = np.where(seen, scores, 0.0 if slip == "zero" else -np.inf)
    axis = 0 if slip == "axis" else 1
    with np.errstate(all="ignore"):
        weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
        weights = weights / weights.sum(axis=axis, keepdims=True)
    return (np.where(mask, weights, 0.0) if slip in ("late", "axis") else weights) @ value


def _check_attention(function) -> None:
    def attend(query, mask):
        return as_array(function(query, KEY.copy(), VALUE.copy(), mask.copy()), (4, 3), "the output")

    def library(query, mask):
        add = lambda x: jnp.asarray(x)[None, :, None]
        value = np.pad(VALUE, ((0, 0), (0, 3)))  # the library wants values as long as keys
        return dot_product_attention(add(query), add(KEY), add(value), jnp.asarray(mask)[None, None])[0, :, 0, :3]

    everything = np.ones_like(MASK)
    for mask in (everything, MASK):
        output = attend(QUERY.copy(), mask)
        if close(output, library(QUERY, mask)):
            continue
        for slip, message in ATTENTION_SLIPS.items():
            if close(output, _attention(QUERY, KEY, VALUE, mask, slip)):
                raise Mistake(message)
        where = "without hidden keys" if mask is everything else "under a causal mask"
        row = int(np.abs(output - np.asarray(library(QUERY, mask))).max(1).argmax())
        raise Mistake(f"output row {row} is wrong {where}: print the row's scores and weights, is their sum 1?")
    large = attend(QUERY * 1000, MASK)
    if not close(large, library(QUERY * 1000, MASK)):
        raise Mistake("large scores overflow in exp: subtract each row's largest visible score first")


def _overflow(query, key, value, mask):
    with np.errstate(all="ignore"):
        weights = np.where(mask, np.exp(query @ key.T / np.sqrt(query.shape[1])), 0.0)
        return weights / weights.sum(1, keepdims=True) @ value


# rotate_pairs

X = RANDOM.normal(size=(5, 8)).astype(np.float32)
POSITIONS = np.array([0, 1, 2, 7, 30])

ROTATION_SLIPS = {
    "direction": "the pairs turn clockwise: check the signs of the two sines",
    "neighbours": "neighbours are paired (0 with 1, 2 with 3): here entry i pairs with entry i + d/2",
    "one speed": "all pairs turn at one speed: pair i turns by position * base^(-2i/d)",
    "exponent": "the exponent is -i/d: it must be -2i/d for pair i",
    "row": "the row's number is used in place of its position: use `positions`",
    "base": "the base is fixed at 10000: use the argument `base`",
    "signs": "both halves have the same sign of the sine: then it is no rotation and lengths change",
    "stale": "the second half is made from the already turned first half: keep the old one until both are done",
}


def _rotate(x, positions, base=10000.0, slip=None):
    size = x.shape[-1]
    pair = np.arange(size // 2)
    positions = np.arange(len(x)) if slip == "row" else positions
    speed = (10000.0 if slip == "base" else base) ** (-(1.0 if slip == "exponent" else 2.0) * pair / size)
    angles = positions[:, None] * (np.ones_like(speed) if slip == "one speed" else speed)
    cos, sin = np.cos(angles), np.sin(angles) * (-1.0 if slip == "direction" else 1.0)
    a, b = (x[:, ::2], x[:, 1::2]) if slip == "neighbours" else np.split(x, 2, axis=-1)
    first = a * cos + b * sin if slip == "signs" else a * cos - b * sin
    second = b * cos + (first if slip == "stale" else a) * sin
    if slip == "neighbours":
        return np.stack([first, second], -1).reshape(x.shape)
    return np.concatenate([first, second], axis=-1)


def _check_rotation(function) -> None:
    base = 100.0  # not the default: who ignores the argument is found
    turned = as_array(function(X.copy(), POSITIONS.copy(), base), X.shape, "the result")
    library = rotate(jnp.asarray(X)[None, :, None], jnp.asarray(POSITIONS)[None], base)[0, :, 0]
    if not close(turned, library):
        for slip, message in ROTATION_SLIPS.items():
            if close(turned, _rotate(X, POSITIONS, base, slip)):
                raise Mistake(message)
        if not close(turned[0], X[0]):
            raise Mistake("row 0 stands at position 0 and must not change: all of its angles are 0")
        if not close((turned**2).sum(1), (X.astype(np.float64) ** 2).sum(1)):
            raise Mistake(
                "a rotation keeps the length of each row, yours does not: are cos, sin and the pairs matched?"
            )
        raise Mistake("lengths are kept but the angles or the pairs are wrong: try x = (1, 0) at position 1, d = 2")
    if not close(as_array(function(X.copy(), POSITIONS.copy()), X.shape, "the result"), _rotate(X, POSITIONS)):
        raise Mistake("the result is right with base = 100 but not with the default, which should be 10000")


CHECKS = {"scaled_attention": _check_attention, "rotate_pairs": _check_rotation}

HINTS = {
    "scaled_attention": (
        "Four lines: scores [n, m], mask, softmax along axis 1, weights @ value. np.where(mask, scores, -np.inf) hides.",
        "Divide by sqrt(query.shape[-1]); subtract each row's maximum before np.exp, with keepdims=True.",
    ),
    "rotate_pairs": (
        "Make a table of angles [n, d/2]: positions[:, None] * base ** (-np.arange(0, d, 2) / d).",
        "Split x into halves a and b of shape [n, d/2], compute both new halves from the old ones, then concatenate.",
    ),
}

MISTAKES = {
    "scaled_attention": [
        *((functools.partial(_attention, slip=slip), message) for slip, message in ATTENTION_SLIPS.items()),
        (_overflow, "subtract each row's largest visible score"),
    ],
    "rotate_pairs": [(functools.partial(_rotate, slip=slip), message) for slip, message in ROTATION_SLIPS.items()],
}
