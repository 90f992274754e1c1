"""Checks of lesson 08: they name the mistake, not only the failure."""

from collections.abc import Callable

import numpy as np

from minillm.course.contract import Mistake

NAMES = ("tokens", "targets", "weights")


def _numbers(call: str, value: object, shape: tuple[int, ...]) -> np.ndarray:
    """The value as float64 of the expected shape, or a Mistake."""
    try:
        array = np.asarray(value, np.float64)
    except Exception:
        raise Mistake(f"{call} returned {type(value).__name__}, expected numbers: does it end with `return`?") from None
    if array.shape != shape:
        raise Mistake(f"{call} has shape {list(array.shape)}, expected {list(shape)}: was an axis cut or added?")
    if not np.isfinite(array).all():
        raise Mistake(f"{call} holds {array[~np.isfinite(array)][0]}: is something divided by zero?")
    return array


def check_shift_targets(function: Callable) -> None:
    """A row that is full, one with padding, one whose real tokens are zeros, one of a single token."""
    tokens = np.array([[3, 9, 4, 7, 8], [3, 5, 6, 0, 0], [3, 0, 5, 0, 0], [3, 0, 0, 0, 0]], np.int32)
    lengths = np.array([5, 3, 4, 1], np.int32)  # the third text ends with a real 0
    kept = tokens.copy(), lengths.copy()
    batch = function(tokens, lengths)
    if not isinstance(batch, dict) or set(batch) != set(NAMES):
        found = sorted(map(str, batch)) if isinstance(batch, dict) else type(batch).__name__
        raise Mistake(f"shift_targets returned {found}, expected a dict with the keys {', '.join(NAMES)}")
    if not (np.array_equal(tokens, kept[0]) and np.array_equal(lengths, kept[1])):
        raise Mistake("shift_targets changed its argument: build new arrays instead")
    inputs, targets, weights = (_numbers(f"shift_targets(...)[{name!r}]", batch[name], (4, 4)) for name in NAMES)
    if np.array_equal(inputs, targets):
        raise Mistake("tokens and targets are equal: the model would learn to copy. Are the targets shifted by one?")
    if np.array_equal(inputs, tokens[:, 1:]) and np.array_equal(targets, tokens[:, :-1]):
        raise Mistake("tokens and targets are exchanged: the model would predict the token before, not the next one")
    if not np.array_equal(inputs, tokens[:, :-1]):
        raise Mistake(f"the inputs are {inputs.tolist()}, expected all tokens but each row's last")
    if not np.array_equal(targets, tokens[:, 1:]):
        raise Mistake(f"the targets are {targets.tolist()}, expected all tokens but each row's first")
    _check_weights(weights, tokens, lengths)


def _check_weights(weights: np.ndarray, tokens: np.ndarray, lengths: np.ndarray) -> None:
    place = np.arange(4)
    if np.array_equal(weights, place + 1 < lengths[:, None]):
        return
    if np.array_equal(weights, place < lengths[:, None]):
        raise Mistake(
            "the weights count the first padding as a target: a text of n tokens has n - 1 targets, are you off by one?"
        )
    if np.array_equal(weights, tokens[:, 1:] != 0):
        raise Mistake("the weights drop a real token whose id is 0: use the lengths, not the ids, to find the padding")
    if (weights == 1).all():
        raise Mistake("the weights are 1 everywhere: padding is trained on as if it were text")
    if np.array_equal(weights, place + 2 < lengths[:, None]):
        raise Mistake("the last real target of each text has weight 0: a text of n tokens has n - 1 targets")
    raise Mistake(f"the weights are {weights.tolist()}: count the real targets of each row, they are 4, 2, 3 and 0")


CASES = [
    ([0.08, 0.5, 0.07, 0.2, 0.05, 0.1], 0.89),
    ([0.5, 0.1, 0.25, 0.15], 0.6),
    ([0.05, 0.6, 0.35], 0.3),  # one token is enough
    ([0.4, 0.25, 0.2, 0.15], 1.0),
    ([0.5, 0.25, 0.125, 0.0625, 0.0625 - 2**-10, 2**-10], 0.75),  # reached exactly
]


def check_nucleus(function: Callable) -> None:
    """Crossing p in the middle, at once, exactly, never; in no order."""
    for values, p in CASES:
        call, argument = f"nucleus({values}, {p})", np.array(values)
        result = _numbers(call, function(argument, p), argument.shape)
        if not np.array_equal(argument, values):
            raise Mistake("nucleus changed its argument: build a new array instead")
        order = np.argsort(-argument)
        size = int(np.searchsorted(np.cumsum(argument[order]), p - 1e-12)) + 1
        expected = np.zeros_like(argument)
        expected[order[:size]] = argument[order[:size]] / argument[order[:size]].sum()
        if not np.allclose(result, expected, atol=1e-6):
            raise Mistake(f"{call} returned {result.round(4).tolist()}: {_reason(result, expected, argument, size, p)}")


