"""Exercises of lesson 17. Fill in the bodies, then run `minillm lessons check 17`."""

import numpy as np


def macro_f1(labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
    """The mean of F1 over all classes. (15 minutes, easy)

        F1 of class c = 2 hits / (predicted as c + actually c), or 0 where both counts are 0

    A class that neither labels nor predictions hold counts too, with its 0: who names `classes` wants to see them all.

        macro_f1([0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1], classes=3) == (2/3 + 8/9 + 0) / 3 == 0.5185...

    Args:
        labels, predictions: classes from 0 to classes - 1, [examples] each.
        classes: how many there are.
    Returns:
        a number from 0 to 1.
    """
    raise NotImplementedError("macro_f1: three counts per class, one F1 per class, one mean")


def is_held_out(text: str, share: float, seed: int) -> bool:
    """Whether a text belongs to the held-out part, decided by the text alone. (20 minutes, medium)

    No list of documents is needed, and a text keeps its place when others are added. Each text is held out with a chance of
    `share`, which a hash of seed and text plays: sha256 gives the same bytes on every machine, and they look like chance.
    Copies, also those with other case, width, blanks and punctuation, must get the same answer:

        from minillm.data.clean_labelled import fold   # fold("Ｇｏｏｄ !") == fold("good") == "good"

    Args:
        text: a document.
        share: above 0 and below 1, such as 0.1.
        seed: another seed, another split.
    Returns:
        True for about `share` of all texts.
    """
    raise NotImplementedError("is_held_out: fold, hash with the seed, turn the hash into a number in [0, 1), compare")


def paired_interval(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    """The 95 % bootstrap interval of accuracy(first) - accuracy(second), on the same test. (20 minutes, medium)

    Each draw says which examples are in the test now: *both* systems are judged on them, so that what is hard for both
    cancels. If the interval does not hold 0, the difference is more than the luck of these examples.

    Args:
        first, second: 1.0 where a system is right, 0.0 where it is wrong, [examples] each, in the same order.
        draws: indices of examples, drawn with replacement, [resamples, examples]. All chance is in here.
    Returns:
        low, high: the quantiles 0.025 and 0.975 (np.quantile) of the difference over the draws.
    """
    raise NotImplementedError("paired_interval: one difference of accuracies per draw, then two quantiles")
