"""Exercises of lesson 22. Fill in the bodies, then run `minillm lessons check 22`."""

import numpy as np


def fgm_change(slopes: np.ndarray, own: np.ndarray, strength: float) -> np.ndarray:
    """The change of the embeddings that the fast gradient method makes. (20 minutes, medium)

        r_i = strength * g_i / |g_i|        |g_i|: the norm over all of example i's own tokens together

    Args:
        slopes: [examples, length, model], the slope of the loss by each embedding.
        own: [examples, length] booleans, False at padding, which must not change nor count.
        strength: the norm of each example's change.
    Returns:
        [examples, length, model]; zeros for an example whose slope is zero.
    """
    raise NotImplementedError("fgm_change: one norm per example, over its own tokens")


def smoothed(labels: np.ndarray, classes: int, smoothing: float) -> np.ndarray:
    """Targets of label smoothing. (10 minutes, easy)

        (1 - smoothing) at the label, and smoothing / classes more at every class, the label's own too

    Args:
        labels: [examples] integers from 0 to classes - 1.
        classes: how many there are.
        smoothing: from 0, plain labels, to 1.
    Returns:
        [examples, classes] floats, whose rows sum to 1.
    """
    raise NotImplementedError("smoothed: begin with np.eye(classes)[labels]")


def stop_early(losses: list, patience: int) -> tuple[int, int]:
    """Early stopping over the validation losses of a run, in order. (15 minutes, medium)

    Training ends after `patience` evaluations in a row without a new lowest loss, or with the last evaluation.

    Args:
        losses: validation losses, at least one; an equal loss is no new lowest one.
        patience: at least 1.
    Returns:
        (the place of the evaluation after which training ends, the place of the one whose parameters are kept).
    """
    raise NotImplementedError("stop_early: remember the lowest loss so far and how long ago it was")
