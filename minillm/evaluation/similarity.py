"""Which known vectors lie nearest to others, and do vectors lie beside vectors of their class?

The share of held-out texts whose nearest training text, by cosine, has their label judges sentence embeddings by labels
that no training has seen; it is a nearest-neighbour classifier (Cover and Hart 1967) that nothing was fitted for.
"""

from typing import Any

import numpy as np
from jaxtyping import Int
from scipy import sparse

BLOCK = 512  # asked rows at once


def nearest(known: Any, asked: Any, count: int = 1) -> Int[np.ndarray, "asked count"]:
    """For each asked row the places of the `count` known ones with the greatest dot product, the nearest first.

    Rows [_, features] are dense or sparse; those of length 1 are compared by their cosine. Ties go to the first.
    """
    found = [np.zeros((0, count), np.intp)]
    for start in range(0, asked.shape[0], BLOCK):
        products = asked[start : start + BLOCK] @ known.T
        products = products.toarray() if sparse.issparse(products) else np.asarray(products)
        best = products.argmax(1)[:, None] if count == 1 else np.argsort(-products, axis=1, kind="stable")[:, :count]
        found.append(best)
    return np.concatenate(found)


def nearest_accuracy(vectors: Any, labels: np.ndarray, held_out: Any, held_out_labels: np.ndarray) -> float:
    """vectors, held_out [texts, features], dense or sparse; a vector of zeros is nearest to the first text."""
    places = nearest(_unit(vectors), _unit(held_out))[:, 0]
    return float((np.asarray(labels)[places] == np.asarray(held_out_labels)).mean())


def _unit(vectors: Any) -> Any:
    """Rows of length 1."""
    if hasattr(vectors, "tocsr"):
        lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(1)).reshape(-1, 1))
        return vectors.multiply(1.0 / np.maximum(lengths, 1e-12)).tocsr()
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
