"""Solutions of lesson 26."""

from collections import Counter

import numpy as np


def legal_span(starts: np.ndarray, ends: np.ndarray, longest: int) -> tuple[int, int]:
    """All pairs in a table; what is no span cannot win."""
    distance = np.arange(len(ends))[None, :] - np.arange(len(starts))[:, None]
    scores = np.where((distance >= 0) & (distance < longest), starts[:, None] + ends[None, :], -np.inf)
    first, last = np.unravel_index(scores.argmax(), scores.shape)
    return int(first), int(last)


def bm25(question: list[str], passages: list[list[str]], k1: float, b: float) -> np.ndarray:
    """Word by word."""
    mean, scores = np.mean([len(words) for words in passages]), np.zeros(len(passages))
    for word in question:
        having = sum(word in words for words in passages)
        inverse = np.log(1 + (len(passages) - having + 0.5) / (having + 0.5))
        for number, words in enumerate(passages):
            often = words.count(word)
            scores[number] += inverse * often / (often + k1 * (1 - b + b * len(words) / mean))
    return scores


def answer_f1(predicted: list[str], truth: list[str]) -> float:
    """The intersection of two counters keeps the smaller count."""
    shared = (Counter(predicted) & Counter(truth)).total()
    return 2.0 * shared / (len(predicted) + len(truth))
