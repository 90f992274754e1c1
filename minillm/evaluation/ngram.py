"""Interpolated Kneser-Ney n-grams over token ids: the classical baseline that a neural language model must beat.

For a context h of k - 1 tokens, h' the same without its oldest token, and c the counts of order k,

    P_k(w | h) = max(c(h w) - D_k, 0) / c(h)  +  D_k T(h) / c(h) * P_{k-1}(w | h')      if h was seen,
    P_k(w | h) = P_{k-1}(w | h')                                                        if it was not
    P_0(w)     = 1 / vocabulary
    D_k        = n1 / (n1 + 2 n2)      n1, n2: how many n-grams of order k have a count of one, of two

where T(h) is the number of distinct tokens after h and c(h) the sum of c(h w). At the highest order c counts
occurrences; below it c(g) is the continuation count, the number of distinct tokens seen before g. Order 1 alone is the
unigram model with absolute discounting. A document's first token (bos) is repeated as context to the left of the
document and is never itself scored, so the targets are exactly those of the neural model.

Kneser and Ney 1995, "Improved backing-off for m-gram language modeling"; Chen and Goodman 1998, "An empirical study of
smoothing techniques for language modeling", sections 2.6 (the estimate of D) and 2.7.

The tables are sorted integer keys, so that counting is one sort and scoring one binary search per order.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int64

from minillm.errors import UserError

FALLBACK_DISCOUNT = 0.5  # without n-grams of count one the estimate is 0 and unseen tokens would have probability 0


class NGram(NamedTuple):
    """A fitted model; entry k - 1 of every tuple belongs to order k (contexts of k - 1 tokens).

    Attributes:
        order: the longest n-gram's length.
        vocabulary: how many token ids there are; probabilities sum to 1 over all of them.
        discounts: D_k.
        contexts: sorted keys, oldest token * (number of contexts of order k - 1) + index of the context without it.
        backoffs: D_k T(h) / c(h), the probability that context h leaves to the lower order.
        grams: sorted keys, index of the context * vocabulary + token.
        probabilities: P_k of each of the grams, already interpolated.
    """

    order: int
    vocabulary: int
    discounts: tuple[float, ...]
    contexts: tuple[Int64[np.ndarray, "..."], ...]
    backoffs: tuple[Float64[np.ndarray, "..."], ...]
    grams: tuple[Int64[np.ndarray, "..."], ...]
    probabilities: tuple[Float64[np.ndarray, "..."], ...]


def _windows(document: Int[np.ndarray, "length"], order: int, vocabulary: int) -> Int64[np.ndarray, "targets order"]:
    """Every scored token with the order - 1 tokens before it, the document's first token repeated on the left."""
    document = np.asarray(document, np.int64)
    if document.ndim != 1 or document.size == 0:
        raise UserError(f"expected a list of token ids that starts with bos, got shape {document.shape}", "n-gram")
    if document.min() < 0 or document.max() >= vocabulary:
        found = f"{document.min()} to {document.max()}"
        raise UserError(f"expected token ids 0 to {vocabulary - 1}, got {found}", "n-gram", "use the run's tokenizer")
    if document.size == 1:
        return np.empty((0, order), np.int64)
    padded = np.concatenate([np.repeat(document[:1], order - 1), document[1:]])
    return np.lib.stride_tricks.sliding_window_view(padded, order)


def _find(table: Int64[np.ndarray, "rows"], keys: Int64[np.ndarray, "queries"]):
    """Index of each key in the sorted table and whether it is there; the index is only valid where it is."""
    index = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return index, table[index] == keys


def _discount(counts: Int64[np.ndarray, "grams"]) -> float:
    """D = n1 / (n1 + 2 n2), Chen and Goodman 1998, section 2.6."""
    ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
    return ones / (ones + 2 * twos) if ones else FALLBACK_DISCOUNT


