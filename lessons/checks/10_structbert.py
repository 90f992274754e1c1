"""Checks of lesson 10: they name the mistake, not only the failure."""

import functools
from collections.abc import Callable

import numpy as np

from minillm.course.answers import parse
from minillm.course.contract import Mistake


def _integers(what: str, value: object) -> np.ndarray:
    """The value as one row of whole numbers, or a Mistake."""
    array = parse(value, what)
    if array.ndim != 1:
        raise Mistake(f"{what} should be one row of numbers, got {type(value).__name__} of {array.ndim} dimensions")
    if array.size and (array.dtype.kind not in "biuf" or not np.all(array == np.round(array))):
        raise Mistake(f"{what} should be whole numbers, got {array.dtype}")
    return array.astype(np.int64)


# choose_trigrams

FREE = np.ones(24, bool)
FREE[[0, 9, 10, 23]] = False
ORDERS = [np.random.default_rng(seed).permutation(24) for seed in range(30)]
CASES = [(np.ones(8, bool), np.array([2, 4, 5, 0, 1, 7, 3, 6]), 3), *((FREE, order, 4) for order in ORDERS)]
CASES += [(FREE, ORDERS[0], 99), (np.zeros(6, bool), np.arange(6), 2), (np.ones(3, bool), np.array([1, 2, 0]), 2)]

CHOICES = {
    "overlap": "two chosen trigrams overlap: a token would be moved twice and its place lost",
    "first": "only a trigram's first place is looked at: all three must be free",
    "apart": "trigrams side by side are refused: starts three apart do not overlap",
    "end": "a trigram runs beyond the row: its start is at most length - 3",
    "more": "more trigrams than `count` are chosen",
    "sorted": "the places are taken from left to right: take them in the order given, or the row's end is never shuffled",
}


def _choose(free, order, count, slip=None):
    free, chosen = np.array(free), []
    taken = np.zeros(len(free) + 6, bool)
    for start in sorted(order) if slip == "sorted" else order:
        inside = start + 3 <= len(free) or slip == "end"
        open_places = free[start] if slip == "first" else free[start : start + 3].all()
        near = taken[start : start + 3].any() or (
            slip == "apart" and (taken[start + 3] or (start and taken[start - 1]))
        )
        if (len(chosen) < count or slip == "more") and inside and open_places and (slip == "overlap" or not near):
            chosen.append(int(start))
            taken[start : start + 3] = True
    return chosen


def check_choose_trigrams(function: Callable) -> None:
    """The example, many orders, more asked for than there is room, no room, a row of one trigram."""
    for free, order, count in CASES:
        given = free.copy(), order.copy()
        found = _integers("choose_trigrams(...)", function(*given, count)).tolist()
        if not (np.array_equal(given[0], free) and np.array_equal(given[1], order)):
            raise Mistake("choose_trigrams changed its argument: work on a copy")
        if found == _choose(free, order, count):
            continue
        for slip, message in CHOICES.items():
            if found == _choose(free, order, count, slip):
                raise Mistake(message)
        if sorted(found) == sorted(_choose(free, order, count)):
            raise Mistake("the right trigrams, but not in the order of choice")
        raise Mistake(f"got {found}, expected {_choose(free, order, count)} for order {order.tolist()}, count {count}")


# shuffle

TOKENS = np.array([3, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21], np.int32)
STARTS, TURNS = [1, 8, 4], [(2, 0, 1), (0, 2, 1), (1, 2, 0)]  # two turns that are not their own inverse

TOKEN_SLIPS = {
    "inverse": "the orders are read backwards: place 0 of the trigram gets x_i with i = order[0], not the other way round",
    "centre": "the trigram stands around starts[k]: it begins there",
    "unchanged": "the tokens are the old ones: nothing is shuffled",
    "stale": "a trigram is overwritten while it is read: take its three tokens from the old row",
}
TARGET_SLIPS = {
    "shuffled": "the targets are the shuffled tokens, so the model would learn to copy: they are the original ones",
    "everywhere": "the targets hold tokens outside of the trigrams: these are 0",
}
WEIGHT_SLIPS = {
    "moved": "a place whose token did not move has weight 0: all three are predicted, or the weight gives the answer away",
    "everywhere": "the weights are 1 everywhere: only the trigrams are predicted",
    "starts": "only the first place of each trigram has weight: all three are predicted",
}


