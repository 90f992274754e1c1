"""Exercises of lesson 19. Fill in the bodies, then run `minillm lessons check 19`."""

import numpy as np


def head_gradient(features: np.ndarray, labels: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> tuple:
    """The whole gradient of a model whose base is frozen. (15 minutes, easy)

        scores = features W + b        p = softmax(scores)        L = - mean over rows i of  log p_i[y_i]

    Args:
        features: what the frozen base makes of the texts, [rows, width].
        labels: the classes [rows], as integers.
        kernel: W [width, classes]. bias: b [classes].
    Returns:
        dL/dW [width, classes] and dL/db [classes].
    """
    raise NotImplementedError("head_gradient: softmax, less the one-hot labels, over the rows; then through features")


def multipliers(layers: int, decay: float, every: int, step: int) -> np.ndarray:
    """How fast each part of the model learns at a step. (15 minutes, medium)

    The head learns at the full rate, the top block `decay` times as fast, the block below it decay^2 times, and so on down
    to the embedding. And the model thaws from the top: the head learns from step 0 on, the top block from step `every`
    on, the block below it from step 2 * every on, and so on. What is still frozen has multiplier 0.

        multipliers(layers=2, decay=0.5, every=10, step=25) == [0, 0.25, 0.5, 1]

    Args:
        layers: how many blocks.
        decay: in (0, 1]; 1 is one rate for all.
        every: steps from one part to the next; 0: all learn from the start.
        step: counts from 0.
    Returns:
        [layers + 2]: embedding, bottom block, ..., top block, head.
    """
    raise NotImplementedError("multipliers: count the depth from the top; when does a depth thaw?")


def joint_loss(shards: list, coefficients: dict) -> float:
    """The loss of several terms over a batch that was too large and came in shards. (20 minutes, medium)

        L = sum over terms of  coefficient * mean of the term over the whole batch

    Args:
        shards: one dict per shard, all with the same terms: {term: (sum of its losses, how many targets these were)}.
        coefficients: {term: factor}; a term that is not named counts once.
    Returns:
        a number. A term without a target in any shard adds 0.
    """
    raise NotImplementedError("joint_loss: add over the shards first, then divide each term by its own number")
