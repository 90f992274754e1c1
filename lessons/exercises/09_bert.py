"""Exercises of lesson 09. Fill in the bodies, then run `minillm lessons check 09`."""

import numpy as np


def corrupt(tokens: np.ndarray, chosen: np.ndarray, draw: np.ndarray, other: np.ndarray, mask: int) -> tuple:
    """BERT's corruption, with all chance drawn beforehand. (15 minutes, easy)

    A chosen token becomes the mask token where draw < 0.8, the token of `other` where 0.8 <= draw < 0.9, and else it
    stays. A token that was not chosen stays. All chosen tokens are targets, whatever became of them.

        corrupt([[5, 6, 7, 8]], [[True, True, False, True]], [[0.3, 0.85, 0.1, 0.95]], [[9, 9, 9, 9]], 4)
            == ([[4, 9, 7, 8]], [[5, 6, 0, 8]], [[1, 1, 0, 1]])

    Args:
        tokens, other: ids [batch, length] int32.
        chosen: [batch, length] booleans; True: this token is to be predicted.
        draw: [batch, length] random numbers in [0, 1).
        mask: id of the mask token.
    Returns:
        the new tokens, the targets (0 where nothing is predicted), the weights (1 or 0), each [batch, length].
    """
    raise NotImplementedError("corrupt: three cases for a chosen token, and targets that remember what was there")


def masked_loss(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    """The masked-LM loss of a batch. (15 minutes, easy)

        L = - sum over masked t of  log softmax(scores_t)[target_t]  /  number of masked t

    Args:
        scores: [batch, length, vocabulary] floats, possibly large.
        targets: ids [batch, length], 0 where nothing is masked (0 may also be a real target).
        weights: [batch, length], 1 where a token is masked, else 0; at least one is 1.
    Returns:
        nats per masked token.
    """
    raise NotImplementedError("masked_loss: log-softmax over the vocabulary, pick the targets, average over the masked")
