"""Do vectors lie beside vectors of their class? Each held-out text asks for its nearest training text, by cosine.

The share whose nearest neighbour has their label judges sentence embeddings by labels that no training has seen; it is a
nearest-neighbour classifier (Cover and Hart 1967) that nothing was fitted for.
"""

from typing import Any

import numpy as np

BLOCK = 512  # held-out rows at once


def nearest_accuracy(vectors: Any, labels: np.ndarray, held_out: Any, held_out_labels: np.ndarray) -> float:
    """vectors, held_out [texts, features], dense or sparse; a vector of zeros is nearest to the first text."""
    vectors, held_out = _unit(vectors), _unit(held_out)
    labels, right = np.asarray(labels), 0
    for start in range(0, held_out.shape[0], BLOCK):
        cosines = held_out[start : start + BLOCK] @ vectors.T
        nearest = np.asarray(cosines.argmax(1)).reshape(-1)
        right += int((labels[nearest] == np.asarray(held_out_labels)[start : start + BLOCK]).sum())
    return right / held_out.shape[0]


def _unit(vectors: Any) -> Any:
    """Rows of length 1."""
    if hasattr(vectors, "tocsr"):
        lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(1)).reshape(-1, 1))
        return vectors.multiply(1.0 / np.maximum(lengths, 1e-12)).tocsr()
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
