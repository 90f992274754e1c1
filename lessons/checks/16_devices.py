"""Checks of lesson 16: each wrong answer is compared with those that others have given before, and named."""

import functools
import math

import jax
import numpy as np

from minillm.course.answers import as_array, close
from minillm.course.contract import Mistake
from minillm.nn.feedforward import feedforward
from minillm.params import ParamSpec
from minillm.sharding import partition

# batch_mean

BATCHES = [
    ([2.0, 9.0, 4.0, 0.5], [1.0, 6.0, 2.0, 1.0]),
    ([6.0, 1.0], [3.0, 1.0]),
    ([6.0, 0.0, 5.0], [3.0, 0.0, 1.0]),
    ([0.0, 0.0], [0.0, 0.0]),
]

MEAN_SLIPS = {
    "means": "this is the mean of the devices' means: a token on a device with few of them would count more",
    "devices": "the sum of losses is divided by the number of devices: divide it by the number of tokens",
    "sum": "this is the sum of losses: divide it by the sum of the weights",
    "weighted": "the sums are multiplied by their weights: a sum has counted every token already",
    "first": "this is the first device's own mean: the others' losses are missing",
}


def _mean(sums, weights, slip=None):
    sums, weights = np.asarray(sums), np.asarray(weights)
    total = weights.sum()
    means = sums / np.maximum(weights, 1e-9)
    return {
        "means": means.mean(),
        "devices": sums.mean(),
        "sum": sums.sum(),
        "weighted": (sums * weights).sum() / max(total, 1e-9),
        "first": means[0],
    }.get(slip, sums.sum() / total if total else 0.0)


def _divides_by_nothing(sums, weights):
    with np.errstate(all="ignore"):
        return np.sum(sums) / np.sum(weights)


def _at_least_one(sums, weights):
    return np.sum(sums) / np.sum(np.maximum(weights, 1.0))


def _check_mean(function) -> None:
    ask = "what is the sum of no weights at all? Divide only where it is above 0"
    answer = lambda sums, weights: as_array(function(list(sums), list(weights)), (), "the result", infinite=ask)
    telling = answer(*BATCHES[0])  # every slip has another value there
    for slip, message in MEAN_SLIPS.items():
        if close(telling, _mean(*BATCHES[0], slip)):
            raise Mistake(message)
    for case in BATCHES:
        if not close(value := answer(*case), _mean(*case)):
            text = f"batch_mean{case} returned {float(value):.4g}, expected {_mean(*case):.4g}"
            raise Mistake(f"{text}: a device without a token adds nothing, neither above nor below the line")


# piece_shape

RULES, MESH = {"hidden": "model", "vocab": "model", "width": "data"}, {"data": 4, "model": 2}
PARAMETERS = [
    ((32, 128), ("width", "hidden")),
    ((3, 32, 128), (None, "width", "hidden")),
    ((30, 128), ("width", "hidden")),
    ((32, 32), ("width", "width")),
    ((7, 128, 64), ("vocab", "hidden", None)),
    ((128, 64), ("hidden", "vocab")),
    ((128,), ("attention",)),
    ((), ()),
]

PIECE_SLIPS = {
    "twice": "an axis of the mesh cuts two axes of one parameter: two devices would then hold neither piece of a corner",
    "floor": "a size that the devices do not divide is cut all the same, and numbers are lost: it stays whole",
    "ceiling": "a size that the devices do not divide is rounded up: it stays whole",
    "whole": "nothing is cut: a rule's axis of the mesh says by how many the size is divided",
    "all": "every axis is divided by all devices: only by those along its own axis of the mesh",
    "last": "the axes are taken from last to first: where two want the same axis of the mesh, the first gets it",
    "blocked": "an axis that cannot be divided keeps its axis of the mesh from the next: it is taken only where it cuts",
    "only one": "only one axis is cut: each axis of the mesh can cut another one",
}


