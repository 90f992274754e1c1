"""Labelled runs on simulated devices, pretraining and all: the losses of one device, and an exact resume."""

import contextlib
import json
import signal

import numpy as np
import pytest
from tiny_labelled import PRETRAIN, config, reviews, silent

from minillm.experiment import base as bases
from minillm.experiment import run as runs
from minillm.experiment.ask.predict import predict

MESHES = {"one": [], "two": ["mesh.data=2"], "four": ["mesh.data=2", "mesh.model=2"]}
TEXTS = ["the room good a book", "awful screen the food a", "a"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    root = tmp_path_factory.mktemp("mesh")
    (root / "reviews.txt").write_text(reviews(120))
    every = PRETRAIN.replace("evaluate_every", "log_every = 1, evaluate_every")
    (root / "c.toml").write_text(config(root / "reviews.txt", steps=6) + every)
    return root / "c.toml"


def finish(file, root, method, mesh, resume=False):
    settings = [f"tuning.method={method}", "train.log_every=1", *MESHES[mesh]]
    return runs.run(bases.load(file, settings), root, resume, silent, silent)


def losses(root):
    """Of every step of both stages, and those of validation."""
    lines = (line for stage in ("pretrain", ".") for line in (root / stage / "metrics.jsonl").read_text().splitlines())
    return [
        [value for name, value in json.loads(line).items() if name in ("loss", "validation_loss")] for line in lines
    ]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_several_devices_give_the_losses_of_one_and_resume_exactly(method, file, tmp_path, monkeypatch):
    found = {mesh: finish(file, tmp_path / mesh, method, mesh) for mesh in MESHES}
    single, said = losses(tmp_path / "one"), predict(tmp_path / "one", TEXTS)
    assert len(single) == 6 + 1 + 6 + 2
    for mesh in ("two", "four"):
        np.testing.assert_allclose(losses(tmp_path / mesh), single, rtol=2e-5)
        for row, other in zip(predict(tmp_path / mesh, TEXTS), said, strict=True):
            assert row["probabilities"] == pytest.approx(other["probabilities"], abs=2e-5)
    fit, caught = runs.loop.fit, []

    def stop_tuning(train_step, state, frozen, key, plan, progress, hooks):
        asked = iter([False, False, True, True])

        def stopping():
            if (tmp_path / "again/pretrain/summary.json").exists() and next(asked) and not caught:
                caught.append(signal.SIGTERM)
            return bool(caught)

        return fit(train_step, state, frozen, key, plan, progress, hooks._replace(stopping=stopping))

    monkeypatch.setattr(runs.loop, "fit", stop_tuning)
    monkeypatch.setattr(runs, "_signals", lambda: contextlib.nullcontext(caught))
    with pytest.raises(runs.Stopped, match="step 3"):
        finish(file, tmp_path / "again", method, "four")
    monkeypatch.undo()
    again = finish(file, tmp_path / "again", method, "four", resume=True)
    assert again["parameter_hash"] == found["four"]["parameter_hash"]
    assert (tmp_path / "again/provenance.jsonl").read_bytes() == (tmp_path / "four/provenance.jsonl").read_bytes()
