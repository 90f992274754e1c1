"""Branches: what a run would have become from a step on, had something been otherwise; the run itself stays as it is."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_labelled import silent

from minillm import config as configs
from minillm.bits import hash_file
from minillm.errors import UserError
from minillm.experiment import fork as forks
from minillm.experiment import run as runs
from minillm.experiment.ask import reopen
from minillm.experiment.folder import RunFolder, read_json, read_lines, write_json
from minillm.experiment.verify import verify
from minillm.training import checkpoint, loop, provenance

ROOT = Path(__file__).parents[1]
SETTINGS = ("name=trunk", "model.layers=1", "model.width=16", "model.heads=2", "model.dropout=0.1", "optimizer.learning_rate=2e-2",
            "train.steps=24", "train.batch_size=4", "train.evaluate_every=6", "train.keep_last=9", "train.hash_every=4",
            "train.log_every=2")  # fmt: skip
CLOCK = ("time", "tokens_per_second", "step_seconds", "seconds_left")  # not the same in two runs


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("branch")
    runs.run(configs.load(ROOT / "configs/copy.toml", SETTINGS), folder / "run", False, silent, silent)
    return folder / "run"


def branch(trunk, step, out, *settings, resume=False, show=silent):
    return runs.run(forks.make(trunk, step, settings), out, resume, silent, show)


def contents(folder):
    return {path.relative_to(folder): hash_file(path) for path in folder.rglob("*") if path.is_file()}


def curve(folder):
    return [{key: value for key, value in line.items() if key not in CLOCK}
            for line in read_lines(RunFolder(folder).metrics)]  # fmt: skip


def test_a_branch_that_changes_nothing_is_the_trunk_to_the_last_bit(trunk, tmp_path):
    before, summary = contents(trunk), read_json(trunk / "summary.json")
    found = branch(trunk, 12, tmp_path / "branch")
    assert found["parameter_hash"] == summary["parameter_hash"]
    assert (found["validation"], found["best_step"]) == (summary["validation"], summary["best_step"])
    logs = [(folder / "provenance.jsonl").read_bytes() for folder in (trunk, tmp_path / "branch")]
    assert logs[0] == logs[1]
    assert curve(tmp_path / "branch") == curve(trunk)
    assert contents(trunk) == before
    assert read_json(tmp_path / "branch/manifest.json")["fork"]["changes"] == {}


@pytest.fixture(scope="module")
def slower(trunk, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slower") / "run"
    branch(trunk, 12, folder, "optimizer.learning_rate=1e-3", "train.keep_last=1")
    return folder


def test_a_branch_has_the_trunk_s_curve_up_to_the_fork_and_says_where_it_comes_from(trunk, slower):
    old, new = (provenance.read(folder / "provenance.jsonl") for folder in (trunk, slower))
    assert old[:13] == new[:13]  # step 13 has the loss before its update
    assert old[13]["batch"] == new[13]["batch"]
    assert old[13]["loss"] != new[13]["loss"]
    up_to = lambda folder: [line for line in curve(folder) if line["step"] <= 12]
    assert up_to(slower) == up_to(trunk)
    fork = read_json(slower / "manifest.json")["fork"]
    assert (fork["run"], fork["name"], fork["step"]) == (str(trunk), "trunk", 12)
    assert (fork["chain"], fork["config_sha256"]) == (old[11]["chain"], hash_file(trunk / "config.toml"))
    assert fork["changes"]["optimizer.learning_rate"] == {"trunk": 0.02, "branch": 0.001}
    assert configs.load(slower / "config.toml").name == "trunk-at-12-learning_rate-1e-3-keep_last-1"


def test_verify_replays_a_branch_from_its_fork_and_leaves_the_rest_to_the_trunk(trunk, slower, tmp_path):
    assert 12 in checkpoint.steps(slower / "checkpoints")  # although only the last one and the best are to be kept
    said = []
    found = verify(slower, 6, said.append)
    assert (found["equal"], found["steps"], found["fork"]) == (True, 6, 12)
    assert "from the fork at step 12 on" in found["verdict"]
    assert any(f"minillm verify {trunk}" in line for line in said)
    shutil.copytree(slower, tmp_path / "forged")
    log = tmp_path / "forged/provenance.jsonl"
    chain, lines = provenance.START, provenance.read(log)
    log.unlink()
    for line in lines:  # an unbroken chain over another step 7
        batch = "0" * 16 if line["step"] == 7 else line["batch"]
        line = provenance.record(chain, line["step"], batch, line["key"], 1.0, line.get("parameters"))
        provenance.append(log, line)
        chain = line["chain"]
    with pytest.raises(UserError, match="steps 1 to 12 are not those of the trunk"):
        verify(tmp_path / "forged", None, silent)


@pytest.mark.parametrize("without", [(), ("state_sha256",)])
def test_a_branch_whose_state_at_the_fork_is_another_one_is_not_verified(trunk, slower, tmp_path, without):
    """Also one that does not know its hash: the log has that of the parameters."""
    shutil.copytree(slower, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    shapes = forks.abstract_state(reopen.open_run(folder.root).setup)[0]
    meta = checkpoint.read_meta(folder.checkpoints, 12)
    other = checkpoint.restore(trunk / "checkpoints", 18, shapes)[0]
    checkpoint.save(folder.checkpoints, 12, other, meta)
    manifest = read_json(folder.manifest)
    manifest["fork"] = {key: value for key, value in manifest["fork"].items() if key not in without}
    write_json(folder.manifest, manifest)
    with pytest.raises(UserError, match="checkpoint of step 12 is not the state that the branch took"):
        verify(folder.root, 1, silent)


def test_the_report_and_the_comparison_show_both_curves_from_the_fork_on(trunk, slower, monkeypatch):
    page = (slower / "report.html").read_text()
    assert "<td>optimizer.learning_rate</td><td class='number'>0.02</td><td class='number'>0.001</td>" in page
    assert "held-out loss at step 24" in page
    assert "held-out loss at step 12" not in page
    assert (slower / "branch.png").read_bytes().startswith(b"\x89PNG")
    seen = {}
    monkeypatch.setattr("minillm.report.plot.compare_curves", lambda *found: seen.update(forks=found[2]))
    reopen.compare([trunk, slower])
    assert seen["forks"] == {str(slower): 12}
    assert "fork" not in read_json(trunk / "manifest.json")
    assert "Trunk and branch" not in (trunk / "report.html").read_text()


def test_no_curve_shows_before_a_fork_what_comes_after_it(monkeypatch, tmp_path):
    from minillm.report import plot

    drawn = {}
    monkeypatch.setattr(plot, "_save", lambda figure, axes, path, label: drawn.update({
        line.get_label(): line.get_xydata() for line in axes.lines}))  # fmt: skip
    old = [{"step": step, "loss": 5.0 if step <= 50 else 1.0} for step in range(1, 101)]
    new = [{"step": step, "loss": 5.0 if step <= 50 else 9.0} for step in range(1, 101)]
    plot.compare_curves({"old": old, "new": new}, tmp_path / "x.png", {"new": 50})
    assert drawn["new"][:2].tolist() == [[50.0, 5.0], [51.0, 9.0]]
    assert drawn["old"][0, 0] == 41.0  # a fifth of what comes after the fork
    assert set(drawn["old"][:10, 1]) == {5.0}
    assert set(drawn["old"][10:, 1]) == {1.0}
    assert drawn["fork at step 50"][0, 0] == 50.0


def test_a_branch_that_was_killed_at_any_place_goes_on_to_the_same_bits(trunk, slower, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    settings = ("optimizer.learning_rate=1e-3", "train.keep_last=1")
    monkeypatch.setattr(checkpoint, "save", stop)  # all is copied but the state
    with pytest.raises(KeyboardInterrupt):
        branch(trunk, 12, tmp_path / "run", *settings)
    monkeypatch.undo()
    assert not (tmp_path / "run").exists()  # what cannot begin leaves no trace
    with pytest.raises(KeyboardInterrupt):
        branch(trunk, 12, tmp_path / "run", *settings, show=lambda step, line: stop() if step == 20 else None)
    moved = trunk.rename(trunk.with_name("moved"))  # from here on the trunk's state is no longer asked for
    trunk.mkdir()
    shutil.copyfile(moved / "config.toml", trunk / "config.toml")
    try:
        found = branch(trunk, 12, tmp_path / "run", *settings, resume=True)
    finally:
        shutil.rmtree(trunk)
        moved.rename(trunk)
    assert found["parameter_hash"] == read_json(slower / "summary.json")["parameter_hash"]
    assert (tmp_path / "run/provenance.jsonl").read_bytes() == (slower / "provenance.jsonl").read_bytes()


@pytest.mark.parametrize(("step", "settings", "words"), [
    (15, (), "no checkpoint of step 15; there are: 6, 12, 18, 24"), (24, (), "nothing is left to train"),
    (12, ("train.steps=12",), "nothing is left to train"), (12, ("model.width=32",), "model.width: the parameters"),
    (12, ("model.kind=lstm",), "model.kind: the parameters"), (12, ("tokenizer.kind=char",), "tokenizer.kind: the trunk has"),
    (12, ("data.symbols=8",), "data.symbols: it decides what is held out"), (12, ("tuning.method=lora",), "which of them train"),
    (12, ("optimizer.name=sgd",), "optimizer.name: what one optimizer"), (12, ("objective.name=masked",), "objective.name: the trunk"),
    (12, ("base.run=elsewhere",), "base.run: it comes before"), (12, ("optimizer.learning_rat=1",), "did you mean 'learning_rate'"),
])  # fmt: skip
def test_what_would_make_the_state_unusable_is_refused_with_the_reason(trunk, tmp_path, step, settings, words):
    with pytest.raises(UserError, match=words):
        branch(trunk, step, tmp_path / "out", *settings)
    assert not (tmp_path / "out").exists()


def test_much_else_may_change(trunk):
    settings = ("optimizer.schedule=linear", "optimizer.weight_decay=0.0", "optimizer.clip_norm=5.0", "model.dropout=0.0",
                "train.batch_size=8", "train.seed=3", "train.steps=50", "data.shifts=0", "objective.label_smoothing=0.1")  # fmt: skip
    forks.refuse(forks.make(trunk, 12, settings), trunk.parent / "nothing")
    continued = configs.check(configs.plain(configs.load(trunk / "config.toml")) | {
        "model": {"kind": "lstm"}, "data": {"source": "text", "path": "x", "packing": "continued"}}, "x")  # fmt: skip
    with pytest.raises(UserError, match=r"train\.seed: a state of the trunk's goes on"):
        forks._refuse_keys(["train.seed"], continued, trunk)


def test_a_branch_remembers_the_best_so_far_where_its_checkpoint_is_there(trunk, tmp_path):
    """Without it, it begins without a best, and without the evaluations in vain since then."""
    folder = RunFolder(tmp_path)
    for step, progress in ((6, loop.Progress(1.0, 6)), (18, loop.Progress(1.0, 6, 2))):
        checkpoint.save(folder.checkpoints, step, {}, progress._asdict())
    at = lambda *settings: forks._progress(forks.make(trunk, 18, settings), folder)
    assert at()[:4] == (1.0, 6, 2, False)
    assert at("train.patience=2").finished
    shutil.rmtree(folder.checkpoints / "step_00000006")
    assert at("train.patience=2")[:4] == (None, 0, 0, False)


@pytest.mark.parametrize("seed", range(5))
def test_a_best_that_is_gone_was_beaten_so_that_beginning_without_it_ends_the_same(seed):
    """Early stopping over random losses: forks whose best so far is no longer kept, for a better one has come."""
    losses = np.random.default_rng(seed).normal(size=40)

    def judged(progress, steps):
        for step in steps:
            progress = progress if progress.finished else loop.judge(progress, step, losses[step - 1], 6)
        return progress

    whole = judged(loop.Progress(), range(1, 41))
    for fork in range(1, 40):
        then = judged(loop.Progress(), range(1, fork + 1))
        if then.best_step < whole.best_step and not then.finished and fork != then.best_step:
            fresh = then._replace(best=None, best_step=0, stale=0)
            assert judged(fresh, range(fork + 1, 41)) == whole


def test_the_command_says_how_a_branch_goes_on(trunk, tmp_path, monkeypatch, capsys):
    import sys

    from minillm import cli

    def stopped(experiment, root, resume, say, show):
        raise runs.Stopped(15, 2, root)

    monkeypatch.setattr(cli.runs, "prepare", lambda: None)
    monkeypatch.setattr(runs, "run", stopped)
    words = ["branch", str(trunk), "--at", "12", "--set", "train.steps=50", "--out", str(tmp_path / "b")]
    monkeypatch.setattr(sys, "argv", ["minillm", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
    assert f"minillm {' '.join(words)} --resume" in capsys.readouterr().err
