"""`minillm verify`: is everything that a run has saved what its config, text and surroundings give?

The log's chain, the files of every checkpoint, then a replay from step 0 (of a branch from its fork: the steps before are
its trunk's), each session with its own settings, which is compared with the log at every step and with every checkpoint
at its own.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from minillm.errors import UserError
from minillm.experiment import base as bases
from minillm.experiment import folder as folders
from minillm.experiment import fork as forks
from minillm.experiment.ask.reopen import Opened, open_run, read_data
from minillm.experiment.data import Data
from minillm.experiment.folder import RunFolder
from minillm.experiment.recipes import continual, mixture
from minillm.experiment.saved import restore, tree_hash
from minillm.experiment.setup import Setup, make_setup, new_state
from minillm.training import checkpoint, provenance
from minillm.training.provenance import Difference
from minillm.training.state import State


class Record(NamedTuple):
    """What the run left behind."""

    log: list[dict]
    checkpoints: dict[int, dict[str, str]]  # step -> leaf -> sha256
    summary: dict  # empty where the run has not ended
    sessions: list[dict]
    first: int = 0  # steps that are the trunk's


def verify(root: Path, steps: int | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Checks the record and replays it, or its first `steps` steps; names the first step, field and leaf that differ.

    Raises: UserError where the record is damaged, so that a replay would have nothing to be compared with.
    """
    opened = open_run(root)
    data, record = read_data(opened), read_record(opened.folder)
    changes = folders.differences(record.sessions[-1], folders.surroundings(opened.setup.mesh, []))
    if changes:
        say(f"Not as in the run: {changes}. Equal bits are promised for equal surroundings only.")
    if record.first:
        trunk = opened.experiment.fork.run
        say(f"A branch: replayed from its fork on. Steps 1 to {record.first} are the trunk's: minillm verify {trunk}")
    wanted = record.log[record.first :][:steps]
    for line, state, replayed in replay(opened, data, record, len(wanted)):
        difference = provenance.first_difference([line], [replayed]) or _saved_difference(record, line["step"], state)
        if difference is not None:
            leaf = f" ({difference.leaf})" if difference.leaf else ""
            verdict = f"step {difference.step} differs in its {difference.field}{leaf}"
            verdict += f"; not as in the run: {changes}" if changes else ""
            return {"equal": False, "steps": line["step"] - record.first, "verdict": verdict, **difference._asdict()}
        if line["step"] % 100 == 0:
            say(f"{line['step'] - record.first} of {len(wanted)} steps replayed, all equal so far")
    last = record.first + len(wanted)
    compared = sum(step <= last and (step > record.first or not record.first) for step in record.checkpoints)
    where = f" from the fork at step {record.first} on" if record.first else ""
    whole = f"the log's {len(record.log)} lines and the files of {len(record.checkpoints)} checkpoints fit their hashes"
    verdict = f"{whole}; all {len(wanted)} replayed steps{where} are equal, and {compared} checkpoints on the way"
    found = {"equal": True, "steps": len(wanted), "checkpoints": compared, "verdict": verdict}
    return found | ({"fork": record.first} if record.first else {})


def read_record(folder: RunFolder) -> Record:
    """The log, unbroken from step 1 to the newest checkpoint, and the hashes of every checkpoint. Raises: UserError."""
    log = provenance.read(folder.provenance)
    if not log:
        raise UserError("no step is recorded", str(folder.provenance), "run the experiment first")
    saved = {
        step: checkpoint.verify(folder.checkpoints, step)["leaves"] for step in checkpoint.steps(folder.checkpoints)
    }
    newest = max(saved, default=0)
    if [line["step"] for line in log] != list(range(1, len(log) + 1)) or len(log) < newest:
        message = f"the log does not hold every step from 1 to {newest}, of which there is a checkpoint"
        raise UserError(message, str(folder.provenance), "restore the log from a copy")
    if checkpoint.steps(folder.frozen):
        saved[0] = checkpoint.verify(folder.frozen, 0)["leaves"]
    hashes = {step: {leaf: entry["sha256"] for leaf, entry in leaves.items()} for step, leaves in saved.items()}
    summary = folders.read_json(folder.summary) if folder.summary.exists() else {}
    manifest = folders.read_json(folder.manifest)
    first = forks.carried(log, manifest, hashes, folder.provenance)
    return Record(log, hashes, summary, manifest["sessions"], first)


