"""Checks of lesson 24: they name the mistake, not only the failure."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array, close
from minillm.course.contract import Mistake
from minillm.data import mixing
from minillm.evaluation import transfer
from minillm.tuning import elastic

numbers = functools.partial(as_array, infinite="is something divided by 0?")
RANDOM = np.random.default_rng(24)

# rows_of_step

COUNTS, SIZE, STEPS = [700, 311, 37], 24, 40
READS = {
    "one share": "every step reads the same rows: what rounding takes from a task is never given back; floor what was read in all",
    "temperature": "the temperature does nothing: raise each count to the power 1 / T",
    "power": "counts are raised to T, not to 1 / T: a large T must mix more equally",
    "total": "this is what was read up to this step; subtract what was read before it",
    "late": "the step is one off: after `step + 1` steps less after `step` steps",
    "not shared": "the shares do not sum to 1: divide by the sum over the tasks",
}


def _rows(counts, temperature, size, step, slip=None):
    power = {"temperature": 1.0, "power": temperature}.get(slip, 1.0 / temperature)
    raised = np.asarray(counts, float) ** power
    shares = raised / (max(counts) if slip == "not shared" else raised.sum())
    read = lambda done: np.floor(shares * size * done + 1e-9)
    if slip == "one share":
        return np.round(shares * size)
    if slip == "total":
        return read(step + 1)
    return read(step) - read(step - 1) if slip == "late" else read(step + 1) - read(step)


def _drawn(counts, temperature, size, step):
    raised = np.asarray(counts, float) ** (1.0 / temperature)
    return np.random.default_rng(step).multinomial(size, raised / raised.sum())


def check_rows_of_step(function: Callable) -> None:
    """Step by step at two temperatures, beside the library."""
    for temperature in (1.0, 2.5):
        wanted = []
        parts = mixing.whole_parts(mixing.proportions(COUNTS, temperature))
        for step in range(STEPS):
            spans = [mixing.row_span(part, SIZE, step) for part in parts]
            wanted.append([after - first for first, after in spans])
        found = [numbers(function(list(COUNTS), temperature, SIZE, step), (3,), "the rows") for step in range(STEPS)]
        if close(found, wanted):
            continue
        for slip, message in READS.items():
            if close(found, [_rows(COUNTS, temperature, SIZE, step, slip) for step in range(STEPS)]):
                raise Mistake(message)
        step = next(step for step in range(STEPS) if not close(found[step], wanted[step]))
        raise Mistake(
            f"at T = {temperature}, step {step} reads {found[step].astype(int).tolist()}: expected {wanted[step]}"
        )


# fisher_diagonal

FEATURES, KERNEL = RANDOM.normal(size=(9, 4)), RANDOM.normal(size=(4, 3))
INFORMATIONS = {
    "slope first": "the slopes are averaged before they are squared: that is 0 in the mean; square first",
    "best class": "only the most likely class counts: weigh every class y by p(y | x)",
    "sum": "this is a sum over the rows: divide by how many there are",
    "x": "the features are not squared: the slope is x_i times something, and it is squared whole",
    "hot": "this is p, not p (1 - p): a class that is certain has no curvature",
}


def _fisher(features, kernel, slip=None):
    p = np.exp(features @ kernel)
    p /= p.sum(axis=1, keepdims=True)
    if slip == "slope first":
        return (features.T @ (p - p)) ** 2
    if slip == "best class":
        hit = np.eye(kernel.shape[1])[p.argmax(axis=1)]
        return (features**2).T @ (hit - p) ** 2 / len(features)
    spread = p if slip == "hot" else p * (1.0 - p)
    found = (features if slip == "x" else features**2).T @ spread
    return found if slip == "sum" else found / len(features)


def _transposed(features, kernel):
    return _fisher(features, kernel).T


def check_fisher_diagonal(function: Callable) -> None:
    """Against the library, which goes through the classes."""
    result = numbers(function(FEATURES.copy(), KERNEL.copy()), KERNEL.shape, "the information")
    said = lambda kernel, row: jax.nn.log_softmax(row @ kernel)
    rows, kernel = (jnp.asarray(array, jnp.float32) for array in (FEATURES, KERNEL))
    if close(result, elastic.fisher_information(said, kernel, rows)):
        return
    for slip, message in INFORMATIONS.items():
        if close(result, _fisher(FEATURES, KERNEL, slip)):
            raise Mistake(message)
    if (result < 0.0).any():
        raise Mistake("a number is negative: it is a mean of squares")
    raise Mistake("the information is wrong: check one row and one class by hand, x_i^2 p_c (1 - p_c)")


# backward_transfer

MATRIX = np.array([[0.9, 0.5, 0.4, 0.3], [0.7, 0.8, 0.6, 0.4], [0.65, 0.85, 0.7, 0.5], [0.6, 0.75, 0.72, 0.9]])
TRANSFERS = {
    "all": "the last task is in the mean: nothing came after it, so it adds a 0",
    "sign": "the sign is turned: the end less the beginning, below 0 where it has forgotten",
    "best": "this is the mean at the end alone: subtract what each task had right after it was learned",
    "column": "rows and columns are swapped: a row is a moment, a column a test",
    "first row": "the comparison is with the first row: task j was learned at row j, so the diagonal is right after",
}


def _transfer(matrix, slip=None):
    own = matrix[0] if slip == "first row" else np.diag(matrix)
    last = matrix[:, -1] if slip == "column" else matrix[-1]
    found = last if slip == "best" else own - last if slip == "sign" else last - own
    return float((found if slip == "all" else found[:-1]).mean())


def _of_best(matrix):
    return float(-transfer.summarise(matrix)["forgetting"])


def check_backward_transfer(function: Callable) -> None:
    """One matrix of four tasks."""
    result = float(numbers(function(MATRIX.copy()), (), "the transfer"))
    if close(result, transfer.summarise(MATRIX)["backward_transfer"]):
        return
    for slip, message in TRANSFERS.items():
        if close(result, _transfer(MATRIX, slip)):
            raise Mistake(message)
    if close(result, _of_best(MATRIX)):
        raise Mistake(
            "the comparison is with the best accuracy that a task ever had: that is forgetting, with its sign turned"
        )
    raise Mistake(f"got {result:.4f}: write the last row below the diagonal, and subtract")


CHECKS = {
    "rows_of_step": check_rows_of_step,
    "fisher_diagonal": check_fisher_diagonal,
    "backward_transfer": check_backward_transfer,
}

HINTS = {
    "rows_of_step": (
        "Write read(done) = floor(p_k size done), what task k has read after `done` steps. Which two of its values do you need?",
        "raised = np.asarray(counts, float) ** (1 / temperature); shares = raised / raised.sum().",
    ),
    "fisher_diagonal": (
        "For one x and one weight W[i, c]: sum_y p_y (1[c = y] - p_c)^2 = p_c (1 - p_c)^2 + (1 - p_c) p_c^2. Simplify.",
        "(features ** 2).T @ (p * (1 - p)) is [inputs, classes], a sum over the rows.",
    ),
    "backward_transfer": (
        "matrix[-1] is the end, np.diag(matrix) is right after each task.",
        "The last task has nothing after it: leave it out with [:-1], then take the mean.",
    ),
}

MISTAKES = {
    "rows_of_step": [
        *((functools.partial(_rows, slip=slip), message) for slip, message in READS.items()),
        (_drawn, "expected"),
    ],
    "fisher_diagonal": [
        *((functools.partial(_fisher, slip=slip), message) for slip, message in INFORMATIONS.items()),
        (_transposed, "should have the shape"),
    ],
    "backward_transfer": [
        *((functools.partial(_transfer, slip=slip), message) for slip, message in TRANSFERS.items()),
        (_of_best, "that is forgetting"),
    ],
}
