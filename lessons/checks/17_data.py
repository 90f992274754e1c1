"""Checks of lesson 17: they name the mistake, not only the failure."""

import functools
import hashlib
import random as python_random
from collections.abc import Callable
from typing import Any

import numpy as np

from minillm.course.answers import as_array
from minillm.course.contract import Mistake
from minillm.data.clean_labelled import fold
from minillm.evaluation import classification

RANDOM = np.random.default_rng(17)


# macro_f1

NOISY = RANDOM.choice(4, size=80, p=[0.6, 0.25, 0.1, 0.05])
CASES = [
    ([0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1], 3),  # class 2 occurs nowhere
    ([0, 1, 2, 2, 2, 1], [0, 1, 1, 2, 3, 3], 4),  # class 3 is predicted only
    (NOISY, np.where(RANDOM.random(80) < 0.7, NOISY, RANDOM.integers(0, 4, 80)), 5),
    ([0, 0, 0, 1], [0, 0, 0, 0], 2),  # always the frequent class
]

MACRO_SLIPS = {
    "accuracy": "that is the accuracy (and the micro F1): compute F1 for each class first, then their mean",
    "weighted": "each class is weighted by its number of examples: in a macro average all classes weigh the same",
    "means first": "that is F1 of the mean precision and the mean recall: take F1 of each class, then the mean",
    "mean of both": "that is the mean of precision and recall: F1 is their harmonic mean, 2 hits / (predicted + actual)",
    "precision": "that is the macro precision: it never asks how many of a class were missed",
    "recall": "that is the macro recall: it never asks how many were wrongly predicted as a class",
    "labels only": "classes without a label are left out of the mean: they count too, with F1 = 0",
    "present": "classes that occur nowhere are left out of the mean: the argument `classes` says how many there are",
    "half": "the 2 is missing: F1 = 2 hits / (predicted + actual)",
    "jaccard": "hits are counted once in the denominator: it is predicted + actual, without subtracting hits",
    "last class": "that is F1 of one class: the mean over all classes is asked for",
    "sum": "that is the sum over classes: divide by their number",
}


def _macro_f1(labels: Any, predictions: Any, classes: int, slip: str | None = None) -> float:
    """A right answer, or one with a slip."""
    cells = [classification.one_hot(np.asarray(part), classes) for part in (labels, predictions)]
    hits, predicted, actual = classification.count(*cells)
    ratio = lambda above, below: above / np.maximum(below, 1e-12)
    precision, recall, f1 = ratio(hits, predicted), ratio(hits, actual), ratio(2 * hits, predicted + actual)
    means = precision.mean(), recall.mean()
    wrong = {
        "accuracy": hits.sum() / actual.sum(), "weighted": (f1 * actual).sum() / actual.sum(),
        "means first": ratio(2 * means[0] * means[1], sum(means)), "mean of both": ((precision + recall) / 2).mean(),
        "precision": means[0], "recall": means[1], "labels only": f1[actual > 0].mean(),
        "present": f1[predicted + actual > 0].mean(), "half": f1.mean() / 2, "last class": f1[min(classes, 2) - 1],
        "jaccard": ratio(2 * hits, predicted + actual - hits).mean(), "sum": f1.sum(),
    }  # fmt: skip
    return float(wrong.get(slip, f1.mean()))


def _not_a_number(labels, predictions, classes):
    labels, predictions, found = np.asarray(labels), np.asarray(predictions), []
    for name in range(classes):
        actual, predicted = labels == name, predictions == name
        with np.errstate(all="ignore"):
            found.append(2 * (actual & predicted).sum() / (actual.sum() + predicted.sum()))
    return np.mean(found)


def check_macro_f1(function: Callable) -> None:
    """Absent classes, rare classes, and classes that are predicted and never true; slips are told apart on all cases."""
    found = []
    for labels, predictions, classes in CASES:
        call = "macro_f1 of " + (
            f"{labels}, {predictions}, {classes}" if len(labels) < 10 else "80 labels in 4 of 5 classes"
        )
        with np.errstate(all="ignore"):
            result = function(np.array(labels), np.array(predictions), classes)
        found.append((call, float(as_array(result, (), call, "is a class without examples divided by 0? Its F1 is 0"))))
    for case, (call, value) in zip(CASES, found, strict=True):
        if np.isclose(value, _macro_f1(*case), atol=1e-6):
            continue
        for slip, reason in MACRO_SLIPS.items():
            if all(
                np.isclose(got, _macro_f1(*other, slip), atol=1e-6)
                for other, (_, got) in zip(CASES, found, strict=True)
            ):
                raise Mistake(f"{call} is {value:.4f}, expected {_macro_f1(*case):.4f}: {reason}")
        raise Mistake(
            f"{call} is {value:.4f}, expected {_macro_f1(*case):.4f}: print hits, predicted and actual per class"
        )


# is_held_out

