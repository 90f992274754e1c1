"""`minillm branch`: a new run that begins at a checkpoint of another one, its trunk, with something changed.

    [fork]  run = "runs/trunk", step = 200      in the config of the branch, which is else the trunk's

The branch takes over the state, the tokenizer, and the lines of both logs up to the fork; the batch and the key of a step
depend on seed and step alone, so that a branch that changes nothing repeats the trunk to the last bit. The trunk is only
read.
"""

import dataclasses
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from minillm import config as configs
from minillm.bits import hash_file
from minillm.config import Experiment
from minillm.errors import UserError
from minillm.experiment import base as bases
from minillm.experiment import exchange
from minillm.experiment import folder as folders
from minillm.experiment.data import vocabulary_size
from minillm.experiment.folder import RunFolder
from minillm.experiment.job import Run
from minillm.experiment.saved import join_hashes, tree_hash
from minillm.experiment.setup import abstract_state
from minillm.params import flatten
from minillm.sections.experiment import IMAGES, SYNTHETIC, BaseConfig
from minillm.training import checkpoint, loop, provenance

# beginning of a key -> why a branch must not change it
FIXED = {
    "model.": "the parameters of the trunk have the shapes that it gives",
    "tokenizer.": "the trunk has learned the pieces that it gives",
    "data.": "it decides what is held out: the branch would be judged by what the trunk has trained on",
    "tuning.": "it decides which parameters there are and which of them train",
    "objective.name": "the trunk has the heads of its own objective",
    "optimizer.name": "what one optimizer remembers says nothing to another",
    "base.": "it comes before the fork",
    "annotation.": "it decides which texts have labels",
    "pseudo.": "the trunk's teacher has spoken already",
    "pretrain": "it comes before the fork",
    "continual": "what it holds was fixed before the fork",
    "tasks": "the trunk has the heads of its own tasks",
    "mixing": "the trunk has read its rows in other shares",
    "invariance": "what is remembered of the domains belongs to one method",
    "pairs": "it decides how texts are read and judged",
}
MAY_CHANGE = ("model.dropout", "model.dtype", "model.remat", "model.scan", "data.path", "data.length", "data.shifts",
              "tuning.layer_decay", "tuning.unfreeze_every", "tuning.orthogonality")  # fmt: skip
CONTINUED = ("data.length", "train.batch_size", "train.seed")  # fixed where a state goes on from row to row
ITS_OWN = ("name", "fork.", "tracking.")  # of a branch


def make(root: Path, step: int, overrides: Sequence[str]) -> Experiment:
    """The config of the branch of `root` at `step`. Raises: UserError where it cannot be one."""
    trunk = folders.existing(root)
    old = _read_trunk(trunk)
    raw = configs.plain(old)
    for setting in overrides:
        configs.override(raw, setting)
    _refuse_keys(configs.differing(configs.plain(old), raw), old, root)
    if raw["name"] == old.name:
        raw["name"] = "-".join([f"{old.name}-at-{step}", *map(_in_a_name, overrides)])[:100]
    raw["fork"] = {"run": str(root), "step": step}
    return configs.check(raw, str(trunk.config))


def _in_a_name(override: str) -> str:
    """optimizer.learning_rate=1e-2 -> learning_rate-1e-2: several branches of one step have folders of their own."""
    key, _, value = override.partition("=")
    return re.sub(r"[^\w.+-]+", "-", f"{key.strip().rpartition('.')[2]}-{value.strip()}")


def refuse(experiment: Experiment, root: Path) -> None:
    """Checks a branch against its trunk, unless the run in `root` has begun. Raises: UserError."""
    fork = experiment.fork
    if fork.run is None or _begun(experiment, RunFolder(root)):
        return
    trunk = folders.existing(Path(fork.run))
    if fork.step not in (known := checkpoint.steps(trunk.checkpoints)):
        there = ", ".join(map(str, known)) or "none"
        mend = "choose one of these; train.keep_last says how many a run keeps"
        raise UserError(f"the run has no checkpoint of step {fork.step}; there are: {there}", str(trunk.root), mend)
    old = _read_trunk(trunk)
    _refuse_keys(configs.changed_keys(old, experiment), old, trunk.root)
    if experiment.train.steps <= fork.step:
        message = f"train.steps is {experiment.train.steps} and the fork at step {fork.step}: nothing is left to train"
        raise UserError(message, f"branch of {trunk.root}", "set train.steps higher, or fork earlier")
    if _progress(experiment, trunk).finished:
        message = f"the trunk had stopped early at step {fork.step}, with as much patience as the branch has"
        raise UserError(message, f"branch of {trunk.root}", "set train.patience higher, or fork earlier")


def _refuse_keys(keys: Sequence[str], trunk: Experiment, root: Path) -> None:
    for key in keys:
        reason = next((why for start, why in FIXED.items() if key.startswith(start) and key not in MAY_CHANGE), None)
        if trunk.data.packing == "continued" and key in CONTINUED:
            reason = "a state of the trunk's goes on along its rows of text"
        if reason is not None:
            mend = "leave it as it is in the trunk, or train a new run with `minillm run`"
            raise UserError(f"a branch cannot change {key}: {reason}", f"branch of {root}", mend)


def source(experiment: Experiment, folder: RunFolder) -> Path | None:
    """The run that a branch has its tokenizer from: its trunk, and once it has begun itself. None: no text, no branch."""
    if experiment.fork.run is None or experiment.data.source in (*IMAGES, *SYNTHETIC):
        return None
    return folder.root if _begun(experiment, folder) else Path(experiment.fork.run)


