"""Solutions of lesson 29."""

import numpy as np


def stack_kernels(tensors: dict, name: str, layers: int) -> np.ndarray:
    """By number, not in the file's order, in which 10 stands before 2."""
    return np.stack([np.asarray(tensors[name.format(layer)]).T for layer in range(layers)])


def evidence(left: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """In float64: sums of many float32 products lose digits."""
    a, b = (np.asarray(array, np.float64).ravel() for array in (left, right))
    cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return cosine, cosine * len(a) ** 0.5


def shared_mistakes(truth: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    """The denominator is what both get wrong."""
    truth, left, right = map(np.asarray, (truth, left, right))
    both = (left != truth) & (right != truth)
    return float((left == right)[both].mean()) if both.any() else 0.0