TEXTS = ["".join(map(chr, RANDOM.integers(0x4E00, 0x9FA5, 12))) for _ in range(2000)]  # one length, no two alike
VARIANTS = [("Very good", "very good!"), ("ＧＯＯＤ，很好", "good很好"), ("很 好 用。", "很好用")]


def _answers(function: Callable, texts: list[str], share: float, seed: int) -> np.ndarray:
    """[texts] booleans, or a Mistake."""
    call = f"is_held_out({texts[0]!r}, {share}, {seed})"
    found = []
    for text in texts:
        result = function(text, share, seed)
        if result is None:
            raise Mistake(f"{call} is None: does the function end with `return`?")
        if not isinstance(result, (bool, np.bool_)):
            raise Mistake(f"{call} is of type {type(result).__name__}, expected True or False: compare with the share")
        found.append(bool(result))
    return np.array(found)


def check_is_held_out(function: Callable) -> None:
    """Same answers when asked again, the right share, chance by text and by seed, and copies that stay together."""
    few = TEXTS[:50]
    first, again = _answers(function, few, 0.5, 1), _answers(function, few[::-1], 0.5, 1)[::-1]
    if (first != again).any():
        raise Mistake(
            "the same text gets another answer when it is asked again: chance must come from a hash of seed and text"
        )
    if "hash" in getattr(getattr(function, "__code__", None), "co_names", ()):
        raise Mistake(
            "hash() of Python gives other numbers in every new process, and so another split: use hashlib.sha256"
        )
    for share in (0.1, 0.3, 0.5):
        _check_share(_answers(function, TEXTS, share, 1), share)
    seeds = [_answers(function, TEXTS, 0.5, seed) for seed in (1, 2)]
    if (agree := (seeds[0] == seeds[1]).mean()) > 0.6:
        same = "all" if agree == 1.0 else "nearly all"
        raise Mistake(f"two seeds agree on {same} texts: the seed must take part in what is hashed")
    if agree < 0.4:
        raise Mistake("the second seed only turns the first one's answers round: hash seed and text together")
    for pair in VARIANTS:
        if any(len(set(_answers(function, list(pair), 0.5, seed))) == 2 for seed in range(40)):
            raise Mistake(
                f"{pair[0]!r} and {pair[1]!r} are parted, one in training and its copy in the test: fold the text first"
            )


def _check_share(found: np.ndarray, share: float) -> None:
    """Five deviations of a mean of len(found) draws are allowed."""
    room = 5 * np.sqrt(share * (1 - share) / len(found))
    if abs(found.mean() - share) < room:
        return
    what = f"{found.mean():.1%} of 2000 texts are held out with share = {share}"
    if found.all() or not found.any():
        raise Mistake(
            f"all texts get the same answer ({found[0]}): does the number that is compared depend on the text?"
        )
    if abs(found.mean() - (1 - share)) < room:
        raise Mistake(f"{what}: the answer is the wrong way round, True means held out")
    if found.mean() < share / 4:
        raise Mistake(f"{what}: the share is a fraction, is it compared with a number that goes up to 100 or more?")
    raise Mistake(f"{what}: the hash must become a number that is spread evenly over [0, 1), then number < share")


def _held_out(text, share, seed, slip=None):
    kept = text if slip == "not folded" else fold(text)
    key = kept if slip == "no seed" else f"{seed}\0{kept}"
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    number = int(number * 100) if slip == "percent" else number
    return number >= share if slip == "opposite" else number if slip == "number" else number < share


def _generator(text, share, seed):
    return bool(np.random.default_rng(seed).random() < share)


def _chance(text, share, seed):
    return python_random.random() < share


def _python_hash(text, share, seed):
    return hash((seed, fold(text))) % 1000 < 1000 * share


def _length(text, share, seed):
    return (len(text) * 7919 + seed) % 10 < 10 * share


def _by_position(text, share, seed, seen=[]):  # noqa: B006
    seen.append(text)
    return len(seen) % 10 < 10 * share


# paired_interval

FIRST = (RANDOM.random(250) < 0.8).astype(np.float64)
SECOND = np.where(RANDOM.random(250) < 0.8, FIRST, RANDOM.random(250) < 0.4).astype(np.float64)  # they often agree
DRAWS = RANDOM.integers(0, 250, (2, 500, 250)).min(0)  # early examples more often, so that nobody's own draws fit

PAIRED_SLIPS = {
    "sign": "the sign is turned round: first - second is asked for",
    "two intervals": "these are the ends of two intervals, one minus the other: far too wide, take the difference in each draw",
    "unpaired": "the systems were judged on different draws: on the same examples what is hard for both cancels",
    "level": "these are the quantiles 0.05 and 0.95, a 90 % interval: 95 % leaves 2.5 % on each side",
    "normal": "that is mean +- 1.96 deviations: the quantiles of the differences are asked for",
    "error": "the deviation over draws is already the standard error: dividing it by sqrt(resamples) makes the interval far too narrow",
    "examples": "these are quantiles over single examples (-1, 0, 1): take the mean of each draw first",
    "sum": "the differences are sums, not means: an accuracy is divided by the number of examples",
    "axis": "the mean runs over the draws: it must run over the examples of each draw, axis=1",
    "exchanged": "low and high are exchanged",
    "percent": "np.quantile takes 0.025 and 0.975: is this in percent?",
    "first only": "that is the interval of the first system alone: subtract the second",
    "no draws": "low and high are equal: the difference must be computed anew for each row of `draws`",
}


