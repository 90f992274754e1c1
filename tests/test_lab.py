"""Labs: several models at one budget, resumable, one table; and the probe that they share."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minillm.errors import UserError
from minillm.evaluation.probe import fit_ridge, ridge_probe
from minillm.experiment.many import lab as labs

LAB = """
name = "tiny"
seeds = [0, 1]
compute = 2e7
probe = true
[shared.tokenizer]
vocabulary = 300
[shared.train]
batch_size = 4
[shared.data]
source = "text"
path = "{folder}"
validation = 0.3
[members.gpt.model]
context = 16
layers = 1
width = 16
heads = 2
[members.bert]
model = {{ kind = "bert", context = 16, layers = 1, width = 16, heads = 2 }}
objective = {{ name = "masked" }}
"""


@pytest.fixture(scope="module")
def lab_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    for label, word in (("plant", "leaf"), ("animal", "wolf")):
        (folder / "text" / label).mkdir(parents=True)
        for number in range(12):
            line = f"{number} {word} stands beside {number * number} others.\n"
            (folder / "text" / label / f"{number:02d}.txt").write_text(line * 12)
    (folder / "lab.toml").write_text(LAB.format(folder=folder / "text"))
    return folder / "lab.toml"


def minillm(*arguments):
    environment = {**os.environ, "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "minillm.cli", "lab", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_a_lab_runs_members_and_seeds_at_one_budget_and_goes_on(lab_file, tmp_path):
    done = minillm(lab_file, "--out", tmp_path, "--only", "gpt")
    assert done.returncode == 0, done.stderr
    (kept,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    before = (tmp_path / "runs/gpt-1/summary.json").stat().st_mtime_ns
    done = minillm(lab_file, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run ") == 2  # bert's two seeds
    table = json.loads((tmp_path / "table.json").read_text())
    gpt, bert = table["rows"]
    assert gpt == kept  # what had run was not run again
    assert (tmp_path / "runs/gpt-1/summary.json").stat().st_mtime_ns == before
    assert gpt["bits_per_character"]["values"][0] != gpt["bits_per_character"]["values"][1]
    assert gpt["bits_per_character"]["mean"] == pytest.approx(np.mean(gpt["bits_per_character"]["values"]))
    assert gpt["bits_per_character"]["deviation"] == pytest.approx(np.std(gpt["bits_per_character"]["values"], ddof=1))
    assert "bits_per_character" not in bert
    assert bert["accuracy"]["values"]
    assert set(table["baselines"]["causal"]) == {"unigram", "3-gram", "5-gram", "xz"}
    assert 0.25 <= gpt["probe_majority"]["mean"] <= 0.75
    assert gpt["probe_counts"]["mean"] == 1.0  # one word tells the labels apart
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")


def test_a_lab_that_is_stopped_saves_and_goes_on(lab_file, tmp_path):
    command = [sys.executable, "-m", "minillm.cli", "lab", str(lab_file), "--out", str(tmp_path), "--only", "gpt",
               "--set", "compute=1e10", "--set", "seeds=[0]"]  # fmt: skip
    environment = {**os.environ, "XLA_FLAGS": ""}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True) as lab:
        log = tmp_path / "runs/gpt-0/metrics.jsonl"
        while lab.poll() is None and not log.exists():
            time.sleep(0.1)
        os.killpg(lab.pid, signal.SIGINT)  # as a terminal does
        message = lab.communicate()[1]
    assert lab.returncode == 130, message
    assert [path.name for path in (tmp_path / "runs/gpt-0/checkpoints").iterdir() if path.name.startswith("step_")]
    assert "--resume" in message


def test_baselines_are_counted_once_per_objective(lab_file, tmp_path):
    text = lab_file.read_text()
    swapped = text.replace("[members.gpt.model]", "[members.last.model]").replace("[members.bert]", "[members.a]")
    (tmp_path / "lab.toml").write_text(
        swapped + "[members.b]\nmodel = {context = 16, layers = 1, width = 16, heads = 2}\n"
    )
    jobs = labs.plan(labs.load(tmp_path / "lab.toml"), tmp_path / "out", lambda text: None)
    reduced = {(job.member, job.seed): "baselines" in job.config.read_text() for job in jobs}
    assert [key for key, value in reduced.items() if not value] == [("last", 0), ("a", 0)]


def test_the_budget_decides_the_steps(lab_file, tmp_path):
    steps = []
    for compute in (2e7, 4e7):
        lab = labs.load(lab_file, (f"compute={compute}",))
        jobs = labs.plan(lab, tmp_path / str(compute), lambda text: None)
        steps.append([job.config.read_text().split("steps = ")[1].split("\n")[0] for job in jobs[::2]])
    (gpt, bert), (more_gpt, more_bert) = ([int(step) for step in row] for row in steps)
    assert abs(more_gpt - 2 * gpt) <= 1
    assert abs(more_bert - 2 * bert) <= 1


def test_what_is_wrong_with_a_lab_is_said(lab_file, tmp_path):
    for settings, words in (
        (("compute=0.0",), "compute"), (("seeds=[1, 1]",), "no seed twice"), (("members.gpt.model.widht=3",), "widht"),
        (("members.gpt.data.validation=2.0",), "members.gpt"), (("computer=3",), "did you mean 'compute'"),
        (("name='a/b'",), "names name folders"), (("seeds=[-1]",), "seed"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            labs.plan(labs.load(lab_file, settings), tmp_path / "wrong", lambda text: None)
    with pytest.raises(UserError, match="known members: gpt, bert"):
        labs.run_lab(labs.load(lab_file), tmp_path, ("rnn",), lambda text: None)
    labs.plan(labs.load(lab_file), tmp_path, lambda text: None)
    with pytest.raises(UserError, match="another lab"):
        labs.plan(labs.load(lab_file, ("compute=9e7",)), tmp_path, lambda text: None)


def test_a_probe_finds_what_is_linear_and_nothing_else():
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=400)
    centres = 2.0 * generator.normal(size=(3, 20))
    features = centres[labels] + generator.normal(size=(400, 20))
    constant = np.concatenate([features, np.full((400, 1), 7.0)], axis=1)  # a feature that never varies does no harm
    found = ridge_probe(constant[:300], labels[:300], constant[300:], labels[300:])
    assert found["accuracy"] > 0.95
    shuffled = generator.permutation(labels)
    assert ridge_probe(features[:300], shuffled[:300], features[300:], shuffled[300:])["accuracy"] < 0.5


@pytest.mark.parity
def test_ridge_equals_scikit_learn():
    from sklearn.linear_model import Ridge

    generator = np.random.default_rng(1)
    features, labels = 3.0 + generator.normal(size=(50, 8)), generator.integers(4, size=50)
    mean, deviation, weights = fit_ridge(features, labels, 2.5)
    reference = Ridge(alpha=2.5).fit((features - mean) / deviation, np.eye(4)[labels])
    np.testing.assert_allclose(weights[:-1], reference.coef_.T, atol=1e-10)
    np.testing.assert_allclose(weights[-1], reference.intercept_, atol=1e-10)


def test_runs_that_begin_with_others_come_after_them():
    from minillm.experiment.many import chains

    members = {
        "c": {"base": {"run": "@b-{seed}"}},
        "a": {},
        "b": {"base": {"run": "@a-{seed}"}},
        "d": {"base": {"run": "@x"}},
    }
    before = chains.members_before(members)
    assert before == {"c": ["b"], "a": [], "b": ["a"], "d": []}
    assert chains.stages(before, "members") == [["a", "d"], ["b"], ["c"]]
    with pytest.raises(UserError, match="a waits for b waits for a: a circle"):
        chains.stages({"a": ["b"], "b": ["a"]}, "members")
    bases = {"x": {"model": {"width": 8, "labels": 3}, "tokenizer": {"vocabulary": 9}}, "y": {"base": {"run": "@x"}}}
    alone = chains.standing_alone({"base": {"run": "@y"}, "model": {"dropout": 0.1}}, {}, bases, 0)
    assert alone == {"model": {"width": 8, "dropout": 0.1}, "tokenizer": {"vocabulary": 9}}


def test_teachers_and_bases_are_edges_of_one_graph():
    """A student on a base of the lab waits for a teacher that begins with a member."""
    from minillm.experiment.many import chains

    teacher = lambda name: {"pseudo": {"run": f"@{name}"}}
    members = {"student": {"base": {"run": "@x"}, **teacher("teacher")}, "a": {"base": {"run": "@x"}},
               "teacher": {"base": {"run": "@a-{seed}"}}, "second": teacher("student"), "other": {}}  # fmt: skip
    found = chains.stages(chains.members_before(members), "members")
    assert found == [["a", "other"], ["teacher"], ["student"], ["second"]]
    with pytest.raises(UserError, match="no member is called 'nobody'"):
        chains.members_before(members | {"other": teacher("nobody")})
    for wrong, words in (
        ("second", "student waits for teacher waits for a waits for second waits for student"),
        ("a", "a waits for a"),
    ):
        with pytest.raises(UserError, match=f"{words}: a circle"):
            chains.stages(chains.members_before(members | {"a": teacher(wrong)}), "members")


def test_sequences_name_members_and_apart_names_sequences():
    for wrong, words in (
        ({"sequences": {"x": ("a", "b")}}, "b is none"), ({"untrained": "c"}, "c is none"), ({"apart": ("x",)}, "x is none"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            labs.Lab("lab", members={"a": {}}, **wrong)
