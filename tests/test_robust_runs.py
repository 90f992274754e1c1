"""Whole runs with adversarial training, augmentation and attacks: bits, devices, resuming, and what is reported."""

import contextlib
import json
import signal

import numpy as np
import pytest
from tiny_labelled import config, reviews, silent

from minillm.errors import UserError
from minillm.experiment import base as bases
from minillm.experiment import run as runs
from minillm.experiment.ask.reopen import evaluate
from minillm.sections.adversarial import chosen_attack

RECIPES = ["adversarial={ method = 'freelb', strength = 0.3, steps = 2 }", "augment={ delete = 0.2, swap = 0.1 }"]
IDLE = ["adversarial={ method = 'pgd', strength = 0.0 }", "augment={ delete = 0.0 }"]
ATTACK = "attack={ strength = 0.2, steps = 2, swap = 0.3, delete = 0.3, tries = 2 }"
ATTACKS = {"accuracy_fgm", "accuracy_pgd", "accuracy_swap", "accuracy_delete"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    root = tmp_path_factory.mktemp("robust")
    (root / "reviews.txt").write_text(reviews(120))
    (root / "c.toml").write_text(config(root / "reviews.txt", steps=6))
    return root / "c.toml"


def finish(file, root, settings, resume=False):
    return runs.run(bases.load(file, ["train.log_every=1", *settings]), root, resume, silent, silent)


def losses(root):
    lines = map(json.loads, (root / "metrics.jsonl").read_text().splitlines())
    return [[line[name] for name in ("loss", "adversarial_loss", "validation_loss") if name in line] for line in lines]


@pytest.fixture(scope="module")
def one(file, tmp_path_factory):
    root = tmp_path_factory.mktemp("one") / "run"
    return root, finish(file, root, [*RECIPES, ATTACK])


@pytest.mark.slow
def test_rates_and_strengths_of_0_are_the_plain_run(file, one, tmp_path):
    plain, idle = (finish(file, tmp_path / name, settings) for name, settings in (("plain", []), ("idle", IDLE)))
    assert idle["parameter_hash"] == plain["parameter_hash"] != one[1]["parameter_hash"]
    logs = [(tmp_path / name / "provenance.jsonl").read_bytes() for name in ("plain", "idle")]
    assert logs[0] == logs[1]
    assert "adversarial" not in (tmp_path / "plain/config.toml").read_text()


@pytest.mark.slow
def test_two_devices_give_the_losses_of_one(file, one, tmp_path):
    finish(file, tmp_path / "two", [*RECIPES, "mesh.data=2"])
    np.testing.assert_allclose(
        [value for line in losses(tmp_path / "two") for value in line],
        [value for line in losses(one[0]) for value in line], rtol=5e-5,
    )  # fmt: skip
    assert {len(line) for line in losses(one[0])} == {
        1,
        2,
    }  # of training with the adversarial one, of validation without


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits(file, one, tmp_path, monkeypatch):
    fit = runs.loop.fit

    def stop(*arguments):
        asked = iter([False, False, True, True])
        return fit(*arguments[:-1], arguments[-1]._replace(stopping=lambda: next(asked)))

    monkeypatch.setattr(runs.loop, "fit", stop)
    monkeypatch.setattr(runs, "_signals", lambda: contextlib.nullcontext([signal.SIGTERM]))
    with pytest.raises(runs.Stopped, match="step 3"):
        finish(file, tmp_path / "again", [*RECIPES, ATTACK])
    monkeypatch.undo()
    again = finish(file, tmp_path / "again", [*RECIPES, ATTACK], resume=True)
    assert again["parameter_hash"] == one[1]["parameter_hash"]
    assert again["test"] == one[1]["test"]


@pytest.mark.slow
def test_accuracy_under_attack_stands_in_summary_report_and_eval(one):
    root, summary = one
    assert summary["test"].keys() > ATTACKS
    assert {"accuracy_swap", "accuracy_delete"} < summary["baselines"]["TF-IDF + logistic regression"].keys()
    assert summary["test"]["accuracy_pgd"] <= summary["test"]["accuracy"]
    low, high = summary["intervals"]["accuracy_swap"]
    assert low <= summary["test"]["accuracy_swap"] <= high
    assert "accuracy, FGM" in (root / "report.html").read_text()
    found = evaluate(root, "test", chosen_attack("pgd", 0.2, None), only="pgd")
    assert found["accuracy_pgd"] <= found["accuracy"]
    assert "accuracy_fgm" not in found
    found = evaluate(root, "test", chosen_attack("delete", 0.3, None))
    assert 0.0 <= found["accuracy_delete of TF-IDF + logistic regression"] <= 1.0
    for asked, words in ((("shout", 0.1, None), "unknown attack"), (("fgm", 0.0, None), "nothing is attacked"),
                         (("pgd", 0.1, "cilin"), "thesaurus says nothing")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            chosen_attack(*asked)
