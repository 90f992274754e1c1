"""Whole runs with few labels: a teacher and its student, on one device and on two, resumed, verified, refused."""

import contextlib
import json
import signal

import numpy as np
import pytest
from tiny_labelled import based, config, reviews, silent

from minillm.errors import UserError
from minillm.experiment import base as bases
from minillm.experiment import run as runs
from minillm.experiment.ask import reopen
from minillm.experiment.verify import verify

pytestmark = pytest.mark.slow
QUICK = "[baselines]\ntext = false\n[annotation]\nlabels = 20\n"
TEACHER = ("pseudo.threshold=0.0", "train.log_every=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("few")
    (root / "reviews.txt").write_text(reviews(120))
    (root / "c.toml").write_text(config(root / "reviews.txt", steps=6) + QUICK)
    (root / "simcse.toml").write_text(config(root / "reviews.txt", steps=6, objective="simcse"))
    return root


def finish(folder, name, *settings, file="c.toml", resume=False):
    return runs.run(bases.load(folder / file, settings), folder / name, resume, silent, silent)


def student(folder, *settings):
    return (f"pseudo.run={folder}/teacher", *TEACHER, "consistency.threshold=0.0", *settings)


@pytest.fixture(scope="module")
def taught(folder):
    plain = finish(folder, "teacher")
    return plain, finish(folder, "student", *student(folder))


def losses(root):
    lines = (json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines())
    return [[value for name, value in line.items() if name in ("loss", "pseudo", "consistency")] for line in lines]


def test_a_student_learns_what_its_teacher_said_and_the_run_knows_it(folder, taught):
    plain, summary = taught
    found = json.loads((folder / "student/pseudo.json").read_text())
    assert found["parameter_hash"] == plain["parameter_hash"]
    answers = np.array(found["probabilities"])
    assert answers.shape == (summary["annotation"]["unlabelled"], 2) == (52, 2)
    np.testing.assert_allclose(answers.sum(1), 1.0, rtol=1e-6)
    assert summary["pseudo"]["kept"] == summary["pseudo"]["asked"] == 52
    assert summary["pseudo"]["accuracy"] == pytest.approx(summary["pseudo"]["accuracy_kept"])
    line = json.loads((folder / "student/metrics.jsonl").read_text().splitlines()[0])
    assert {"pseudo", "consistency", "sure"} <= set(line)
    assert summary["parameter_hash"] != plain["parameter_hash"]
    assert verify(folder / "student", None, silent)["equal"]


def test_strength_zero_is_the_plain_run_bit_for_bit(folder, taught):
    zero = ("pseudo.strength=0.0", "consistency.strength=0.0", "contrastive.strength=0.0")
    found = finish(folder, "zero", *student(folder, *zero))
    assert found["parameter_hash"] == taught[0]["parameter_hash"]
    assert not (folder / "zero/pseudo.json").exists()


def test_a_student_that_was_stopped_ends_with_the_same_bits_on_its_own_copy_of_the_answers(folder, taught, monkeypatch):
    fit = runs.loop.fit

    def stop(train_step, state, frozen, key, plan, progress, hooks):
        asked = iter([False, False, True, True])
        return fit(train_step, state, frozen, key, plan, progress, hooks._replace(stopping=lambda: next(asked)))

    with monkeypatch.context() as patched:
        patched.setattr(runs.loop, "fit", stop)
        patched.setattr(runs, "_signals", lambda: contextlib.nullcontext([signal.SIGTERM]))
        with pytest.raises(runs.Stopped):
            finish(folder, "again", *student(folder))
    path = folder / "again/pseudo.json"
    said = path.read_text()
    path.write_text(said.replace("0.", "0.1", 1))
    with pytest.raises(UserError, match="do not fit their hash"):
        finish(folder, "again", *student(folder), resume=True)
    path.write_text(said)
    (folder / "teacher").rename(folder / "gone")  # it is not asked twice
    found = finish(folder, "again", *student(folder), resume=True)
    (folder / "gone").rename(folder / "teacher")
    assert found["parameter_hash"] == taught[1]["parameter_hash"]


def test_two_devices_with_a_shard_each_give_the_losses_of_one(folder, taught):
    finish(folder, "two", *student(folder, "mesh.data=2", "train.shards=2"))
    np.testing.assert_allclose(losses(folder / "two")[0], losses(folder / "student")[0], rtol=2e-5)
    np.testing.assert_allclose(losses(folder / "two")[5], losses(folder / "student")[5], rtol=1e-3)


def test_teachers_that_have_seen_more_are_refused(folder, taught):
    for settings, words in (
        (["annotation.labels=30"], "from other labels"), (["train.seed=5"], "from other labels"),
        (["data.split_seed=1"], "from other data"), ([f"pseudo.run={folder}/nothing"], "not a run"),
        (["pseudo.threshold=1.0"], "no text is pseudo-labelled"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            finish(folder, "wrong", *student(folder, *settings))
        assert not (folder / "wrong/config.toml").exists()


def test_simcse_runs_and_is_judged_by_neighbours_on_one_device_and_on_two(folder):
    settings = ("train.log_every=1", "contrastive.temperature=0.2", "contrastive.pooling=first")
    one, two = (finish(folder, f"simcse{n}", *settings, f"mesh.data={n}", file="simcse.toml") for n in (1, 2))
    assert 0.0 <= one["validation"]["nearest"] <= 1.0
    assert {"before training", "TF-IDF"} == set(one["baselines"])
    np.testing.assert_allclose(losses(folder / "simcse2")[:3], losses(folder / "simcse1")[:3], rtol=1e-4)
    assert one["validation"]["loss"] == pytest.approx(two["validation"]["loss"], rel=1e-2)
    with pytest.raises(UserError, match="to compare texts"):
        reopen.sample(folder / "simcse1", runs.configs.SampleConfig())


def test_suspected_labels_are_left_out_and_the_finding_is_judged_by_the_truth(folder):
    settings = ("annotation.labels=60", "annotation.noise=0.2", "annotation.drop_found=true")
    found = finish(folder, "dropped", *settings)["annotation"]
    assert found["wrong"] == 12
    left = sum(found["classes"].values())
    assert left == 60 - found["finding"]["found"]
    hits = round(found["finding"]["recall"] * 12)
    assert found["wrong_left"] == 12 - hits
    assert found["finding"]["chance"] == pytest.approx(0.2)


def test_words_and_frozen_features_stand_beside_the_model_that_begins_with_them(folder, taught):
    (folder / "hybrid.toml").write_text(
        based(folder / "reviews.txt", folder / "teacher") + "[baselines]\nfeatures = true\n"
    )
    found = finish(folder, "hybrid", "train.steps=2", file="hybrid.toml")
    assert {"TF-IDF and frozen features", "frozen features + logistic regression"} <= set(found["baselines"])
