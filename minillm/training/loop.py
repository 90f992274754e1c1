"""The training loop: dispatch step n, read the metrics of step n-1 while it runs, and act at fixed steps.

The loop owns no files and no data: `Hooks` supplies batches and takes what comes out. All decisions depend on the step
and on metrics, never on the clock, so that a killed and resumed run repeats the straight one.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minillm.errors import Diverged
from minillm.training.provenance import START
from minillm.training.state import State
from minillm.training.watch import Bad, Mended, Watch, back_to, finite, goes_back, left_out, non_finite, spike

LOWER = "lower optimizer.learning_rate or set optimizer.clip_norm"
MEND = (
    f"{LOWER}; or go on from the last checkpoint, if there is one, with --resume and "
    "--set train.on_non_finite=skip (or rewind)"
)


class Plan(NamedTuple):
    """When to do what, in steps."""

    steps: int
    evaluate_every: int
    checkpoint_every: int
    hash_every: int  # 0: never
    patience: int | None
    keep_best: bool
    watch: Watch = Watch()


class Progress(NamedTuple):
    """What the loop must remember besides the state; saved with every checkpoint."""

    best: float | None = None  # lowest validation loss
    best_step: int = 0
    stale: int = 0  # evaluations since the best
    finished: bool = False  # early stopping said so
    chain: str = START  # of the provenance log at the step that was saved
    seconds: float = 0.0  # of training steps, over all sessions; evaluations and checkpoints do not count
    anchor: int = 0  # the newest step that was saved because the plan said so, not a signal: a rewind goes there
    mended: tuple[Mended, ...] = ()  # bad steps that the run went on from, in order
    before: int | None = None  # the anchor before that one, kept where a rewind may need it; None: there is none


class Hooks(NamedTuple):
    """The outside world."""

    batch: Callable[[int], dict]  # its number, from 0 -> batch on the host
    place: Callable[[dict], dict]  # host -> devices
    log: Callable[
        [int, int, dict, dict, float, Any], None
    ]  # (step, batch's number, batch, metrics, seconds, state or None)
    evaluate: Callable[[int, State], float]  # -> validation loss
    save: Callable[[State, Progress], None]
    stopping: Callable[[], bool]  # a signal asked to stop
    note: Callable[[int, str], None] = lambda step, text: None  # says of a step that it was bad, but stands
    losses: Callable[[int, int], list[float]] = lambda step, count: []  # the last ones up to a step
    rewind: Callable[[Bad, int], tuple[State, Progress]] | None = None  # -> what was saved at a step; later is dropped
    explain: Callable[[Bad], str] = lambda bad: ""  # the first value of a step that is not finite


def fit(train_step: Callable, state: State, frozen, key, plan: Plan, progress: Progress, hooks: Hooks):
    """Trains from `state.step` to `plan.steps`; returns (state, progress, whether it ran to its end).

    Raises: Diverged where a step must not stand and `plan.watch` has no remedy (the last checkpoint stays).
    """
    while True:
        try:
            return _until_bad(train_step, state, frozen, key, plan, progress, hooks)
        except Bad as found:
            bad = found.with_traceback(None)  # the trace would keep the bad state in memory
        if not bad.rewinds:
            raise Diverged(f"{bad.why} at step {bad.step}{hooks.explain(bad)}", "training", MEND)
        to, anchor = back_to(bad), bad.progress.anchor
        mended = _mend(plan, bad.progress, Mended(bad.step, to, bad.why))
        state, progress = hooks.rewind(bad, to)
        before = bad.progress.before if to == anchor else None  # what is older still may have been pruned
        progress = progress._replace(mended=mended, seconds=bad.progress.seconds, before=before)


def _until_bad(train_step: Callable, state: State, frozen, key, plan: Plan, progress: Progress, hooks: Hooks):
    step, pending, watch = int(state.step), None, plan.watch
    losses, seen = deque(hooks.losses(step, watch.window) if watch.spike else (), watch.window), time.perf_counter()
    while step < plan.steps and not progress.finished:
        number = step + left_out(progress.mended)
        batch = hooks.batch(number)
        state, metrics = train_step(state, frozen, hooks.place(batch), key)
        step += 1
        if pending is not None:
            progress = _read(hooks, plan, progress, losses, pending)
        progress, seen = _count(progress, seen)
        hashed = plan.hash_every > 0 and step % plan.hash_every == 0
        pending = (step, number, batch, metrics, progress.seconds, state if hashed else None)
        stop, last = hooks.stopping(), step == plan.steps
        evaluates, saves = step % plan.evaluate_every == 0 or last, step % plan.checkpoint_every == 0 or last
        if hashed or evaluates or saves or stop:
            progress, pending = _read(hooks, plan, progress, losses, pending), None
            progress, seen = _count(progress, seen)
        if evaluates:
            loss = hooks.evaluate(step, state)
            if not math.isfinite(loss):
                raise Bad(step, f"the validation loss became {loss}", progress, watch.on_non_finite == "rewind")
            progress = judge(progress, step, loss, plan.patience)
            saves = saves or progress.finished or (plan.keep_best and progress.best_step == step)
        if saves or stop:
            if not finite(state.trainable):  # where a signal saves, it decides nothing: the resumed run does
                rewinds = saves and watch.on_non_finite == "rewind"
                raise Bad(step, "the parameters are no longer finite", progress, rewinds)
            if saves:
                before = progress.anchor if goes_back(watch) else None
                progress = progress._replace(anchor=step, before=before)
            hooks.save(state, progress)
        if stop and not last and not progress.finished:
            return state, progress, False
        if evaluates or saves:
            seen = time.perf_counter()
    return state, progress, True


def _count(progress: Progress, seen: float) -> tuple[Progress, float]:
    """Adds the seconds since `seen`; a clock that was set back adds none."""
    now = time.perf_counter()
    return progress._replace(seconds=progress.seconds + max(now - seen, 0.0)), now


def judge(progress: Progress, step: int, loss: float, patience: int | None) -> Progress:
    """Early stopping (Prechelt 1998): finished after `patience` evaluations in a row without a new lowest loss."""
    if progress.best is None or loss < progress.best:
        return progress._replace(best=loss, best_step=step, stale=0)
    stale = progress.stale + 1
    return progress._replace(stale=stale, finished=patience is not None and stale >= patience)


def _read(hooks: Hooks, plan: Plan, progress: Progress, losses: deque, pending: tuple) -> Progress:
    """Waits for a step's metrics, judges and logs them. Raises: Bad where the step must not stand."""
    step, number, batch, metrics, seconds, state = pending
    metrics = {name: np.asarray(value) for name, value in metrics.items()}  # waits for the device
    metrics = {name: value if value.ndim else float(value) for name, value in metrics.items()}
    watch = plan.watch
    if why := non_finite(metrics):
        if watch.on_non_finite != "skip":
            raise Bad(step, why, progress, watch.on_non_finite == "rewind")
        progress = progress._replace(mended=_mend(plan, progress, Mended(step, step, why)))
        hooks.note(step, f"{why}: the update is left out")
    elif why := spike(losses, metrics["loss"], watch):
        if watch.on_spike == "rewind":
            raise Bad(step, why, progress, True)
        hooks.note(step, why)
    if math.isfinite(metrics["loss"]):
        losses.append(metrics["loss"])
    hooks.log(step, number, batch, metrics, seconds, state)
    return progress


def _mend(plan: Plan, progress: Progress, new: Mended) -> tuple[Mended, ...]:
    """The list with one more. Raises: Diverged where there were enough."""
    if len(progress.mended) >= plan.watch.bad_steps:
        message = f"{new.why} at step {new.step}, after {len(progress.mended)} other bad steps"
        raise Diverged(message, "train.bad_steps", f"{LOWER}, or allow more of them")
    return (*progress.mended, new)
