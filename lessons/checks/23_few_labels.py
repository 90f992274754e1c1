"""Checks of lesson 23: they name the mistake, not only the failure."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array, close, parse
from minillm.course.contract import Mistake
from minillm.evaluation import noise
from minillm.objectives import contrastive

numbers = functools.partial(as_array, infinite="is something divided by 0, or the logarithm of 0 taken?")
RANDOM = np.random.default_rng(23)


def flags(value, count: int, name: str) -> np.ndarray:
    """A result of one boolean per text."""
    array = parse(value, name)
    if array.dtype.kind != "b" or array.shape != (count,):
        raise Mistake(f"{name} should be {count} booleans, one per text, got {type(value).__name__}")
    return array


# keep_sure

ANSWERS = RANDOM.dirichlet([3.0, 1.0, 0.6], 40)
KEPT = {
    "one ranking": "one ranking for all texts: the classes that the teacher is less sure of lose theirs; rank class by class",
    "least": "the least sure answers are kept: sort the other way",
    "threshold": "the share is used as a threshold of the probability: it is a share of the texts answered with a class",
}


def _keep(probabilities, share, slip=None):
    best, sure = probabilities.argmax(1), probabilities.max(1)
    if slip == "threshold":
        return sure >= share
    kept = np.zeros(len(best), bool)
    if slip == "one ranking":
        kept[np.argsort(-sure)[: round(share * len(best))]] = True
        return kept
    for name in range(probabilities.shape[1]):
        rows = np.flatnonzero(best == name)
        ranked = rows[np.argsort(sure[rows] if slip == "least" else -sure[rows])]
        kept[ranked[: round(share * (best == name).sum())]] = True
    return kept


def check_keep_sure(function: Callable) -> None:
    """Shares of one half and of one quarter."""
    for share in (0.5, 0.25):
        result = flags(function(ANSWERS.copy(), share), 40, "what is kept")
        if np.array_equal(result, _keep(ANSWERS, share)):
            continue
        for slip, message in KEPT.items():
            if np.array_equal(result, _keep(ANSWERS, share, slip)):
                raise Mistake(message)
        raise Mistake(f"{result.sum()} answers are kept, or others than the surest {_keep(ANSWERS, share).sum()}")


# suspects

LABELS = np.concatenate([[0, 1, 2], RANDOM.integers(0, 3, 57)])
SAID = (
    0.5 * RANDOM.dirichlet(np.ones(3), 60)
    + 0.5 * np.eye(3)[np.where(RANDOM.random(60) < 0.3, (LABELS + 1) % 3, LABELS)]
)
SAID[:, 0] *= 0.5
SAID /= SAID.sum(1, keepdims=True)
SUSPECTS = {
    "argmax": "every label that is not the likeliest class is suspected: only classes at or above their threshold count",
    "all texts": "the thresholds are means over all texts: t_j is the mean over the texts labelled j",
    "self": "a label is suspected where its own probability is low: it also needs another class that is likely",
    "one threshold": "one threshold for all classes: each class has its own, for a model may be shy of a class",
    "inverted": "True stands where the label is trusted: it should stand where it is suspected",
}


def _suspects(labels, said, slip=None):
    thresholds = np.array([said[labels == name, name].mean() for name in range(3)])
    if slip == "argmax":
        return said.argmax(1) != labels
    if slip == "all texts":
        thresholds = said.mean(0)
    if slip == "self":
        return said[np.arange(len(labels)), labels] < thresholds[labels]
    if slip == "one threshold":
        thresholds = np.full(3, said[np.arange(len(labels)), labels].mean())
    likely = said >= thresholds
    found = likely.any(1) & (np.where(likely, said, -1.0).argmax(1) != labels)
    return ~found if slip == "inverted" else found


def check_suspects(function: Callable) -> None:
    """Sixty labels, of which some are contradicted, by a model that is shy of the first class."""
    result = flags(function(LABELS.copy(), SAID.copy()), 60, "what is suspected")
    if np.array_equal(result, noise.find_wrong(LABELS, SAID)):
        return
    for slip, message in SUSPECTS.items():
        if np.array_equal(result, _suspects(LABELS, SAID, slip)):
            raise Mistake(message)
    raise Mistake(
        f"{result.sum()} labels are suspected, where {noise.find_wrong(LABELS, SAID).sum()} should be, or others"
    )


# contrast

VECTORS = RANDOM.normal(size=(9, 5))
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
CLASSES, TEMPERATURE = np.array([0, 1, 0, 2, 1, 0, 1, 3, 0]), 0.4  # 3 and 7 have no partner
CONTRASTS = {
    "itself below": "the sum below the fraction holds the text itself: it runs over a != i",
    "itself above": "a text is among its own partners: P(i) holds the others only",
    "temperature": "the temperature is missing: the products are divided by t",
    "sum": "the partners' logarithms are added up: L_i is their mean",
    "all": "texts without a partner count in the mean: leave them out",
    "sign": "the sign is wrong: the loss is minus the logarithm",
}


def _contrast(vectors, labels, temperature, slip=None):
    eye = np.eye(len(labels), dtype=bool)
    scores = vectors @ vectors.T / (1.0 if slip == "temperature" else temperature)
    below = np.exp(scores if slip in ("itself below", "itself above") else np.where(eye, -np.inf, scores)).sum(
        1, keepdims=True
    )
    logs, same = scores - np.log(below), labels[:, None] == labels[None]
    partners = same if slip == "itself above" else same & ~eye
    losses = [
        -(logs[row, own].sum() if slip == "sum" else logs[row, own].mean())
        for row, own in enumerate(partners)
        if own.any()
    ]
    value = float(np.sum(losses) / (len(labels) if slip == "all" else len(losses)))
    return -value if slip == "sign" else value


def check_contrast(function: Callable) -> None:
    """Nine texts of four classes, two of them alone in theirs."""
    result = float(numbers(function(VECTORS.copy(), CLASSES.copy(), TEMPERATURE), (), "the loss"))
    losses, paired = contrastive.label_losses(
        jnp.asarray(VECTORS, jnp.float32), jnp.asarray(CLASSES), jnp.ones(9, bool), TEMPERATURE
    )
    if close(result, float(losses.sum() / paired.sum())):
        return
    for slip, message in CONTRASTS.items():
        if close(result, _contrast(VECTORS, CLASSES, TEMPERATURE, slip)):
            raise Mistake(message)
    raise Mistake(f"the loss is {result:.4f}, expected {float(losses.sum() / paired.sum()):.4f}")


CHECKS = {"keep_sure": check_keep_sure, "suspects": check_suspects, "contrast": check_contrast}
HINTS = {
    "keep_sure": ("`best = probabilities.argmax(1)` says which class each text is answered with.",
                  "For each class: `rows = np.flatnonzero(best == name)`, ranked by `-probabilities.max(1)[rows]`."),
    "suspects": ("`probabilities[labels == j, j].mean()` is t_j.",
                 "Set what is not likely to -1 before `argmax`, and ask `likely.any(1)` too."),
    "contrast": ("Set the diagonal of the scores to -inf: exp makes it 0, in the sum below.",
                 "`partners = (labels[:, None] == labels) & ~np.eye(n, dtype=bool)`; then the mean of each row's own."),
}  # fmt: skip
MISTAKES = {
    "keep_sure": [(functools.partial(_keep, slip=slip), message[:30]) for slip, message in KEPT.items()],
    "suspects": [(functools.partial(_suspects, slip=slip), message[:30]) for slip, message in SUSPECTS.items()],
    "contrast": [(functools.partial(_contrast, slip=slip), message[:30]) for slip, message in CONTRASTS.items()],
}
