"""Checks of lesson 03: each wrong answer is compared with those that others have given before, and named."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from minillm.course import answers
from minillm.course.answers import as_array
from minillm.course.contract import Mistake
from minillm.objectives.causal import token_losses
from minillm.training.optimizer import OptimizerConfig, make_optimizer

close = functools.partial(answers.close, smallest=1e-6)


# softmax_cross_entropy_gradient

LOGITS = np.array([[0.0, np.log(3.0), 1.0], [2.0, -1.0, 0.5], [0.3, 0.2, 0.1], [-1.0, 0.0, 1.5]], np.float32)
TARGETS = np.array([0, 2, 1, 0])
WEIGHTS = np.array([1.0, 1.0, 0.5, 0.0], np.float32)

GRADIENT_SLIPS = {
    "sign": "the sign is reversed: it is prediction minus target, p - y; you have y - p and would climb",
    "sum": "the rows are right but not divided: L is a mean, so divide by the sum of the weights",
    "rows": "you divide by the number of rows: divide by the sum of the weights, padding rows do not count",
    "unweighted": "the weights are ignored: multiply each row by its own weight, padding (weight 0) has no gradient",
    "axis": "the softmax runs over the wrong axis: each row of logits is one distribution over the k classes",
    "target": "no target is subtracted: each row of p - y sums to 0, yours to its weight; where is y?",
}


def _gradient(logits, targets, weights, slip=None):
    axis = 0 if slip == "axis" else 1
    p = np.exp(logits - logits.max(axis=axis, keepdims=True))
    y = 0.0 if slip == "target" else np.eye(logits.shape[1])[targets]
    rows = p / p.sum(axis=axis, keepdims=True) - y
    rows = rows if slip == "unweighted" else rows * weights[:, None]
    divisor = {"sum": 1.0, "rows": len(logits), "unweighted": len(logits)}.get(slip, weights.sum())
    return (-rows if slip == "sign" else rows) / divisor


def _check_gradient(function) -> None:
    def loss(logits):
        return (token_losses(logits, jnp.asarray(TARGETS))[0] * WEIGHTS).sum() / WEIGHTS.sum()

    result = as_array(function(LOGITS.copy(), TARGETS.copy(), WEIGHTS.copy()), LOGITS.shape, "the gradient")
    if not close(result, jax.grad(loss)(jnp.asarray(LOGITS))):
        for slip, message in GRADIENT_SLIPS.items():
            if close(result, _gradient(LOGITS, TARGETS, WEIGHTS, slip)):
                raise Mistake(message)
        if close(result * WEIGHTS.sum(), WEIGHTS.sum() * _gradient(LOGITS, TARGETS, np.ones(4), "sum")):
            raise Mistake(GRADIENT_SLIPS["unweighted"])
        row = int(np.abs(result - _gradient(LOGITS, TARGETS, WEIGHTS)).max(1).argmax())
        raise Mistake(f"row {row} of the gradient is wrong: is it w (p - y) / sum of w? Its sum should be 0")
    large = as_array(function(LOGITS * 500, TARGETS.copy(), WEIGHTS.copy()), LOGITS.shape, "the gradient")
    if not close(large, _gradient(LOGITS * 500, TARGETS, WEIGHTS)):
        raise Mistake("logits of 1000 overflow in exp: subtract each row's maximum first, which changes no softmax")


def _overflow(logits, targets, weights):
    with np.errstate(all="ignore"):
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return weights[:, None] * (p - np.eye(logits.shape[1])[targets]) / weights.sum()


# adamw_update

ADAMW_SLIPS = {
    "bias": "the bias correction is missing: both means start at 0, so divide them by 1 - beta^step",
    "stored": "you return the corrected means: the correction is for this step only, keep `first` and `second` uncorrected",
    "inside": "the decay is added to the gradient (L2 inside Adam): AdamW subtracts rate * decay * parameter beside the step",
    "unscaled": "the decay is not multiplied by the rate: subtract rate * decay * parameter",
    "none": "there is no weight decay: subtract rate * decay * parameter as well",
    "square": "`second` must average the square of the gradient, not the gradient",
    "root": "the square root of the second mean is missing",
    "epsilon": "epsilon stands inside the square root: Adam adds it outside",
    "one": "both means use one beta: `first` decays by beta1, `second` by beta2",
    "ascent": "the parameter moves up the gradient: subtract the step",
}


def _adamw(parameter, gradient, first, second, step, rate, beta1=0.9, beta2=0.95, epsilon=1e-8, decay=0.1, slip=None):
    beta2 = beta1 if slip == "one" else beta2
    gradient = gradient + decay * parameter if slip == "inside" else gradient
    first = beta1 * first + (1 - beta1) * gradient
    second = beta2 * second + (1 - beta2) * (gradient if slip == "square" else gradient**2)
    mean, square = (first, second) if slip == "bias" else (first / (1 - beta1**step), second / (1 - beta2**step))
    first, second = (mean, square) if slip == "stored" else (first, second)
    with np.errstate(invalid="ignore"):
        root = np.sqrt(square + epsilon) if slip == "epsilon" else np.sqrt(square) + epsilon
        scaled = mean / (square + epsilon if slip == "root" else root)
    shrink = {"inside": 0.0, "none": 0.0, "unscaled": decay}.get(slip, rate * decay) * parameter
    return parameter - (-rate if slip == "ascent" else rate) * scaled - shrink, first, second


START = np.array([1.0, -2.0, 0.5])
GRADIENTS = np.array([[0.3, 0.02, 1.0], [0.1, -0.4, 0.5], [-0.2, 0.3, 0.8], [0.6, 0.1, -0.9]])
SETTINGS = {"rate": 0.03, "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-2, "decay": 0.5}


def _trajectory(function) -> list[tuple[np.ndarray, ...]]:
    """(parameter, first, second) after each of the steps, every call fed with what the one before returned."""
    state, path = (START.copy(), np.zeros(3), np.zeros(3)), []
    for step, gradient in enumerate(GRADIENTS, start=1):
        state = function(state[0], gradient.copy(), state[1], state[2], step, **SETTINGS)
        if not isinstance(state, tuple | list) or len(state) != 3:
            raise Mistake("the function should return three arrays: (parameter, first, second)")
        names = ("the parameter", "`first`", "`second`")
        state = tuple(as_array(leaf, START.shape, name) for leaf, name in zip(state, names, strict=True))
        path.append(tuple(leaf.copy() for leaf in state))
    return path


def _library_path() -> list[np.ndarray]:
    config = OptimizerConfig(
        "adamw", SETTINGS["rate"], "constant", weight_decay=SETTINGS["decay"], beta1=SETTINGS["beta1"],
        beta2=SETTINGS["beta2"], epsilon=SETTINGS["epsilon"], clip_norm=None,
    )  # fmt: skip
    optimizer = make_optimizer(config, len(GRADIENTS), True)
    parameter, path = jnp.asarray(START, jnp.float32), []
    state = optimizer.init(parameter)
    for gradient in GRADIENTS:
        updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, parameter)
        parameter = optax.apply_updates(parameter, updates)
        path.append(np.asarray(parameter))
    return path


def _check_adamw(function) -> None:
    path = _trajectory(function)
    parameters, library, right = [state[0] for state in path], _library_path(), _trajectory(_adamw)
    if all(map(close, parameters, library)) and close(path, right):
        return
    for slip, message in ADAMW_SLIPS.items():
        if close(path, _trajectory(functools.partial(_adamw, slip=slip))):
            raise Mistake(message)
    for step, (yours, expected) in enumerate(zip(path, right, strict=True), start=1):
        for name, a, b in zip(
            ("first", "second", "parameter"), yours[1:] + yours[:1], expected[1:] + expected[:1], strict=True
        ):
            if not close(a, b):
                raise Mistake(f"`{name}` is wrong after step {step}: expected {b.round(4)}, got {a.round(4)}")


CHECKS = {"softmax_cross_entropy_gradient": _check_gradient, "adamw_update": _check_adamw}

HINTS = {
    "softmax_cross_entropy_gradient": (
        "For one row without weights it is softmax(logits) minus the one-hot row of the target.",
        "Then multiply row i by weights[i] and divide everything by weights.sum(). np.eye(k)[targets] makes the one-hot rows.",
    ),
    "adamw_update": (
        "Update the two means first; make corrected copies of them for the step, and return the uncorrected ones.",
        "parameter - rate * (corrected first / (sqrt(corrected second) + epsilon) + decay * parameter)",
    ),
}

MISTAKES = {
    "softmax_cross_entropy_gradient": [
        *((functools.partial(_gradient, slip=slip), message) for slip, message in GRADIENT_SLIPS.items()),
        (_overflow, "subtract each row's maximum"),
    ],
    "adamw_update": [(functools.partial(_adamw, slip=slip), message) for slip, message in ADAMW_SLIPS.items()],
}
