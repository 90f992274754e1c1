"""Checks of lesson 19: they name the mistake, not only the failure."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array, close
from minillm.course.contract import Mistake
from minillm.nn.linear import linear
from minillm.objectives.causal import token_losses
from minillm.objectives.contract import Sums, total_loss
from minillm.params import flatten
from minillm.tuning.layers import layer_rates

numbers = functools.partial(as_array, infinite="take off the maximum of the scores before np.exp; divide by no zero")
RANDOM = np.random.default_rng(19)

# head_gradient

ROWS, WIDTH, CLASSES = 7, 4, 3
FEATURES = RANDOM.normal(size=(ROWS, WIDTH)) * 2.0
LABELS = np.array([2, 0, 1, 1, 0, 2, 2])
KERNEL, BIAS = RANDOM.normal(size=(WIDTH, CLASSES)), np.array([0.5, -1.0, 0.25])
GRADIENTS = {
    "sum": "this is the gradient of the sum: the loss is a mean over rows, so divide by their number",
    "sign": "the sign is wrong: this climbs; the error of a score is p - 1 where the class is right, p elsewhere",
    "scores": "the labels are taken off the scores themselves: the softmax comes first",
    "no labels": "the labels are not taken off: the error of a score is p less the one-hot label",
    "only right": "only the right class gets a gradient: the others have the error p, which pushes them down",
    "rows": "the softmax runs over the rows: it runs over the classes, axis 1",
    "no bias": "the scores lack the bias",
    "bias mean": "the bias' gradient is divided by the number of rows once more than the kernel's",
    "bias rows": "the bias' gradient is that of the first row alone: sum over the rows",
}


def _head(features, labels, kernel, bias, slip=None):
    scores = features @ kernel + (0.0 if slip == "no bias" else bias)
    axis = 0 if slip == "rows" else 1
    raised = np.exp(scores - scores.max(axis=axis, keepdims=True))
    said = scores if slip == "scores" else raised / raised.sum(axis=axis, keepdims=True)
    truth = np.eye(kernel.shape[1])[labels]
    error = said - (0.0 if slip == "no labels" else truth)
    error = error * truth if slip == "only right" else error
    error = error / (1.0 if slip == "sum" else len(labels)) * (-1.0 if slip == "sign" else 1.0)
    bias_error = {"bias mean": error.mean(axis=0), "bias rows": error[0]}.get(slip, error.sum(axis=0))
    return features.T @ error, bias_error


def _transposed(features, labels, kernel, bias):
    kernel_gradient, bias_gradient = _head(features, labels, kernel, bias)
    return kernel_gradient.T, bias_gradient


def _overflows(features, labels, kernel, bias):
    with np.errstate(all="ignore"):
        raised = np.exp(features @ kernel + bias)
        error = (raised / raised.sum(axis=1, keepdims=True) - np.eye(kernel.shape[1])[labels]) / len(labels)
        return features.T @ error, error.sum(axis=0)


def check_head_gradient(function: Callable) -> None:
    """Equal to JAX's gradient of the library's loss; then scores that overflow."""
    for factor in (1.0, 500.0):
        features = FEATURES * factor
        given = features.copy(), LABELS.copy(), KERNEL.copy(), BIAS.copy()
        result = function(*given)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise Mistake("head_gradient should return two arrays: the kernel's gradient and the bias'")
        found = [
            numbers(part, shape, name)
            for part, shape, name in zip(
                result, (KERNEL.shape, BIAS.shape), ("the kernel's gradient", "the bias' gradient"), strict=True
            )
        ]
        if not all(map(np.array_equal, given, (features, LABELS, KERNEL, BIAS))):
            raise Mistake("head_gradient changed its arguments: the features are cached and are needed again")
        expected = _by_jax(features)
        equal = functools.partial(_alike, smallest=1e-4 * factor)
        if equal(found, expected):
            continue
        for slip, message in GRADIENTS.items():
            if equal(found, _head(features, LABELS, KERNEL, BIAS, slip)):
                raise Mistake(message)
        if close(found[1], expected[1], 1e-4 * factor):
            raise Mistake("the bias' gradient is right and the kernel's is not: it is features^T times the error")
        raise Mistake(
            "the gradient is wrong: print the error of the scores, p less one-hot; each of its rows sums to 0"
        )


def _alike(pair, other, smallest: float) -> bool:
    return all(close(a, b, smallest) for a, b in zip(pair, other, strict=True))


def _by_jax(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    def loss(head):
        losses, _ = token_losses(linear(head, jnp.asarray(features, jnp.float32)), jnp.asarray(LABELS))
        return losses.mean()

    head = {"kernel": jnp.asarray(KERNEL, jnp.float32), "bias": jnp.asarray(BIAS, jnp.float32)}
    found = jax.grad(loss)(head)
    return np.asarray(found["kernel"], np.float64), np.asarray(found["bias"], np.float64)


# multipliers

CASES = ((2, 0.5, 10, 25), (4, 0.4, 0, 3), (3, 1.0, 7, 14), (3, 0.4, 7, 13), (3, 0.6, 5, 0), (1, 0.6, 5, 100))
RATES = {
    "upside down": "the order is upside down: the embedding comes first, the head last",
    "bottom": "the embedding is the fastest: the head, which is new, learns at the full rate, what lies deeper more slowly",
    "one too deep": "the head is slowed down too: its multiplier is decay^0 = 1 and the top block's decay^1",
    "linear": "the rates fall by decay * depth: each part has `decay` times the rate of the one above it, decay^depth",
    "late": "a part thaws one step too late: depth d learns from step d * every on, that step included",
    "thaw bottom": "the model thaws from the bottom: the head learns first, then the top block",
    "one": "what has thawed learns at the full rate: its multiplier is decay^depth then, not 1",
    "never": "nothing is frozen: before step depth * every the multiplier is 0",
    "together": "all below the head thaws at once: one more part every `every` steps",
    "stays": "the frozen parts keep their rates and the thawed ones have 0: it is the other way round",
}


def _rates(layers, decay, every, step, slip=None):
    depth = np.arange(layers + 1, -1, -1)
    thaw = {"thaw bottom": depth[::-1], "together": np.minimum(depth, 1)}.get(slip, depth) * every
    learns = step > thaw if slip == "late" else step >= thaw
    learns = np.ones_like(learns) if slip == "never" else ~learns if slip == "stays" else learns
    power = {"bottom": depth[::-1], "one too deep": depth + 1}.get(slip, depth)
    rate = np.maximum(1.0 - (1.0 - decay) * power, 0.0) if slip == "linear" else decay ** power.astype(float)
    found = np.where(learns, 1.0 if slip == "one" else rate, 0.0)
    return found[::-1] if slip == "upside down" else found


def _without_embedding(layers, decay, every, step):
    return _rates(layers, decay, every, step)[1:]


def check_multipliers(function: Callable) -> None:
    """Several depths and steps: equal to the library's `layer_rates`."""
    found = []
    for layers, decay, every, step in CASES:
        what = f"multipliers({layers}, {decay}, {every}, {step})"
        found.append(as_array(function(layers, decay, every, step), None, what, "is something divided by 0?"))
        if found[-1].shape != (layers + 2,):
            shape = list(found[-1].shape)
            raise Mistake(f"{what} should have the shape [{layers + 2}], got {shape}: embedding, {layers} blocks, head")
    expected = [_by_library(*case) for case in CASES]
    alike = lambda answers: all(map(close, found, answers))
    if alike(expected):
        return
    for slip, message in RATES.items():
        if alike([_rates(*case, slip=slip) for case in CASES]):
            raise Mistake(message)
    for case, answer, right in zip(CASES, found, expected, strict=True):
        if not close(answer, right):
            raise Mistake(f"multipliers{case} should be {right.round(4).tolist()}, got {answer.round(4).tolist()}")


