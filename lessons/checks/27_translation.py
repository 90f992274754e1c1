"""Checks of lesson 27: they name the mistake, not only the failure."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minillm.course.answers import as_array, close
from minillm.course.contract import Mistake
from minillm.evaluation.overlap import longest_common

numbers = functools.partial(as_array, infinite="is there a division by 0?")
RANDOM = np.random.default_rng(27)

# decoder_input

BEGIN, PAD, END = 2, 0, 3
SIZES = (5, 2, 7, 1)
TARGETS = np.zeros((len(SIZES), 7), np.int64)
for row, size in enumerate(SIZES):
    TARGETS[row, :size] = [*RANDOM.integers(4, 60, size - 1), END]
SHIFTS = {
    "same": "place t holds targets[:, t]: the decoder reads the answer that it should write, and learns to copy it",
    "left": "the targets have moved to the left: place t holds what comes after, not before",
    "no begin": "the first place should hold the beginning token: nothing stands before the first target",
    "end": "the end token is read: behind it nothing is written any more, so that place should hold padding",
}


def _shift(targets, begin, pad, slip=None):
    column = np.full((len(targets), 1), pad if slip == "no begin" else begin)
    if slip == "left":
        return np.concatenate([targets[:, 1:], np.full((len(targets), 1), pad)], axis=1)
    shifted = targets.copy() if slip == "same" else np.concatenate([column, targets[:, :-1]], axis=1)
    return shifted if slip == "end" else np.where(targets == pad, pad, shifted)


def _in_place(targets, begin, pad):
    shifted = _shift(targets, begin, pad)
    targets[:] = shifted
    return targets


def check_decoder_input(function: Callable) -> None:
    """One place later, behind the beginning, padding above padding."""
    given = TARGETS.copy()
    result = numbers(function(given, BEGIN, PAD), TARGETS.shape, "the decoder's input")
    if not np.array_equal(given, TARGETS):
        raise Mistake("the function has changed its argument: make a new array")
    if np.array_equal(result, _shift(TARGETS, BEGIN, PAD)):
        return
    for slip, message in SHIFTS.items():
        if np.array_equal(result, _shift(TARGETS, BEGIN, PAD, slip)):
            raise Mistake(message)
    row = int((result != _shift(TARGETS, BEGIN, PAD)).any(1).argmax())
    raise Mistake(
        f"row {row} is wrong: for the targets {TARGETS[row].tolist()} it is {result[row].astype(int).tolist()}"
    )


# rouge_l

PAIRS = [
    ("the cat sat", "the old cat sat down"),
    ("a b c d e", "e d c b a"),
    ("police kill the gunman", "the gunman kill police"),
    ("b a b a b", "a a a b"),
    ("profits fall", "profits fall"),
    ("one", "two"),
    ("", "two words"),
    ("two words", ""),
    *(tuple(" ".join(RANDOM.choice(list("abcdef"), size)) for size in RANDOM.integers(3, 12, 2)) for _ in range(8)),
]
ROUGES = {
    "run": "that is the longest run of words side by side: a subsequence may leave words out between",
    "set": "that counts common words in any order: the subsequence keeps the order of both",
    "recall": "that is R alone: a text that writes everything would have 1; F1 needs P too",
    "precision": "that is P alone: one right word would have 1; F1 needs R too",
    "mean": "that is the mean of P and R; F1 is their harmonic mean, 2 P R / (P + R)",
    "characters": "that is the subsequence of characters: part the texts into words first",
}


def _run(first: list, second: list) -> int:
    return max((size for size in range(1, len(first) + 1) for a in range(len(first) - size + 1)
                for b in range(len(second) - size + 1) if first[a : a + size] == second[b : b + size]), default=0)  # fmt: skip


def _rouge(written, reference, slip=None):
    said, true = (list(text) if slip == "characters" else text.split() for text in (written, reference))
    common = {"run": _run, "set": lambda a, b: sum(min(a.count(word), b.count(word)) for word in set(a))}
    hits = common.get(slip, longest_common)(said, true)
    precision, recall = hits / max(len(said), 1), hits / max(len(true), 1)
    if slip in ("recall", "precision", "mean"):
        return {"recall": recall, "precision": precision, "mean": (precision + recall) / 2}[slip]
    return 2 * precision * recall / (precision + recall) if hits else 0.0


def _divides(written, reference):
    hits, said, true = longest_common(written.split(), reference.split()), written.split(), reference.split()
    precision, recall = (np.float64(hits) / np.float64(len(side)) if side else np.nan for side in (said, true))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def check_rouge_l(function: Callable) -> None:
    """F1 of subsequences, also of empty texts."""
    found = []
    for written, reference in PAIRS:
        found.append(float(numbers(function(written, reference), (), f"ROUGE-L of {written!r} and {reference!r}")))
    right = [_rouge(*pair) for pair in PAIRS]
    if close(found, right):
        return
    for slip, message in ROUGES.items():
        if close(found, [_rouge(*pair, slip=slip) for pair in PAIRS]):
            raise Mistake(message)
    place = next(place for place, pair in enumerate(zip(found, right, strict=True)) if not close(*pair))
    written, reference = PAIRS[place]
    raise Mistake(f"{written!r} and {reference!r}: {found[place]:.3f}, the F1 is {right[place]:.3f}")


# beam_step

SCORES = np.array([-0.5, -2.0, -1.0])
LOGITS = RANDOM.normal(0.0, 2.0, size=(3, 11))
LOGITS[0] += np.where(np.arange(11) < 3, 3.0, 0.0)  # several of the best go on from one hypothesis
LOG_PROBABILITIES = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
BEAMS = 4
STEPS = {
    "alone": "the scores so far are left out: a continuation is as likely as what came before, times itself",
    "each": "that takes the best token of each hypothesis: several of the best may go on from one hypothesis",
    "worst": "those are the least likely: sort from the highest log-probability down",
    "order": "the right ones, but not the best first",
    "swapped": "parents and tokens are swapped, or a place is divided by the number of hypotheses, not by the vocabulary",
    "new": "the scores are those of the last token alone: return the sum with what came before",
}


def _step(scores, log_probabilities, beams, slip=None):
    total = log_probabilities + (0.0 if slip == "alone" else scores[:, None])
    vocabulary = total.shape[1]
    flat = total.ravel()
    if slip == "each":
        tokens = total.argmax(1)
        places = np.argsort(-total.max(1))
        places = np.resize(places * vocabulary + tokens[places], beams)
    else:
        places = np.argsort(flat if slip == "worst" else -flat)[:beams]
    places = places[::-1] if slip == "order" else places
    parents, tokens = np.divmod(places, vocabulary)
    found = log_probabilities.ravel()[places] if slip == "new" else flat[places]
    return (found, tokens, parents) if slip == "swapped" else (found, parents, tokens)


def _two(scores, log_probabilities, beams):
    return _step(scores, log_probabilities, beams)[:2]


def _parts(value: Any) -> list[np.ndarray]:
    if not isinstance(value, tuple | list) or len(value) != 3:
        raise Mistake("the function should return three arrays: (scores, parents, tokens)")
    names = ("scores", "parents", "tokens")
    return [numbers(part, (BEAMS,), name) for part, name in zip(value, names, strict=True)]


def check_beam_step(function: Callable) -> None:
    """The best of all continuations, with where they come from."""
    arguments = SCORES, LOG_PROBABILITIES, BEAMS
    result = _parts(function(*(np.copy(part) for part in arguments[:2]), BEAMS))
    if all(map(close, result, _step(*arguments))):
        return
    for slip, message in STEPS.items():
        if all(map(close, result, _step(*arguments, slip=slip))):
            raise Mistake(message)
    place = int((~np.isclose(result[0], _step(*arguments)[0])).argmax())
    raise Mistake(
        f"continuation {place} is wrong: print scores[:, None] + log_probabilities and mark its {BEAMS} highest"
    )


CHECKS = {"decoder_input": check_decoder_input, "rouge_l": check_rouge_l, "beam_step": check_beam_step}

HINTS = {
    "decoder_input": (
        "A column of `begin` in front of targets[:, :-1] moves everything one place to the right.",
        "np.where(targets == pad, pad, shifted) takes the end token and what lies behind it out again.",
    ),
    "rouge_l": (
        "table[i][j] = table[i-1][j-1] + 1 where words i and j are equal, else the larger of its upper and left neighbour.",
        "F1 is also 2 LCS / (words written + words of the reference); no division where LCS is 0.",
    ),
    "beam_step": (
        "scores[:, None] + log_probabilities is [hypotheses, vocabulary]; ravel it and sort once.",
        "np.divmod(place, vocabulary) is (hypothesis, token).",
    ),
}

MISTAKES = {
    "decoder_input": [
        *((functools.partial(_shift, slip=slip), message) for slip, message in SHIFTS.items()),
        (_in_place, "changed its argument"),
    ],
    "rouge_l": [
        *((functools.partial(_rouge, slip=slip), message) for slip, message in ROUGES.items()),
        (_divides, "division by 0"),
    ],
    "beam_step": [
        *((functools.partial(_step, slip=slip), message) for slip, message in STEPS.items()),
        (_two, "three arrays"),
    ],
}
