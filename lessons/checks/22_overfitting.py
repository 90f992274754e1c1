"""Checks of lesson 22: they name the mistake, not only the failure."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array, close, parse
from minillm.course.contract import Mistake
from minillm.training.adversarial import unit
from minillm.training.loop import Progress, judge

numbers = functools.partial(as_array, infinite="is something divided by a norm or a number of classes that is 0?")
RANDOM = np.random.default_rng(22)

# fgm_change

SLOPES = RANDOM.normal(size=(4, 5, 3))
OWN = np.arange(5) < np.array([[5], [2], [3], [4]])
SLOPES[2][OWN[2]] = 0.0  # an example that is answered with certainty
STRENGTH = 0.7
CHANGES = {
    "padding": "padding changes: set its slopes to 0, there `own` is False",
    "counted": "padding stays, but its slopes count in the norm: set them to 0 first",
    "batch": "the norm runs over the whole batch: each example has its own, so that a batch cut in two gives the same",
    "token": "each token has a norm of its own, so a long text changes more: one norm per example",
    "sign": "the change goes downhill: the loss must grow, so r has the direction of +g",
    "square": "the slopes are divided by the square of the norm: take the root",
    "strength": "the change has norm 1, not `strength`",
    "largest": "the slopes are divided by their largest entry: that is not the Euclidean norm",
}


def _fgm_change(slopes, own, strength, slip=None):
    hidden = np.where(own[..., None], slopes, 0.0)
    shown = slopes if slip == "padding" else hidden
    squares = (slopes if slip == "counted" else shown) ** 2
    axes = {"batch": (0, 1, 2), "token": 2}.get(slip, (1, 2))
    norms = squares.sum(axes, keepdims=True) ** (1.0 if slip == "square" else 0.5)
    norms = np.abs(shown).max((1, 2), keepdims=True) if slip == "largest" else norms
    size = (1.0 if slip == "strength" else strength) * (-1.0 if slip == "sign" else 1.0)
    return size * shown / np.where(norms > 0.0, norms, 1.0)


def _divides_by_zero(slopes, own, strength):
    hidden = np.where(own[..., None], slopes, 0.0)
    with np.errstate(all="ignore"):
        return strength * hidden / np.sqrt((hidden**2).sum((1, 2), keepdims=True))


def check_fgm_change(function: Callable) -> None:
    """Four examples of different lengths, one of which has no slope, beside the library's."""
    result = as_array(
        function(SLOPES.copy(), OWN.copy(), STRENGTH), SLOPES.shape, "the change",
        infinite="an example whose slope is 0 has no direction: its change is 0",
    )  # fmt: skip
    expected = STRENGTH * np.asarray(unit(jnp.asarray(SLOPES, jnp.float32), jnp.asarray(OWN)[..., None]))
    if close(result, expected):
        return
    for slip, message in CHANGES.items():
        if close(result, _fgm_change(SLOPES, OWN, STRENGTH, slip)):
            raise Mistake(message)
    norms = np.sqrt((result**2).sum((1, 2)))
    raise Mistake(
        f"the changes have the norms {norms.round(3).tolist()}; they should be {STRENGTH}, and 0 for the third"
    )


# smoothed

LABELS = np.array([2, 0, 3, 3])
TARGETS = {
    "others": "the label gets nothing of the smoothing: it is spread over all classes, the label's own too",
    "sum": "rows do not sum to 1: the label's share is 1 - smoothing before smoothing / classes is added",
    "lost": "the smoothing is missing at the other classes, so rows sum to 1 - smoothing",
    "swapped": "smoothing and 1 - smoothing have changed places",
    "plain": "these are the plain labels: nothing is smoothed",
}


def _smoothed(labels, classes, smoothing, slip=None):
    one = np.eye(classes)[labels]
    if slip == "others":
        return (1.0 - smoothing) * one + smoothing / (classes - 1) * (1.0 - one)
    if slip == "sum":
        return one + smoothing / classes
    if slip == "lost":
        return (1.0 - smoothing) * one
    if slip == "plain":
        return one
    share = 1.0 - smoothing if slip == "swapped" else smoothing
    return (1.0 - share) * one + share / classes