def _count_contexts(windows: Int64[np.ndarray, "targets order"]) -> tuple[list[np.ndarray], np.ndarray]:
    """The sorted context keys of every order, and for each target the index of its longest context."""
    targets, order = windows.shape
    tables, index = [np.zeros(1, np.int64)], np.zeros(targets, np.int64)  # order 1: the one empty context
    for length in range(1, order):
        keys = windows[:, order - 1 - length] * len(tables[-1]) + index
        table, index = np.unique(keys, return_inverse=True)
        tables.append(table)
    return tables, index


def _count_grams(windows: Int64[np.ndarray, "targets order"], vocabulary: int):
    """The sorted context keys of every order; of every order the sorted n-gram keys and their counts."""
    contexts, index = _count_contexts(windows)
    counted = [np.unique(index * vocabulary + windows[:, -1], return_counts=True)]
    for length in range(windows.shape[1] - 1, 0, -1):  # continuation: distinct longer n-grams, oldest token dropped
        context, token = np.divmod(counted[0][0], vocabulary)
        shorter = contexts[length][context] % len(contexts[length - 1])
        counted.insert(0, np.unique(shorter * vocabulary + token, return_counts=True))
    return contexts, counted


def fit(documents: Sequence[Int[np.ndarray, "..."]], order: int, vocabulary: int) -> NGram:
    """Count the documents and interpolate all orders.

    Args:
        documents: token ids of each document, bos first and eos last.
        order: 1 for unigrams, 3 for trigrams, ...
        vocabulary: number of token ids.

    Raises:
        UserError: order below 1, no token to count, an id outside of the vocabulary.
    """
    if order < 1:
        raise UserError(f"expected an order of at least 1, got {order}", "n-gram", "use 1 for unigrams, 3 for trigrams")
    windows = [_windows(document, order, vocabulary) for document in documents]
    if not sum(len(rows) for rows in windows):
        raise UserError("no tokens to count", "n-gram", "add text to the training split")
    contexts, counted = _count_grams(np.concatenate(windows), vocabulary)
    discounts, backoffs, probabilities = [], [], []
    for k, (grams, counts) in enumerate(counted):
        context, token = np.divmod(grams, vocabulary)
        lower = 1.0 / vocabulary
        if k:
            shorter = contexts[k][context] % len(contexts[k - 1])
            lower = probabilities[k - 1][_find(counted[k - 1][0], shorter * vocabulary + token)[0]]
        discount, total = _discount(counts), np.bincount(context, weights=counts)
        backoff = discount * np.bincount(context) / total
        discounts.append(discount)
        backoffs.append(backoff)
        probabilities.append(np.maximum(counts - discount, 0.0) / total[context] + backoff[context] * lower)
    grams = tuple(keys for keys, _ in counted)
    return NGram(order, vocabulary, tuple(discounts), tuple(contexts), tuple(backoffs), grams, tuple(probabilities))


def log_probabilities(model: NGram, document: Int[np.ndarray, "length"]) -> Float64[np.ndarray, "length-1"]:
    """log P(token | the tokens before it) in nats, for every token of the document but its first (bos)."""
    windows = _windows(document, model.order, model.vocabulary)
    tokens = windows[:, -1]
    probability = np.full(len(tokens), 1.0 / model.vocabulary)
    index, seen = np.zeros(len(tokens), np.int64), np.ones(len(tokens), bool)
    for k in range(model.order):
        if k:  # a context is seen only if the context without its oldest token is
            keys = windows[:, model.order - 1 - k] * len(model.contexts[k - 1]) + index
            index, found = _find(model.contexts[k], keys)
            seen = seen & found
        row, counted = _find(model.grams[k], index * model.vocabulary + tokens)
        unseen_token = np.where(seen, model.backoffs[k][index] * probability, probability)
        probability = np.where(seen & counted, model.probabilities[k][row], unseen_token)
    return np.log(probability)


def negative_log_likelihood(model: NGram, documents: Sequence[Int[np.ndarray, "..."]]) -> tuple[float, int]:
    """Sum of -log P in nats over all scored tokens of the documents, and how many those are."""
    rows = [log_probabilities(model, document) for document in documents]
    return -float(sum(row.sum() for row in rows)), sum(len(row) for row in rows)
