"""Answers judged as SQuAD judges them.

Rajpurkar et al. 2016, section 6.1: exact match after lower case, without punctuation and the articles a, an and the; and F1,

    precision = shared / predicted, recall = shared / true, F1 = 2 precision recall / (precision + recall),

over the tokens that two answers share, as often as both have them. Where there are several true answers the best one
counts. Tokens are words between spaces, and single characters of Chinese and Japanese.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = frozenset(string.punctuation) | frozenset("，。、；：？！“”‘’（）《》〈〉「」『』【】…—·～")
TOKEN = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\\s\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")


class Answer(NamedTuple):
    """An answer and the character of the passage that it begins with; probability: None where there is none."""

    text: str
    start: int
    probability: float | None = None


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and superfluous blanks."""
    bare = "".join(character for character in text.lower() if character not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", bare).split())


def tokens(text: str) -> list[str]:
    """What is left, as words; Chinese and Japanese as characters."""
    return TOKEN.findall(normalise(text))


def exact_match(predicted: str, truths: Sequence[str]) -> float:
    """1.0 where the prediction is one of the true answers, else 0.0."""
    return float(normalise(predicted) in [normalise(truth) for truth in truths])


def overlap_f1(predicted: str, truths: Sequence[str]) -> float:
    """F1 over tokens with the true answer that is closest; two answers without any token are equal."""
    return max(_overlap_f1(Counter(tokens(predicted)), Counter(tokens(truth))) for truth in truths)


def _overlap_f1(predicted: Counter, truth: Counter) -> float:
    if not predicted or not truth:
        return float(predicted == truth)
    shared = (predicted & truth).total()
    return 2.0 * shared / (predicted.total() + truth.total())


def score(predicted: Sequence[str], truths: Sequence[Sequence[str]]) -> Float64[np.ndarray, "questions 2"]:
    """Exact match and F1 of each question."""
    pairs = zip(predicted, truths, strict=True)
    return np.array([(exact_match(found, true), overlap_f1(found, true)) for found, true in pairs]).reshape(-1, 2)
