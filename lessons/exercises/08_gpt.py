"""Exercises of lesson 08. Fill in the bodies, then run `minillm lessons check 08`."""

import numpy as np


def shift_targets(tokens: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """A padded batch of texts -> what the causal objective reads. (10 minutes, easy)

    Position t sees tokens 0 ... t and predicts token t + 1. A target counts only if it is a real token.

        shift_targets([[5, 6, 7, 0]], [3]) == {"tokens": [[5, 6, 7]], "targets": [[6, 7, 0]], "weights": [[1, 1, 0]]}

    Args:
        tokens: ids [batch, length] int32, padded on the right. The padding is 0, but 0 may be a real token too.
        lengths: real tokens of each row [batch] int32, at least 1.
    Returns:
        "tokens" and "targets" [batch, length - 1] int32, "weights" [batch, length - 1] float32, 1 or 0.
    """
    raise NotImplementedError("shift_targets: cut one token from each end, then decide which targets are real")


def nucleus(probabilities: np.ndarray, p: float) -> np.ndarray:
    """Top-p: keeps the most likely tokens and renormalises. (20 minutes, medium)

    The nucleus is the smallest set of most likely tokens whose probabilities sum to at least p; all others get 0.

        nucleus([0.5, 0.1, 0.25, 0.15], 0.6) == [2/3, 0, 1/3, 0]

    Args:
        probabilities: of every token [vocabulary], in no order, their sum is 1 and no two are equal.
        p: above 0, at most 1.
    Returns:
        Probabilities [vocabulary] in the order of the argument, with sum 1.
    """
    raise NotImplementedError("nucleus: rank the tokens, add from the top, stop at the token that reaches p")