def _by_library(layers: int, decay: float, every: int, step: int) -> np.ndarray:
    rows = {
        "embedding": {"table": jnp.zeros((2, 1))},
        "blocks": {"kernel": jnp.zeros((layers, 1))},
        "classify": {"kernel": jnp.zeros((1, 2))},
    }
    scale = layer_rates(decay, every)
    found = flatten(jax.tree.map(jnp.ones_like, rows) if scale is None else scale(rows, step))
    blocks = np.asarray(found["blocks/kernel"], np.float64).ravel()
    ends = (float(found[f"{name}"].ravel()[0]) for name in ("embedding/table", "classify/kernel"))
    return np.concatenate([[next(ends)], blocks, [next(ends)]])


# joint_loss

SHARDS = [
    {"task": (12.0, 8.0), "text": (400.0, 100.0), "rare": (0.0, 0.0)},
    {"task": (1.0, 2.0), "text": (30.0, 5.0), "rare": (0.0, 0.0)},
    {"task": (0.0, 0.0), "text": (210.0, 60.0), "rare": (0.0, 0.0)},
]
FACTORS = {"text": 0.5}
LOSSES = {
    "means": "the means of the shards are averaged: a shard with few targets then counts as much as one with many; add sums "
    "and numbers over the shards first",
    "one number": "all terms are divided by one number: there are ten texts and 165 tokens, so each term has its own",
    "no factors": "the coefficients are not used",
    "only named": "a term without a coefficient is left out: it counts once",
    "squared": "the coefficient multiplies the sum and divides the number, so that it counts twice",
    "sum": "this adds sums: each term is divided by its number of targets",
    "first": "only the first shard counts",
    "per shard": "the loss of each shard is added up: the parts of a mean are its sums and numbers, not its means",
}


