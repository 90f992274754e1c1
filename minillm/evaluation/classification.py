"""How well classes and numbers are predicted: metrics of labels and probabilities, all in float64.

For a class, with `hits` the examples of it that are predicted as it (van Rijsbergen 1979, "Information retrieval", ch. 7),

    precision = hits / predicted        recall = hits / actual        F1 = 2 hits / (predicted + actual)

A macro average is the mean over classes, also over those that never occur; a micro average adds the counts up first,
which makes all three equal to the accuracy where each example has one class. A division by zero gives 0 and is counted
in "undefined": a macro F1 that is low because of a class without examples says so.

Every metric takes `weights`, how often each example counts, [*draws, examples]: a bootstrap (`intervals.py`) hands all its
draws over at once, and each result has the shape of the draws. Without weights results are scalars.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int

from minillm.errors import UserError

BINS = 15  # of the reliability diagram, as in Guo et al. 2017
THRESHOLD = 0.5  # of a label's probability, where an example may have several

Weights = Float64[np.ndarray, "*draws examples"] | None
Numbers = Float64[np.ndarray, "*draws"] | float  # a scalar without draws
Flags = Bool[np.ndarray, "*draws"] | np.bool_
Metrics = dict[str, Numbers]


class Counts(NamedTuple):
    """Per class: examples that are rightly predicted as it, all that are predicted as it, all that are of it."""

    hits: Float64[np.ndarray, "*draws classes"]
    predicted: Float64[np.ndarray, "*draws classes"]
    actual: Float64[np.ndarray, "*draws classes"]


class Scores(NamedTuple):
    """Per class; undefined: how many of these numbers are a division by zero."""

    precision: Float64[np.ndarray, "*draws classes"]
    recall: Float64[np.ndarray, "*draws classes"]
    f1: Float64[np.ndarray, "*draws classes"]
    undefined: Numbers


def single_label(
    labels: Int[np.ndarray, "examples"], probabilities: Float64[np.ndarray, "examples classes"], weights: Weights = None
) -> Metrics:
    """Accuracy, macro and micro averages, log loss and calibration error, where each example has one class.

    Raises: UserError where labels and probabilities do not fit together.
    """
    labels, probabilities = _check_classes(labels, probabilities)
    rows = _rows(weights, len(labels))
    found = averages(count(*_decisions(labels, probabilities), weights))
    hits = (probabilities.argmax(1) == labels).astype(np.float64)
    chosen = np.clip(probabilities[np.arange(len(labels)), labels], np.finfo(np.float64).eps, 1.0)
    return found | {
        "accuracy": _mean(hits, rows),
        "log_loss": _mean(-np.log(chosen), rows),
        "calibration_error": calibration_error(labels, probabilities, weights),
    }


def multi_label(
    labels: Bool[np.ndarray, "examples classes"],
    probabilities: Float64[np.ndarray, "examples classes"],
    weights: Weights = None,
) -> Metrics:
    """The same where an example has any number of classes, those whose probability is at least 0.5.

    subset_accuracy: all classes of an example are right. log_loss: a mean over examples and classes.
    """
    labels, probabilities = np.asarray(labels, bool), np.asarray(probabilities, np.float64)
    if labels.shape != probabilities.shape or labels.ndim != 2 or not labels.size:
        _refuse(
            f"labels {labels.shape} and probabilities {probabilities.shape} must have one shape [examples, classes]"
        )
    _check_range(probabilities)
    rows, decided = _rows(weights, len(labels)), probabilities >= THRESHOLD
    smallest = np.finfo(np.float64).eps
    losses = -np.log(np.clip(np.where(labels, probabilities, 1.0 - probabilities), smallest, 1.0)).mean(1)
    return averages(count(labels, decided, weights)) | {
        "subset_accuracy": _mean((decided == labels).all(1).astype(np.float64), rows),
        "log_loss": _mean(losses, rows),
    }


def regression(
    targets: Float64[np.ndarray, "examples"], predictions: Float64[np.ndarray, "examples"], weights: Weights = None
) -> Metrics:
    """Mean squared error, R^2 = 1 - error / variance, and the correlations of Pearson and Spearman.

    Spearman's is Pearson's of the ranks, the middle rank where values are equal. What divides by the variance of a constant
    is 0 and counted.
    """
    targets, predictions = np.asarray(targets, np.float64), np.asarray(predictions, np.float64)
    if targets.shape != predictions.shape or targets.ndim != 1 or not targets.size:
        _refuse(f"targets {targets.shape} and predictions {predictions.shape} must have one shape [examples]")
    if not (np.isfinite(targets).all() and np.isfinite(predictions).all()):
        _refuse("targets and predictions must be finite")
    rows = _rows(weights, len(targets))
    error = _mean(np.square(predictions - targets), rows)
    constant = [_is_constant(values, rows) for values in (targets, predictions)]
    ratio, _ = divide(error, np.where(constant[0], 0.0, _covariance(targets, targets, rows)))
    ranks = [_ranks(values, rows) for values in (targets, predictions)]
    correlations = [_correlation(*pair, constant, rows) for pair in ((targets, predictions), ranks)]
    return {
        "squared_error": error,
        "r2": np.where(constant[0], 0.0, 1.0 - ratio)[()],
        "pearson": correlations[0],
        "spearman": correlations[1],
        "undefined": constant[0] + 2.0 * (constant[0] | constant[1]),
    }


def count(
    actual: Bool[np.ndarray, "examples classes"],
    predicted: Bool[np.ndarray, "examples classes"],
    weights: Weights = None,
) -> Counts:
    """Both say which classes an example has."""
    rows = _rows(weights, len(actual))
    return Counts(*(rows @ cells.astype(np.float64) for cells in (actual & predicted, predicted, actual)))


def score(counts: Counts) -> Scores:
    """Precision, recall and F1 of each class."""
    denominators = (counts.predicted, counts.actual, counts.predicted + counts.actual)
    numerators = (counts.hits, counts.hits, 2.0 * counts.hits)
    pairs = [divide(*pair) for pair in zip(numerators, denominators, strict=True)]
    return Scores(*(ratio for ratio, _ in pairs), sum(undefined.sum(-1) for _, undefined in pairs).astype(np.float64))


def averages(counts: Counts) -> Metrics:
    """Macro and micro averages; "undefined" counts the divisions by zero among the classes."""
    macro, micro = score(counts), score(Counts(*(part.sum(-1, keepdims=True) for part in counts)))
    names = ("precision", "recall", "f1")
    found = {f"macro_{name}": getattr(macro, name).mean(-1) for name in names}
    return found | {f"micro_{name}": getattr(micro, name)[..., 0] for name in names} | {"undefined": macro.undefined}


def class_f1(
    labels: np.ndarray,
    probabilities: Float64[np.ndarray, "examples classes"],
    names: Sequence[str],
    weights: Weights = None,
) -> Metrics:
    """F1 of each class by its name; labels are indices, or booleans [examples, classes]."""
    found = score(count(*_decisions(np.asarray(labels), probabilities), weights)).f1
    return {name: found[..., place] for place, name in enumerate(names)}


def describe_classes(
    labels: np.ndarray, probabilities: Float64[np.ndarray, "examples classes"], names: Sequence[str]
) -> list[dict]:
    """A row per class for a table: name, precision, recall, f1, and how many are of it and are predicted as it."""
    counts = count(*_decisions(np.asarray(labels), probabilities))
    found, columns = score(counts), ("precision", "recall", "f1")
    return [
        {"class": name} | {key: float(getattr(found, key)[place]) for key in columns}
        | {"actual": int(counts.actual[place]), "predicted": int(counts.predicted[place])}
        for place, name in enumerate(names)
    ]  # fmt: skip


def confusion(
    labels: Int[np.ndarray, "examples"], predictions: Int[np.ndarray, "examples"], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """How many examples of the class of a row are predicted as the class of a column."""
    cells = np.asarray(labels) * classes + np.asarray(predictions)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def calibration_error(
    labels: Int[np.ndarray, "examples"], probabilities: Float64[np.ndarray, "examples classes"], weights: Weights = None
) -> Numbers:
    """Expected calibration error: sum_m |B_m| / n * |accuracy(B_m) - confidence(B_m)|. Guo et al. 2017, equation 3.

    B_m are the examples whose largest probability lies in ((m - 1) / 15, m / 15].
    """
    rows = _rows(weights, len(labels))
    members, confidence, hits = _bins(np.asarray(labels), np.asarray(probabilities, np.float64))
    gaps = rows @ (members * (hits - confidence)[:, None])
    return np.abs(gaps).sum(-1) / rows.sum(-1)


def reliability(
    labels: Int[np.ndarray, "examples"], probabilities: Float64[np.ndarray, "examples classes"]
) -> list[dict[str, float]]:
    """The bars of a reliability diagram: low, high, count, confidence and accuracy of each bin with examples."""
    members, confidence, hits = _bins(np.asarray(labels), np.asarray(probabilities, np.float64))
    return [
        {"low": place / BINS, "high": (place + 1) / BINS, "count": int(inside.sum()),
         "confidence": float(confidence[inside].mean()), "accuracy": float(hits[inside].mean())}
        for place, inside in enumerate(members.T) if inside.any()
    ]  # fmt: skip


def divide(numerator: Numbers, denominator: Numbers) -> tuple[Numbers, Flags]:
    """(ratio, where it is undefined); the ratio is 0 there."""
    undefined = np.equal(denominator, 0.0)
    return np.where(undefined, 0.0, numerator / np.where(undefined, 1.0, denominator))[()], undefined


def one_hot(labels: Int[np.ndarray, "examples"], classes: int) -> Bool[np.ndarray, "examples classes"]:
    """Indices -> which class each example has."""
    return np.asarray(labels)[:, None] == np.arange(classes)


def _decisions(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(actual, predicted), both [examples, classes], for labels of either kind."""
    if labels.ndim == 2:
        return labels.astype(bool), probabilities >= THRESHOLD
    classes = probabilities.shape[1]
    return one_hot(labels, classes), one_hot(probabilities.argmax(1), classes)