def _paired(first, second, draws, slip=None):
    """A right answer, or one with a slip."""
    first, second = np.asarray(first), np.asarray(second)
    one, two = first[draws], second[draws if slip != "unpaired" else draws[::-1]]
    values = (one - (0.0 if slip == "first only" else two)).mean(0 if slip == "axis" else 1)
    mean, deviation = values.mean(), values.std()
    tails = [0.05, 0.95] if slip == "level" else [0.025, 0.975]
    if slip == "two intervals":
        ends = [np.quantile(part.mean(1), tails) for part in (one, two)]
        return ends[0][0] - ends[1][1], ends[0][1] - ends[1][0]
    if slip in ("normal", "error"):
        half = 1.96 * deviation / (1.0 if slip == "normal" else len(draws) ** 0.5)
        return mean - half, mean + half
    source = {"sign": -values, "examples": first - second, "sum": values * len(first), "percent": 100 * values,
              "no draws": [(first - second).mean()]}  # fmt: skip
    low, high = np.quantile(source.get(slip, values), tails)
    return (high, low) if slip == "exchanged" else (low, high)


def check_paired_interval(function: Callable) -> None:
    """Two systems that often agree; then the same turned round, so that no sign is right by chance."""
    for systems in ((FIRST, SECOND), (SECOND, FIRST)):
        inputs = (*(part.copy() for part in systems), DRAWS.copy())
        found = as_array(function(*inputs), (2,), "paired_interval(...)", "is something divided by 0?")
        if not all(np.array_equal(now, old) for now, old in zip(inputs, (*systems, DRAWS), strict=True)):
            raise Mistake("paired_interval changed its argument: first[draws] is a new array, leave the old ones")
        expected = np.array(_paired(*systems, DRAWS))
        if np.allclose(found, expected, atol=1e-6):
            continue
        shown = f"paired_interval(...) is {found.round(4).tolist()}, expected {expected.round(4).tolist()}"
        for slip, reason in PAIRED_SLIPS.items():
            if np.allclose(found, _paired(*systems, DRAWS, slip), atol=1e-6):
                raise Mistake(f"{shown}: {reason}")
        raise Mistake(f"{shown}: are all draws taken from `draws`, and the two accuracies of each draw subtracted?")


def _own_draws(first, second, draws):
    drawn = np.random.default_rng(0).integers(0, len(first), draws.shape)
    return np.quantile((first - second)[drawn].mean(1), [0.025, 0.975])


CHECKS = {"macro_f1": check_macro_f1, "is_held_out": check_is_held_out, "paired_interval": check_paired_interval}

HINTS = {
    "macro_f1": (
        "For class c: actual = labels == c, predicted = predictions == c, and the hits are where both hold.",
        "max(actual.sum() + predicted.sum(), 1) as denominator gives 0 for an absent class, for its hits are 0.",
    ),
    "is_held_out": (
        'hashlib.sha256(f"{seed} {fold(text)}".encode()).digest() are 32 bytes that depend on seed and text.',
        'int.from_bytes(digest[:8], "big") / 2**64 is a number in [0, 1); it is below `share` with that chance.',
    ),
    "paired_interval": (
        "first[draws] has the shape [resamples, examples]: one row per draw.",
        "(first[draws] - second[draws]).mean(axis=1) are the differences; np.quantile of them, at 0.025 and 0.975.",
    ),
}

MISTAKES = {
    "macro_f1": [
        *((functools.partial(_macro_f1, slip=slip), message) for slip, message in MACRO_SLIPS.items()),
        (_not_a_number, "divided by 0"),
    ],
    "is_held_out": [
        (functools.partial(_held_out, slip="not folded"), "fold the text first"),
        (functools.partial(_held_out, slip="no seed"), "the seed must take part"),
        (functools.partial(_held_out, slip="percent"), "the share is a fraction"),
        (functools.partial(_held_out, slip="opposite"), "the wrong way round"),
        (functools.partial(_held_out, slip="number"), "expected True or False"),
        (_generator, "does the number that is compared depend on the text"),
        (_chance, "chance must come from a hash"),
        (_python_hash, "hash() of Python"),
        (_length, "all texts get the same answer"),
        (_by_position, "another answer when it is asked again"),
    ],
    "paired_interval": [
        *((functools.partial(_paired, slip=slip), message) for slip, message in PAIRED_SLIPS.items()),
        (_own_draws, "taken from `draws`"),
    ],
}
