"""Linear probes: what a simple classifier can read off features that are not trained for it.

Alain and Bengio 2016. Ridge regression onto one-hot labels has a closed form, so that a probe has no optimizer to tune:

    W = argmin |X W - Y|^2 + penalty |W|^2        X standardised, with a column of ones that is not penalised
"""

from collections.abc import Sequence

import numpy as np

PENALTIES = tuple(10.0**power for power in range(-1, 6))


def ridge_probe(
    train: np.ndarray, labels: Sequence[int], test: np.ndarray, test_labels: Sequence[int], penalties=PENALTIES
) -> dict[str, float]:
    """{"accuracy" on the test rows, "penalty"}: the penalty that is best on each fifth training row, fitted on the rest.

    train, test: [rows, features].
    """
    labels, test_labels = np.asarray(labels), np.asarray(test_labels)
    held_out = np.arange(len(labels)) % 5 == 0
    tried = [
        _accuracy(fit_ridge(train[~held_out], labels[~held_out], penalty), train[held_out], labels[held_out])
        for penalty in penalties
    ]
    best = penalties[int(np.argmax(tried))]
    return {"accuracy": _accuracy(fit_ridge(train, labels, best), test, test_labels), "penalty": best}


def fit_ridge(features: np.ndarray, labels: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, deviation, weights [features + 1, classes]) of the classifier; a feature that never varies counts nothing."""
    mean, deviation = features.mean(0), features.std(0)
    rows = _with_ones((features - mean) / np.maximum(deviation, 1e-8))
    targets = np.eye(labels.max() + 1)[labels]
    shrink = penalty * np.eye(rows.shape[1])
    shrink[-1, -1] = 0.0
    return mean, deviation, np.linalg.solve(rows.T @ rows + shrink, rows.T @ targets)


def _accuracy(fitted: tuple, features: np.ndarray, labels: np.ndarray) -> float:
    mean, deviation, weights = fitted
    scores = _with_ones((features - mean) / np.maximum(deviation, 1e-8)) @ weights
    return float((scores.argmax(1) == labels).mean())


def _with_ones(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
