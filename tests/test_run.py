"""Whole runs in real subprocesses: reproducible, killable, resumable, and clear about bad input."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = [str(ROOT / "configs/copy.toml"), *(part for setting in (
    "train.steps=60", "train.evaluate_every=10", "train.hash_every=5", "model.width=16", "model.heads=2", "model.layers=1",
    "train.batch_size=8") for part in ("--set", setting))]  # fmt: skip
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
COMMAND = [sys.executable, "-m", "minillm.cli"]


def minillm(*arguments, cwd=None):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT, cwd=cwd)


def outcome(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in line.items() if k not in ("time", "tokens_per_second")} for line in lines]
    summary = json.loads((folder / "summary.json").read_text())
    return summary["parameter_hash"], metrics, (folder / "provenance.jsonl").read_bytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    done = minillm("run", *SMALL, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_kills_at_any_moment_leave_the_straight_run(straight, tmp_path):
    folder, chooser = tmp_path / "run", random.Random(0)
    for _ in range(6):
        process = subprocess.Popen([*COMMAND, "run", *SMALL, "--out", str(folder), "--resume"], env=ENVIRONMENT,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        time.sleep(chooser.uniform(0.5, 7.0))
        process.kill()
        process.wait()
    done = minillm("run", *SMALL, "--out", folder, "--resume")
    assert done.returncode == 0, done.stderr
    assert outcome(folder) == outcome(straight)


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


def test_verify_replays_and_names_a_changed_step(straight):
    assert minillm("verify", straight, "--steps", "20").returncode == 0
    log = straight / "provenance.jsonl"
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    lines[6] = lines[6].replace(b'"step": 7', b'"step": 8')
    log.write_bytes(b"".join(lines))
    done = minillm("verify", straight, "--steps", "20")
    log.write_bytes(whole)
    assert done.returncode == 2
    assert "line 7" in done.stderr


def test_evaluate_and_compare(straight):
    found = json.loads(minillm("eval", straight, "--json").stdout)
    assert 0.0 <= found["accuracy"] <= 1.0
    assert found["step"] == 60
    rows = json.loads(minillm("compare", straight, straight, "--json").stdout)
    assert len(rows) == 2
    assert (straight / "compare.png").stat().st_size > 1000


def test_text_run_writes_everything_and_samples(tmp_path):
    text = "\n".join(f"line {i}: the cat number {i % 7} sat on mat {i % 5} <b>&</b>" for i in range(400))
    (tmp_path / "text.txt").write_text(text, encoding="utf8")
    (tmp_path / "c.toml").write_text(TEXT, encoding="utf8")
    done = minillm("run", "c.toml", "--out", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert set(summary["baselines"]) == {"unigram", "3-gram", "5-gram", "xz"}
    assert summary["validation"]["bits_per_character"] < summary["baselines"]["unigram"]["bits_per_character"] * 1.5
    page = (tmp_path / "run/report.html").read_text(encoding="utf8")
    assert "src='data:image/png;base64," in page
    assert "<script" not in page
    sampled = minillm("sample", "run", "--prompt", "line <i>", "--tokens", "8", "--json", cwd=tmp_path)
    assert json.loads(sampled.stdout)[0]["prompt"] == "line <i>"
    long = minillm("sample", "run", "--prompt", "line " * 99, cwd=tmp_path)
    assert (long.returncode, "do not fit" in long.stderr) == (2, True)
    tokenizer = tmp_path / "run/tokenizer.model"
    tokenizer.write_bytes(tokenizer.read_bytes()[:100])
    broken = minillm("sample", "run", "--prompt", "line", cwd=tmp_path)
    assert (broken.returncode, "tokenizer.model" in broken.stderr) == (2, True)


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
[train]
steps = 30
batch_size = 8
evaluate_every = 10
[sample]
tokens = 8
prompts = ["line <script>alert(1)</script>"]
"""