def _piece(shape, axes, rules, mesh, slip=None):
    taken, piece = set(), []
    pairs = list(zip(shape, axes, strict=True))
    for size, axis in reversed(pairs) if slip == "last" else pairs:
        place = rules.get(axis)
        parts = math.prod(mesh.values()) if slip == "all" else mesh.get(place, 1)
        free = place is not None and slip != "whole" and (slip == "twice" or place not in taken)
        free = free and not (slip == "only one" and taken)
        if free and (size % parts == 0 or slip in ("floor", "ceiling")):
            taken.add(place)
            piece.append(-(-size // parts) if slip == "ceiling" else size // parts)
        else:
            if slip == "blocked":
                taken.add(place)
            piece.append(size)
    return tuple(piece[::-1] if slip == "last" else piece)


def _library_piece(shape, axes):
    places = partition(ParamSpec(shape, axes), RULES, MESH)
    return tuple(size // MESH.get(place, 1) for size, place in zip(shape, places, strict=True))


def _check_piece(function) -> None:
    found = []
    for shape, axes in PARAMETERS:
        rules, mesh = dict(RULES), dict(MESH)
        call = f"piece_shape({shape}, {axes}, ...)"
        array = as_array(function(shape, axes, rules, mesh), (len(shape),), call)
        if (rules, mesh) != (RULES, MESH):
            raise Mistake("piece_shape changed the rules or the mesh: keep your own set of what is taken")
        if not np.isfinite(array).all() or (array != np.round(array)).any():
            raise Mistake(f"{call} should hold whole numbers, got {array.tolist()}: divide with //")
        found.append(tuple(int(size) for size in array))
    right = [_library_piece(*row) for row in PARAMETERS]
    if found == right:
        return
    for slip, message in PIECE_SLIPS.items():
        if found == [_piece(*row, RULES, MESH, slip) for row in PARAMETERS]:
            raise Mistake(message)
    row, value, expected = next(one for one in zip(PARAMETERS, found, right, strict=True) if one[1] != one[2])
    raise Mistake(f"piece_shape{row} returned {value}, expected {expected}, with the rules {RULES} and the mesh {MESH}")


# summands

RANDOM = np.random.default_rng(16)
X, UP, DOWN, BIAS = (RANDOM.normal(size=size).astype(np.float32) for size in ((3, 4), (4, 8), (8, 4), (4,)))

SUMMAND_SLIPS = {
    "bias": "every device adds the bias, so that the all-reduce adds it `devices` times: only device 0 may",
    "no bias": "the bias is missing: device 0 adds it",
    "shared bias": "each device adds a share of the bias; the sum is right, but only device 0 should add it",
    "late": "relu acts on each device's product with `down`: it belongs on the hidden units, before",
    "linear": "relu is missing: it acts on the hidden units, between the two products",
    "mean": "the summands are divided by the number of devices: an all-reduce adds",
    "whole": "every device has the whole layer: each should have its own hidden units only",
    "strided": "the hidden units are dealt out in turn (0, 2, 4, ...): device 0 should have the first ones, in a row",
    "mismatched": "a device's rows of `down` belong to other hidden units than its columns of `up`",
    "first": "only device 0 has a summand: the hidden units are to be divided",
}


def _summands(x, up, down, bias, devices, slip=None):
    x, up, down, bias = (np.asarray(array, np.float32) for array in (x, up, down, bias))
    relu = lambda array: array if slip in ("linear", "late") else np.maximum(array, 0.0)
    units = np.arange(up.shape[1]).reshape(devices, -1)
    if slip == "strided":
        units = np.arange(up.shape[1]).reshape(-1, devices).T
    rows = units[::-1] if slip == "mismatched" else units
    if slip in ("whole", "first"):
        units = rows = np.tile(np.arange(up.shape[1]), (devices, 1))
    found = np.stack([relu(x @ up[:, own]) @ down[other] for own, other in zip(units, rows, strict=True)])
    found = np.maximum(found, 0.0) if slip == "late" else found / devices if slip == "mean" else found
    if slip == "first":
        found[1:] = 0.0
    share = {"bias": np.ones(devices), "no bias": np.zeros(devices), "shared bias": np.full(devices, 1 / devices)}
    return found + share.get(slip, np.eye(devices)[0])[:, None, None] * bias


def _forgets_the_last(x, up, down, bias, devices):
    found = _summands(x, up, down, bias, devices)
    found[-1] = 0.0
    return found


def _check_summands(function) -> None:
    for devices in (2, 4, 1):
        arguments = [array.copy() for array in (X, UP, DOWN, BIAS)]
        found = as_array(
            function(*arguments, devices), (devices, *X.shape), "the result", infinite="nothing here is divided"
        )
        if not all(np.array_equal(a, b) for a, b in zip(arguments, (X, UP, DOWN, BIAS), strict=True)):
            raise Mistake("summands changed one of its arguments: build new arrays instead")
        right = _summands(X, UP, DOWN, BIAS, devices)
        if close(found, right):
            continue
        for slip, message in SUMMAND_SLIPS.items():
            wrong = _summands(X, UP, DOWN, BIAS, devices, slip)
            if not close(wrong, right) and close(found, wrong):
                raise Mistake(message)
        params = {"up": {"kernel": UP}, "down": {"kernel": DOWN, "bias": BIAS}}
        whole = np.asarray(feedforward(jax.tree.map(jax.numpy.asarray, params), jax.numpy.asarray(X), "relu"))
        if close(found.sum(0), whole):
            raise Mistake(f"the sum is right, but with {devices} devices some hold other hidden units than they should")
        raise Mistake(f"with {devices} devices the summands add up to something else than relu(x up) down + bias")


CHECKS = {"batch_mean": _check_mean, "piece_shape": _check_piece, "summands": _check_summands}

HINTS = {
    "batch_mean": (
        "An all-reduce of the sums, another one of the weights: np.sum is both.",
        "Divide once, at the end, and only where the sum of the weights is above 0.",
    ),
    "piece_shape": (
        "rules.get(axis) is None for None and for a name without a rule; a set holds the axes of the mesh that are taken.",
        "Cut only if place is not None, place not in taken and size % mesh[place] == 0; only then add it to the set.",
    ),
    "summands": (
        "np.split(up, devices, axis=1) and np.split(down, devices, axis=0) give each device its pieces.",
        "Device d: np.maximum(x @ up_d, 0) @ down_d; stack them, and add the bias to row 0.",
    ),
}

MISTAKES = {
    "batch_mean": [
        *((functools.partial(_mean, slip=slip), message) for slip, message in MEAN_SLIPS.items()),
        (_divides_by_nothing, "sum of no weights"),
        (_at_least_one, "adds nothing"),
    ],
    "piece_shape": [(functools.partial(_piece, slip=slip), message) for slip, message in PIECE_SLIPS.items()],
    "summands": [
        *((functools.partial(_summands, slip=slip), message) for slip, message in SUMMAND_SLIPS.items()),
        (_forgets_the_last, "something else than"),
    ],
}
