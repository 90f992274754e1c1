"""Sources that are no text -> batches: copy and reverse, which are made up, and images; and what every way of reading is."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from minillm.config import Experiment
from minillm.data import images, synthetic, transduction
from minillm.errors import UserError

EVALUATION = 2**32  # the seed of evaluation's corruptions: no run's own, so that all seeds are asked the same


class Reading(NamedTuple):
    """How an experiment reads: batches of training by step, and a split's fixed batches."""

    batch: Callable[[int], dict]
    evaluation: Callable[[str], list[dict]]
    rows: Callable[[int, slice], dict] | None = None  # (step, rows) -> those alone; None: they cannot be made alone
    examples: int | None = None  # of training; None: windows of a text, as many as its tokens fill


def synthetic_reading(experiment: Experiment) -> Reading:
    """The batches of the copy and reverse tasks."""
    section, train = experiment.data, experiment.train
    size = {"batch_size": train.batch_size, "length": section.copy_length, "symbols": section.symbols}
    make = functools.partial(synthetic.copy_batch, **size)
    if experiment.objective.name == "sequence_to_sequence":
        make = functools.partial(transduction.transduction_batch, task=section.source, **size)

    def evaluation(split: str) -> list[dict]:
        if split != "validation":
            raise UserError(f"the {section.source} task has no split {split!r}", "--split", "use validation")
        return [make(EVALUATION, step, split="validation") for step in range(8)]

    return Reading(lambda step: make(train.seed, step, split="train"), evaluation)


def image_reading(experiment: Experiment) -> Reading:
    """The batches of labelled images, corrupted as the objective says."""
    section, train = experiment.objective, experiment.train

    @functools.cache
    def part(name: str) -> images.ImageDataset:
        return images.split(images.digits(), name)

    def corrupt(batch: dict, seed: int, step: int) -> dict:
        if section.name == "denoising":
            return images.corrupt_pixels(batch, seed, step, section.noise, section.noise_rate)
        if section.name == "masked_patches":
            return images.mask_patches(batch, seed, step, experiment.model["patch"], section.patch_rate)
        return batch

    def batch(step: int) -> dict:
        whole = images.image_batch_at(part("train"), train.seed, step, train.batch_size, experiment.data.shifts)
        return corrupt(whole, train.seed, step)

    def evaluation(split: str) -> list[dict]:
        rows = images.image_evaluation_batches(part(split), train.batch_size)
        return [corrupt(row, EVALUATION, step) for step, row in enumerate(rows)]

    return Reading(batch, evaluation)
