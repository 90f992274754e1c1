"""Contract 3: what an objective is.

    objective(model, params, batch, key, extra) -> Sums

Sums, not means, keep gradient accumulation, padding, masking and sharding exact, also where terms have different
denominators. The weights come from the data alone: they are added over micro-batches first, and then

    loss = sum over names of  coefficient[name] * sums[name] / weights[name]

is differentiated.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

Objective = Callable[..., "Sums"]


def interacts(objective: Objective) -> bool:
    """Whether the examples of a batch meet in its loss, so that parts of a batch do not add up to it.

    Such a function says so by an attribute, `objective.interacts = True`.
    """
    return getattr(getattr(objective, "func", objective), "interacts", False)


def like(inner: Objective, outer: Objective) -> Objective:
    """`outer`, which wraps `inner`, and whose examples interact where those of `inner` do."""
    outer.interacts = interacts(inner)
    return outer


class Sums(NamedTuple):
    """Named sums and their weights; `metrics` are (sum, weight) pairs that are reported, not trained on."""

    sums: Mapping[str, Any]
    weights: Mapping[str, Any]
    metrics: Mapping[str, tuple[Any, Any]]
    extra: Any = None


def total_loss(sums: Sums, weights: Mapping[str, Any], coefficients: Mapping[str, float]):
    """The scalar to differentiate.

    A term without a coefficient counts once; a weight of zero (no target in the batch) gives zero.
    """
    unknown = set(coefficients) - set(sums.sums)
    if unknown:
        raise ValueError(f"coefficients for unknown terms {sorted(unknown)}, known: {sorted(sums.sums)}")
    terms = (
        coefficients.get(name, 1.0) * value / jnp.maximum(weights[name], 1e-9) for name, value in sums.sums.items()
    )
    return sum(terms, start=jnp.zeros(()))
