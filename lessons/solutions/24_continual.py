"""Solutions of lesson 24."""

import numpy as np


def rows_of_step(counts: list[int], temperature: float, size: int, step: int) -> list[int]:
    """The floors differ by what the step reads."""
    raised = np.asarray(counts, float) ** (1.0 / temperature)
    shares = raised / raised.sum()
    before, after = (np.floor(shares * size * done) for done in (step, step + 1))
    return [int(rows) for rows in after - before]


def fisher_diagonal(features: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """sum_y p_y (1[c = y] - p_c)^2 = p_c (1 - p_c): the variance of a coin that shows c."""
    scores = features @ kernel
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    p = odds / odds.sum(axis=1, keepdims=True)
    return (features**2).T @ (p * (1.0 - p)) / len(features)


def backward_transfer(matrix: np.ndarray) -> float:
    """Below 0: it has forgotten."""
    return float((matrix[-1] - np.diag(matrix))[:-1].mean())
