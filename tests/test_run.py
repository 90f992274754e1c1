"""Whole runs in real subprocesses: reproducible, killable, resumable, and clear about bad input."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from minillm.training import checkpoint, provenance

ROOT = Path(__file__).parents[1]
SMALL = [str(ROOT / "configs/copy.toml"), *(part for setting in (
    "train.steps=60", "train.evaluate_every=10", "train.hash_every=5", "model.width=16", "model.heads=2", "model.layers=1",
    "train.batch_size=8") for part in ("--set", setting))]  # fmt: skip
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
COMMAND = [sys.executable, "-m", "minillm.cli"]


def minillm(*arguments, cwd=None, devices=1):
    environment = ENVIRONMENT | {"JAX_NUM_CPU_DEVICES": str(devices)}
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, env=environment, cwd=cwd)


def outcome(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [
        {k: v for k, v in line.items() if k not in ("time", "tokens_per_second", "step_seconds", "seconds_left")}
        for line in lines
    ]
    summary = json.loads((folder / "summary.json").read_text())
    return summary["parameter_hash"], metrics, (folder / "provenance.jsonl").read_bytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    done = minillm("run", *SMALL, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_kills_at_any_moment_leave_the_straight_run(tmp_path):
    """SIGKILL during start-up, steps, evaluation and checkpoints (one every 25 steps); .ci/run asks for 20 kills."""
    longer = [*SMALL, "--set", "train.steps=1500", "--set", "train.evaluate_every=25"]
    assert minillm("run", *longer, "--out", tmp_path / "straight").returncode == 0
    folder, chooser, steps = tmp_path / "killed", random.Random(0), []
    for _ in range(int(os.environ.get("MINILLM_TEST_KILLS", "3"))):
        process = subprocess.Popen([*COMMAND, "run", *longer, "--out", str(folder), "--resume"], env=ENVIRONMENT,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        if chooser.random() < 0.7:  # let it save once, so that the kill falls into the loop
            wait_for_checkpoint(folder, steps[-1] if steps else 0, process)
        time.sleep(chooser.uniform(0.0, 0.6))
        process.kill()
        process.wait()
        steps.append(checkpoint.latest(folder / "checkpoints") or 0)
    assert 0 < steps[-1] < 1500  # it was the kills that ended these
    assert len(set(steps)) >= 3
    done = minillm("run", *longer, "--out", folder, "--resume")
    assert done.returncode == 0, done.stderr
    assert outcome(folder) == outcome(tmp_path / "straight")


def wait_for_checkpoint(folder, step, process):
    """Until the run has saved a step after `step`, or has ended, or a minute has passed."""
    for _ in range(1200):
        if process.poll() is not None or (checkpoint.latest(folder / "checkpoints") or 0) > step:
            return
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(straight, tmp_path, number):
    folder = tmp_path / "run"
    process = subprocess.Popen([*COMMAND, "run", *SMALL, "--set", "train.steps=100000", "--out", str(folder)], env=ENVIRONMENT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    for line in process.stdout:
        if "step 10/" in line:
            process.send_signal(number)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "saved at step" in errors
    assert "--resume" in errors
    assert list((folder / "checkpoints").glob("step_*"))


def rewritten(lines, change):
    """The log with one line changed and all hashes of the chain computed anew: damage that only a replay can find."""
    chain, out = provenance.START, []
    for line in lines:
        body = {name: value for name, value in change(line).items() if name != "chain"}
        chain = hashlib.sha256(
            chain.encode() + json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()
        out.append(json.dumps(body | {"chain": chain}, sort_keys=True, separators=(",", ":")))
    return "".join(line + "\n" for line in out)


LEAF = "blocks/attention/query/kernel"
FORGERIES = {
    "loss": lambda line: line | {"loss": "3f800000"} if line["step"] == 7 else line,
    "batch": lambda line: line | {"batch": "0" * 16} if line["step"] == 4 else line,
    "parameters": lambda line: (
        line | {"parameters": line["parameters"] | {LEAF: "0" * 64}} if line["step"] == 10 else line
    ),
}


def test_verify_replays_and_names_the_first_step_and_leaf_that_differ(straight, tmp_path):
    equal = json.loads(minillm("verify", straight, "--steps", "12", "--json").stdout)
    assert (equal["equal"], equal["steps"]) == (True, 12)
    lines = provenance.read(straight / "provenance.jsonl")
    for field, (step, leaf) in {"loss": (7, ""), "batch": (4, ""), "parameters": (10, LEAF)}.items():
        shutil.copytree(straight, tmp_path / field)
        (tmp_path / field / "provenance.jsonl").write_text(rewritten(lines, FORGERIES[field]))
        done = minillm("verify", tmp_path / field, "--steps", "12", "--json")
        found = json.loads(done.stdout)
        assert (done.returncode, found["step"], found["field"], found["leaf"]) == (1, step, field, leaf)


def test_verify_refuses_a_broken_chain_and_a_damaged_checkpoint(straight, tmp_path):
    shutil.copytree(straight, tmp_path / "log")
    log = tmp_path / "log/provenance.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"step":7', b'"step":8'))
    done = minillm("verify", tmp_path / "log")
    assert (done.returncode, "provenance.jsonl:7" in done.stderr) == (2, True)
    shutil.copytree(straight, tmp_path / "bits")
    leaf = max((tmp_path / "bits/checkpoints/step_00000060").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
    leaf.write_bytes(leaf.read_bytes()[:-1] + b"?")
    done = minillm("verify", tmp_path / "bits")
    assert (done.returncode, "damaged" in done.stderr) == (2, True)


def test_verify_compares_checkpoints_with_the_replay(straight, tmp_path):
    """Weights changed and saved with right hashes, as no flipped bit would be: only a replay can tell."""
    from minillm.experiment.ask.reopen import open_run
    from minillm.experiment.saved import restore

    shutil.copytree(straight, tmp_path / "run")
    opened = open_run(tmp_path / "run")
    state, _, progress = restore(opened.folder, opened.setup, 60)
    checkpoint.save(opened.folder.checkpoints, 60, jax.tree.map(lambda leaf: leaf + 1, state)._replace(step=state.step),
                    progress._asdict())  # fmt: skip
    done = minillm("verify", tmp_path / "run", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["step"], found["field"]) == (1, 60, "checkpoint")
    assert found["leaf"]


def test_a_log_that_was_cut_is_refused_by_verify_and_by_resume(straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    log = tmp_path / "run/provenance.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:30]))
    verified = minillm("verify", tmp_path / "run")
    assert (verified.returncode, "every step from 1 to 60" in verified.stderr) == (2, True)
    resumed = minillm("run", *SMALL, "--set", "train.steps=70", "--out", tmp_path / "run", "--resume")
    assert (resumed.returncode, "holds 30 steps" in resumed.stderr) == (2, True)


def test_verify_replays_every_session_with_its_own_schedule_and_mesh(straight, tmp_path):
    """The cosine schedule ends at train.steps, so a longer resumed run has two schedules, and here two meshes."""
    shutil.copytree(straight, tmp_path / "run")
    longer = [*SMALL, "--set", "train.steps=80", "--set", "mesh.data=2", "--out", tmp_path / "run", "--resume"]
    assert minillm("run", *longer, devices=2).returncode == 0
    done = minillm("verify", tmp_path / "run", "--json", devices=2)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["equal"], found["steps"]) == (True, 80)
    assert found["checkpoints"] >= 2


def test_after_early_stopping_all_commands_judge_the_best_step(tmp_path):
    """A learning rate that grows worse: the best step is an early one."""
    settings = ["--set", "train.patience=1", "--set", "train.steps=1000", "--set", "optimizer.learning_rate=0.5",
                "--set", "optimizer.warmup_steps=40", "--set", "train.evaluate_every=5"]  # fmt: skip
    done = minillm("run", *SMALL, *settings, "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["steps"] == summary["best_step"] < max(checkpoint.steps(tmp_path / "run/checkpoints"))
    evaluated = json.loads(minillm("eval", tmp_path / "run", "--json").stdout)
    assert (evaluated["step"], evaluated["loss"]) == (summary["steps"], summary["validation"]["loss"])
    assert minillm("verify", tmp_path / "run").returncode == 0


@pytest.mark.slow
def test_resume_may_change_steps_mesh_and_logging(straight, tmp_path):
    """The same learning rate at every step, so that a run made longer is the longer run from the start."""
    constant = [*SMALL, "--set", "optimizer.schedule=constant"]
    longer = [*constant, "--set", "train.steps=80", "--set", "train.log_every=20"]
    assert minillm("run", *constant, "--out", tmp_path / "a").returncode == 0
    assert minillm("run", *longer, "--out", tmp_path / "a", "--resume").returncode == 0
    assert minillm("run", *longer, "--out", tmp_path / "b").returncode == 0
    found = [json.loads((tmp_path / name / "summary.json").read_text()) for name in "ab"]
    assert found[0]["parameter_hash"] == found[1]["parameter_hash"]
    meshed = minillm("run", *longer, "--set", "mesh.data=2", "--set", "mesh.model=2", "--set", "train.steps=90",
                     "--out", tmp_path / "a", "--resume", devices=4)  # fmt: skip
    assert meshed.returncode == 0, meshed.stderr
    assert "Resuming after step 80" in meshed.stdout


def test_the_best_and_the_last_checkpoints_are_kept(straight):
    steps = checkpoint.steps(straight / "checkpoints")
    lines = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
    assert set(steps) == {50, 60, min(losses, key=losses.get)}


def test_evaluate_and_compare(straight):
    found = json.loads(minillm("eval", straight, "--json").stdout)
    assert 0.0 <= found["accuracy"] <= 1.0
    assert found["step"] == 60
    compared = json.loads(minillm("compare", straight, straight, "--json").stdout)
    assert len(compared["runs"]) == 2
    assert not compared["differences"]  # one seed says nothing
    assert (straight / "compare.png").stat().st_size > 1000


def test_text_run_writes_everything_and_samples(tmp_path):
    text = "\n".join(f"line {i}: the cat number {i % 7} sat on mat {i % 5} <b>&</b>" for i in range(400))
    (tmp_path / "text.txt").write_text(text, encoding="utf8")
    (tmp_path / "c.toml").write_text(TEXT, encoding="utf8")
    done = minillm("run", "c.toml", "--out", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert set(summary["baselines"]) == {"unigram", "3-gram", "5-gram", "xz"}
    assert summary["validation"]["bits_per_character"] < summary["baselines"]["unigram"]["bits_per_character"]
    page = (tmp_path / "run/report.html").read_text(encoding="utf8")
    assert "src='data:image/png;base64," in page
    assert "<script" not in page
    sampled = minillm("sample", "run", "--prompt", "line <i>", "--tokens", "8", "--json", cwd=tmp_path)
    assert json.loads(sampled.stdout)[0]["prompt"] == "line <i>"
    long = minillm("sample", "run", "--prompt", "line " * 99, cwd=tmp_path)
    assert (long.returncode, "shorten it" in long.stderr) == (2, True)
    tokenizer = tmp_path / "run/tokenizer.model"
    tokenizer.write_bytes(tokenizer.read_bytes()[:100])
    broken = minillm("sample", "run", "--prompt", "line", cwd=tmp_path)
    assert (broken.returncode, "tokenizer.model" in broken.stderr) == (2, True)


def test_a_run_whose_output_nobody_reads_stops_and_goes_on(tmp_path):
    command = [*COMMAND, "run", *SMALL, "--out", "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
                          cwd=tmp_path) as process:  # fmt: skip
        process.stdout.close()
        said, code = process.stderr.read(), process.wait()
    assert (code, "--resume" in said, "choose a folder" in said, said.count("\n")) == (1, True, False, 1), said
    resumed = minillm("run", *SMALL, "--out", "run", "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr


TEXT = """
name = "text"
[data]
source = "text"
path = "text.txt"
drop_duplicates = false
[tokenizer]
vocabulary = 300
[model]
context = 32
layers = 1
width = 32
heads = 2
[optimizer]
learning_rate = 2e-2
[train]
steps = 60
batch_size = 8
evaluate_every = 20
[sample]
tokens = 8
prompts = ["line <script>alert(1)</script>"]
"""


@pytest.mark.parametrize("command", ["run", "branch", "describe", "sample", "predict", "adapter", "eval", "compare", "lab", "sweep", "verify", "fetch", "bench",
                                     "import hf", "export hf", "lessons list", "lessons run", "lessons check"])  # fmt: skip
def test_help_shows_an_example(command, capsys, monkeypatch):
    from minillm import cli

    monkeypatch.setattr(sys, "argv", ["minillm", *command.split(), "--help"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert f"Example: minillm {command}" in " ".join(capsys.readouterr().out.split())
