"""Checks of lesson 12: each wrong answer is compared with those that others have given before, and named."""

import functools

import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array
from minillm.course.contract import Mistake
from minillm.models import transformer_xl as xl

numbers = functools.partial(as_array, shape=None, infinite="write 0 after the query, the mask is not your part")


# shift_to_keys

RANDOM = np.random.default_rng(12)
SCORES = RANDOM.normal(size=(3, 7)).astype(np.float32)  # 3 queries, 4 keys of memory

SHIFT_SLIPS = {
    "none": "nothing has moved: column c still means distance keys - 1 - c, it should mean key c",
    "other way": "the rows move in the wrong direction: row 0 has the most keys after it, so it moves left the most",
    "rolled": "what falls off at the left comes in again at the right: after the query there must be zeros",
    "no memory": "the memory is forgotten: query i stands at key keys - length + i, not at key i",
    "too far": "every row moves one place too far: the last row stays where it is",
    "mirrored": "the distances run the wrong way: the nearest key is the one at the query's own place",
}


def _shift(scores, slip=None):
    scores = np.asarray(scores)
    length, keys = scores.shape
    shifted = np.zeros_like(scores)
    if slip == "none":
        return scores
    for i in range(length):
        move = {"other way": i, "too far": length - i}.get(slip, length - 1 - i)
        if slip == "rolled":
            shifted[i] = np.roll(scores[i], -move)
            continue
        here = i if slip == "no memory" else keys - length + i
        for j in range(here + 1):
            distance = j if slip == "mirrored" else here - j
            column = j + move if slip in ("other way", "too far") else keys - 1 - distance
            shifted[i, j] = scores[i, column] if column < keys else 0.0
    return shifted


def _check_shift(function) -> None:
    for scores in (SCORES, SCORES[:, 4:], SCORES[:1]):  # with memory, without, one query
        found = numbers(function(scores.copy()), what="the result")
        if found.shape != scores.shape:
            raise Mistake(f"the result should have the shape {list(scores.shape)}, got {list(found.shape)}")
        length, keys = scores.shape
        seen = np.tri(length, keys, keys - length, dtype=bool)
        library = np.asarray(xl.relative_shift(jnp.asarray(scores)[None, None]))[0, 0]
        if np.allclose(found, np.where(seen, library, 0.0), atol=1e-6):
            continue
        for slip, message in SHIFT_SLIPS.items():
            if np.allclose(found, _shift(scores, slip), atol=1e-6):
                raise Mistake(message)
        if np.allclose(np.where(seen, found, 0.0), np.where(seen, library, 0.0), atol=1e-6):
            raise Mistake("right up to each query, but the keys after it should have 0")
        raise Mistake(f"wrong for {length} queries and {keys} keys: entry [i, j] is scores[i, keys - 1 - distance]")


# next_memory

MEMORY, INPUTS = RANDOM.normal(size=(4, 2)).astype(np.float32), RANDOM.normal(size=(6, 2)).astype(np.float32)

MEMORY_SLIPS = {
    "inputs": "the old memory is lost: a segment shorter than `size` leaves room for what was kept before",
    "oldest": "the oldest rows are kept and the newest dropped: keep the end",
    "swapped": "memory and inputs are in the wrong order: what was read first stands first",
    "reversed": "the rows run backwards in time: the oldest stands first",
    "all": "everything is kept: the memory would grow for ever; keep the last `size` rows",
    "by length": "as many rows are kept as the segment has: keep `size`",
}


def _memory(memory, inputs, size, slip=None):
    both = np.concatenate([inputs, memory] if slip == "swapped" else [memory, inputs])
    return {
        "inputs": inputs[-size:],
        "oldest": both[:size],
        "reversed": both[-size:][::-1],
        "all": both,
        "by length": both[-len(inputs) :],
    }.get(slip, both[-size:])


