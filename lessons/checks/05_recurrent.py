"""Checks of lesson 05: each wrong answer is compared with those that others have given before, and named."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array, close
from minillm.course.contract import Mistake
from minillm.nn import recurrent

shaped = functools.partial(as_array, infinite="does something overflow?")


# lstm_step

RANDOM = np.random.default_rng(5)
DRAW = lambda *shape: RANDOM.normal(size=shape).astype(np.float32)
X, H, C, W, U, B = DRAW(3, 5), DRAW(3, 4), DRAW(3, 4), DRAW(5, 16), DRAW(4, 16), DRAW(16)
BIAS = 2.5  # not the default: who ignores the argument is found

LSTM_SLIPS = {
    "no bias": "the forget bias is not added: without it a new cell forgets half at every step",
    "default bias": "the forget bias is fixed at 1: use the argument `forget_bias`",
    "bias outside": "the forget bias is added after the sigmoid: it belongs inside, with f",
    "torch order": "the gates are read as i, f, o, g: here the candidate g is third and the output gate last",
    "exchanged": "input and forget gate are exchanged: i is the first quarter, f the second",
    "no tanh on c": "the hidden state lacks the tanh on the cell: h = sigmoid(o) * tanh(c)",
    "candidate": "the candidate g has a sigmoid: it is the one quarter with a tanh, so that the cell can also fall",
    "old cell": "the hidden state is made from the old cell: update c first, then h",
    "no h": "the product with h is missing: without h U the step has no memory but the cell",
    "swapped": "the results are in the wrong order: return (h, c)",
}


def _lstm(x, h, c, W, U, b, forget_bias=1.0, slip=None):
    sigmoid = lambda z: 1.0 / (1.0 + np.exp(-z))
    gates = x @ W + b + (0.0 if slip == "no h" else h @ U)
    i, f, g, o = np.split(gates, 4, axis=-1)
    i, f, g, o = {"torch order": (i, f, o, g), "exchanged": (f, i, g, o)}.get(slip, (i, f, g, o))
    bias = {"no bias": 0.0, "default bias": 1.0, "bias outside": 0.0}.get(slip, forget_bias)
    forget = sigmoid(f + bias) + (forget_bias if slip == "bias outside" else 0.0)
    new = forget * c + sigmoid(i) * (sigmoid(g) if slip == "candidate" else np.tanh(g))
    seen = c if slip == "old cell" else new
    hidden = sigmoid(o) * (seen if slip == "no tanh on c" else np.tanh(seen))
    return (new, hidden) if slip == "swapped" else (hidden, new)


def _pair(value) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise Mistake(f"lstm_step should return two arrays, (h, c), got {type(value).__name__}")
    return shaped(value[0], C.shape, "the new h"), shaped(value[1], C.shape, "the new c")


def _check_lstm(function) -> None:
    arguments = [array.copy() for array in (X, H, C, W, U, B)]
    h, c = _pair(function(*arguments, BIAS))
    projected, layer = jnp.asarray(X @ W + B), {"recurrent": {"kernel": jnp.asarray(U)}}
    right = recurrent.lstm_cell(layer, {"hidden": jnp.asarray(H), "cell": jnp.asarray(C)}, projected, BIAS)
    if not (close(h, right["hidden"]) and close(c, right["cell"])):
        for slip, message in LSTM_SLIPS.items():
            wrong = _lstm(X, H, C, W, U, B, BIAS, slip)
            if close(h, wrong[0]) and close(c, wrong[1]):
                raise Mistake(message)
        if close(c, right["cell"]):
            raise Mistake("the cell is right, the hidden state is not: h = sigmoid(o) * tanh(new c)")
        raise Mistake("the new cell is wrong: print i, f, g, o; is each [batch, width], and is b added once?")
    if not all(np.array_equal(a, b) for a, b in zip(arguments, (X, H, C, W, U, B), strict=True)):
        raise Mistake("lstm_step changed one of its arguments: build new arrays instead")
    if not close(_pair(function(*arguments))[1], _lstm(X, H, C, W, U, B)[1]):
        raise Mistake("the result is right with forget_bias = 2.5 but not with the default, which should be 1")


# state_jacobian

KERNEL, INPUTS = 0.6 * DRAW(4, 4), DRAW(6, 4)

JACOBIAN_SLIPS = {
    "transposed": "the result is transposed: entry [i, j] is the derivative of entry j of the end by entry i of the start",
    "reversed": "the factors stand in the reverse order: with row vectors each step multiplies from the right",
    "rows": "1 - h^2 scales the rows of U: it belongs to the output, so it scales the columns",
    "no tanh": "the derivative of tanh is missing: each step has a factor 1 - h_t^2",
    "h": "the factor is h_t: the derivative of tanh is 1 - h_t^2",
    "one less": "one step is missing: T states give T factors, the first one included",
    "last": "the derivative at the last step is used for all steps: each step has its own h_t",
    "elementwise": "the matrices are multiplied entry by entry: chain them with @",
}


def _jacobian(U, states, slip=None):
    U, states = np.asarray(U, np.float64), np.asarray(states, np.float64)
    product = np.ones_like(U) if slip == "elementwise" else np.eye(len(U))
    for h in states[1:] if slip == "one less" else states:
        h = states[-1] if slip == "last" else h
        slope = {"no tanh": np.ones_like(h), "h": h}.get(slip, 1.0 - h * h)
        factor = U * (slope[:, None] if slip == "rows" else slope)
        product = {"reversed": factor @ product, "elementwise": product * factor}.get(slip, product @ factor)
    return product.T if slip == "transposed" else product


def _check_jacobian(function) -> None:
    layer = {"recurrent": {"kernel": jnp.asarray(KERNEL)}}
    cell = lambda state, x: recurrent.rnn_cell(layer, state, x)
    run = lambda h: recurrent.run_over_time(cell, {"hidden": h[None]}, jnp.asarray(INPUTS)[None])[0]["hidden"][0]
    start = jnp.full(4, 0.3)
    states = np.asarray(run(start))
    for steps in (1, 6):  # one step first: it tells a wrong factor from a wrong order
        found = shaped(function(KERNEL.copy(), states[:steps].copy()), (4, 4), f"the result for {steps} states")
        right = np.asarray(jax.jacobian(lambda h, last=steps - 1: run(h)[last])(start)).T
        if close(found, right):
            continue
        for slip, message in JACOBIAN_SLIPS.items():
            if close(found, _jacobian(KERNEL, states[:steps], slip)):
                raise Mistake(message)
        raise Mistake(f"the result for {steps} states is wrong: for width 1 it is the product of U (1 - h_t^2)")


# continuing_segments

IDS = np.arange(100, 147)  # 3 rows of 15, and 2 ids are left over


def _segments(ids, rows, length, slip=None):
    ids = np.asarray(ids)
    size = len(ids) // rows
    if slip == "side by side":  # windows one after the other, dealt out to the rows of one batch
        windows = [ids[at : at + length + 1] for at in range(0, len(ids) - length, length)]
        return np.stack(windows[: len(windows) // rows * rows]).reshape(-1, rows, length + 1)
    pieces = ids[: rows * size].reshape(size, rows).T if slip == "columns" else ids[: rows * size].reshape(rows, size)
    stride = {"gap": length + 1, "every": 1}.get(slip, length)
    starts = [at for at in range(0, size, stride) if at + length + 1 <= size]
    if slip == "one less":
        starts = starts[:-1]
    found = np.stack([pieces[:, at : at + length + 1] for at in starts])
    return {"short": found[..., :-1], "rows first": found.swapaxes(0, 1)}.get(slip, found)


SEGMENT_SLIPS = {
    "side by side": "the next segment of a row is another place of the text: give each row one long piece, then cut along it",
    "columns": "the stream is dealt out to the rows id by id: each row should be running text",
    "gap": "an id is never a target: the last target of one segment is the first input of the next",
    "every": "the segments overlap: the next one begins `length` further, not 1",
    "one less": "the last whole segment is missing: a piece of n ids has n - 1 targets",
    "short": "a segment has `length` ids: it needs one more, for the last target",
    "rows first": "rows and segments are exchanged: the first axis counts segments, so that a loop over it reads on",
}


def _check_segments(function) -> None:
    for rows, length in ((3, 4), (3, 7)):  # 14 targets a row: a rest of 2; exactly 2 segments
        ids = IDS.copy()
        found = shaped(function(ids, rows, length), None, f"continuing_segments(ids, {rows}, {length})")
        if not np.array_equal(ids, IDS):
            raise Mistake("continuing_segments changed its argument: build a new array instead")
        right = _segments(IDS, rows, length)
        if np.array_equal(found, right):
            continue
        for slip, message in SEGMENT_SLIPS.items():
            if np.array_equal(found, _segments(IDS, rows, length, slip)):
                raise Mistake(message)
        if found.shape != right.shape:
            raise Mistake(
                f"the result for {rows} rows should have the shape {list(right.shape)}, got {list(found.shape)}"
            )
        place = tuple(map(int, np.argwhere(found != right)[0]))
        raise Mistake(
            f"entry {list(place)} is {found[place]:g}, expected {right[place]}: print one row over all segments"
        )


CHECKS = {"lstm_step": _check_lstm, "state_jacobian": _check_jacobian, "continuing_segments": _check_segments}

HINTS = {
    "lstm_step": (
        "np.split(x @ W + b + h @ U, 4, axis=-1) gives the four quarters, each [batch, width].",
        "Compute the new c first; the new h is sigmoid(o) * tanh(new c). sigmoid(z) = 1 / (1 + exp(-z)).",
    ),
    "state_jacobian": (
        "One step: dh_t / dh_(t-1) = U * (1 - h_t**2): NumPy then scales column j by 1 - h_t[j]^2.",
        "Start with np.eye(width) and multiply from the right by each step's matrix, from t = 1 on.",
    ),
    "continuing_segments": (
        "size = len(ids) // rows; ids[: rows * size].reshape(rows, size) puts one piece of running text into each row.",
        "Stack pieces[:, start : start + length + 1] for start = 0, length, 2 length, ... while it fits.",
    ),
}

MISTAKES = {
    "lstm_step": [(functools.partial(_lstm, slip=slip), message) for slip, message in LSTM_SLIPS.items()],
    "state_jacobian": [(functools.partial(_jacobian, slip=slip), message) for slip, message in JACOBIAN_SLIPS.items()],
    "continuing_segments": [
        (functools.partial(_segments, slip=slip), message) for slip, message in SEGMENT_SLIPS.items()
    ],
}
