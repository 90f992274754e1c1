"""What can go wrong under way: each fault is said in one line or mended, and the bits are those of a run without it."""

import contextlib
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from poison import poisoned
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from minillm import config as configs
from minillm.bits import replace_file
from minillm.commands import shared
from minillm.errors import UserError
from minillm.experiment import results, verify
from minillm.experiment import run as runs
from minillm.experiment.recipes import mixture
from minillm.objectives import OBJECTIVES
from minillm.report import plot
from minillm.training import checkpoint, loop, provenance
from minillm.training.state import State
from minillm.training.watch import Watch, spike

COPY = Path(__file__).parents[1] / "configs/copy.toml"
SMALL = ["train.steps=20", "train.evaluate_every=8", "train.checkpoint_every=4", "train.log_every=1", "train.hash_every=5",
         "train.batch_size=4", "model.width=16", "model.heads=2", "model.layers=1", "train.keep_last=1",
         "optimizer.name=sgd", "optimizer.weight_decay=0.1"]  # fmt: skip
CLOCK = ("time", "tokens_per_second", "step_seconds", "seconds_left")


class Killed(BaseException):
    """Stands for SIGKILL where the moment matters: nothing after it runs, and no file is written."""


def start(folder, *settings, resume=False, said=None):
    say = (lambda text: None) if said is None else said.append
    return runs.run(configs.load(COPY, [*SMALL, *settings]), folder, resume, say, lambda step, line: None)


def outcome(folder):
    """Everything that must not depend on faults: weights, metrics but for the clock, the log."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]
    summary = json.loads((folder / "summary.json").read_text())
    return summary["parameter_hash"], metrics, (folder / "provenance.jsonl").read_bytes()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Neither a figure nor waiting for the disk."""
    monkeypatch.setattr(plot, "loss_curve", lambda *arguments: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def poison(monkeypatch):
    """Makes the batches with these numbers give a loss that is not a number, in runs and in replays."""

    def choose(*numbers):
        monkeypatch.setattr(mixture, "load_data", poisoned(numbers))

    return choose


def run_killed(folder, settings, moment, resume=False):
    """A run of which the n-th call of module.name is the last thing that happens; moment: (module, name, n)."""
    (module, name, call), calls = moment, []
    real = getattr(module, name)

    def counted(*arguments):
        calls.append(name)
        if len(calls) == call:
            raise Killed
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, counted)
        with pytest.raises(Killed):
            start(folder, *settings, resume=resume)


def test_a_loss_that_is_not_finite_names_its_origin_and_can_be_skipped_on_resume(tmp_path, poison):
    poison(9)
    with pytest.raises(UserError, match=r"loss became nan at step 10; .* the loss's term loss.*on_non_finite=skip"):
        start(tmp_path / "run")
    assert checkpoint.latest(tmp_path / "run/checkpoints") == 8
    said = []
    run_killed(tmp_path / "run", ["train.on_non_finite=skip"], (provenance, "append", 4), resume=True)
    summary = start(tmp_path / "run", "train.on_non_finite=skip", resume=True, said=said)
    assert summary["bad_steps"] == [{"step": 10, "to": 10, "why": "the loss became nan"}]
    assert any("step 10: the loss became nan: the update is left out" in text for text in said)
    start(tmp_path / "straight", "train.on_non_finite=skip")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "straight")
    bits = [line["loss"] for line in provenance.read(tmp_path / "run/provenance.jsonl")]
    assert [math.isnan(np.uint32(int(loss, 16)).view(np.float32)) for loss in bits] == [n == 9 for n in range(20)]
    assert all("loss" not in line for line in outcome(tmp_path / "run")[1] if "bad" in line)
    assert verify.verify(tmp_path / "run", None, said.append)["equal"]  # two sessions, with and without skipping


def test_a_gradient_that_is_not_finite_is_named_by_its_parameter(tmp_path, monkeypatch):
    """The gradient of the square root at 0 is infinite, and times 0 not a number."""
    causal = OBJECTIVES["causal"]

    def with_edge(model, params, *others, **options):
        sums = causal(model, params, *others, **options)
        edge = jnp.sqrt(jnp.square(params["final_norm"]["scale"] * 0.0).sum())
        return sums._replace(sums={"loss": sums.sums["loss"] + edge})

    monkeypatch.setitem(OBJECTIVES, "causal", with_edge)
    words = r"gradient norm became nan at step 1; .* gradient of final_norm/scale -> "
    with pytest.raises(UserError, match=words):
        start(tmp_path / "run")


