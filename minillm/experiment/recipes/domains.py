"""What [invariance] makes of a run on labels: rows that know their domain, an objective over domains, and its memory."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from minillm.config import Experiment
from minillm.data import rows
from minillm.data.document import Document
from minillm.objectives.contract import Objective, Sums
from minillm.objectives.invariance import MEMORY, classify_dro, classify_irm, reweigh_domains
from minillm.sections.invariance import InvarianceConfig


def active(experiment: Experiment) -> InvarianceConfig | None:
    """The section, or None where it changes nothing."""
    section = experiment.invariance
    return section if section is not None and section.strength > 0.0 else None


def marked(
    experiment: Experiment, dataset: rows.RowDataset, documents: Sequence[Document] | None = None
) -> rows.RowDataset:
    """The rows with the place of each one's domain, where somebody asks; without documents made-up ones."""
    if active(experiment) is None:
        return dataset
    names = list(experiment.data.domains)
    found = [names.index(document.domain) for document in documents or ()] or [0] * len(dataset.tokens)
    return dataset._replace(domains=np.array(found, np.int32))


def over_domains(
    experiment: Experiment, objective: Objective, coefficients: dict[str, float]
) -> tuple[Objective, dict[str, float]]:
    """The objective that the section asks for, with a coefficient per term, in place of `classify`."""
    section, names = active(experiment), experiment.data.domains
    if section is None:
        return objective, coefficients
    if section.method == "irm":
        settings = {"strength": section.strength, "warmup": section.warmup}
        return functools.partial(classify_irm, domains=names, **settings), coefficients
    own = functools.partial(classify_dro, domains=names, label_smoothing=experiment.objective.label_smoothing)
    return own, {f"risk_{name}": coefficients.get("loss", 1.0) for name in names}


def memory(experiment: Experiment) -> dict[str, Any]:
    """What is remembered before the first step: group DRO's log q, all alike, or how many updates irm has had."""
    section, count = active(experiment), len(experiment.data.domains or ())
    if section is None:
        return {}
    return {
        MEMORY: jnp.zeros((), jnp.int32) if section.method == "irm" else jnp.full(count, -np.log(count), jnp.float32)
    }


def remembering(experiment: Experiment, gradient: Callable) -> Callable:
    """The gradient of the whole batch, with the memory that the next step finds in its Sums' extra."""
    section = active(experiment)
    if section is None:
        return gradient

    def after(before, sums: Sums):
        if section.method == "irm":
            return before + 1
        risks = [sums.metrics[f"risk_{name}"] for name in experiment.data.domains]
        means = jnp.stack([loss / jnp.maximum(weight, 1e-9) for loss, weight in risks])
        return reweigh_domains(before, means, section.strength)

    def remembered(trainable, frozen, extra, batch, key, weights=None):
        gradients, sums = gradient(trainable, frozen, extra, batch, key, weights)
        return gradients, sums._replace(extra=extra | {MEMORY: after(extra[MEMORY], sums)})

    return remembered
