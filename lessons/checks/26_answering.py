"""Checks of lesson 26: they name the mistake, not only the failure."""

import functools
from collections import Counter
from collections.abc import Callable

import numpy as np

from minillm.course.answers import as_array, close
from minillm.course.contract import Mistake
from minillm.evaluation import answers, retrieval
from minillm.inference.spans import best_span

numbers = functools.partial(as_array, infinite="is something divided by 0, or a logarithm of 0?")
RANDOM = np.random.default_rng(26)

# legal_span

LENGTH, LONGEST = 9, 4
TABLES = RANDOM.normal(size=(60, 2, LENGTH)) * 2.0
SPANS = {
    "apart": "the best beginning and the best end are taken apart: the end may stand before the beginning; score pairs",
    "long": "a span is longer than `longest`: from i to j there are j - i + 1 tokens",
    "short": "the longest legal span is missing: from i to j there are j - i + 1 tokens, not j - i + 2",
    "single": "spans of one token are missing: i may equal j",
    "backwards": "beginnings and ends are swapped: a span from i to j scores starts[i] + ends[j]",
    "behind": "j is the place behind the last token; return the last token itself",
}


def _span(starts, ends, longest, slip=None):
    if slip == "apart":
        return int(np.argmax(starts)), int(np.argmax(ends))
    starts, ends = (ends, starts) if slip == "backwards" else (starts, ends)
    least, most = (1 if slip == "single" else 0), {"long": longest, "short": longest - 2}.get(slip, longest - 1)
    pairs = [(i, j) for i in range(len(starts)) for j in range(i + least, min(i + most, len(ends) - 1) + 1)]
    first, last = max(pairs, key=lambda pair: starts[pair[0]] + ends[pair[1]])
    return first, last + (slip == "behind")


def check_legal_span(function: Callable) -> None:
    """On random tables, against the library's search."""
    found, right = [], []
    for starts, ends in TABLES:
        value = numbers(function(starts.copy(), ends.copy(), LONGEST), (2,), "the span")
        found.append(tuple(value.tolist()))
        scores = np.stack([np.r_[-1e9, starts], np.r_[-1e9, ends]], axis=-1)  # its token 0 is the class token
        span = best_span(scores[None], np.ones((1, LENGTH + 1), bool), LONGEST)
        right.append((span.first - 1, span.last - 1))
    if found == right:
        return
    for slip, message in SPANS.items():
        if found == [_span(*table, LONGEST, slip) for table in TABLES]:
            raise Mistake(message)
    wrong = next(number for number in range(len(TABLES)) if found[number] != right[number])
    raise Mistake(f"the best span is {right[wrong]}, not {found[wrong]}: try all pairs i <= j <= i + longest - 1")


# bm25

WORDS = ["cat", "dog", "mat", "hat", "sat", "red"]
DRAWN = [RANDOM.choice(WORDS, size=RANDOM.integers(3, 12)).tolist() for _ in range(8)]
QUESTION, K1, B = ["red", "cat", "red", "unheard"], 1.5, 0.6
SCORES = {
    "occurrences": "n_w counts how often the word stands in all passages: it is the number of passages that have it",
    "no idf": "every word counts the same: rare ones say more, by the logarithm",
    "no length": "the length of a passage is not used: |d| / mean |d|",
    "inverted": "the length is upside down: a passage longer than the mean has |d| / mean |d| above 1",
    "once": "a word that the question has twice counts once: go over the words, not over the set of them",
    "present": "f is 1 for every word that is there: it is how often the word stands in the passage",
    "linear": "f counts in full: it is divided by f + k1 (...), so that the tenth time says little",
    "no half": "the halves in the logarithm are missing",
}


def _bm25(question, passages, k1, b, slip=None):
    mean, scores = np.mean([len(words) for words in passages]), np.zeros(len(passages))
    for word in dict.fromkeys(question) if slip == "once" else question:
        having = sum(words.count(word) if slip == "occurrences" else word in words for words in passages)
        half = 1e-12 if slip == "no half" else 0.5
        inverse = np.log(np.maximum(1 + (len(passages) - having + half) / (having + half), 1e-12))
        for number, words in enumerate(passages):
            often = words.count(word)
            often = min(often, 1) if slip == "present" else often
            ratio = {"no length": 1.0, "inverted": mean / len(words)}.get(slip, len(words) / mean)
            part = often if slip == "linear" else often / (often + k1 * (1 - b + b * ratio))
            scores[number] += (1.0 if slip == "no idf" else inverse) * part
    return scores


