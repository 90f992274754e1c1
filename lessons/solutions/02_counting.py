"""Solutions of lesson 02."""

from collections.abc import Sequence

import numpy as np


def perplexity(log_probabilities: Sequence[np.ndarray]) -> float:
    """exp of the mean negative log-probability over all tokens of all documents."""
    nats = -sum(float(np.sum(document)) for document in log_probabilities)
    return float(np.exp(nats / sum(len(document) for document in log_probabilities)))


def add_k_bigram(counts: np.ndarray, k: float) -> np.ndarray:
    """p(w | h) = (c(h w) + k) / (c(h) + k V)."""
    smoothed = counts + k  # [previous, next]; a new array
    return smoothed / smoothed.sum(axis=1, keepdims=True)
