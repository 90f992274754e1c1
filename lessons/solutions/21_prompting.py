"""Solutions of lesson 21."""

import numpy as np


def word_score(logits: np.ndarray, prompt: int, word: list) -> float:
    """The place before each token speaks about it; the softmax runs over the whole vocabulary."""
    rows = logits[prompt - 1 : prompt - 1 + len(word)]
    rows = rows - rows.max(axis=1, keepdims=True)
    logs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return float(sum(logs[place, token] for place, token in enumerate(word)))


def calibrate(scores: np.ndarray, content_free: np.ndarray) -> np.ndarray:
    """Probabilities first, then their mean, then the quotient, then rows that sum to 1."""

    def softmax(rows):
        raised = np.exp(rows - rows.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)

    quotient = softmax(scores) / softmax(content_free).mean(axis=0)
    return quotient / quotient.sum(axis=1, keepdims=True)