def replay(opened: Opened, data: Data, record: Record, steps: int) -> Iterator[tuple[dict, State, dict]]:
    """(line of the log, state after that step, the line that the replay writes) for every step, a branch's own."""
    setups: dict[tuple, Setup] = {}
    state, chain = None, provenance.last_chain(record.log[: record.first])
    for line in record.log[record.first :][:steps]:
        session = next(s for s in reversed(record.sessions) if s["after_step"] < line["step"])
        settings = (session["steps"], session["rules"], session.get("on_non_finite"), *session["mesh"].items())
        if settings not in setups:
            setups[settings] = _session_setup(opened, session, data)
        setup = setups[settings]
        if state is None:
            state, frozen = _begin(opened, record, setup)
        state, frozen = jax.device_put((state, frozen), setup.shardings[:2])
        number = line.get("number", line["step"] - 1)
        batch = data.batch(number)
        state, metrics = setup.train_step(state, frozen, jax.device_put(batch, setup.shardings[2]), setup.key)
        hashes = checkpoint.leaf_hashes(state.trainable) if "parameters" in line else None
        key_hash = provenance.hash_arrays({"key": jax.random.key_data(setup.key)})
        batch_hash = provenance.hash_batch(batch, opened.experiment.train.shards)
        replayed = provenance.record(chain, line["step"], batch_hash, key_hash, float(metrics["loss"]), hashes, number)
        chain = replayed["chain"]
        yield line, state, replayed


def _begin(opened: Opened, record: Record, setup: Setup) -> tuple[State, Any]:
    """(state, frozen) before the first step of the replay."""
    if record.first:
        return restore(opened.folder, setup, record.first)[:2]
    state, frozen = new_state(setup, _base(opened))
    if record.checkpoints.get(0, {}) != (checkpoint.leaf_hashes(frozen) if jax.tree.leaves(frozen) else {}):
        message, where = "the frozen parameters are not the run's", str(opened.folder.frozen)
        raise UserError(message, where, "restore them from a copy")
    return state, frozen


def _base(opened: Opened) -> dict:
    """What the run began with, from the run that it came from. Raises: UserError where that is another by now."""
    found = bases.read(opened.experiment, opened.folder.root, opened.setup.specs)
    found = continual.with_fisher(opened.experiment, opened.setup, opened.tokenizer, found)
    recorded = folders.read_json(opened.folder.manifest).get("base", {})
    if found.about.get("parameter_sha256") != recorded.get("parameter_sha256"):
        raise UserError("the base's parameters are no longer those that the run began with", recorded["run"],
                        "put its files back")  # fmt: skip
    return found.arrays


def _session_setup(opened: Opened, session: dict, data: Data) -> Setup:
    """The setup that a session trained with: what may change on resume as it was then."""
    experiment = opened.experiment
    changed = {name: session[name] for name in ("steps", "on_non_finite") if name in session}
    train = dataclasses.replace(experiment.train, **changed)
    mesh = dataclasses.replace(experiment.mesh, rules=session["rules"], **session["mesh"])
    changed = dataclasses.replace(experiment, train=train, mesh=mesh)
    return make_setup(changed, data.vocabulary, shares=mixture.shares(data))


def _saved_difference(record: Record, step: int, state: State) -> Difference | None:
    """Where the checkpoint of this step, or the summary that judges it, is not the replayed state."""
    if step in record.checkpoints:
        saved, now = record.checkpoints[step], checkpoint.leaf_hashes(state)
        for leaf in sorted(saved.keys() | now.keys()):
            if saved.get(leaf) != now.get(leaf):
                return Difference(step, "checkpoint", leaf, saved.get(leaf), now.get(leaf))
    if record.summary.get("steps") == step and record.summary["parameter_hash"] != (
        found := tree_hash(state.trainable)
    ):
        return Difference(step, "summary", "parameter_hash", record.summary["parameter_hash"], found)
    return None
