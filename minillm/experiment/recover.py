"""When a step must not stand: back to a checkpoint, or a sentence that names the first value that is not finite."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from minillm import hosts
from minillm.bits import flatten_paths
from minillm.experiment import folder as folders
from minillm.experiment.folder import RunFolder
from minillm.experiment.job import Run
from minillm.experiment.saved import restore_state
from minillm.experiment.setup import new_state
from minillm.training import checkpoint, loop, provenance
from minillm.training.state import State
from minillm.training.watch import Bad, left_out


def rewind(job: Run, base: Mapping[str, Any], bad: Bad, to: int) -> tuple[State, loop.Progress]:
    """What was saved at step `to`; checkpoints and log lines after it go, and the manifest calls the steps this session's.

    Checkpoints go first: the newest one left never has a log shorter than itself, so that a kill in between is resumed
    from it, finds the bad step again and goes back again.
    """
    folder = job.folder
    found = restore_state(folder, job.setup, to) if to else (new_state(job.setup, base)[0], loop.Progress())
    gap = f"batches {to + left_out(found[1].mended)} to {bad.step - 1 + left_out(bad.progress.mended)}"
    job.say(f"step {bad.step}: {bad.why}; back to step {to}, {gap} are left out")
    if hosts.writes():
        checkpoint.drop_after(folder.checkpoints, to)
        provenance.cut(folder.provenance, to)
        provenance.cut_metrics(folder.metrics, to)
        _claim(folder, to)
    return found


def _claim(folder: RunFolder, to: int) -> None:
    """Says in the manifest that the steps after `to` are this session's, where it had begun later: `verify` reads it."""
    manifest = folders.read_json(folder.manifest)
    *earlier, session = manifest["sessions"]
    if session["after_step"] > to:
        kept = [other for other in earlier if other["after_step"] < to]
        folders.write_json(folder.manifest, manifest | {"sessions": [*kept, session | {"after_step": to}]})


def explain(job: Run, base: Mapping[str, Any], frozen, bad: Bad) -> str:
    """Replays the steps from the newest checkpoint on and looks into the bad one: training itself keeps nothing for this.

    In the order of cause and effect: parameters before the step, terms of the loss, gradients, parameters after it. Empty
    where nothing is found, and in a run of several processes, of which none has a whole batch.
    """
    if jax.process_count() > 1:
        return ""
    start, setup = checkpoint.latest(job.folder.checkpoints) or 0, job.setup
    job.say(f"step {bad.step}: {bad.why}; replaying {bad.step - start} steps to see where it began")
    state = restore_state(job.folder, setup, start)[0] if start else new_state(setup, base)[0]
    place = lambda step: jax.device_put(job.data.batch(step + left_out(bad.progress.mended)), setup.shardings[2])
    for step in range(start, bad.step - 1):
        state, _ = setup.train_step(state, frozen, place(step), setup.key)
    batch, key = place(bad.step - 1), jax.random.fold_in(setup.key, bad.step - 1)
    found = _first("parameter {} before the step", state.trainable)
    if not found:
        gradients, sums = jax.jit(setup.gradient)(state.trainable, frozen, state.extra, batch, key)
        penalty = setup.tuning.penalty and setup.tuning.penalty(state.trainable, frozen)
        terms = dict(sums.sums) | ({} if penalty is None else {"penalty": penalty})
        found = _first("the loss's term {}", terms) or _first("gradient of {}", gradients)
    if not found:
        found = _first("parameter {} after the step", setup.train_step(state, frozen, batch, setup.key)[0].trainable)
    return f"; the first that is not finite: {found}" if found else ""


def _first(words: str, tree: Any) -> str:
    leaves = flatten_paths(tree)
    strange = [path for path, leaf in leaves.items() if not bool(jnp.isfinite(leaf).all())]
    others = f" (and {len(strange) - 1} of {len(leaves) - 1} others)" if len(strange) > 1 else ""
    return words.format(strange[0]) + others if strange else ""
