"""Exercises of lesson 28. Fill in the bodies, then run `minillm lessons check 28`."""

import numpy as np


def nucleus(probabilities: np.ndarray, share: float) -> np.ndarray:
    """Top-p: the distribution that is left when only the most likely tokens may be drawn. (15 minutes, easy)

    Kept is the smallest set of most likely tokens whose probabilities sum to at least `share`; it is never empty.

    Args:
        probabilities: [vocabulary], in any order; they sum to 1, and no two are equal.
        share: p, above 0 and at most 1.
    Returns:
        [vocabulary] probabilities, 0 for what is left out, the others scaled so that they sum to 1.
    """
    raise NotImplementedError("nucleus: sort, add up, and mind the token that crosses the border")


def distinct(replies: list, n: int) -> float:
    """Different n-grams over all n-grams of all replies together. (10 minutes, easy)

    Args:
        replies: strings; their words stand between blanks. An n-gram never goes from one reply into the next.
        n: how many words side by side.
    Returns:
        a number from 0 to 1; 0 where no reply is long enough.
    """
    raise NotImplementedError("distinct: collect the n-grams of all replies, then count")
