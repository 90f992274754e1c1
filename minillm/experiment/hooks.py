"""How a run's loop meets the world: batches in; log lines, validation and checkpoints out."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax

from minillm import hosts
from minillm.bits import host_array, sync
from minillm.experiment import folder as folders
from minillm.experiment import recover, results
from minillm.experiment.examples import example_length
from minillm.experiment.job import Run
from minillm.sections.data import is_paired
from minillm.sections.experiment import IMAGES
from minillm.training import checkpoint, loop, provenance
from minillm.training.state import State
from minillm.training.watch import Bad


def speedometer(job: Run, step: int, seconds: float) -> Callable[[int, float], dict]:
    """(step, seconds) -> tokens (images, pairs of texts) per second and seconds left, measured since the line before.

    The first line of a session has no speed: its step was compiled meanwhile. Nor has one after the run or the clock went
    back.
    """
    section, steps = job.experiment.data, job.experiment.train.steps
    single = section.source in IMAGES or is_paired(section)  # batches of pairs differ in length
    counted = job.experiment.train.batch_size * (1 if single else example_length(job.experiment))
    last = {"step": step, "seconds": seconds, "warm": False}
    unit = f"{'images' if section.source in IMAGES else 'examples' if single else 'tokens'}_per_second"

    def read(step: int, seconds: float) -> dict:
        went, took = step - last["step"], seconds - last["seconds"]
        warm = last["warm"] and went > 0 and took > 0.0
        last.update(step=step, seconds=seconds, warm=True)
        if not warm:
            return {"time": seconds}
        pace = took / went
        return {"time": seconds, unit: counted / pace, "step_seconds": pace, "seconds_left": pace * (steps - step)}

    return read


class Batches(NamedTuple):
    """How a process comes by its batches, and by what all processes must agree on."""

    make: Callable[[int], dict]  # step -> what this process reads of the batch
    place: Callable[[dict], dict]  # -> devices
    read: Callable[[dict, dict], str]  # (what was made, metrics, from which it takes the notes) -> the batch's hash
    stopping: Callable[[], bool]


def whole_batches(job: Run, stopping: Callable[[], bool]) -> Batches:
    """The one process of a run reads it all."""
    place = lambda batch: jax.device_put(batch, job.setup.shardings[2])
    read = lambda batch, metrics: provenance.hash_batch(batch, job.experiment.train.shards)
    return Batches(job.data.batch, place, read, stopping)


def shared_batches(job: Run, stopping: Callable[[], bool]) -> Batches:
    """One of several reads its own rows. Hashes and the wish to stop go round as notes, one step behind."""
    train, sharding = job.experiment.train, job.setup.shardings[2]
    rows, agreed = hosts.own_rows(sharding, train.batch_size), {"stop": False}
    share = train.batch_size // (rows.stop - rows.start)

    def place(batch: dict) -> dict:
        notes = hosts.make_notes(provenance.hash_shards(batch, train.shards // share), stopping())
        return hosts.place_rows(batch | {hosts.NOTES: notes}, sharding, share)

    def read(batch: dict, metrics: dict) -> str:
        notes = metrics.pop(hosts.NOTES)
        agreed["stop"] |= bool(notes[:, 2].any())
        return provenance.hash_arrays({"shards": notes[:, :2]})

    return Batches(lambda step: job.data.batch_rows(step, rows), place, read, lambda: agreed["stop"])


def make_hooks(
    job: Run, frozen, base: dict, chain: str, speed: Callable[[int, float], dict], stopping: Callable[[], bool]
) -> loop.Hooks:
    """`base` is what the run began with, `chain` that of the log so far. Of several processes all make all calls, and the first one writes."""
    train, folder, setup, writes = job.experiment.train, job.folder, job.setup, hosts.writes()
    key_hash = provenance.hash_arrays({"key": jax.random.key_data(setup.key)})
    validation = job.data.evaluation("validation")[: train.evaluate_batches]
    batches = (whole_batches if jax.process_count() == 1 else shared_batches)(job, stopping)
    last = {"chain": chain}

    def log(step: int, number: int, batch: dict, metrics: dict, seconds: float, state: State | None) -> None:
        batch_hash = batches.read(batch, metrics)
        hashes = None if state is None else checkpoint.leaf_hashes(state.trainable)
        line = provenance.record(last["chain"], step, batch_hash, key_hash, metrics["loss"], hashes, number)
        last["chain"] = line["chain"]
        if writes:
            with folders.system_errors(folder.provenance):
                provenance.append(folder.provenance, line)
        if math.isfinite(metrics["loss"]) and (step % train.log_every == 0 or step in (1, train.steps)):
            line = {"step": step, **metrics, "learning_rate": float(setup.schedule(step - 1)), **speed(step, seconds)}
            report(step, line)

    def report(step: int, line: dict) -> None:
        if writes:
            folders.append_line(folder.metrics, line)
            job.show(step, line)

    def evaluate(step: int, state: State) -> float:
        found = results.evaluate(setup, job.experiment, state.trainable, frozen, validation)
        held_out = results.held_out(found, job.experiment, job.data, "validation")
        if train.evaluate_batches is not None:
            held_out.pop("bits_per_character", None)  # a part of the text's bits over all of its characters
        report(step, {"step": step} | {f"validation_{name}": value for name, value in held_out.items()})
        return held_out["loss"]

    def save(state: State, progress: loop.Progress) -> None:
        step = int(state.step)
        state = jax.tree.map(host_array, state)  # what lies on several hosts is gathered by all of them
        if writes:
            sync(folder.provenance)  # the lines before the checkpoint that counts on them
            checkpoint.save(folder.checkpoints, step, state, progress._replace(chain=last["chain"])._asdict())
            kept = [progress.anchor, progress.before, *[progress.best_step] * train.keep_best]
            kept += [job.experiment.fork.step] if job.experiment.fork.run else []  # where a replay begins
            checkpoint.prune(folder.checkpoints, train.keep_last, kept)

    def note(step: int, text: str) -> None:
        job.say(f"step {step}: {text}")
        if writes:
            folders.append_line(folder.metrics, {"step": step, "bad": text})

    def rewind(bad: Bad, to: int) -> tuple[State, loop.Progress]:
        state, progress = recover.rewind(job, base, bad, to)
        last["chain"] = progress.chain
        return state, progress

    losses = lambda step, count: provenance.losses(folder.provenance, step, count)
    explain = lambda bad: recover.explain(job, base, frozen, bad)
    return loop.Hooks(batches.make, batches.place, log, evaluate, save, batches.stopping, note, losses, rewind, explain)
