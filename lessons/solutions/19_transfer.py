"""Solutions of lesson 19."""

import numpy as np


def head_gradient(features: np.ndarray, labels: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> tuple:
    """Softmax less one-hot, a row's share of the mean, then the chain rule."""
    scores = features @ kernel + bias
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    error = raised / raised.sum(axis=1, keepdims=True)
    error[np.arange(len(labels)), labels] -= 1.0
    error /= len(labels)
    return features.T @ error, error.sum(axis=0)


def multipliers(layers: int, decay: float, every: int, step: int) -> np.ndarray:
    """Depth 0 is the head, layers + 1 the embedding."""
    depth = np.arange(layers + 1, -1, -1)
    return np.where(step >= depth * every, decay ** depth.astype(float), 0.0)


def joint_loss(shards: list, coefficients: dict) -> float:
    """Sums and numbers are added before anything is divided."""
    loss = 0.0
    for term in shards[0]:
        total, count = (sum(shard[term][place] for shard in shards) for place in (0, 1))
        loss += coefficients.get(term, 1.0) * total / count if count else 0.0
    return loss
