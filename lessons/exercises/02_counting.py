"""Exercises of lesson 02. Fill in the bodies, then run `minillm lessons check 02`."""

from collections.abc import Sequence

import numpy as np


def perplexity(log_probabilities: Sequence[np.ndarray]) -> float:
    """Perplexity of a model on several documents together. (10 minutes, easy)

    Every token counts the same, whatever document it stands in.

        perplexity([log([0.5, 0.5]), log([0.125])]) == 32 ** (1 / 3) = 3.17...

    Args:
        log_probabilities: per document an array [tokens of the document] of log p(token | the tokens before it), in nats.
    Returns:
        exp of the mean negative log-probability per token; at least 1, without a unit.
    """
    raise NotImplementedError("perplexity: add up over all tokens first, then divide, then exp")


def add_k_bigram(counts: np.ndarray, k: float) -> np.ndarray:
    """Bigram probabilities with add-k smoothing: as if every pair had been seen k more times. (15 minutes, medium)

        add_k_bigram(np.array([[0, 2], [0, 0]]), k=1) == [[0.25, 0.75], [0.5, 0.5]]

    Args:
        counts: [vocabulary, vocabulary] of integers: counts[h, w] is how often token w followed token h. Left unchanged.
        k: above 0.
    Returns:
        [vocabulary, vocabulary]: entry [h, w] is p(w | h); every row sums to 1, also that of a token never seen.
    """
    raise NotImplementedError("add_k_bigram: add k to every count, then make every row sum to 1")
