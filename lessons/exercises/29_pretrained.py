"""Exercises of lesson 29. Fill in the bodies, then run `minillm lessons check 29`."""

import numpy as np


def stack_kernels(tensors: dict, name: str, layers: int) -> np.ndarray:
    """The kernels of one place in all layers, from a file of torch's to our table. (15 minutes, medium)

    torch computes y = x W^T + b and keeps W as [outputs, inputs]; we compute y = x K + b.

        stack_kernels({"layer.0.dense.weight": [[1, 2, 3], [4, 5, 6]]}, "layer.{}.dense.weight", 1)
            == [[[1, 4], [2, 5], [3, 6]]]

    Args:
        tensors: name -> array [outputs, inputs]; the file lists its names in alphabetical order.
        name: the tensor's name, with {} in place of the layer's number; numbers begin at 0.
        layers: how many layers there are, 12 for example.
    Returns:
        [layers, inputs, outputs], in the order of the layers.
    """
    raise NotImplementedError("stack_kernels: name.format(layer) for each layer, and inputs before outputs")


def evidence(left: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """How alike two tensors are, and how surprising that is. (10 minutes, easy)

        cosine = sum of left * right / (|left| |right|), over all numbers as one long vector
        deviations = cosine / (1 / sqrt(n)), n how many numbers a tensor has: what chance would reach is about 1

        evidence([[3, 4]], [[4, 3]]) == (0.96, 1.358)

    Args:
        left, right: floats of one shape, with any number of axes; neither is all zero.
    Returns:
        (cosine, deviations)
    """
    raise NotImplementedError("evidence: ravel both, one cosine of all numbers, then times the square root of n")


def shared_mistakes(truth: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    """Of the examples that both classifiers get wrong: on which share do they say the same? (10 minutes, easy)

    Two good classifiers agree wherever both are right, whoever made them. That proves nothing, so it is left out.

        shared_mistakes([0, 1, 2, 0], [0, 2, 1, 2], [0, 2, 0, 0]) == 0.5      (both are wrong on the second and the third)

    Args:
        truth, left, right: classes [examples]; what is true, and what each of the two says.
    Returns:
        a share between 0 and 1; 0.0 where there is no example that both get wrong.
    """
    raise NotImplementedError("shared_mistakes: first find the examples that both get wrong, then compare there alone")
