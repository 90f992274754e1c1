"""Checks of lesson 09: they name the mistake, not only the failure."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array
from minillm.course.contract import Mistake
from minillm.objectives.masked import token_terms

numbers = functools.partial(as_array, infinite="take off the maximum before np.exp")


# corrupt

RANDOM = np.random.default_rng(9)
MASK = 4
TOKENS = RANDOM.integers(5, 40, size=(6, 30)).astype(np.int32)
CHOSEN = RANDOM.random((6, 30)) < 0.5
DRAW = RANDOM.random((6, 30))
OTHER = RANDOM.integers(5, 40, size=(6, 30)).astype(np.int32)

CORRUPTIONS = {
    "always masked": "every chosen token became the mask token: a tenth is replaced by `other`, a tenth stays",
    "none stays": "no chosen token stays as it was: from draw = 0.9 on it does",
    "exchanged": '`other` and "stays" are exchanged: 0.8 <= draw < 0.9 replaces, from 0.9 on the token stays',
    "thresholds": "the last threshold should be 0.9, the sum of 0.8 and 0.1: is it 0.1 here?",
    "everywhere": "tokens that were not chosen are changed too: only chosen ones may be",
    "opposite": "chosen is read the wrong way round: True means that the token is to be predicted",
}
TARGETS = {
    "corrupted": "the targets are the new tokens, so the model is asked for the mask token: remember what was there before",
    "other": "the targets come from `other`: they are the original tokens",
    "everywhere": "the targets hold tokens that were not chosen: these are 0",
}
WEIGHTS = {
    "only masked": "the weights count only where the mask token stands: replaced and kept tokens are predicted too, "
    "else the model would never learn to doubt a visible token",
    "changed": "the weights miss chosen tokens that stayed: they are predicted too",
    "everywhere": "the weights are 1 everywhere: only the chosen tokens are predicted",
}


def _changed(tokens, chosen, draw, other, mask, slip=None):
    middle, last = (tokens, other) if slip == "exchanged" else (other, tokens)
    last = other if slip == "none stays" else last
    edge = 0.1 if slip == "thresholds" else 0.9
    new = np.where(draw < 0.8, mask, np.where(draw < edge, middle, last))
    new = np.full_like(tokens, mask) if slip == "always masked" else new
    where = np.ones_like(chosen) if slip == "everywhere" else ~chosen if slip == "opposite" else chosen
    return np.where(where, new, tokens)


def _targets(tokens, chosen, new, other, slip=None):
    source = {"corrupted": new, "other": other}.get(slip, tokens)
    return np.where(np.ones_like(chosen) if slip == "everywhere" else chosen, source, 0)


def _weights(tokens, chosen, new, mask, slip=None):
    wrong = {"only masked": new == mask, "changed": new != tokens, "everywhere": np.ones_like(chosen)}
    return wrong.get(slip, chosen).astype(np.float32)


def _corrupt(tokens, chosen, draw, other, mask, new=None, target=None, weight=None):
    """A right answer, or one with a slip in one of its three parts."""
    changed = _changed(tokens, chosen, draw, other, mask, new)
    return changed, _targets(tokens, chosen, changed, other, target), _weights(tokens, chosen, changed, mask, weight)


def _in_place(tokens, chosen, draw, other, mask):
    tokens[chosen & (draw < 0.8)] = mask
    return tokens, np.where(chosen, tokens, 0), chosen.astype(np.float32)


def _name(found: np.ndarray, slips: dict[str, str], build: Callable, what: str) -> None:
    """Raises a Mistake unless `found` is what `build` makes without a slip."""
    if np.array_equal(found, build(None)):
        return
    for slip, message in slips.items():
        if np.array_equal(found, build(slip)):
            raise Mistake(message)
    row, column = np.argwhere(found != build(None))[0]
    case = f"chosen = {bool(CHOSEN[row, column])}, draw = {DRAW[row, column]:.2f}, token = {TOKENS[row, column]}"
    expected = f"expected {build(None)[row, column]:g}, got {found[row, column]:g}"
    raise Mistake(f"{what}[{row}, {column}] is wrong ({case}): {expected}")


def check_corrupt(function: Callable) -> None:
    """A batch in which all four cases occur."""
    inputs = TOKENS.copy(), CHOSEN.copy(), DRAW.copy(), OTHER.copy()
    result = function(*inputs, MASK)
    if any(not np.array_equal(now, old) for now, old in zip(inputs, (TOKENS, CHOSEN, DRAW, OTHER), strict=True)):
        raise Mistake("corrupt changed its argument, and with it the originals that the targets need: build new arrays")
    if not isinstance(result, (tuple, list)) or len(result) != 3:
        raise Mistake("corrupt should return three arrays: tokens, targets, weights")
    new, targets, weights = (
        numbers(part, TOKENS.shape, name) for name, part in zip(("tokens", "targets", "weights"), result, strict=True)
    )
    right = _changed(TOKENS, CHOSEN, DRAW, OTHER, MASK)
    _name(new, CORRUPTIONS, lambda slip: _changed(TOKENS, CHOSEN, DRAW, OTHER, MASK, slip), "tokens")
    _name(targets, TARGETS, lambda slip: _targets(TOKENS, CHOSEN, right, OTHER, slip), "targets")
    _name(weights, WEIGHTS, lambda slip: _weights(TOKENS, CHOSEN, right, MASK, slip), "weights")


# masked_loss

SCORES = RANDOM.normal(size=(3, 7, 11)).astype(np.float32) * 2.0
ANSWERS = RANDOM.integers(0, 11, size=(3, 7))
MASKED = np.zeros((3, 7), np.float32)
MASKED[0, :5], MASKED[1, 2], MASKED[2, 3:5] = 1.0, 1.0, 1.0  # five, one and two masked tokens
ANSWERS[0, 1] = 0  # a real target
ANSWERS = np.where(MASKED > 0, ANSWERS, 0)

LOSSES = {
    "sign": "the loss is negative: it is minus the mean of the log-probabilities",
    "all": "every position counts: only masked ones may, the others have no target",
    "divided by all": "the sum is right but divided by all positions: divide by the number of masked ones",
    "sum": "this is the sum: divide it by the number of masked tokens",
    "rows": "this is a mean of the rows' means: a row with one masked token would count as much as one with five",
    "probability": "the mean of -p is taken, without the logarithm",
    "targets": "masked tokens whose id is 0 are left out: use the weights, not the targets, to find the masked ones",
    "scores": "this is minus the mean score: the softmax over the vocabulary is missing",
    "sigmoid": "a sigmoid per score is no distribution over the vocabulary: use a softmax",
    "length": "the softmax runs along the positions: it must run over the vocabulary, the last axis",
}


def _masked_loss(scores, targets, weights, slip=None):
    scores = np.asarray(scores, np.float64)
    axis = 1 if slip == "length" else -1
    logs = scores - scores.max(axis, keepdims=True)
    logs = logs - np.log(np.exp(logs).sum(axis, keepdims=True))
    if slip in ("scores", "sigmoid"):
        logs = scores if slip == "scores" else -np.log1p(np.exp(-scores))
    losses = -np.take_along_axis(logs, targets[..., None], axis=-1)[..., 0]
    losses = -np.exp(-losses) if slip == "probability" else losses
    weights = np.ones_like(weights) if slip == "all" else weights * (targets > 0) if slip == "targets" else weights
    if slip == "rows":
        return ((losses * weights).sum(1) / weights.sum(1)).mean()
    count = {"sum": 1.0, "divided by all": weights.size}.get(slip, weights.sum())
    return (losses * weights).sum() / count * (-1.0 if slip == "sign" else 1.0)


def _overflows(scores, targets, weights):
    with np.errstate(all="ignore"):
        odds = np.exp(scores)
        logs = np.log(odds / odds.sum(-1, keepdims=True))
        return -(np.take_along_axis(logs, targets[..., None], -1)[..., 0] * weights).sum() / weights.sum()


def check_masked_loss(function: Callable) -> None:
    """Rows with five, one and two masked tokens; then scores that overflow."""
    for factor in (1.0, 100.0):
        scores = SCORES * np.float32(factor)
        loss = float(numbers(function(scores.copy(), ANSWERS.copy(), MASKED.copy()), (), "the loss"))
        terms = token_terms("masked", *map(jnp.asarray, (scores, ANSWERS.astype(np.int32), MASKED)))
        expected = float(terms.sums["masked"] / terms.weights["masked"])
        if np.isclose(loss, expected, rtol=1e-4):
            continue
        for slip, message in LOSSES.items():
            with np.errstate(all="ignore"):
                wrong = _masked_loss(scores, ANSWERS, MASKED, slip)
            if np.isclose(loss, wrong, rtol=1e-4):
                raise Mistake(message)
        raise Mistake(
            f"the loss is {loss:.4f}, expected {expected:.4f}: print -log p of every masked token, then average"
        )


CHECKS = {"corrupt": check_corrupt, "masked_loss": check_masked_loss}

HINTS = {
    "corrupt": (
        "np.where(condition, a, b) picks from a where the condition holds, else from b, and changes neither.",
        "Nest two: draw < 0.8 gives mask, else draw < 0.9 gives other, else tokens; then a third with chosen.",
    ),
    "masked_loss": (
        "log softmax(s) = s - log(sum(exp(s))), over the last axis; subtract the maximum of s first.",
        "np.take_along_axis(logs, targets[..., None], -1)[..., 0] picks; multiply by weights, divide by weights.sum().",
    ),
}

MISTAKES = {
    "corrupt": [
        *((functools.partial(_corrupt, new=slip), message) for slip, message in CORRUPTIONS.items()),
        *((functools.partial(_corrupt, target=slip), message) for slip, message in TARGETS.items()),
        *((functools.partial(_corrupt, weight=slip), message) for slip, message in WEIGHTS.items()),
        (_in_place, "changed its argument"),
    ],
    "masked_loss": [
        *((functools.partial(_masked_loss, slip=slip), message) for slip, message in LOSSES.items()),
        (_overflows, "take off the maximum"),
    ],
}
