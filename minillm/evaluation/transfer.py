"""What a sequence of tasks forgets and what it carries on, from the matrix of accuracies.

R[i, j]: accuracy on task j after learning task i            Lopez-Paz and Ranzato 2017, section 2.1
average accuracy   ACC = mean over j of R[T, j]
backward transfer  BWT = mean over j < T of  R[T, j] - R[j, j]          below 0: it has forgotten
forgetting         mean over j < T of  max over i < T of R[i, j]  -  R[T, j]        Chaudhry et al. 2018, equation 3
forward transfer   FWT = mean over j > 1 of  R[j - 1, j] - b_j,  b_j: accuracy of new heads on the base
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from minillm.errors import UserError
from minillm.evaluation.intervals import over_seeds

Matrix = Float64[np.ndarray, "tasks tasks"]


def summarise(matrix: Matrix, before: Sequence[float] | None = None) -> dict[str, float]:
    """{"average_accuracy", "backward_transfer", "forgetting"}, and "forward_transfer" where `before` gives b_j."""
    matrix = np.asarray(matrix, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        message = f"a matrix of shape {list(matrix.shape)}, expected one row and one column per task, two at least"
        raise UserError(message, "sequence", "judge the model on every task after each")
    last, own = matrix[-1], np.diag(matrix)
    best = matrix[:-1, :-1].max(0)
    found = {
        "average_accuracy": float(last.mean()),
        "backward_transfer": float((last - own)[:-1].mean()),
        "forgetting": float((best - last[:-1]).mean()),
    }
    if before is not None:
        ahead = [matrix[task - 1, task] - before[task] for task in range(1, len(matrix))]
        found["forward_transfer"] = float(np.mean(ahead))
    return found


def separate(matrix: Matrix) -> Matrix:
    """The matrix where each task keeps a model of its own: R[j, j] ever after, what the newest says before."""
    matrix = np.asarray(matrix, np.float64)
    later = np.tril(np.ones(matrix.shape, bool))
    return np.where(later, np.diag(matrix)[None, :], matrix)


def over_matrices(
    matrices: Sequence[Matrix], tasks: Sequence[str], before: Sequence[Sequence[float]] | None = None
) -> dict[str, Any]:
    """One matrix per seed -> {"tasks", "matrix": means, each measure with its mean, interval and values}.

    `before`: b_j of each seed, for forward transfer.
    """
    starts = [None] * len(matrices) if before is None else before
    measures = [summarise(matrix, start) for matrix, start in zip(matrices, starts, strict=True)]
    found = {name: over_seeds([row[name] for row in measures]) for name in measures[0]}
    return {"tasks": list(tasks), "matrix": np.mean(matrices, axis=0).tolist()} | found


def tests_of(order: Sequence[str], own: Mapping[str, str | None]) -> list[str]:
    """The test of each task in `order`; own: member -> the one of [tests] that is its own data.

    Raises: UserError where a member has none, or where two have the same.
    """
    for member in order:
        if own[member] is None:
            message = f"none of the [tests] has the data of {member}"
            raise UserError(message, "sequences", "name each member's own [data] among the [tests] of all")
    tests = [own[member] for member in order]
    if len(set(tests)) < len(tests) or len(tests) < 2:
        message = f"{len(order)} members in the sequence and {len(set(tests))} tests"
        raise UserError(message, "sequences", "name two members or more, on data of their own each")
    return tests


def of_rows(
    order: Sequence[str], rows: Sequence[Mapping[str, Any]], apart: bool = False, untrained: str | None = None
) -> dict[str, Any] | None:
    """A lab's rows of the members in `order`, each judged on the tests of all -> `over_matrices`; None where a run is missing.

    `apart`: each task keeps its own model. `untrained`: the member whose accuracies are b_j. Raises: UserError where
    tests are not one per task.
    """
    by_member = {row["member"]: row for row in rows}
    if not all(member in by_member for member in (*order, *([untrained] if untrained else []))):
        return None
    tests = tests_of(order, {member: by_member[member]["own_test"] for member in order})
    accuracies = lambda member: [by_member[member][f"on_{test}"]["values"] for test in tests]
    if len({len(seed) for member in (*order, *([untrained] if untrained else [])) for seed in accuracies(member)}) > 1:
        return None
    values = np.array([accuracies(member) for member in order])
    matrices = [values[..., seed] for seed in range(values.shape[-1])]
    matrices = [separate(matrix) for matrix in matrices] if apart else matrices
    return over_matrices(matrices, tests, np.array(accuracies(untrained)).T if untrained else None)
