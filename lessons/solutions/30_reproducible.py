"""Solutions of lesson 30."""

from collections.abc import Sequence

import numpy as np

T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # T95[n - 2] is the factor for n values, 2 to 10


def batch_indices(seed: int, step: int, batch_size: int, examples: int) -> np.ndarray:
    """A generator of its own per (seed, epoch): no state outlives the call."""
    epoch, place = divmod(step, examples // batch_size)
    order = np.random.default_rng([seed, epoch]).permutation(examples)  # [seed + epoch] would mix up seeds and epochs
    return order[place * batch_size : (place + 1) * batch_size]


def mean_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean -+ t s / sqrt(n)."""
    values = np.asarray(values, np.float64)
    mean, half = values.mean(), T95[len(values) - 2] * values.std(ddof=1) / np.sqrt(len(values))
    return float(mean), float(mean - half), float(mean + half)


def judge_winner(
    chosen_on: Sequence[Sequence[float]], judged_on: Sequence[Sequence[float]]
) -> tuple[int, float, float]:
    """The other seeds take no part in the choice: their mean has only its own luck."""
    means = np.mean(chosen_on, axis=1)
    winner = int(np.argmin(means))
    return winner, float(means[winner]), float(np.mean(judged_on[winner]))
