"""What the sections for few labels add to a run on labels: rows beside the batch, and terms of the loss."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minillm.config import Experiment
from minillm.data import rows, views
from minillm.objectives.consistency import NOISED, UNLABELLED, r_drop, uda
from minillm.objectives.contrastive import classify_contrastive
from minillm.objectives.pseudo import PSEUDO, with_pseudo_labels


def learns_pseudo(experiment: Experiment) -> bool:
    """Whether a teacher's labels count."""
    return experiment.pseudo is not None and experiment.pseudo.strength > 0.0


def reads_unlabelled(experiment: Experiment) -> bool:
    """Whether texts without labels are read as they are."""
    section = experiment.consistency
    return section is not None and section.method == "uda" and section.strength > 0.0


def with_terms(experiment: Experiment, objective: Callable, factors: dict[str, float]) -> tuple[Callable, dict]:
    """The objective with the terms of [pseudo], [consistency] and [contrastive], and a coefficient for each.

    A section of strength 0 adds nothing, so that the program is that of a run without it.
    """
    contrastive, consistency = experiment.contrastive, experiment.consistency
    learned = getattr(objective, "keywords", {})
    if contrastive is not None and contrastive.strength > 0.0 and experiment.objective.name == "classify":
        settings = {"temperature": contrastive.temperature, "pooling": contrastive.pooling}
        objective = functools.partial(classify_contrastive, **learned, **settings)
        factors = factors | {"contrastive": contrastive.strength}
    if consistency is not None and consistency.strength > 0.0:
        if consistency.method == "r_drop":
            objective = functools.partial(r_drop, **learned)
        else:
            settings = {"threshold": consistency.threshold, "temperature": consistency.temperature}
            objective = uda(objective, **settings)
        factors = factors | {"consistency": consistency.strength}
    if learns_pseudo(experiment):
        objective, factors = with_pseudo_labels(objective), factors | {"pseudo": experiment.pseudo.strength}
    return objective, factors


def rows_beside(
    experiment: Experiment, parts: Mapping[str, rows.RowDataset], special: Sequence[int]
) -> Callable[[int], dict[str, Any]]:
    """step -> the fields that stand beside a batch, "pseudo/...", "unlabelled/..." and "noised/...".

    parts: the datasets "pseudo" and "unlabelled", where they are read. special: ids that noise never touches.
    """
    train, section = experiment.train, experiment.consistency
    pool = views.token_pool(parts["unlabelled"], special) if "unlabelled" in parts else np.zeros(0, np.int32)

    def named(name: str, batch: dict) -> dict:
        return {name + key: leaf for key, leaf in batch.items()}

    def beside(step: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if "pseudo" in parts:
            size = experiment.pseudo.rows or train.batch_size
            found |= named(PSEUDO, rows.row_batch_at(parts["pseudo"], train.seed, step, size))
        if "unlabelled" in parts:
            batch = rows.row_batch_at(parts["unlabelled"], train.seed, step, section.rows or train.batch_size)
            noised = views.replace_tokens(batch, pool, train.seed, step, section.token_rate, special)
            found |= named(UNLABELLED, batch) | named(NOISED, noised)
        return found

    return beside


def cut_rows(batch: Mapping[str, Any], some: slice, size: int) -> dict[str, Any]:
    """Rows `some` of a batch of `size`, and the same share of the rows beside it."""
    share = lambda count: slice(some.start * count // size, some.stop * count // size)
    return {name: leaf[share(len(leaf))] for name, leaf in batch.items()}