# setting -> a word that the one line must hold
BAD = {
    "trian.steps=3": "trian", "train.step=3": "did you mean 'steps'", "train.steps='10'": "train.steps", "train.steps=0": "steps",
    "train.steps=-4": "steps", "train.steps=1.5": "train.steps", "train.batch_size=0": "batch_size", "train.shards=3": "shards",
    "train.seed=-1": "seed", "train.keep_last=0": "keep_last", "train.patience=0": "patience", "train.log_every=0": "log_every",
    "train.hash_every=-1": "hash_every", "model.heads=3": "heads must divide width", "model.heads=0": "at least 1",
    "model.kind='lstmm'": "unknown model", "model.vocabulary=5": "tokenizer", "model.dropout=1.0": "dropout",
    "model.dropout=nan": "model.dropout", "model.norm='batch'": "model.norm", "model.hidden=0": "hidden", "model.layers=0": "at least 1",
    "optimizer.learning_rate=0.0": "learning_rate", "optimizer.learning_rate=nan": "learning_rate",
    "optimizer.learning_rate=inf": "learning_rate", "optimizer.learning_rate=-1.0": "learning_rate", "optimizer.name='lion'": "optimizer.name",
    "optimizer.beta1=1.0": "beta1", "optimizer.clip_norm=0.0": "clip_norm", "optimizer.warmup_steps=-1": "warmup_steps",
    "optimizer.final_ratio=2.0": "final_ratio", "mesh.data=64": "devices", "mesh.model=0": "mesh", "mesh.rules='zero'": "mesh.rules",
    "data.source='nowhere'": "known sources", "data.source='text'": "data.path", "data.validation=0.0": "validation",
    "data.validation=1.0": "validation", "data.packing='tight'": "data.packing", "data.length=0": "length",
    "tokenizer.vocabulary=3": "vocabulary", "tokenizer.kind='word'": "tokenizer.kind", "sample.temperature=-1.0": "temperature",
    "sample.top_p=0.0": "top_p", "sample.top_k=0": "top_k", "sample.tokens=0": "tokens", "objective.label_smoothing=1.0": "label_smoothing",
    "objective.name='masked'": "objective.name", "tuning.freeze=['embedding/*']": "tuning.freeze", "baselines.orders=[0]": "orders",
    "train.steps": "section.key=value", "name.x=1": "name",
}  # fmt: skip


@pytest.mark.parametrize("setting", BAD)
def test_bad_settings_are_one_line_and_leave_nothing(setting, tmp_path, capsys, monkeypatch):
    from minillm import cli

    monkeypatch.setattr(cli, "prepare", lambda: None)
    monkeypatch.setattr(
        sys, "argv", ["minillm", "run", str(ROOT / "configs/copy.toml"), "--set", setting, "--out", str(tmp_path / "r")]
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    errors = capsys.readouterr().err
    assert stop.value.code == 2
    assert BAD[setting] in errors, errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "r").exists()


FILES = {
    "missing": (None, "no such file"), "empty": (b"", "empty"), "binary": (b"ab\0cd" * 99, "offset 2"),
    "latin": ("caf\u00e9 ".encode("latin-1") * 99, "not UTF-8 at byte 3"), "short": (b"abc", "too"),
    "blank": (b" \n\n ", "no text"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_bad_corpora(kind, tmp_path, capsys, monkeypatch):
    from minillm import cli

    content, word = FILES[kind]
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    (tmp_path / "c.toml").write_text(TEXT, encoding="utf8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "prepare", lambda: None)
    monkeypatch.setattr(sys, "argv", ["minillm", "run", "c.toml", "--out", "r"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    errors = capsys.readouterr().err
    assert (stop.value.code, word in errors) == (2, True), errors


def test_folders_that_are_not_for_writing(straight, tmp_path):
    again = minillm("run", *SMALL, "--out", straight)
    assert (again.returncode, "--resume" in again.stderr) == (2, True)
    changed = minillm("run", *SMALL, "--set", "model.heads=1", "--out", straight, "--resume")
    assert (changed.returncode, "model.heads" in changed.stderr) == (2, True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/diary.txt").write_text("mine")
    other = minillm("run", *SMALL, "--out", tmp_path / "full")
    assert (other.returncode, "not a run" in other.stderr) == (2, True)
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["diary.txt"]
    file = minillm("run", *SMALL, "--out", tmp_path / "full/diary.txt")
    assert (file.returncode, "file" in file.stderr) == (2, True)


@pytest.mark.parametrize("command", ["run", "describe", "sample", "eval", "compare", "verify", "fetch"])
def test_help_shows_an_example(command, capsys, monkeypatch):
    from minillm import cli

    monkeypatch.setattr(sys, "argv", ["minillm", command, "--help"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert "minillm" in capsys.readouterr().out
