"""Solutions of lesson 28."""

import numpy as np


def nucleus(probabilities: np.ndarray, share: float) -> np.ndarray:
    """A token stays where those before it, in order of likelihood, do not yet reach the share."""
    order = np.argsort(-probabilities)
    before = np.cumsum(probabilities[order]) - probabilities[order]
    kept = np.zeros_like(probabilities)
    kept[order] = np.where(before < share, probabilities[order], 0.0)
    return kept / kept.sum()


def distinct(replies: list, n: int) -> float:
    """One list over all replies, one set of it."""
    found = []
    for reply in replies:
        words = reply.split()
        found += [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(found)) / max(len(found), 1)
