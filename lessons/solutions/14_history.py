"""Solutions of lesson 14."""

from collections.abc import Sequence

import numpy as np


def bits_per_character(losses: np.ndarray, weights: np.ndarray, texts: Sequence[str]) -> float:
    """All nats over ln 2 are the bits of a code for all texts; it is shared out over their characters."""
    nats = np.where(np.asarray(weights) > 0, losses, 0.0).sum()
    return float(nats / np.log(2.0) / sum(len(text) for text in texts))


def steps_for_budget(budget: float, size: dict[str, int], batch: int, length: int) -> int:
    """Forward, a weight in a kernel costs 2 FLOPs per token, and attention 4 per key and width; backward twice both."""
    width, layers = size["width"], size["layers"]
    weights = layers * (4 * width**2 + 2 * width * size["hidden"]) + width * size["vocabulary"]
    forward = (2 * weights + 4 * layers * width * length) * batch * length
    return max(round(budget / (3 * forward)), 1)
