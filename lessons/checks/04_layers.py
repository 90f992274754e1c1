"""Checks of lesson 04: each wrong answer is compared with those that others have given before, and named."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array, close
from minillm.course.contract import Mistake
from minillm.nn import convolution
from minillm.nn.embedding import embed_tokens

# convolve

RANDOM = np.random.default_rng(4)
IMAGE = RANDOM.normal(size=(7, 6, 2)).astype(np.float32)
KERNEL = RANDOM.normal(size=(3, 3, 2, 4)).astype(np.float32)
BIAS = RANDOM.normal(size=4).astype(np.float32)
CASES = ((1, 0), (1, 1), (2, 0), (2, 1))  # stride, padding

CONVOLUTION_SLIPS = {
    "flipped": "the kernel is turned around: here offset (0, 0) of the kernel meets the window's upper left corner",
    "transposed": "rows and columns of the kernel are exchanged: its first axis runs down the image",
    "no bias": "the bias is not added",
    "bias often": "the bias is added once per offset of the kernel: add it once per output",
    "one channel": "only the first input channel is used: sum over all of them",
    "mean": "the window is averaged: the sum must not be divided by anything",
}
SHAPE_SLIPS = {
    "stride": "the stride is not used: windows start at 0, stride, 2 stride, ...",
    "padding": "the padding is not used: put zeros on each of the four sides first",
    "one side": "the padding stands on one side only: put it on all four, (padding, padding) per axis",
    "one short": "the last window is missing: there are (side - size) // stride + 1 of them",
}


def _convolve(image, kernel, bias, stride, padding, slip=None):
    if slip == "flipped":
        kernel = kernel[::-1, ::-1]
    kernel = kernel.swapaxes(0, 1) if slip == "transposed" else kernel
    padding, stride = 0 if slip == "padding" else padding, 1 if slip == "stride" else stride
    sides = (padding, 0 if slip == "one side" else padding)
    x = np.pad(np.asarray(image, np.float64), (sides, sides, (0, 0)))
    size = len(kernel)
    rows, columns = ((side - size) // stride + (slip != "one short") for side in x.shape[:2])
    result = np.zeros((rows, columns, kernel.shape[-1]))
    for row, column in np.ndindex(rows, columns):
        window = x[row * stride : row * stride + size, column * stride : column * stride + size]
        inputs = 1 if slip == "one channel" else window.shape[-1]
        result[row, column] = np.einsum("ijc,ijco->o", window[..., :inputs], kernel[:, :, :inputs])
    result = result / size**2 if slip == "mean" else result
    return result + {"no bias": 0, "bias often": size**2}.get(slip, 1) * np.asarray(bias)


def _check_convolution(function) -> None:
    for stride, padding in CASES:
        arguments = (IMAGE, KERNEL, BIAS, stride, padding)
        weights = {"kernel": jnp.asarray(KERNEL).reshape(18, 4), "bias": jnp.asarray(BIAS)}
        library = np.asarray(convolution.convolve(weights, jnp.asarray(IMAGE)[None], 3, stride, padding)[0])
        found = function(IMAGE.copy(), KERNEL.copy(), BIAS.copy(), stride, padding)
        for slip, message in SHAPE_SLIPS.items():
            wrong = _convolve(*arguments, slip)
            if np.shape(wrong) != library.shape and _looks_like(found, wrong):
                raise Mistake(message)
        found = as_array(found, library.shape, f"the result with stride {stride} and padding {padding}")
        if close(found, library):
            continue
        for slip, message in CONVOLUTION_SLIPS.items():
            if close(found, _convolve(*arguments, slip)):
                raise Mistake(message)
        row, column = np.unravel_index(np.abs(found - library).max(-1).argmax(), library.shape[:2])
        raise Mistake(
            f"output [{row}, {column}] is wrong with stride {stride}, padding {padding}: print its window of the image"
        )


def _looks_like(found, wrong: np.ndarray) -> bool:
    try:
        array = np.asarray(found)
    except (TypeError, ValueError):
        return False
    return array.dtype.kind in "biuf" and array.shape == wrong.shape and close(array, wrong)


# embedding_gradient

TOKENS = np.array([3, 1, 3, 5, 3, 1])
UPSTREAM = RANDOM.normal(size=(6, 4)).astype(np.float32)
VOCABULARY = 7

EMBEDDING_SLIPS = {
    "last": "a token that occurs several times keeps its last gradient only: indexing with += or = writes each row once",
    "first": "a token that occurs several times keeps its first gradient only: all of its occurrences must be added",
    "mean": "the gradients of a token's occurrences are averaged: the loss depends on each, so they add up",
    "ones": "`upstream` is not used: counting the tokens is right only if every upstream gradient is 1",
    "positions": "gradients end up in other tokens' rows: row t belongs to token t, not to position t",
}


def _embedding_gradient(tokens, upstream, vocabulary, slip=None):
    table = np.zeros((vocabulary, upstream.shape[1]))
    if slip == "last":
        table[tokens] += upstream
    elif slip == "first":
        table[tokens[::-1]] = upstream[::-1]
    elif slip == "positions":
        table[: len(tokens)] = upstream
    else:
        np.add.at(table, tokens, np.ones_like(upstream) if slip == "ones" else upstream)
    counts = np.bincount(tokens, minlength=vocabulary)[:, None]
    return table / np.maximum(counts, 1) if slip == "mean" else table


def _check_embedding(function) -> None:
    found = as_array(function(TOKENS.copy(), UPSTREAM.copy(), VOCABULARY), (VOCABULARY, 4), "the gradient")
    look = lambda table: (embed_tokens({"table": table}, jnp.asarray(TOKENS)) * UPSTREAM).sum()
    library = np.asarray(jax.grad(look)(jnp.zeros((VOCABULARY, 4))))
    if close(found, library):
        return
    for slip, message in EMBEDDING_SLIPS.items():
        if close(found, _embedding_gradient(TOKENS, UPSTREAM, VOCABULARY, slip)):
            raise Mistake(message)
    row = int(np.abs(found - library).max(1).argmax())
    times = int((row == TOKENS).sum())
    raise Mistake(f"row {row} is wrong; its token occurs {times} times: the row is the sum of as many rows of upstream")


CHECKS = {"convolve": _check_convolution, "embedding_gradient": _check_embedding}

HINTS = {
    "convolve": (
        "np.pad(image, ((padding, padding), (padding, padding), (0, 0))) first; then two loops over rows and columns of the output.",
        "window = x[r * stride : r * stride + size, c * stride : c * stride + size]; np.einsum('ijc,ijco->o', window, kernel) + bias.",
    ),
    "embedding_gradient": (
        "Start from zeros. Position i adds upstream[i] to row tokens[i]; what happens if two positions have the same token?",
        "A loop is right. np.add.at(table, tokens, upstream) is the loop in one line; onehot(tokens).T @ upstream is a third way.",
    ),
}

MISTAKES = {
    "convolve": [
        (functools.partial(_convolve, slip=slip), message)
        for slip, message in (CONVOLUTION_SLIPS | SHAPE_SLIPS).items()
    ],
    "embedding_gradient": [
        (functools.partial(_embedding_gradient, slip=slip), message) for slip, message in EMBEDDING_SLIPS.items()
    ],
}
