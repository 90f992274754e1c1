"""Solutions of lesson 10."""

import numpy as np


def choose_trigrams(free: np.ndarray, order: np.ndarray, count: int) -> list[int]:
    """What is taken is no longer free."""
    free, chosen = np.array(free), []  # a copy
    for start in map(int, order):
        trigram = slice(start, start + 3)
        if len(chosen) < count and start + 3 <= len(free) and free[trigram].all():
            chosen.append(start)
            free[trigram] = False
    return chosen


def shuffle(tokens: np.ndarray, starts: list[int], orders: list[tuple[int, int, int]]) -> tuple:
    """Sources from the old row, into a copy; targets and weights over all three places."""
    tokens = np.asarray(tokens)
    new, targets, weights = tokens.copy(), np.zeros_like(tokens), np.zeros(len(tokens), np.float32)
    for start, order in zip(starts, orders, strict=True):
        trigram = slice(start, start + 3)
        new[trigram] = tokens[trigram][list(order)]
        targets[trigram] = tokens[trigram]
        weights[trigram] = 1.0
    return new, targets, weights
