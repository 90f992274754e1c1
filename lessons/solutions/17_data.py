"""Solutions of lesson 17."""

import hashlib

import numpy as np

from minillm.data.clean_labelled import fold


def macro_f1(labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
    """Counts per class; a class without any has 0 hits, so that dividing by 1 in place of 0 gives its 0."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    scores = []
    for name in range(classes):
        actual, predicted = labels == name, predictions == name
        scores.append(2 * (actual & predicted).sum() / max(actual.sum() + predicted.sum(), 1))
    return float(np.mean(scores))


def is_held_out(text: str, share: float, seed: int) -> bool:
    """The first eight bytes of the hash, as a number in [0, 1)."""
    digest = hashlib.sha256(f"{seed}\0{fold(text)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def paired_interval(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    """The difference of means is the mean of differences: one array is drawn from."""
    differences = (np.asarray(first) - np.asarray(second))[draws].mean(axis=1)  # [resamples]
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)