def check_bm25(function: Callable) -> None:
    """Against the library's index."""
    result = numbers(function(list(QUESTION), [list(p) for p in DRAWN], K1, B), (len(DRAWN),), "the scores")
    index = retrieval.build([" ".join(words) for words in DRAWN], K1, B)
    expected = retrieval.bm25(index, [" ".join(QUESTION)])[0]
    if close(result, expected):
        return
    for slip, message in SCORES.items():
        if close(result, _bm25(QUESTION, DRAWN, K1, B, slip)):
            raise Mistake(message)
    number = int(np.abs(result - expected).argmax())
    raise Mistake(f"passage {number} should score {expected[number]:.4f}: print idf and f of each word of the question")


# answer_f1

PAIRS = [
    (["new", "york", "city"], ["new", "york"]),
    (["the", "cat", "cat", "cat"], ["cat", "sat"]),
    (["a", "b"], ["c"]),
    (["bern"], ["bern"]),
    (["x", "y", "x"], ["x", "x", "z", "w", "v"]),
]
MEANS = {
    "sets": "words are counted once each: two answers share a word as often as both have it, so count with Counter",
    "precision": "this is precision alone: an answer that is too short would be perfect",
    "recall": "this is recall alone: the whole passage would be a perfect answer",
    "mean": "this is the plain mean of precision and recall: F1 is 2 P R / (P + R)",
    "any": "a word of the prediction counts each time, however often the true answer has it",
}


def _f1(predicted, truth, slip=None):
    shared = (Counter(predicted) & Counter(truth)).total()
    if slip == "sets":
        predicted, truth = set(predicted), set(truth)
        shared = len(predicted & truth)
    shared = sum(word in truth for word in predicted) if slip == "any" else shared
    precision, recall = shared / len(predicted), shared / len(truth)
    if slip in ("precision", "recall"):
        return precision if slip == "precision" else recall
    if slip == "mean":
        return (precision + recall) / 2
    return 2 * precision * recall / (precision + recall) if shared else 0.0


def check_answer_f1(function: Callable) -> None:
    """Against the library's, on answers without articles."""
    found = np.array([numbers(function(list(a), list(b)), (), "F1") for a, b in PAIRS])
    expected = [answers.overlap_f1(" ".join(a), [" ".join(b)]) for a, b in PAIRS]
    expected[1], expected[2] = _f1(*PAIRS[1]), _f1(*PAIRS[2])  # SQuAD would drop "the" and "a"
    if close(found, expected):
        return
    for slip, message in MEANS.items():
        if close(found, [_f1(a, b, slip) for a, b in PAIRS]):
            raise Mistake(message)
    number = int(np.abs(found - expected).argmax())
    raise Mistake(f"F1 of {PAIRS[number][0]} and {PAIRS[number][1]} is {expected[number]:.3f}, not {found[number]:.3f}")


def _divides(predicted, truth):
    """By zero, where nothing is shared."""
    with np.errstate(invalid="ignore"):
        shared = np.float64((Counter(predicted) & Counter(truth)).total())
        precision, recall = shared / len(predicted), shared / len(truth)
        return 2 * precision * recall / (precision + recall)


CHECKS = {"legal_span": check_legal_span, "bm25": check_bm25, "answer_f1": check_answer_f1}

HINTS = {
    "legal_span": (
        "Two loops do: over i, and over j from i to i + longest - 1 at most.",
        "starts[:, None] + ends[None, :] is the table of all pairs; set what is no span to -np.inf, then np.unravel_index.",
    ),
    "bm25": (
        "n_w = sum(w in d for d in passages) does not depend on the passage; f = d.count(w) does.",
        "np.log(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * len(d) / mean)), added up over the question's words.",
    ),
    "answer_f1": (
        "collections.Counter counts words; `&` of two counters keeps the smaller count of each.",
        "With shared words s, F1 = 2 s / (len(predicted) + len(truth)).",
    ),
}

MISTAKES = {
    "legal_span": [(functools.partial(_span, slip=slip), message) for slip, message in SPANS.items()],
    "bm25": [(functools.partial(_bm25, slip=slip), message) for slip, message in SCORES.items()],
    "answer_f1": [
        *((functools.partial(_f1, slip=slip), message) for slip, message in MEANS.items()),
        (_divides, "divided by 0"),
    ],
}