def test_a_rewind_leaves_batches_out_and_survives_kills_signals_and_verify(tmp_path, poison):
    """Batch 9 is bad at step 10: back to 8, on with batch 10 at step 9; batch 13 then is at step 12: back to 8 once more.

    Batch 14 is bad at step 9, which had been passed: back to 4, which is kept for this.
    """
    poison(9, 13, 14)
    summary = start(tmp_path / "straight", "train.on_non_finite=rewind", "tracking.tensorboard=true")
    found = outcome(tmp_path / "straight")
    assert [(bad["step"], bad["to"]) for bad in summary["bad_steps"]] == [(10, 8), (12, 8), (9, 4)]
    log = provenance.read(tmp_path / "straight/provenance.jsonl")
    assert [line.get("number", line["step"] - 1) for line in log] == [*range(4), *range(15, 31)]
    assert verify.verify(tmp_path / "straight", None, lambda text: None)["equal"]
    events = EventAccumulator(str(tmp_path / "straight/tensorboard"), size_guidance={"scalars": 0}).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 21))
    moments = ((provenance, "append", 12), (provenance, "cut_metrics", 2), (checkpoint, "drop_after", 4))
    for place, moment in enumerate(moments):
        run_killed(tmp_path / str(place), ["train.on_non_finite=rewind"], moment)
        start(tmp_path / str(place), "train.on_non_finite=rewind", resume=True)
        assert outcome(tmp_path / str(place)) == found, moment


def stop_at_9(folder, *settings):
    """A run that a signal stops while step 9 runs."""
    caught, append = [], provenance.append
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_signals", lambda: contextlib.nullcontext(caught))
        patch.setattr(
            provenance, "append", lambda path, line: (append(path, line), line["step"] == 8 and caught.append(15))
        )
        with pytest.raises(runs.Stopped):
            start(folder, *settings)


def test_a_signal_between_checkpoint_and_bad_step_does_not_move_the_rewind(tmp_path, poison):
    """What a signal saves at step 9 is no place to go back to, or the run would depend on when it came."""
    poison(9)
    start(tmp_path / "straight", "train.on_non_finite=rewind")
    stop_at_9(tmp_path / "run", "train.on_non_finite=rewind")
    assert checkpoint.steps(tmp_path / "run/checkpoints")[-2:] == [8, 9]
    start(tmp_path / "run", "train.on_non_finite=rewind", resume=True)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "straight")


def test_verify_knows_which_session_trained_the_steps_that_a_rewind_went_behind(tmp_path, poison):
    """The second session begins after step 9, and with another schedule goes back to step 8."""
    poison(9)
    settings = ["optimizer.schedule=cosine", "optimizer.warmup_steps=0", "train.on_non_finite=rewind"]
    stop_at_9(tmp_path, *settings)
    start(tmp_path, *settings, "train.steps=12", resume=True)
    sessions = json.loads((tmp_path / "manifest.json").read_text())["sessions"]
    assert [(session["after_step"], session["steps"]) for session in sessions] == [(0, 20), (8, 12)]
    assert verify.verify(tmp_path, None, lambda text: None)["equal"]


def test_too_many_bad_steps_end_the_run(tmp_path, poison):
    poison(*range(9, 40))
    with pytest.raises(UserError, match=r"bad_steps: the loss became nan at step 5, after 3 other bad steps"):
        start(tmp_path / "run", "train.on_non_finite=rewind", "train.bad_steps=3")


def test_a_spike_is_far_above_the_median_in_robust_deviations():
    losses, watch = [2.0, 2.1, 1.9, 2.0, 9.0, 2.05], Watch(spike=4.0, window=6)  # the spike among them widens nothing
    assert spike(losses, 2.5, watch).startswith("the loss spiked to 2.5000, the median of the 6 before is 2.0250")
    assert not spike(losses, 2.3, watch)
    assert not spike(losses[1:], 9.0, watch)  # too few are known
    assert not spike([1.0] * 6, 1.001, watch)
    assert not spike(losses, 99.0, Watch())


