"""Which labels are wrong? Confident learning: those that a model, which has not learned them, contradicts with confidence.

    t_j = mean over examples labelled j of  p(j | x)                     how sure the model is of a class on the whole
    suspected:  some class j other than the label has p(j | x) >= t_j, and the likeliest such j is not the label

(Northcutt, Jiang and Chuang 2021, "Confident Learning", section 3.1, the confident joint.) The probabilities must be out of
fold: a model that has learned a wrong label believes it.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

FOLDS = 5

Fit = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


def out_of_fold(
    fit: Callable, labels: Int[np.ndarray, "examples"], folds: int = FOLDS, seed: int = 0
) -> Float[np.ndarray, "examples classes"]:
    """Probabilities of each example by a model that was fitted on the other folds.

    Args:
        fit: (places of training examples, places of the others) -> probabilities [others, classes].
        labels: a fold has its share of each.
        seed: of the folds.
    """
    labels, found = np.asarray(labels), None
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # dealt out class by class
    for fold in range(folds):
        others = np.sort(order[fold::folds])
        said = fit(np.setdiff1d(np.arange(len(labels)), others), others)
        found = np.zeros((len(labels), said.shape[1])) if found is None else found
        found[others] = said
    return found


def find_wrong(
    labels: Int[np.ndarray, "examples"], probabilities: Float[np.ndarray, "examples classes"]
) -> Bool[np.ndarray, "examples"]:
    """Which labels confident learning suspects. A class without examples is never taken for the right one."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    own = probabilities[np.arange(len(labels)), labels]
    thresholds = np.full(len(counts), np.inf)
    np.divide(np.bincount(labels, own, len(counts)), counts, out=thresholds, where=counts > 0)
    confident = probabilities >= thresholds
    best = np.where(confident, probabilities, -1.0).argmax(1)
    return confident.any(1) & (best != labels)


def judge_finding(found: Bool[np.ndarray, "examples"], wrong: Bool[np.ndarray, "examples"]) -> dict[str, float]:
    """{"found", "precision", "recall", "f1", "chance"}: chance is the precision of pointing at labels at random."""
    hits = float((found & wrong).sum())
    precision, recall = hits / max(found.sum(), 1), hits / max(wrong.sum(), 1)
    f1 = 2.0 * hits / max(found.sum() + wrong.sum(), 1)
    chance = float(np.mean(wrong))
    return {"found": int(found.sum()), "precision": precision, "recall": recall, "f1": float(f1), "chance": chance}
