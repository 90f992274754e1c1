"""The training loop: dispatch step n, read the metrics of step n-1 while it runs, and act at fixed steps.

The loop owns no files and no data: `Hooks` supplies batches and takes what comes out. All decisions depend on the step
and on metrics, never on the clock, so that a killed and resumed run repeats the straight one.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minillm.errors import UserError
from minillm.training.provenance import START
from minillm.training.state import State


class Plan(NamedTuple):
    """When to do what, in steps."""

    steps: int
    evaluate_every: int
    checkpoint_every: int
    hash_every: int  # 0: never
    patience: int | None
    keep_best: bool


class Progress(NamedTuple):
    """What the loop must remember besides the state; saved with every checkpoint."""

    best: float | None = None  # lowest validation loss
    best_step: int = 0
    stale: int = 0  # evaluations since the best
    finished: bool = False  # early stopping said so
    chain: str = START  # of the provenance log at the step that was saved
    seconds: float = 0.0  # of training steps, over all sessions; evaluations and checkpoints do not count


class Hooks(NamedTuple):
    """The outside world."""

    batch: Callable[[int], dict]  # step -> batch on the host
    place: Callable[[dict], dict]  # host -> devices
    log: Callable[[int, dict, dict, float, Any], None]  # (step, batch, metrics, seconds, state or None)
    evaluate: Callable[[int, State], float]  # -> validation loss
    save: Callable[[State, Progress], None]
    stopping: Callable[[], bool]  # a signal asked to stop


def fit(train_step: Callable, state: State, frozen, key, plan: Plan, progress: Progress, hooks: Hooks):
    """Trains from `state.step` to `plan.steps`; returns (state, progress, whether it ran to its end).

    Raises: UserError where the loss is not finite (the last checkpoint stays).
    """
    step, pending = int(state.step), None
    started = time.perf_counter() - progress.seconds
    while step < plan.steps and not progress.finished:
        batch = hooks.batch(step)
        state, metrics = train_step(state, frozen, hooks.place(batch), key)
        step += 1
        if pending is not None:
            _read(hooks, *pending)
        progress = progress._replace(seconds=time.perf_counter() - started)
        hashed = plan.hash_every > 0 and step % plan.hash_every == 0
        pending = (step, batch, metrics, progress.seconds, None)
        stop, last = hooks.stopping(), step == plan.steps
        evaluates, saves = step % plan.evaluate_every == 0 or last, step % plan.checkpoint_every == 0 or last or stop
        if hashed or evaluates or saves:
            _read(hooks, *pending[:-1], state if hashed else None)
            progress, pending = progress._replace(seconds=time.perf_counter() - started), None
        if evaluates:
            loss = hooks.evaluate(step, state)
            refuse_non_finite("the validation loss", loss, step)
            progress = judge(progress, step, loss, plan.patience)
            saves = saves or progress.finished or (plan.keep_best and progress.best_step == step)
        if saves:
            hooks.save(state, progress)
        if stop and not last and not progress.finished:
            return state, progress, False
        if evaluates or saves:
            started = time.perf_counter() - progress.seconds
    return state, progress, True


def judge(progress: Progress, step: int, loss: float, patience: int | None) -> Progress:
    """Early stopping (Prechelt 1998): finished after `patience` evaluations in a row without a new lowest loss."""
    if progress.best is None or loss < progress.best:
        return progress._replace(best=loss, best_step=step, stale=0)
    stale = progress.stale + 1
    return progress._replace(stale=stale, finished=patience is not None and stale >= patience)


def _read(hooks: Hooks, step: int, batch: dict, metrics: dict, seconds: float, state: State | None) -> None:
    metrics = {name: np.asarray(value) for name, value in metrics.items()}  # waits for the device
    metrics = {name: value if value.ndim else float(value) for name, value in metrics.items()}
    for name in ("loss", "gradient_norm"):
        refuse_non_finite(f"the {name.replace('_', ' ')}", metrics.get(name, 0.0), step)
    hooks.log(step, batch, metrics, seconds, state)


def refuse_non_finite(what: str, value: float, step: int) -> None:
    """A diverged model is not saved. Raises: UserError."""
    if not math.isfinite(value):
        mend = "lower optimizer.learning_rate or set optimizer.clip_norm; the last checkpoint stays"
        raise UserError(f"{what} became {value} at step {step}", "training", mend)
