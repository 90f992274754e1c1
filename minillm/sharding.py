"""Where arrays lie: a mesh of devices and rules from logical axes to mesh axes.

The parameter table names each axis of each parameter; a rule says over which mesh axis a logical axis is split. `jit`
with shardings at its boundary (what `pjit` became) does the rest: XLA inserts the communication.

    data parallel     the batch is split over "data"; parameters are copies        (rules: "data")
    FSDP              parameters are split over "data" too, along their width      (rules: "fsdp")
    tensor parallel   heads, hidden units and the vocabulary are split over "model" (any rules, mesh.model > 1)
"""

from collections.abc import Mapping

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from minillm.errors import UserError
from minillm.params import ParamSpec, Specs, flatten, unflatten

TENSOR = {"attention": "model", "hidden": "model", "vocab": "model"}  # Megatron: Shoeybi et al. 2019, section 3
RULES: dict[str, dict[str, str]] = {
    "data": TENSOR,
    "fsdp": TENSOR | {"model": "data", "position": "data"},  # ZeRO stage 3: Rajbhandari et al. 2020, section 5
}


def make_mesh(data: int = 1, model: int = 1) -> Mesh:
    """A mesh [data, model] over the first data * model devices.

    Axes are of type Auto: the compiler propagates shardings, and `with_sharding_constraint` is a hint, not an assertion.
    """
    devices = jax.devices()
    if data * model > len(devices):
        raise UserError(
            f"data * model = {data} * {model} = {data * model} devices asked, {len(devices)} found ({devices[0].platform})",
            "mesh",
            "make the mesh smaller, or simulate devices with JAX_NUM_CPU_DEVICES=8",
        )
    return jax.make_mesh(
        (data, model), ("data", "model"), devices=devices[: data * model], axis_types=(AxisType.Auto, AxisType.Auto)
    )


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