def check_smoothed(function: Callable) -> None:
    """Four and two classes, and no smoothing at all."""
    for labels, classes, smoothing in ((LABELS, 4, 0.2), (LABELS % 2, 2, 0.3), (LABELS, 4, 0.0)):
        shape = (len(labels), classes)
        result = numbers(function(labels.copy(), classes, smoothing), shape, "the targets")
        if close(result, _smoothed(labels, classes, smoothing)):
            continue
        for slip, message in TARGETS.items():
            if close(result, _smoothed(labels, classes, smoothing, slip)):
                raise Mistake(message)
        raise Mistake(f"label {labels[0]} of {classes} with smoothing {smoothing} gives {result[0].round(4).tolist()}")


# stop_early

CURVES = (
    ([0.7, 0.6, 0.65, 0.61, 0.5, 0.55, 0.56, 0.4], 2),
    ([0.7, 0.6, 0.65, 0.61, 0.5, 0.55, 0.56, 0.57, 0.4], 3),
    ([0.9, 0.8, 0.7], 2),
    ([0.5, 0.5, 0.6], 2),
    ([0.4, 0.6, 0.5, 0.3], 1),
)
STOPS = {
    "last": "the parameters kept are those of the end: keep those of the lowest loss",
    "late": "training goes on one evaluation too long: it ends with the `patience`-th one without a new lowest loss",
    "rising": "training ends after `patience` losses that rise from one to the next: each is compared with the lowest so far",
    "equal": "an equal loss counts as better: only a lower one is new",
    "total": "evaluations without a new lowest loss are counted over the whole run: a new lowest one begins the count again",
    "hindsight": "the lowest loss of the whole list is kept: when training ends, the later ones have not been seen",
}


def _stop_early(losses, patience, slip=None):
    best, stale = 0, 0
    for place, loss in enumerate(losses):
        better = place == 0 or (loss <= losses[best] if slip == "equal" else loss < losses[best])
        rises = place > 0 and loss > losses[place - 1]
        best = place if better else best
        again = not rises if slip == "rising" else better  # the count begins again
        stale = (stale if slip == "total" else 0) if again else stale + 1
        if stale >= patience + (slip == "late"):
            break
    kept = {"last": place, "hindsight": int(np.argmin(losses))}.get(slip, best)
    return place, kept


def _expected(losses, patience):
    """By the library's own loop."""
    progress = Progress()
    for place, loss in enumerate(losses):
        progress = judge(progress, place, loss, patience)
        if progress.finished:
            break
    return place, progress.best_step


def check_stop_early(function: Callable) -> None:
    """Several curves: two that stop, one that runs to its end, one with equal losses."""
    answers = []
    for losses, patience in CURVES:
        result = function(list(losses), patience)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise Mistake("the function should return two places: (where training ends, which evaluation is kept)")
        found = as_array([parse(part, "a place") for part in result], (2,), "the two places", infinite="what is it?")
        answers.append(tuple(found.tolist()))
    for answer, curve in zip(answers, CURVES, strict=True):
        if answer != _expected(*curve):
            for slip, message in STOPS.items():
                if answers == [_stop_early(*other, slip) for other in CURVES]:
                    raise Mistake(message)
            raise Mistake(f"losses {curve[0]} with patience {curve[1]} give {answer}, not {_expected(*curve)}")


CHECKS = {"fgm_change": check_fgm_change, "smoothed": check_smoothed, "stop_early": check_stop_early}

HINTS = {
    "fgm_change": (
        "np.where(own[..., None], slopes, 0.0) comes first; then the norm is over axes 1 and 2, with keepdims=True.",
        "np.where(norms > 0.0, norms, 1.0) in the denominator leaves an example without a slope at 0.",
    ),
    "smoothed": (
        "A row is a mixture: (1 - smoothing) times the label's row of np.eye(classes), and smoothing times 1 / classes.",
        "Check a sum: (1 - smoothing) + classes * smoothing / classes = 1.",
    ),
    "stop_early": (
        "Remember the place of the lowest loss so far; `place - best` is how many evaluations ago that was.",
        "Return inside the loop where place - best reaches patience; after the loop return the last place.",
    ),
}

MISTAKES = {
    "fgm_change": [
        *((functools.partial(_fgm_change, slip=slip), message) for slip, message in CHANGES.items()),
        (_divides_by_zero, "its change is 0"),
    ],
    "smoothed": [(functools.partial(_smoothed, slip=slip), message) for slip, message in TARGETS.items()],
    "stop_early": [(functools.partial(_stop_early, slip=slip), message) for slip, message in STOPS.items()],
}