def drive(losses, watch, steps=30, becomes=()):
    """The loop over a table of losses by batch number; checkpoints every 5 steps -> (what was noted, batches, progress).

    The one parameter is 1, or from a batch on what `becomes` says; without a finite fourth power there is no loss.
    """
    first, becomes = State(0, np.float32(1.0), None, None), dict(becomes)
    noted, read, saved = [], [], {0: (first, loop.Progress())}

    def rewind(bad, to):
        del read[to:]
        return saved[to]

    def step(state, frozen, batch, key):
        number, fourth = batch["number"], float(state.trainable) ** 4
        loss = losses[number] if fourth < 1e38 else math.nan
        return State(state.step + 1, becomes.get(number, state.trainable), None, None), {"loss": loss}

    hooks = loop.Hooks(
        batch=lambda number: {"number": number}, place=lambda batch: batch,
        log=lambda step, number, batch, metrics, seconds, state: read.append(number), evaluate=lambda step, state: 1.0,
        save=lambda state, progress: saved.update({state.step: (state, progress)}), stopping=lambda: False,
        note=lambda step, text: noted.append(step), losses=lambda step, count: [losses[number] for number in read[:step]][-count:],
        rewind=rewind,
    )  # fmt: skip
    plan = loop.Plan(steps, 1000, 5, 0, None, False, watch)
    _, progress, _ = loop.fit(step, first, None, None, plan, loop.Progress(), hooks)
    return noted, read, progress


def test_a_spike_warns_or_goes_back():
    losses = [3.0 - 0.01 * (n % 7) for n in range(60)]
    losses[17], losses[24] = 6.0, 5.0
    watch = Watch(spike=6.0, window=8)
    noted, read, progress = drive(losses, watch)
    assert (noted, read, progress.mended) == ([18, 25], list(range(30)), ())
    _, read, progress = drive(losses, watch._replace(on_spike="rewind"))
    assert read == [*range(15), *range(18, 23), *range(25, 35)]
    assert [(bad.step, bad.to) for bad in progress.mended] == [(18, 15), (22, 20)]


def test_parameters_that_are_not_finite_are_not_saved_and_a_bad_checkpoint_is_left_behind():
    """Batch 9 spoils the update of step 10, of which there would be a checkpoint; 1e10 is finite and yet leads nowhere."""
    losses, rewinds = [3.0] * 60, Watch("rewind")
    _, read, progress = drive(losses, rewinds, becomes={9: np.float32(math.nan)})
    assert [(bad.step, bad.to) for bad in progress.mended] == [(10, 5)]
    assert read == [*range(5), *range(10, 35)]
    for remedy in ("stop", "skip"):
        with pytest.raises(UserError, match="the parameters are no longer finite at step 10"):
            drive(losses, Watch(remedy), becomes={9: np.float32(math.inf)})
    losses[12] = losses[13] = math.nan
    _, read, progress = drive(losses, rewinds, becomes={9: np.float32(1e10)})
    assert [(bad.step, bad.to) for bad in progress.mended] == [(11, 10), (11, 5), (6, 5), (6, 5)]
    assert (read, progress.anchor, progress.before) == ([*range(5), *range(14, 39)], 30, 25)


@pytest.mark.slow
def test_a_run_that_goes_back_at_every_small_spike_is_resumed_to_the_same_bits(tmp_path):
    """The losses that a spike stands out from are read from the log, in the first session and in the second."""
    settings = ["train.spike=1.0", "train.spike_window=6", "train.on_spike=rewind", "train.bad_steps=200"]
    summary = start(tmp_path / "straight", *settings)
    assert len(summary["bad_steps"]) > 2
    assert {bad["to"] for bad in summary["bad_steps"]} <= set(range(0, 20, 4))
    assert all(bad["why"].startswith("the loss spiked to") for bad in summary["bad_steps"])
    run_killed(tmp_path / "run", settings, (provenance, "append", 24))
    assert start(tmp_path / "run", *settings, resume=True)["bad_steps"] == summary["bad_steps"]
    assert outcome(tmp_path / "run") == outcome(tmp_path / "straight")


@pytest.fixture
def command(capsys, monkeypatch):
    """Runs `minillm run` with the small config in this process -> (exit code, stderr)."""
    from minillm import cli

    def run(folder, *flags):
        monkeypatch.setattr(cli.runs, "prepare", lambda: None)
        sets = [part for setting in SMALL for part in ("--set", setting)]
        monkeypatch.setattr(sys, "argv", ["minillm", "run", str(COPY), *sets, "--out", str(folder), *flags])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err

    return run


