"""Exercises of lesson 10. Fill in the bodies, then run `minillm lessons check 10`."""

import numpy as np


def choose_trigrams(free: np.ndarray, order: np.ndarray, count: int) -> list[int]:
    """Which trigrams of a row to shuffle. (20 minutes, medium)

    Goes through the places in the given order. A trigram that starts at place p takes p, p + 1 and p + 2; it is chosen
    if all three lie in the row, all three are free, and none belongs to a trigram chosen before. Stops at `count`.

        choose_trigrams([True] * 8, [2, 4, 5, 0, 1, 7, 3, 6], 3) == [2, 5]        # 4 overlaps 2; nothing else has room

    Args:
        free: [length] booleans; True: an ordinary token that is not masked.
        order: a permutation of 0 ... length - 1.
        count: how many to choose at most.
    Returns:
        The first places of the chosen trigrams, in the order of choice.
    """
    raise NotImplementedError("choose_trigrams: a loop over `order`, with three reasons to pass a place by")


def shuffle(tokens: np.ndarray, starts: list[int], orders: list[tuple[int, int, int]]) -> tuple:
    """StructBERT's corruption of one row, with all chance drawn beforehand. (15 minutes, medium)

    The trigram at starts[k], (x_0, x_1, x_2), becomes (x_i, x_j, x_k) with (i, j, k) = orders[k]. All three places
    are predicted, also one whose token happens to stand where it stood.

        shuffle([5, 6, 7, 8, 9], [1], [(2, 0, 1)]) == ([5, 8, 6, 7, 9], [0, 6, 7, 8, 0], [0, 1, 1, 1, 0])

    Args:
        tokens: ids [length] int32.
        starts: first places of trigrams that do not overlap.
        orders: one per trigram, a permutation of (0, 1, 2).
    Returns:
        the new tokens, the targets (0 where nothing is predicted), the weights (1 or 0), each [length].
    """
    raise NotImplementedError("shuffle: read the trigram from the old row, write it into a copy")