def begin(job: Run) -> None:
    """Puts what a branch takes over into its folder, the checkpoint of the fork last: it says that all is there.

    Raises: UserError where the trunk's files are damaged, or do not fit.
    """
    experiment, folder, fork = job.experiment, job.folder, job.experiment.fork
    if fork.run is None or _begun(experiment, folder):
        return
    trunk = RunFolder(Path(fork.run))
    blank = lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)  # what is restored stays on the host
    shapes, frozen = jax.tree.map(blank, abstract_state(job.setup))
    state, _ = checkpoint.restore(trunk.checkpoints, fork.step, shapes)
    progress = _progress(experiment, trunk)
    about = _describe(experiment, trunk, progress) | {"state_sha256": tree_hash(state)}
    changes = (f"{key} {pair['trunk']} -> {pair['branch']}" for key, pair in about["changes"].items())
    job.say(f"Branch of {trunk.root} at step {fork.step}: {', '.join(changes) or 'nothing changed'}")
    with folders.system_errors(folder.root):
        for path in (trunk.provenance, trunk.metrics):  # the lines after the fork are cut where the run starts
            shutil.copyfile(path, folder.root / path.name)
    old = folders.read_json(trunk.manifest)
    kept = {name: old[name] for name in ("sessions", "data_sha256", "tokenizer_sha256")}
    folders.write_json(folder.manifest, {**kept, "fork": about})
    if jax.tree.leaves(frozen):
        checkpoint.save(folder.frozen, 0, checkpoint.restore(trunk.frozen, 0, frozen)[0], {})
    if experiment.train.keep_best and progress.best_step not in (0, fork.step):
        best, then = checkpoint.restore(trunk.checkpoints, progress.best_step, shapes)
        checkpoint.save(folder.checkpoints, progress.best_step, best, then)
    checkpoint.save(folder.checkpoints, fork.step, state, progress._asdict())


def _begun(experiment: Experiment, folder: RunFolder) -> bool:
    return experiment.fork.step in checkpoint.steps(folder.checkpoints)


def _read_trunk(trunk: RunFolder) -> Experiment:
    """A run's config; a pretraining of its own, which is done, becomes the base of its branches."""
    exchange.refuse_silent(trunk)
    experiment = configs.load(trunk.config)
    if not experiment.pretrain:
        return experiment
    images = experiment.data.source in IMAGES
    rows = None if images else vocabulary_size(experiment, exchange.load_tokenizer(trunk).vocabulary)
    base = BaseConfig(str(trunk.root.absolute() / bases.PRETRAIN), rows)
    return dataclasses.replace(experiment, pretrain={}, base=base)


def _progress(experiment: Experiment, trunk: RunFolder) -> loop.Progress:
    """What the trunk remembered at the fork, judged with the branch's patience.

    Its best checkpoint so far may be gone, for a better one that came later; the branch then begins without a best. That
    one would have been found in time, so that a branch that changes nothing ends where the trunk does.
    """
    train = experiment.train
    found = loop.Progress(**checkpoint.read_meta(trunk.checkpoints, experiment.fork.step))
    found = found._replace(anchor=experiment.fork.step, before=None)  # the branch's plan has saved nothing before
    if train.keep_best and found.best_step not in checkpoint.steps(trunk.checkpoints):
        found = found._replace(best=None, best_step=0, stale=0)
    return found._replace(finished=train.patience is not None and found.stale >= train.patience)


def _describe(experiment: Experiment, trunk: RunFolder, progress: loop.Progress) -> dict[str, Any]:
    """For the manifest: where the branch comes from, what it changes, and the hash over all steps before."""
    trunk_config = _read_trunk(trunk)
    old, new = (flatten(configs.plain(config)) for config in (trunk_config, experiment))
    keys = [key for key in configs.changed_keys(trunk_config, experiment) if not key.startswith(ITS_OWN)]
    return {
        "run": str(trunk.root), "name": trunk_config.name, "step": experiment.fork.step,
        "config_sha256": hash_file(trunk.config), "chain": progress.chain,
        "changes": {key: {side: values.get(key.replace(".", "/")) for side, values in (("trunk", old), ("branch", new))}
                    for key in keys},
    }  # fmt: skip


def carried(log: Sequence[dict], manifest: dict[str, Any], saved: Mapping[int, Mapping[str, str]], path: Path) -> int:
    """How many lines of a run's log are its trunk's, 0 where it has none.

    `saved`: step -> leaf -> sha256 of its checkpoints. Raises: UserError where these lines, or the state at the fork, are
    not those that the branch began with.
    """
    fork = manifest.get("fork")
    if fork is None:
        return 0
    if len(log) < fork["step"] or provenance.last_chain(log[: fork["step"]]) != fork["chain"]:
        message = f"steps 1 to {fork['step']} are not those of the trunk, {fork['run']}"
        raise UserError(message, str(path), "restore the log from a copy")
    leaves = saved.get(fork["step"], {})
    logged = {f"trainable/{leaf}": value for leaf, value in log[fork["step"] - 1].get("parameters", {}).items()}
    known = fork.get("state_sha256", join_hashes(leaves))
    if leaves and (join_hashes(leaves) != known or not logged.items() <= leaves.items()):
        message = f"the checkpoint of step {fork['step']} is not the state that the branch took from {fork['run']}"
        raise UserError(message, str(path.parent), "restore it from a copy, or branch again")
    return fork["step"]