def _new(slip=None):
    new = TOKENS.copy()
    for start, order in zip(STARTS, TURNS, strict=True):
        start = start - 1 if slip == "centre" else start
        order = np.argsort(order) if slip == "inverse" else order
        for place, source in enumerate(() if slip == "unchanged" else order):
            new[start + place] = (new if slip == "stale" else TOKENS)[start + source]
    return new


def _inside():
    inside = np.zeros(len(TOKENS), bool)
    for start in STARTS:
        inside[start : start + 3] = True
    return inside


def _targets(slip=None):
    source = _new() if slip == "shuffled" else TOKENS
    return source if slip == "everywhere" else np.where(_inside(), source, 0)


def _weights(slip=None):
    wrong = {"moved": _new() != TOKENS, "everywhere": np.ones(len(TOKENS), bool)}
    return wrong.get(slip, np.isin(np.arange(len(TOKENS)), STARTS) if slip == "starts" else _inside()).astype(int)


def _shuffle(tokens, starts, orders, new=None, target=None, weight=None):
    """The right answer to the check's row, or one with a slip in one of its three parts."""
    return _new(new), _targets(target), _weights(weight)


def _in_place(tokens, starts, orders):
    for start, order in zip(starts, orders, strict=True):
        tokens[start : start + 3] = tokens[start : start + 3][list(order)]
    return tokens, _targets("shuffled"), _weights()


def check_shuffle(function: Callable) -> None:
    """A row with three trigrams, of which two turn and one exchanges."""
    tokens = TOKENS.copy()
    result = function(tokens, list(STARTS), list(TURNS))
    if not np.array_equal(tokens, TOKENS):
        raise Mistake("shuffle changed its argument, and with it the originals that the targets need: work on a copy")
    if not isinstance(result, (tuple, list)) or len(result) != 3:
        raise Mistake("shuffle should return three rows: tokens, targets, weights")
    parts = (
        ("tokens", result[0], TOKEN_SLIPS, _new),
        ("targets", result[1], TARGET_SLIPS, _targets),
        ("weights", result[2], WEIGHT_SLIPS, _weights),
    )
    for name, value, slips, build in parts:
        found = _integers(f"the {name}", value)
        if np.array_equal(found, build()):
            continue
        for slip, message in slips.items():
            if np.array_equal(found, build(slip)):
                raise Mistake(message)
        raise Mistake(
            f"the {name} are {found.tolist()}, expected {build().tolist()} for {TOKENS.tolist()}, {STARTS}, {TURNS}"
        )


CHECKS = {"choose_trigrams": check_choose_trigrams, "shuffle": check_shuffle}

HINTS = {
    "choose_trigrams": (
        "Copy `free` first; whenever a trigram is chosen, its three places are no longer free.",
        "A slice that runs beyond the row is silently shorter: check start + 3 <= len(free) yourself.",
    ),
    "shuffle": (
        "tokens[start : start + 3][list(order)] is the shuffled trigram; assign it to the same slice of a copy.",
        "Targets and weights do not depend on the orders: all three places, original tokens.",
    ),
}

MISTAKES = {
    "choose_trigrams": [(functools.partial(_choose, slip=slip), message) for slip, message in CHOICES.items()],
    "shuffle": [
        *((functools.partial(_shuffle, new=slip), message) for slip, message in TOKEN_SLIPS.items()),
        *((functools.partial(_shuffle, target=slip), message) for slip, message in TARGET_SLIPS.items()),
        *((functools.partial(_shuffle, weight=slip), message) for slip, message in WEIGHT_SLIPS.items()),
        (_in_place, "changed its argument"),
    ],
}
