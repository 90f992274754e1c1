"""What a run has tuned, as a small file that is put on its base again: on the run itself, or on another with that base."""

import dataclasses
from pathlib import Path
from typing import Any

from minillm import config as configs
from minillm.errors import UserError
from minillm.experiment.ask.reopen import Opened, open_run
from minillm.experiment.saved import judged_step, restore
from minillm.experiment.setup import make_setup
from minillm.params import flatten
from minillm.sections.experiment import ObjectiveConfig, TuningConfig
from minillm.tuning.elastic import without_anchor
from minillm.tuning.saved import load_adapter, save_adapter


def save(root: Path, path: Path) -> dict[str, Any]:
    """The tuned leaves of a run -> a file; says what is in it. Raises: UserError where nothing of the run is frozen."""
    folder, experiment, _, setup, _ = open_run(root)
    step = judged_step(folder)
    state, frozen, _ = restore(folder, setup, step)
    about = {
        "run": experiment.name, "step": step, "labels": list(experiment.data.labels),
        "objective": dataclasses.asdict(experiment.objective), "model": experiment.model,
    }  # fmt: skip
    save_adapter(path, state.trainable, without_anchor(frozen), experiment.tuning, about)
    return {"file": str(path), "method": experiment.tuning.method, "step": step, "bytes": path.stat().st_size}


def weights(opened: Opened, adapter: Path | None) -> tuple[Opened, Any, Any]:
    """(the run, trainable, frozen): its own weights, or its base with a saved adapter, and then the adapter's task.

    Raises: UserError where the adapter was trained on another base, or is damaged.
    """
    state, frozen, _ = restore(opened.folder, opened.setup, judged_step(opened.folder))
    if adapter is None:
        return opened, state.trainable, frozen
    frozen = without_anchor(frozen)
    if not flatten(frozen):
        message = "this run has trained every parameter, so that it holds no base for an adapter"
        raise UserError(message, str(opened.folder.root), "name a run that was tuned on the adapter's own base")
    trainable, section, about = load_adapter(adapter, frozen)
    check = lambda kind, raw, key: configs.validate(kind, raw, str(adapter), key)
    experiment = dataclasses.replace(
        opened.experiment,
        tuning=check(TuningConfig, section, "tuning"),
        objective=check(ObjectiveConfig, about["objective"], "objective"),
        data=dataclasses.replace(opened.experiment.data, labels=tuple(about["labels"])),
        model=about["model"],
        continual=None,  # what is held while training; it would look for an anchor
    )
    setup = make_setup(experiment, opened.setup.config.vocabulary)
    return opened._replace(experiment=experiment, setup=setup), trainable, frozen
