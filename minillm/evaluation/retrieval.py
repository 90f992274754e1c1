"""Find the passages that a question is about: BM25 by shared words, and what a ranking is worth.

Robertson and Zaragoza 2009, "The probabilistic relevance framework: BM25 and beyond", equation 3.15, with the idf that is
never negative and without the constant factor k1 + 1, as in Lucene (Kamphuis et al. 2020):

    score(q, d) = sum over words w of q  log(1 + (N - n_w + 1/2) / (n_w + 1/2))  f / (f + k1 (1 - b + b |d| / mean length))

N passages, n_w of them with w, f the number of w in d. Words are lower case, without punctuation and articles; single characters in
Chinese and Japanese.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.stats import rankdata

from minillm.evaluation.answers import tokens
from minillm.evaluation.intervals import bootstrap

K1, B = 1.2, 0.75


class Index(NamedTuple):
    """Passages, counted. weights [passages, words]: what a word of a question adds to a passage's score."""

    words: dict[str, int]
    weights: sparse.csr_matrix


def build(passages: Sequence[str], k1: float = K1, b: float = B) -> Index:
    """The index of some passages, at least one of which has a word."""
    words: dict[str, int] = {}
    found = [[words.setdefault(word, len(words)) for word in tokens(passage)] for passage in passages]
    rows = np.repeat(np.arange(len(found)), [len(row) for row in found])
    columns = np.array([word for row in found for word in row], np.int64)
    counts = sparse.csr_matrix(
        (np.ones(len(rows)), (rows, columns)), shape=(len(found), len(words))
    )  # adds equal places
    lengths, having = np.asarray(counts.sum(1)).ravel(), np.bincount(counts.indices, minlength=len(words))
    inverse = np.log1p((len(found) - having + 0.5) / (having + 0.5))
    norm = k1 * (1.0 - b + b * lengths / max(lengths.mean(), 1e-9))
    table = counts.tocoo()
    weights = inverse[table.col] * table.data / (table.data + norm[table.row])
    return Index(words, sparse.csr_matrix((weights, (table.row, table.col)), shape=table.shape))


def bm25(index: Index, questions: Sequence[str]) -> Float[np.ndarray, "questions passages"]:
    """Scores; a word that a question has twice counts twice, one that no passage has counts nothing."""
    found = [[index.words[word] for word in tokens(question) if word in index.words] for question in questions]
    rows = np.repeat(np.arange(len(found)), [len(row) for row in found])
    columns = np.array([word for row in found for word in row], np.int64)
    asked = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(found), len(index.words)))
    return (asked @ index.weights.T).toarray()


def ranks(
    scores: Float[np.ndarray, "questions passages"], right: Int[np.ndarray, "questions"]
) -> Int[np.ndarray, "questions"]:
    """The place of each question's passage, from 1; among equal scores it comes last, so that scoring nothing wins nothing."""
    own = scores[np.arange(len(right)), right]
    return (scores >= own[:, None]).sum(1)


def judge(places: Int[np.ndarray, "questions"], depths: Sequence[int] = (1, 5, 10)) -> dict[str, dict[str, float]]:
    """Recall at each depth, and the mean reciprocal rank (Voorhees 1999), with bootstrap intervals over the questions."""
    table = {f"recall@{depth}": (places <= depth).astype(float) for depth in depths}
    table["mrr"] = 1.0 / places
    return bootstrap(
        lambda weights: {name: weights @ values / weights.sum(-1) for name, values in table.items()}, len(places)
    )


def reciprocal_fusion(*scores: Float[np.ndarray, "questions passages"], constant: float = 60.0) -> np.ndarray:
    """Several scorings as one: the sum of 1 / (constant + rank) of each (Cormack, Clarke and Buettcher 2009).

    Equal scores have the last rank of theirs, so that a scoring that finds nothing says nothing.
    """
    return sum(1.0 / (constant + rankdata(-table, "max", axis=1)) for table in scores)
