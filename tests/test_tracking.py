"""Sinks hear what the run's folder holds, each step once, through kills and resumes."""

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from tiny_labelled import silent

from minillm import config as configs
from minillm.errors import UserError
from minillm.experiment import run as runs
from minillm.experiment import tracking
from minillm.experiment.folder import RunFolder, read_json, read_lines

ROOT = Path(__file__).parents[1]
SETTINGS = ("train.steps=20", "train.evaluate_every=10", "train.log_every=2", "train.batch_size=4", "model.width=16", "model.heads=2",
            "model.layers=1")  # fmt: skip


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """(folder, summary, a module that records what Weights & Biases is told) of a run that was killed at step 16 and resumed."""
    root, wandb = tmp_path_factory.mktemp("tracked") / "run", types.ModuleType("wandb")
    wandb.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    wandb.told, wandb.logged = [], []

    def init(**settings):
        wandb.told.append(settings)
        return types.SimpleNamespace(log=lambda values, step: wandb.logged.append((step, values)),
                                     finish=lambda: wandb.told.append("finish"))  # fmt: skip

    def stop(step, line):
        if step == 16:
            raise KeyboardInterrupt

    wandb.init = init
    experiment = configs.load(
        ROOT / "configs/copy.toml", (*SETTINGS, "tracking.tensorboard=true", "tracking.wandb=mine")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "wandb", wandb)
        with pytest.raises(KeyboardInterrupt):
            runs.run(experiment, root, False, silent, stop)
        summary = runs.run(experiment, root, True, silent, silent)
    return root, summary, wandb


def test_tensorboard_reads_back_what_the_log_holds_each_step_once(tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    root, summary, _ = tracked
    found = EventAccumulator(str(root / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    lines = read_lines(RunFolder(root).metrics)
    for tag, name in (
        ("train/loss", "loss"),
        ("validation/loss", "validation_loss"),
        ("train/gradient_norm", "gradient_norm"),
    ):
        events = {event.step: event.value for event in found.Scalars(tag)}
        assert len(events) == len(found.Scalars(tag)) > 1
        assert events == {line["step"]: float(np.float32(line[name])) for line in lines if name in line}
    losses = [event for event in found.Scalars("train/loss")]
    times = [line["time"] for line in lines if "time" in line]
    assert losses[-1].wall_time - losses[0].wall_time == pytest.approx(times[-1] - times[0], abs=1e-3)
    (last,) = found.Scalars("summary/validation/loss")
    assert (last.step, last.value) == (20, float(np.float32(summary["validation"]["loss"])))
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"optimizer.learning_rate" in content
    assert not set(found.Tags()["scalars"]) & {"train/step", "train/seconds_left", "time"}


def test_weights_and_biases_hears_of_one_run_in_all_sessions(tracked):
    root, summary, wandb = tracked
    first, ended, second, ended_again = wandb.told
    assert first == second
    assert (ended, ended_again) == ("finish", "finish")
    assert (first["project"], first["name"], first["resume"]) == ("mine", "copy", "allow")
    assert first["id"] == read_json(root / "wandb.json")["id"]
    assert first["config"]["optimizer.learning_rate"] == 3e-3
    losses = {step: values["train/loss"] for step, values in wandb.logged if "train/loss" in values}
    lines = read_lines(RunFolder(root).metrics)
    assert losses == {line["step"]: line["loss"] for line in lines if "loss" in line}
    step, last = wandb.logged[-1]
    assert (step, last["summary/validation/loss"]) == (20, summary["validation"]["loss"])
    assert (
        sum("time" in values for _, values in wandb.logged) == len(losses) + 3
    )  # steps 12, 14 and 16 twice, as the run did


@pytest.mark.parametrize("setting", ["tracking.tensorboard=true", "tracking.wandb=mine"])
def test_a_package_that_is_missing_is_said_before_anything_is_written(setting, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    name = setting.split("=")[0].split(".")[1]
    with pytest.raises(UserError, match=f"pip install {name}"):
        runs.run(configs.load(ROOT / "configs/copy.toml", (setting,)), tmp_path / "run", False, silent, silent)
    assert not (tmp_path / "run").exists()


def test_names_say_where_a_number_comes_from():
    line = {
        "step": 3,
        "loss": 1.5,
        "validation_loss": 2,
        "time": 0.5,
        "seconds_left": 9.0,
        "note": "x",
        "summary/steps": 4,
    }
    assert tracking.named(line) == {"train/loss": 1.5, "validation/loss": 2.0, "time": 0.5, "summary/steps": 4.0}
