"""Several processes, one run: how they find each other, what each of them reads, and what they tell each other.

Every process holds the same program and calls the same steps; jit over a mesh of all their devices does the rest. What
belongs to the outside world is shared out: a process makes only its own rows of a batch, and the first one alone writes.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from minillm.errors import UserError, out_of_memory
from minillm.sections import MeshConfig

NOTES = (
    "notes"  # leaf of a batch: [shards, 3] uint32, what a process says of its rows: two words of a hash, and "I stop"
)
SHUTDOWN = 24 * 3600  # seconds that a process which is done waits for one that still writes


def join(mesh: MeshConfig) -> None:
    """Connects this process with the others, before jax first looks for devices; does nothing in a run of one process.

    What the config leaves out, jax finds by itself on SLURM, Open MPI, Kubernetes and TPU pods. Raises: UserError.
    """
    if not mesh.distributed or jax.distributed.is_initialized():
        return
    where = {"coordinator_address": mesh.coordinator, "num_processes": mesh.processes, "process_id": mesh.process}
    times = {"heartbeat_timeout_seconds": mesh.lost_after, "shutdown_timeout_seconds": SHUTDOWN}
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours: it saves and stops
    try:
        jax.distributed.initialize(**where, **times, initialization_timeout=max(mesh.lost_after, 60))
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        mend = (
            "set mesh.coordinator = 'HOST:PORT', mesh.processes and mesh.process, or start under SLURM or on a TPU pod"
        )
        raise UserError(f"the processes do not find each other: {reason}", "mesh", mend) from None
    devices = jax.device_count()
    if mesh.data * mesh.model != devices:
        message = f"{jax.process_count()} processes have {devices} devices, the mesh has {mesh.data} * {mesh.model}"
        raise UserError(message, "mesh", "let mesh.data * mesh.model be all of them: a process without rows would wait")


def writes() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def after(name: str) -> Iterator[None]:
    """Begins when all processes are here."""
    wait(name)
    yield


def own_rows(sharding: NamedSharding, batch_size: int) -> slice:
    """The rows of a batch that lie on this process's devices."""
    found = [index[0] for index in sharding.addressable_devices_indices_map((batch_size,)).values()]
    return slice(min(part.start or 0 for part in found), max(part.stop or batch_size for part in found))


def place(batch: Any, sharding: NamedSharding) -> Any:
    """A whole batch that every process has -> devices, each process putting its own part there."""
    if sharding.is_fully_addressable:
        return jax.device_put(batch, sharding)
    put = lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])
    return jax.tree.map(put, batch)


def place_rows(rows: Any, sharding: NamedSharding) -> Any:
    """This process's rows of a batch -> devices."""
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), rows)


def noted(train_step: Callable) -> Callable:
    """The step hands on what each process noted beside its rows: a gather in the step, by which all read all notes."""

    def step(state, frozen, batch, key):
        rows = {name: leaf for name, leaf in batch.items() if name != NOTES}
        state, metrics = train_step(state, frozen, rows, key)
        return state, metrics | {NOTES: batch[NOTES]}

    return step


def make_notes(hashes: np.ndarray, stopping: bool) -> np.ndarray:
    """Hashes of a process's shards [shards, 2] -> its notes [shards, 3]."""
    return np.concatenate([hashes, np.full((len(hashes), 1), stopping, np.uint32)], axis=1)


@contextlib.contextmanager
def one_of_several() -> Iterator[None]:
    """What goes wrong in one process of several ends it at once: the others notice that it is gone, and end too.

    An orderly end would wait for them, and they for it. A run of one process is left alone.
    """
    try:
        yield
    except (UserError, jax.errors.JaxRuntimeError) as error:
        if not jax.distributed.is_initialized():
            raise
        lost = "another process of the run was lost; the last checkpoint stays; start all processes again with --resume"
        plain = error if isinstance(error, UserError) else out_of_memory(error)
        sys.stderr.write(f"minillm: {plain or lost}\n")
        sys.stderr.flush()
        os._exit(2 if plain else 1)
