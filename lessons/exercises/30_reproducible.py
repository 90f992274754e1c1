"""Exercises of lesson 30. Fill in the bodies, then run `minillm lessons check 30`."""

from collections.abc import Sequence

import numpy as np

T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # T95[n - 2] is the factor for n values, 2 to 10


def batch_indices(seed: int, step: int, batch_size: int, examples: int) -> np.ndarray:
    """Which examples the batch of a step holds, as a pure function. (20 minutes, medium)

    Every epoch goes over all examples once, in an order of its own that (seed, epoch) alone decides. An epoch has
    examples // batch_size whole batches; what is left over at its end waits for another epoch's order. The answer may
    not depend on earlier calls, and a call may not disturb anybody else's random numbers.

    Args:
        seed: at least 0.
        step: from 0 on; it belongs to epoch step // (examples // batch_size).
        batch_size: at most `examples`.
        examples: how many there are, numbered from 0.
    Returns:
        [batch_size] integers, no two equal.
    """
    raise NotImplementedError("batch_indices: which epoch is it, which order has that epoch, which part is this batch?")


def mean_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of a result over seeds, and its 95 % interval. (10 minutes, easy)

        mean_and_interval([1.0, 2.0, 3.0]) == (2.0, -0.484, 4.484)        4.303 * 1 / sqrt(3) = 2.484

    Args:
        values: one number per seed, 2 to 10 of them.
    Returns:
        mean, lower end, upper end: mean -+ t s / sqrt(n), with s the standard deviation of a sample (n - 1) and t from T95.
    """
    raise NotImplementedError("mean_and_interval: mean, then s with n - 1, then t for n values")


def judge_winner(
    chosen_on: Sequence[Sequence[float]], judged_on: Sequence[Sequence[float]]
) -> tuple[int, float, float]:
    """The best of many settings, and how good it is on seeds that it was not chosen by. (15 minutes, medium)

        judge_winner([[0.5, 0.7], [0.4, 0.6], [0.3, 0.9]], [[0.6, 0.6], [0.7, 0.5], [0.5, 0.5]]) == (1, 0.5, 0.6)

    Args:
        chosen_on: [settings, seeds], losses (lower is better) of the seeds that settings are chosen by.
        judged_on: [settings, other seeds], losses of the same settings with seeds that had no part in the choice.
    Returns:
        index of the setting with the lowest mean loss, that mean, and its mean on the other seeds.
    """
    raise NotImplementedError("judge_winner: a mean per setting, the lowest one, then what other seeds say of it")