def _joint(shards, coefficients, slip=None):
    shards = shards[:1] if slip == "first" else shards
    factor = lambda term: 1.0 if slip == "no factors" else coefficients.get(term, 0.0 if slip == "only named" else 1.0)
    total = lambda term, place: sum(shard[term][place] for shard in shards)
    ratio = lambda total, count: total / count if count else 0.0
    if slip in ("means", "per shard"):
        mean = lambda term: sum(ratio(*shard[term]) for shard in shards) / (len(shards) if slip == "means" else 1.0)
        return sum(factor(term) * mean(term) for term in shards[0])
    if slip == "one number":
        return ratio(*(sum(factor(t) ** (1 - place) * total(t, place) for t in shards[0]) for place in (0, 1)))
    power = {"squared": 2.0}.get(slip, 1.0)
    count = lambda term: 1.0 if slip == "sum" else total(term, 1)
    return sum(factor(term) ** power * ratio(total(term, 0), count(term)) for term in shards[0])


def _divides_by_zero(shards, coefficients):
    total = lambda term, place: np.float64(sum(shard[term][place] for shard in shards))
    with np.errstate(all="ignore"):
        return sum(coefficients.get(term, 1.0) * total(term, 0) / total(term, 1) for term in shards[0])


def check_joint_loss(function: Callable) -> None:
    """Three shards of three terms, one of them without a target; equal to the library's `total_loss`."""
    given = [dict(shard) for shard in SHARDS]
    empty = "a term that has no target in any shard adds 0: do not divide by its number"
    try:
        result = function(given, dict(FACTORS))
    except ZeroDivisionError:
        raise Mistake(empty) from None
    loss = float(as_array(result, (), "the loss", empty))
    total = lambda place: {term: sum(shard[term][place] for shard in SHARDS) for term in SHARDS[0]}
    sums = Sums(total(0), total(1), {})
    expected = float(total_loss(sums, sums.weights, FACTORS))
    if close(loss, expected):
        return
    for slip, message in LOSSES.items():
        if close(loss, _joint(SHARDS, FACTORS, slip)):
            raise Mistake(message)
    raise Mistake(f"the loss is {loss:.4f}, expected {expected:.4f}: print the mean of each term before you weigh them")


CHECKS = {"head_gradient": check_head_gradient, "multipliers": check_multipliers, "joint_loss": check_joint_loss}

HINTS = {
    "head_gradient": (
        "dL/dscores = (p - onehot) / rows, [rows, classes]: each of its rows sums to 0.",
        "features.T @ error for the kernel, error.sum(axis=0) for the bias; p from scores less their row's maximum.",
    ),
    "multipliers": (
        "depth = np.arange(layers + 1, -1, -1): the embedding is deepest, the head has depth 0.",
        "np.where(step >= depth * every, decay ** depth.astype(float), 0.0).",
    ),
    "joint_loss": (
        "For each term: two sums over the shards, one of losses, one of numbers.",
        "coefficients.get(term, 1.0) * total / count, or 0.0 where count is 0.",
    ),
}

MISTAKES = {
    "head_gradient": [
        *((functools.partial(_head, slip=slip), message) for slip, message in GRADIENTS.items()),
        (_transposed, "should have the shape"),
        (_overflows, "take off the maximum"),
    ],
    "multipliers": [
        *((functools.partial(_rates, slip=slip), message) for slip, message in RATES.items()),
        (_without_embedding, "should have the shape"),
    ],
    "joint_loss": [
        *((functools.partial(_joint, slip=slip), message) for slip, message in LOSSES.items()),
        (_divides_by_zero, "adds 0"),
    ],
}