def _check_memory(function) -> None:
    cases = (4, 6, 5), (4, 3, 5), (2, 1, 4), (0, 3, 4)  # longer than the size, shorter, not yet full, nothing kept
    for kept, length, size in cases:
        memory, inputs = MEMORY[:kept].copy(), INPUTS[:length].copy()
        found = numbers(function(memory, inputs, size), what="the result")
        if not (np.array_equal(memory, MEMORY[:kept]) and np.array_equal(inputs, INPUTS[:length])):
            raise Mistake("next_memory changed one of its arguments: build a new array instead")
        right = _memory(MEMORY[:kept], INPUTS[:length], size)
        if found.shape == right.shape and np.allclose(found, right):
            continue
        for slip, message in MEMORY_SLIPS.items():
            wrong = _memory(MEMORY[:kept], INPUTS[:length], size, slip)
            if found.shape == wrong.shape and np.allclose(found, wrong):
                raise Mistake(message)
        case = f"{kept} rows kept, {length} new ones and a size of {size}"
        raise Mistake(f"with {case} the result should have the shape {list(right.shape)}, got {list(found.shape)}")


# farthest

CASES = [
    (39, 1, 8, 8),
    (39, 2, 8, 8),
    (39, 3, 8, 8),
    (32, 2, 8, 8),
    (39, 2, 8, 12),
    (37, 3, 8, 3),
    (20, 5, 4, 4),
    (5, 1, 8, 8),
]

REACH_SLIPS = {
    "one layer": "the layers are not counted: what stands in a deeper layer's memory had seen a memory of its own",
    "no segment": "the token's own segment is missing: it also sees the tokens of its segment before it",
    "full segment": "each token is treated as the last of its segment: place % segment tokens stand before it in there",
    "each segment": "the place in the segment is counted in every layer: below, the oldest token begins a segment or has its own place",
    "simple": "right where `memory` is a multiple of `segment`: elsewhere the oldest token has a place in its own segment",
    "negative": "it reaches before the beginning of the text: there is no token below 0",
    "number": "this is the number of the oldest token: return how many tokens back it lies",
}


def _reach(place, layers, segment, memory, slip=None):
    here = place % segment
    simple = {
        "one layer": here + memory,
        "no segment": layers * memory,
        "full segment": layers * memory + segment - 1,
        "each segment": layers * (memory + here),
        "simple": layers * memory + here,
    }
    if slip in simple:
        return min(place, simple[slip])
    oldest = place
    for _ in range(layers):
        oldest = oldest // segment * segment - memory
        oldest = oldest if slip == "negative" else max(oldest, 0)
    return oldest if slip == "number" else place - oldest


def _check_reach(function) -> None:
    found = []
    for case in CASES:
        array = numbers(function(*case), what=f"farthest{case}")
        if array.shape != () or array != np.round(array):
            raise Mistake(f"farthest{case} should be one whole number, got {type(function(*case)).__name__}")
        found.append(int(array))
    right = [_reach(*case) for case in CASES]
    if found == right:
        return
    for slip, message in REACH_SLIPS.items():
        if found == [_reach(*case, slip=slip) for case in CASES]:
            raise Mistake(message)
    case, value, expected = next(row for row in zip(CASES, found, right, strict=True) if row[1] != row[2])
    raise Mistake(f"farthest{case} returned {value}, expected {expected}: go one layer down at a time, token by token")


CHECKS = {"shift_to_keys": _check_shift, "next_memory": _check_memory, "farthest": _check_reach}

HINTS = {
    "shift_to_keys": (
        "The distance from query i to key j is keys - length + i - j; below 0 the key comes after the query.",
        "Distance d stands in column keys - 1 - d of row i. Begin with np.zeros_like(scores).",
    ),
    "next_memory": (
        "np.concatenate([memory, inputs]) is all that was seen, the oldest first.",
        "A slice [-size:] takes the last rows, and all of them where there are fewer.",
    ),
    "farthest": (
        "The oldest token that one layer sees is place // segment * segment - memory: its segment's beginning, less the memory.",
        "Repeat that once per layer, from the oldest token found so far, and never go below 0.",
    ),
}

MISTAKES = {
    "shift_to_keys": [(functools.partial(_shift, slip=slip), message) for slip, message in SHIFT_SLIPS.items()],
    "next_memory": [(functools.partial(_memory, slip=slip), message) for slip, message in MEMORY_SLIPS.items()],
    "farthest": [(functools.partial(_reach, slip=slip), message) for slip, message in REACH_SLIPS.items()],
}
