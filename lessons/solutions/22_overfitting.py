"""Solutions of lesson 22."""

import numpy as np


def fgm_change(slopes: np.ndarray, own: np.ndarray, strength: float) -> np.ndarray:
    """Padding first becomes zero, then the norm is over the two last axes."""
    slopes = np.where(own[..., None], slopes, 0.0)
    norms = np.sqrt((slopes**2).sum((1, 2), keepdims=True))
    return strength * slopes / np.where(norms > 0.0, norms, 1.0)


def smoothed(labels: np.ndarray, classes: int, smoothing: float) -> np.ndarray:
    """A mixture of the label and the uniform distribution."""
    return (1.0 - smoothing) * np.eye(classes)[labels] + smoothing / classes


def stop_early(losses: list, patience: int) -> tuple[int, int]:
    """As `training.loop.judge` does, one evaluation after the other."""
    best = 0
    for place, loss in enumerate(losses):
        if loss < losses[best]:
            best = place
        if place - best >= patience:
            return place, best
    return len(losses) - 1, best
