"""Exercises of lesson 24. Fill in the bodies, then run `minillm lessons check 24`."""

import numpy as np


def rows_of_step(counts: list[int], temperature: float, size: int, step: int) -> list[int]:
    """How many rows of each task a step reads, so that no task is ever a whole row behind its share. (20 minutes, medium)

        p_k = n_k^(1/T) / sum over j of n_j^(1/T);   after t steps task k has read floor(p_k size t) rows

    Args:
        counts: examples n_k of each task.
        temperature: T; 1 mixes in proportion to the examples.
        size: rows of a step, over all tasks (the floors may leave a row or two out).
        step: from 0.
    Returns:
        the rows of each task in this very step.
    """
    raise NotImplementedError("rows_of_step: read after the step, less read before it")


def fisher_diagonal(features: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The diagonal of the Fisher information of softmax regression, p = softmax(x W). (20 minutes, medium)

        F = mean over x of  sum_y p(y | x) (d log p(y | x) / d W)^2

    Args:
        features: [rows, inputs], the x.
        kernel: [inputs, classes], the W.
    Returns:
        [inputs, classes], one number per weight.
    """
    raise NotImplementedError("fisher_diagonal: d log p_y / d W[i, c] = x_i (1[c = y] - p_c); the sum over y is short")


def backward_transfer(matrix: np.ndarray) -> float:
    """What learning the later tasks did to the earlier ones. (10 minutes, easy)

    Args:
        matrix: [tasks, tasks], R[i, j] is the accuracy on task j after learning task i.
    Returns:
        the mean over all tasks but the last of: accuracy at the end, less accuracy right after learning it.
    """
    raise NotImplementedError("backward_transfer: the last row, the diagonal, and which task does not count")