def _reason(result: np.ndarray, expected: np.ndarray, values: np.ndarray, size: int, p: float) -> str:
    order = np.argsort(-values)
    if np.allclose(np.where(expected > 0, values, 0.0), result, atol=1e-6):
        return "the right tokens, but their probabilities do not sum to 1: renormalise them"
    if np.allclose(result, expected[order], atol=1e-6):
        return "sorted from the top: put every probability back to its own token"
    kept = np.flatnonzero(result > 1e-9)
    if len(kept) == 0:
        return "no token is left; the most likely one always stays, even if it alone exceeds p"
    if set(kept) == set(order[: size - 1]):
        return "the token that crosses p belongs to the nucleus: without it the sum stays below p"
    if set(kept) == set(order[: size + 1]):
        return "one token too many: stop as soon as the sum reaches p"
    if set(kept) == set(np.flatnonzero(values >= p)) or set(kept) == set(np.flatnonzero(values >= 1 - p)):
        return "p bounds the sum of the kept probabilities, it is no threshold for a single one"
    if len(kept) == size:
        return "the right number of tokens but not the most likely ones: add up from the top, not in the order given"
    return f"expected {expected.round(4).tolist()}"


CHECKS = {"shift_targets": check_shift_targets, "nucleus": check_nucleus}

HINTS = {
    "shift_targets": (
        "tokens[:, :-1] are the inputs and tokens[:, 1:] the targets; both have length - 1 columns.",
        "Target column t is token t + 1 of the text: compare np.arange(1, length) with lengths[:, None].",
    ),
    "nucleus": (
        "np.argsort(-probabilities) ranks the tokens; np.cumsum over the ranked ones adds from the top.",
        "A token stays if the sum of those *before* it is below p; kept[order] = ... puts the ranked values back.",
    ),
}


def _batch(tokens, inputs, targets, weights):
    return {"tokens": inputs, "targets": targets, "weights": np.asarray(weights, np.float32)}


def _not_shifted(tokens, lengths):
    return _batch(tokens, tokens[:, :-1], tokens[:, :-1], np.arange(1, tokens.shape[1]) < lengths[:, None])


def _first_padding_counts(tokens, lengths):
    return _batch(tokens, tokens[:, :-1], tokens[:, 1:], np.arange(tokens.shape[1] - 1) < lengths[:, None])


def _zero_is_padding(tokens, lengths):
    return _batch(tokens, tokens[:, :-1], tokens[:, 1:], tokens[:, 1:] != 0)


def _padding_counts(tokens, lengths):
    return _batch(tokens, tokens[:, :-1], tokens[:, 1:], np.ones_like(tokens[:, 1:]))


def _rolled(tokens, lengths):
    shifted = np.roll(tokens, -1, axis=1)  # keeps the length, and the last target is the row's first token
    return _batch(tokens, tokens, shifted, np.arange(1, tokens.shape[1] + 1) < lengths[:, None])


def _without_the_crossing(probabilities, p):
    order = np.argsort(-probabilities)
    kept = np.where(np.isin(np.arange(len(order)), order[np.cumsum(probabilities[order]) <= p]), probabilities, 0.0)
    return kept / max(kept.sum(), 1e-9)


def _one_too_many(probabilities, p):
    order = np.argsort(-probabilities)
    kept = np.zeros_like(probabilities)
    ranked = probabilities[order]
    kept[order] = np.where(np.cumsum(ranked) - ranked <= p, ranked, 0.0)
    return kept / kept.sum()


def _not_renormalised(probabilities, p):
    order = np.argsort(-probabilities)
    ranked = probabilities[order]
    kept = np.zeros_like(probabilities)
    kept[order] = np.where(np.cumsum(ranked) - ranked < p, ranked, 0.0)
    return kept


def _left_sorted(probabilities, p):
    ranked = -np.sort(-probabilities)
    kept = np.where(np.cumsum(ranked) - ranked < p, ranked, 0.0)
    return kept / kept.sum()


def _threshold(probabilities, p):
    kept = np.where(probabilities >= 1 - p, probabilities, 0.0)
    return kept / max(kept.sum(), 1e-9)


def _in_the_order_given(probabilities, p):
    kept = np.where(np.cumsum(probabilities) - probabilities < p, probabilities, 0.0)
    return kept / kept.sum()


MISTAKES = {
    "shift_targets": [
        (_not_shifted, "learn to copy"),
        (_first_padding_counts, "first padding as a target"),
        (_zero_is_padding, "whose id is 0"),
        (_padding_counts, "1 everywhere"),
        (_rolled, "has shape"),
    ],
    "nucleus": [
        (_without_the_crossing, "crosses p belongs"),
        (_one_too_many, "one token too many"),
        (_not_renormalised, "renormalise"),
        (_left_sorted, "back to its own token"),
        (_threshold, "no threshold"),
        (_in_the_order_given, "most likely ones"),
    ],
}