def _bins(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(members [examples, BINS] of each bin, confidence [examples], hits [examples])."""
    confidence, hits = probabilities.max(1), (probabilities.argmax(1) == labels).astype(np.float64)
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return one_hot(place, BINS), confidence, hits


def _rows(weights: Weights, examples: int) -> Float64[np.ndarray, "*draws examples"]:
    rows = np.ones(examples) if weights is None else np.asarray(weights, np.float64)
    if rows.shape[-1] != examples:
        _refuse(f"weights {rows.shape} for {examples} examples")
    return rows


def _mean(values: np.ndarray, rows: np.ndarray) -> Numbers:
    """Of values [examples] or [*draws, examples]."""
    total = rows @ values if values.ndim == 1 else (rows * values).sum(-1)
    return total / rows.sum(-1)


def _covariance(left: np.ndarray, right: np.ndarray, rows: np.ndarray) -> Numbers:
    parts = [values - _mean(values, rows)[..., None] for values in (left, right)]
    return _mean(parts[0] * parts[1], rows)


def _correlation(left: np.ndarray, right: np.ndarray, constant: Sequence[Flags], rows: np.ndarray) -> Numbers:
    """Pearson: cov(x, y) / sqrt(var(x) var(y)); 0 where either is constant."""
    product = _covariance(left, left, rows) * _covariance(right, right, rows)
    undefined = constant[0] | constant[1]
    return divide(_covariance(left, right, rows), np.sqrt(np.where(undefined, 0.0, product)))[0]


def _is_constant(values: np.ndarray, rows: np.ndarray) -> Flags:
    """Asked of the values, not of a variance that rounding keeps from 0."""
    drawn = rows > 0.0
    return np.where(drawn, values, -np.inf).max(-1) == np.where(drawn, values, np.inf).min(-1)


def _ranks(values: np.ndarray, rows: np.ndarray) -> Float64[np.ndarray, "*draws examples"]:
    """Rank of each value among the drawn ones, each as often as it is drawn; equal values share their middle rank."""
    order = np.argsort(values, kind="stable")
    first = np.concatenate([[True], np.diff(values[order]) != 0.0])
    sizes = np.add.reduceat(rows[..., order], np.flatnonzero(first), axis=-1)
    middle = np.cumsum(sizes, axis=-1) - sizes + (sizes + 1.0) / 2.0
    ranks = np.empty(rows.shape)
    ranks[..., order] = middle[..., np.cumsum(first) - 1]
    return ranks


def _check_classes(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not labels.size:
        _refuse(f"labels {labels.shape} and probabilities {probabilities.shape}, expected [n] and [n, classes], n > 0")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        _refuse(f"labels {labels.min()} to {labels.max()}, expected 0 to {probabilities.shape[1] - 1}")
    _check_range(probabilities)
    if (strange := np.abs(probabilities.sum(1) - 1.0)).max() > 1e-3:
        _refuse(f"the probabilities of example {strange.argmax()} sum to {probabilities[strange.argmax()].sum():.4f}")
    return labels, probabilities


def _check_range(probabilities: np.ndarray) -> None:
    if not ((probabilities >= 0.0) & (probabilities <= 1.0 + 1e-6)).all():
        _refuse("a probability lies outside of 0 to 1")


def _refuse(what: str) -> None:
    raise UserError(what, "metrics", "hand over the labels and probabilities of the same examples")
