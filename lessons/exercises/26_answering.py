"""Exercises of lesson 26. Fill in the bodies, then run `minillm lessons check 26`."""

import numpy as np


def legal_span(starts: np.ndarray, ends: np.ndarray, longest: int) -> tuple[int, int]:
    """The best answer among the pairs that are spans. (15 minutes, easy)

    A span from token i to token j scores starts[i] + ends[j]; i may equal j.

    Args:
        starts, ends: [length] floats, how well each token begins and ends the answer.
        longest: tokens of a span at most.
    Returns:
        (i, j): the first and the last token of the best span with i <= j.
    """
    raise NotImplementedError("legal_span: which pairs are no spans, and which are too long?")


def bm25(question: list[str], passages: list[list[str]], k1: float, b: float) -> np.ndarray:
    """How well each passage fits a question by the words that they share. (25 minutes, medium)

        sum over words w of the question of  log(1 + (N - n_w + 1/2) / (n_w + 1/2))  f / (f + k1 (1 - b + b |d| / mean |d|))

    N is the number of passages, n_w how many of them have w, f how often w stands in d, |d| how many words d has. A word
    that stands in the question twice counts twice.

    Args:
        question: its words. passages: the words of each.
        k1, b: how soon a word is said often enough, and how much long passages are held to account.
    Returns:
        [passages] floats.
    """
    raise NotImplementedError("bm25: count passages for n_w, words for f")


def answer_f1(predicted: list[str], truth: list[str]) -> float:
    """How much of an answer is right. (15 minutes, easy)

        precision = shared / len(predicted), recall = shared / len(truth), F1 = 2 precision recall / (precision + recall)

    A word that both have is shared as often as the one that has it less often.

    Args:
        predicted, truth: the words of two answers, neither empty.
    Returns:
        F1, which is 0.0 where nothing is shared.
    """
    raise NotImplementedError("answer_f1: how often do both have a word?")
