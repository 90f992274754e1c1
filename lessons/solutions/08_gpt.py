"""Solutions of lesson 08."""

import numpy as np


def shift_targets(tokens: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Inputs without the last token, targets without the first, weight 1 where target t + 1 lies inside the text."""
    tokens, lengths = np.asarray(tokens), np.asarray(lengths)
    place = np.arange(1, tokens.shape[1])  # of each target in its text
    weights = (place < lengths[:, None]).astype(np.float32)
    return {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "weights": weights}


def nucleus(probabilities: np.ndarray, p: float) -> np.ndarray:
    """A token stays while the sum of those before it has not reached p, so the token that crosses p stays too."""
    probabilities = np.asarray(probabilities)
    order = np.argsort(-probabilities)
    ranked = probabilities[order]
    before = np.cumsum(ranked) - ranked
    kept = np.zeros_like(probabilities)
    kept[order] = np.where(before < p, ranked, 0.0)
    return kept / kept.sum()
