"""Exercises of lesson 14. Fill in the bodies, then run `minillm lessons check 14`."""

from collections.abc import Sequence

import numpy as np


def bits_per_character(losses: np.ndarray, weights: np.ndarray, texts: Sequence[str]) -> float:
    """What a left-to-right model pays for each character of some texts. (10 minutes, easy)

    The model predicted every token of every text and its end, in nats; rows are padded.

        bits_per_character([[2.6] * 8], [[1.0] * 8], ["a text of 20 letters"]) == 2.6 * 8 / ln 2 / 20 == 1.5004...

    Args:
        losses: nats of each target [texts, length]; behind a text's end they mean nothing.
        weights: 1 for a target, 0 for padding [texts, length].
        texts: the raw texts, one per row. A character is what `len` counts.
    Returns:
        Bits per character of all the texts together.
    """
    raise NotImplementedError("bits_per_character: add up the nats of all targets, then change both units")


def steps_for_budget(budget: float, size: dict[str, int], batch: int, length: int) -> int:
    """How many training steps of a GPT a budget of compute buys. (20 minutes, medium)

    A step costs 6 N D + 12 layers width keys D FLOPs. N counts the weights that are in matrix products: per layer four
    attention kernels [width, width] and two feed-forward kernels [width, hidden], and the head [width, vocabulary] once.
    D are the tokens of the step. Every query meets every key of its window: keys = length.

        steps_for_budget(1e6, {"vocabulary": 10, "layers": 1, "width": 4, "hidden": 16}, 2, 8) == 35   # 1e6 / 28,416

    Args:
        budget: FLOPs of matrix products.
        size: "vocabulary", "layers", "width" and "hidden".
        batch, length: rows of a step, and tokens in each.
    Returns:
        The whole number of steps whose cost is nearest to the budget; a run has at least one.
    """
    raise NotImplementedError("steps_for_budget: count N, then the cost of a step, then divide")
