"""Where arrays lie: a mesh of devices and rules from logical axes to mesh axes.

The parameter table names each axis of each parameter; a rule says over which mesh axis a logical axis is split. `jit`
with shardings at its boundary (what `pjit` became) does the rest: XLA inserts the communication.

    data parallel     the batch is split over "data"; parameters are copies        (rules: "data")
    FSDP              parameters are split over "data" too, along their width      (rules: "fsdp")
    tensor parallel   heads, hidden units and the vocabulary are split over "model" (any rules, mesh.model > 1)
    sequence parallel tensor parallel, and between the blocks positions too are split over "model" (rules: "sequence")
"""

import contextlib
import os
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from minillm.allocator import usable_cores
from minillm.errors import UserError
from minillm.params import ParamSpec, Specs, flatten, unflatten

TENSOR = {"attention": "model", "hidden": "model", "vocab": "model"}  # Megatron: Shoeybi et al. 2019, section 3
RULES: dict[str, dict[str, str]] = {
    "data": TENSOR,
    "fsdp": TENSOR | {"model": "data", "position": "data"},  # ZeRO stage 3: Rajbhandari et al. 2020, section 5
    "sequence": TENSOR,
}
ACTIVATIONS = {"fsdp": ("data",), "sequence": ("data", "model")}  # how embeddings are split; else as the compiler likes


def make_mesh(data: int = 1, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh [data, model] over the first data * model of the devices; None: all that JAX has found.

    Axes are of type Auto: the compiler propagates shardings, and `with_sharding_constraint` is a hint, not an assertion.
    """
    devices = jax.devices() if devices is None else devices
    if data * model > len(devices):
        raise UserError(
            f"data * model = {data} * {model} = {data * model} devices asked, {len(devices)} found ({devices[0].platform})",
            "mesh",
            "make the mesh smaller, or simulate devices with JAX_NUM_CPU_DEVICES=8",
        )
    names, types = ("data", "model"), (AxisType.Auto, AxisType.Auto)
    if jax.process_count() > 1 and data * model > 1:  # in the order of processes: their rows lie side by side
        found = sorted(devices[: data * model], key=lambda device: (device.process_index, device.id))
        return Mesh(np.array(found).reshape(data, model), names, axis_types=types)
    return jax.make_mesh((data, model), names, devices=devices[: data * model], axis_types=types)


def simulate(devices: int) -> None:
    """Makes this process's CPU look like so many devices, at least; says nothing once JAX has counted its devices."""
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", max(devices, jax.config.jax_num_cpu_devices))


def fix_threads(shards: int) -> None:
    """With virtual shards, before jax counts its devices: as many threads on the CPU however many devices it simulates.

    XLA shares a product out over a pool of as many threads as there are cores (or NPROC says) or simulated devices,
    whichever are more, and the last bits depend on how. There are never more devices than shards. The setting is the whole
    process's, so the command line makes it and the library never does.
    """
    if shards > 1:
        os.environ.setdefault("NPROC", str(max(usable_cores(), shards)))


def enough_devices(count: int) -> Sequence[jax.Device]:
    """JAX's devices, or where they are fewer than `count` the CPU's, which may be simulated."""
    found = jax.devices()
    if len(found) < count:
        with contextlib.suppress(RuntimeError):  # a JAX that was told to leave the CPU alone
            return jax.devices("cpu")
    return found


def partition(spec: ParamSpec, rules: Mapping[str, str], mesh_shape: Mapping[str, int]) -> PartitionSpec:
    """One parameter's place: each axis goes where its rule says, if the mesh axis is free and divides it."""
    used, places = set(), []
    for size, axis in zip(spec.shape, spec.axes, strict=True):
        place = rules.get(axis) if axis else None
        if place is None or place in used or mesh_shape[place] == 1 or size % mesh_shape[place]:
            places.append(None)
        else:
            used.add(place)
            places.append(place)
    return PartitionSpec(*places)


def param_shardings(specs: Specs, rules: Mapping[str, str], mesh: Mesh) -> dict:
    """Nested dicts of shardings, one per row of the table."""
    return unflatten({path: NamedSharding(mesh, partition(spec, rules, mesh.shape)) for path, spec in specs.items()})


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples are split over "data"."""
    return NamedSharding(mesh, PartitionSpec("data"))


def place_activations(model, rules: str, mesh: Mesh):
    """The model with its embeddings [batch, length, width] held where the rules say; every block adds to what it gets, so
    that all of the residual stream keeps that place.

    fsdp: over "data" by examples, and the table of tokens gathered before it is read. Without a word the compiler leaves
    the weights apart, splits the activations along their width like them, and adds up activations in every layer; with it,
    it gathers one layer's weights at a time.
    sequence: also over "model" by positions. Norms and dropout are then computed and kept once, not on every device of the
    group, and each all-reduce becomes a reduce-scatter and an all-gather (Korthikanti et al. 2022, section 4.2.2). A
    length that "model" does not divide stays whole.
    """
    if rules not in ACTIVATIONS:
        return model

    def place(x, parts):
        fits = [
            part if part and size % mesh.shape[part] == 0 else None for part, size in zip(parts, x.shape, strict=False)
        ]
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*fits)))

    def apply(params, batch, *, embeddings=None, **others):
        if rules == "fsdp" and "embedding" in params:  # split, then whole: gradients go the other way
            whole = lambda table: place(place(table, ("model", "data")), ("model", None))
            params = params | {"embedding": jax.tree.map(whole, params["embedding"])}
        embeddings = model.embed(params, batch) if embeddings is None else embeddings
        embeddings = jax.tree.map(lambda x: place(x, ACTIVATIONS[rules]), embeddings)
        return model.apply(params, batch, embeddings=embeddings, **others)

    return model._replace(apply=apply)


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def like_params(tree, shardings: Mapping, mesh: Mesh):
    """Shardings for a tree that holds copies of the parameters (an optimizer's moments) among other leaves.

    A leaf whose path ends in a parameter's path, and whose shape that parameter's sharding can split, lies where the
    parameter lies; any other leaf is copied to every device.
    """
    places = flatten(shardings)

    def place(path, leaf):
        names = [str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", "")))) for entry in path]
        for start in range(len(names)):
            found = places.get("/".join(names[start:]))
            if found is not None and len(found.spec) == len(leaf.shape):
                return found
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, tree)