def test_memory_and_disks_that_fail_are_one_line_and_the_run_goes_on_to_the_same_bits(tmp_path, command, monkeypatch):
    start(tmp_path / "straight")
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.\nallocator dump")
    faults = {  # words -> (what fails, after how many calls, how)
        "out of memory (Out of memory allocating 12345 bytes.) -> make train.batch_size": (loop, "_read", 12, full),
        "out of memory (Unable to allocate 9 GiB": (results, "evaluate", 0, MemoryError("Unable to allocate 9 GiB")),
        "Read-only file system": (os, "replace", 5, OSError(errno.EROFS, os.strerror(errno.EROFS))),
        "Input/output error": (os, "fsync", 30, OSError(errno.EIO, os.strerror(errno.EIO))),
        "No space left": (checkpoint, "_write_arrays", 0, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    }  # fmt: skip
    for words, (module, name, after, error) in faults.items():
        with monkeypatch.context() as patch:
            calls, real = [], getattr(module, name)

            def failing(*arguments, calls=calls, real=real, after=after, error=error, **named):
                calls.append(1)
                if len(calls) > after:
                    raise error
                return real(*arguments, **named)

            patch.setattr(module, name, failing)
            code, errors = command(tmp_path / "run", "--resume")
        assert (code, errors.count("\n"), words in errors) == (2, 1, True), errors
        for step in checkpoint.steps(tmp_path / "run/checkpoints"):
            checkpoint.verify(tmp_path / "run/checkpoints", step)
    for _ in range(2):  # the second time nothing is left to train or to save
        assert command(tmp_path / "run", "--resume")[0] in (0, None)
        assert outcome(tmp_path / "run") == outcome(tmp_path / "straight")
        assert not list((tmp_path / "run/checkpoints").glob(".*"))
        (tmp_path / "run/checkpoints/.tmp-step_00000012").mkdir()  # as of a kill while an old one was deleted


def test_clocks_that_jump_change_no_bits_and_give_no_negative_speed(tmp_path, monkeypatch):
    start(tmp_path / "straight")
    for name in ("time", "perf_counter", "monotonic"):
        real, state = getattr(time, name), np.random.default_rng(0)
        monkeypatch.setattr(time, name, lambda real=real, state=state: real() + 86400.0 * state.integers(-1, 2))
    start(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "straight")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert min(line[name] for line in lines for name in CLOCK if name in line) >= 0.0


def test_ctrl_c_within_the_collector_is_raised_a_moment_later(monkeypatch):
    timers = []
    monkeypatch.setattr(shared, "INTERRUPTS", [])
    monkeypatch.setattr(signal, "setitimer", lambda *arguments: timers.append(arguments))

    def _xla_gc_callback():
        (lambda: shared.interrupt(signal.SIGINT, sys._getframe()))()

    _xla_gc_callback()
    assert timers
    with pytest.raises(KeyboardInterrupt):
        shared.interrupt(signal.SIGALRM, sys._getframe())


KILLED = """
import os, signal, sys
from minillm.data import tokenizer
setattr(os, sys.argv[1], lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
from pathlib import Path
tokenizer.train([Path("text.txt").read_text()], 300, "bpe", model_file=Path("run/tokenizer.model"))
"""


@pytest.mark.slow
def test_a_kill_in_tokenizer_training_leaves_no_half_of_a_tokenizer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("".join(f"Sentence {i} says that {i * i} is a square.\n" for i in range(300)))
    raw = {"data": {"source": "text", "path": "text.txt"}, "tokenizer": {"vocabulary": 300}, "train": {"steps": 4},
           "model": {"context": 16, "layers": 1, "width": 16, "heads": 2}, "sample": {"tokens": 2},
           "baselines": {"orders": [1], "xz": False}}  # fmt: skip
    experiment = configs.check(raw, "test")
    silent = lambda *_: None
    straight = runs.run(experiment, Path("straight"), False, silent, silent)
    Path("run").mkdir()
    replace_file(Path("run/config.toml"), configs.to_toml(experiment).encode())
    for moment in ("fsync", "replace"):
        killed = subprocess.run([sys.executable, "-c", KILLED, moment], check=False)
        assert (killed.returncode, Path("run/tokenizer.model").exists()) == (-9, False)
    found = runs.run(experiment, Path("run"), True, silent, silent)
    assert found["parameter_hash"] == straight["parameter_hash"]
    assert Path("run/tokenizer.model").read_bytes() == Path("straight/tokenizer.model").read_bytes()
    assert not [path for path in Path("run").iterdir() if path.name.startswith(".") and path.name != ".lock"]
