"""Several processes, one run: how they find each other, what each of them reads, and what they tell each other.

Every process holds the same program and calls the same steps; jit over a mesh of all their devices does the rest. What
belongs to the outside world is shared out: a process makes only its own rows of a batch, and the first one alone writes.
"""

import contextlib
import hashlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from minillm.errors import UserError, out_of_memory
from minillm.sections.experiment import MeshConfig

NOTES = (
    "notes"  # leaf of a batch: [shards, 3] uint32, what a process says of its rows: two words of a hash, and "I stop"
)
GONE = ("UNAVAILABLE", "DEADLINE", "onnection", "Gloo", "gloo", "ocket")  # in an error where a process has gone
AGAIN = "start all processes again with --resume"
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
    devices, processes = jax.device_count(), jax.process_count()
    if mesh.data * mesh.model != devices:
        message = f"{processes} processes have {devices} devices, the mesh has {mesh.data} * {mesh.model}"
        raise UserError(message, "mesh", "let mesh.data * mesh.model be all of them: a process without rows would wait")
    if mesh.data % processes:
        message = f"mesh.data = {mesh.data} does not give each of {processes} processes rows of its own"
        raise UserError(message, "mesh.data", "make it a multiple: mesh.model lies within a process")


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


def decide(value: bool) -> bool:
    """What the first process says, for all of them."""
    return value if jax.process_count() == 1 else bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def refuse_differences(what: dict[str, str]) -> None:
    """Processes that read different configs or texts would train different parameters in silence. Raises: UserError.

    `what` is a name and a text of any length for each thing that must be equal.
    """
    if jax.process_count() == 1:
        return
    words = [np.frombuffer(hashlib.sha256(text.encode()).digest()[:8], np.uint32) for text in what.values()]
    everywhere = multihost_utils.process_allgather(np.stack(words))  # [processes, things, 2]
    for number, name in enumerate(what):
        if other := [
            process for process, row in enumerate(everywhere[:, number]) if (row != everywhere[0, number]).any()
        ]:
            mend = "start all processes with the same config, text and package versions"
            raise UserError(f"the {name} of process {other[0]} is not that of process 0", "mesh", mend)


def own_rows(sharding: NamedSharding, batch_size: int) -> slice:
    """The rows of a batch that lie on this process's devices. Raises: ValueError where they do not lie side by side."""
    found = {
        index[0].indices(batch_size)[:2] for index in sharding.addressable_devices_indices_map((batch_size,)).values()
    }
    first, after = min(start for start, _ in found), max(stop for _, stop in found)
    if sum(stop - start for start, stop in found) != after - first:
        raise ValueError(f"the rows of a process must lie side by side, got {sorted(found)}")
    return slice(first, after)


def place(batch: Any, sharding: NamedSharding) -> Any:
    """A whole batch that every process has -> devices, each process putting its own part there."""
    if sharding.is_fully_addressable:
        return jax.device_put(batch, sharding)
    put = lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])
    return jax.tree.map(put, batch)


def place_rows(rows: Any, sharding: NamedSharding, share: int) -> Any:
    """This process's rows of a batch, one of `share` equal parts of it -> devices."""
    whole = lambda leaf: (share * len(leaf), *leaf.shape[1:])
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf, whole(leaf)), rows)


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
def one_of_several(orderly: type[BaseException]) -> Iterator[None]:
    """Whatever goes wrong in one process of several ends it at once: the others notice that it is gone, and end too.

    An orderly end would wait for them, and they for it. That is for `orderly`, which all raise together. A run of one
    process is left alone.
    """
    try:
        yield
    except orderly:
        raise
    except BaseException as error:
        if not jax.distributed.is_initialized():
            raise
        plain = error if isinstance(error, UserError) else out_of_memory(error)
        if plain is None and isinstance(error, jax.errors.JaxRuntimeError):
            plain = f"the run ended in an exchange or a program: {str(error).splitlines()[0]}"
            if any(word in str(error) for word in GONE):
                plain = f"{plain}; another process of the run was lost, and the last checkpoint stays; {AGAIN}"
        sys.stderr.write(f"minillm: {plain}\n" if plain else traceback.format_exc())
        sys.stderr.flush()
        os._exit(2 if isinstance(error, UserError) else 1)
