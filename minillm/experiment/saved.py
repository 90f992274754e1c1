"""What a run has saved: its parameters at a step, and which step it is judged by."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax

from minillm.errors import UserError
from minillm.experiment.folder import RunFolder
from minillm.experiment.setup import Setup, abstract_state
from minillm.training import checkpoint, loop
from minillm.training.state import State


def restore(folder: RunFolder, setup: Setup, step: int) -> tuple[State, Any, loop.Progress]:
    """A checkpoint's (state, frozen, progress), verified bit for bit."""
    state, progress = restore_state(folder, setup, step)
    _, frozen = abstract_state(setup)
    if jax.tree.leaves(frozen):
        frozen, _ = checkpoint.restore(folder.frozen, 0, frozen)
    return state, frozen, progress


def restore_state(folder: RunFolder, setup: Setup, step: int) -> tuple[State, loop.Progress]:
    """A checkpoint's (state, progress) alone, without what is frozen."""
    state, meta = checkpoint.restore(folder.checkpoints, step, abstract_state(setup)[0])
    return state, loop.Progress(**meta)


def judged_step(folder: RunFolder) -> int:
    """The step that a run is judged by: the newest, or after early stopping the best. Raises: UserError."""
    step = checkpoint.latest(folder.checkpoints)
    if step is None:
        raise UserError("the run has no complete checkpoint yet", str(folder.root), "go on with --resume")
    progress = loop.Progress(**checkpoint.read_meta(folder.checkpoints, step))
    return progress.best_step if progress.finished else step


def tree_hash(tree) -> str:
    """One hash over the hashes of all leaves."""
    return join_hashes(checkpoint.leaf_hashes(tree))


def join_hashes(hashes: Mapping[str, str]) -> str:
    """One hash over leaf -> sha256."""
    return hashlib.sha256("".join(f"{path}={hashes[path]};" for path in sorted(hashes)).encode()).hexdigest()
