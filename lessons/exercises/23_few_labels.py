"""Exercises of lesson 23. Fill in the bodies, then run `minillm lessons check 23`."""

import numpy as np


def keep_sure(probabilities: np.ndarray, share: float) -> np.ndarray:
    """Which of a teacher's answers a student should learn: of each answered class the surest. (15 minutes, easy)

    Args:
        probabilities: [texts, classes], each row adding up to 1; no two answers are equally sure.
        share: of the texts answered with a class, round(share * count) are kept.
    Returns:
        [texts] booleans, True where the answer is kept.
    """
    raise NotImplementedError("keep_sure: class by class, or the classes that the teacher is shy of go empty")


def suspects(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Confident learning: which labels does a model contradict with confidence? (20 minutes, medium)

        t_j = mean of p(j | x) over the texts labelled j

    A class j is likely for a text where p(j | x) >= t_j. A label is suspected where some class is likely, and the
    likeliest (by p) of those is not the label.

    Args:
        labels: [texts] integers; every class has a text.
        probabilities: [texts, classes], by models that have not seen the text's label.
    Returns:
        [texts] booleans, True where the label is suspected.
    """
    raise NotImplementedError("suspects: a threshold per class first, from the texts that carry its label")


def contrast(vectors: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """The supervised contrastive loss of a batch. (25 minutes, medium)

        L_i = - mean over p in P(i) of  log  exp(z_i z_p / t) / sum over a != i of exp(z_i z_a / t)

    P(i) are the other texts with the label of i. The loss is the mean of L_i over the texts that have such a partner.

    Args:
        vectors: [texts, size], each of length 1.
        labels: [texts] integers; at least one text has a partner.
        temperature: t.
    Returns:
        the loss, a number.
    """
    raise NotImplementedError("contrast: no text is its own partner, nor one of its own rivals")
