"""Scale on paper: what a config's step costs on more devices than there are.

The step is compiled three times for few devices, on data = 2 with r examples per device and with 2 r, and on data = 4 with
r. Every size of the compiled program (temporaries; the bytes of each kind of exchange) is then continued as

    size(rows per device, data) = whole + rows * per_row + shared / data

`whole` is what each device has or exchanges in full, such as gradients in data parallelism, `per_row` what grows with its
examples, `shared` what is split over "data". Arguments need no law: they follow from every array's place. Tests hold the
law against steps that are compiled for more devices.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType

from minillm import sharding
from minillm.config import Experiment
from minillm.errors import UserError
from minillm.experiment.paper.collectives import Collective
from minillm.experiment.paper.describe import WIDENED, Compiled, compile_step, step_flops, widens
from minillm.experiment.paper.estimate import Work, estimate
from minillm.experiment.paper.hardware import Hardware
from minillm.experiment.setup import state_shardings

ASSUMPTIONS = (
    "every device reaches its peaks: times are bounds, no forecast; at once: the longest of compute, memory and exchange; in "
    "turn: their sum",
    "sizes are those of the step compiled for few devices, continued as whole + rows * per_row + shared / data",
    "exchanges go by rings among devices that hang together, then between such groups; starting one costs nothing",
    "efficiency is that against the smallest number of devices in the list",
)


class Law(NamedTuple):
    """A size as a function of the mesh and the batch."""

    whole: float
    per_row: float
    shared: float

    def __call__(self, rows: int, data: int) -> float:
        return max(self.whole + rows * self.per_row + self.shared / data, 0.0)


class Laws(NamedTuple):
    """All sizes of a config's step, for any number of devices along "data"."""

    experiment: Experiment
    compiled: Compiled  # on data = 2
    row_flops: float  # of one example
    memory: Mapping[str, Law]  # "temporaries", and "new": outputs that lie in memory of their own
    exchanged: Mapping[tuple[str, tuple[str, ...]], Law]  # kind, axes -> bytes per step


def devices_needed(experiment: Experiment) -> int:
    """How many devices the three compilations simulate."""
    return 4 * experiment.mesh.model


def scale(laws: Laws, counts: Sequence[int], machines: Sequence[Hardware]) -> dict[str, Any]:
    """Weak scaling (examples per device stay) and strong scaling (all examples stay) over numbers of devices."""
    experiment = laws.experiment
    rows, batch = experiment.train.batch_size // experiment.mesh.data, experiment.train.batch_size
    works = {"weak": {}, "strong": {}}
    for count in sorted(set(counts)):
        data = _along_data(laws, count)
        works["weak"][count] = (rows * data, predict(laws, rows, data))
        if batch % data == 0:
            works["strong"][count] = (batch, predict(laws, batch // data, data))
    return {
        "name": experiment.name,
        "mesh": {"model": experiment.mesh.model, "rules": experiment.mesh.rules},
        "rows_per_device": rows,
        "batch_size": batch,
        "compiled_for": laws.compiled.setup.mesh.devices.flat[0].platform,
        "hardware": [
            {"name": machine.name, "memory_bytes": machine.memory, "source": machine.source,
             "rows": [row for way in works for row in _rows(way, works[way], machine)]} for machine in machines
        ],
        "left_out": sorted(set(works["weak"]) - set(works["strong"])),  # of strong scaling: the batch does not split so
        "assumptions": [*ASSUMPTIONS, *([WIDENED] if widens(experiment, laws.compiled.setup.mesh) else [])],
    }  # fmt: skip


def find_laws(experiment: Experiment) -> Laws:
    """Compiles the step three times."""
    if experiment.train.shards > 1:
        message = "virtual shards fix how many parts a batch has, which scaling changes"
        raise UserError(message, "train.shards", "set it to 1")
    rows = experiment.train.batch_size // experiment.mesh.data
    if rows == 0:
        message = f"{experiment.train.batch_size} examples leave some of {experiment.mesh.data} devices without"
        raise UserError(message, "train.batch_size, mesh.data", "make the batch larger")
    first, longer, wider = (
        compile_step(with_mesh(experiment, *where)) for where in ((rows, 2), (2 * rows, 2), (rows, 4))
    )
    sizes = [sizes_of(compiled) for compiled in (first, longer, wider)]
    if len({frozenset(found) for found in sizes}) > 1:
        different = sorted({str(key) for found in sizes for key in set(found) ^ set(sizes[0])})
        raise UserError(
            f"the compiler changes its plan with the mesh: {', '.join(different)}", "mesh", "use other sizes"
        )
    laws = {key: _fit(*(found[key] for found in sizes), rows) for key in sizes[0]}
    memory = {name: law for (name, axes), law in laws.items() if axes is None}
    exchanged = {key: law for key, law in laws.items() if key[1] is not None}
    return Laws(experiment, first, step_flops(experiment) / experiment.train.batch_size, memory, exchanged)


def with_mesh(experiment: Experiment, rows: int, data: int) -> Experiment:
    """The same step with so many examples per device on so many devices along "data"."""
    train = dataclasses.replace(experiment.train, batch_size=rows * data)
    return dataclasses.replace(experiment, train=train, mesh=dataclasses.replace(experiment.mesh, data=data))


def sizes_of(compiled: Compiled) -> dict[tuple, float]:
    """(name, None) -> bytes of memory, (kind, axes) -> bytes exchanged."""
    memory, sizes = compiled.memory, {}
    sizes["temporaries", None] = memory["temporaries"]
    sizes["new", None] = memory["outputs"] - memory["aliased"]
    for one in compiled.collectives:
        key = one.kind, one.axes
        sizes[key] = sizes.get(key, 0.0) + one.times * one.bytes
    return sizes


def _fit(first: float, longer: float, wider: float, rows: int) -> Law:
    per_row, shared = (longer - first) / rows, 4.0 * (first - wider)
    return Law(first - rows * per_row - shared / 2.0, per_row, shared)


def predict(laws: Laws, rows: int, data: int) -> Work:
    """What a device would do on that mesh."""
    experiment = laws.experiment
    arguments = argument_bytes(laws, rows, data)
    sizes = {name: law(rows, data) for name, law in laws.memory.items()}
    memory = {"arguments": arguments, "outputs": arguments + sizes["new"], "aliased": arguments,
              "temporaries": sizes["temporaries"], "total": arguments + sum(sizes.values())}  # fmt: skip
    mesh = {"data": data, "model": experiment.mesh.model}
    found = [Collective(kind, axes, group_along(axes, mesh), law(rows, data), 1)
             for (kind, axes), law in laws.exchanged.items()]  # fmt: skip
    flops = laws.row_flops * rows / experiment.mesh.model
    return Work(flops, experiment.model.get("dtype", "float32"), memory, [one for one in found if len(one.group) > 1])


def argument_bytes(laws: Laws, rows: int, data: int) -> float:
    """State, frozen parameters and batch of one device, from where each array lies."""
    setup, experiment = laws.compiled.setup, laws.experiment
    mesh = AbstractMesh((data, experiment.mesh.model), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
    specs = setup.specs | setup.tuning.specs(setup.specs)
    places = state_shardings(
        setup.born, sharding.param_shardings(specs, sharding.RULES[experiment.mesh.rules], mesh), mesh
    )
    shapes = jax.eval_shape(setup.born, jax.random.key(0))
    size = lambda leaf, place: math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    state = sum(jax.tree.leaves(jax.tree.map(size, shapes, places)))
    batch = sum(row["bytes_per_device"] for row in laws.compiled.arrays if row["path"].startswith("batch/"))
    first = experiment.train.batch_size // experiment.mesh.data
    return float(state + batch * rows / first)


def group_along(axes: Iterable[str], mesh: Mapping[str, int]) -> tuple[int, ...]:
    """The first devices that differ along these axes alone, counted through the mesh."""
    every = np.arange(math.prod(mesh.values())).reshape(tuple(mesh.values()))
    return tuple(every[tuple(slice(None) if axis in axes else 0 for axis in mesh)].ravel().tolist())


def _along_data(laws: Laws, count: int) -> int:
    """Devices along "data", and whether the law reaches so far: what is split over 2 must be split over them too."""
    model, specs = laws.experiment.mesh.model, laws.compiled.setup.specs
    if count % model or count < model:
        raise UserError(f"{count} devices cannot be split over mesh.model = {model}", "--scaling", "use its multiples")
    data, rules = count // model, sharding.RULES[laws.experiment.mesh.rules]
    for path, spec in specs.items():
        split = [sharding.partition(spec, rules, {"data": size, "model": model}) for size in (2, data)]
        if data > 1 and split[0] != split[1]:
            message = f"{path} {list(spec.shape)} cannot be split over {data}"
            raise UserError(message, "--scaling", "use numbers of devices that divide the model's sizes")
    return data


def _rows(way: str, works: Mapping[int, tuple[int, Work]], machine: Hardware) -> list[dict[str, Any]]:
    rows = []
    for count, (batch, work) in works.items():
        found = estimate(work, machine)
        row = {
            "way": way,
            "devices": count,
            "batch": batch,
            "memory": work.memory["total"],
            "fits": found["fits"],
            "binds": found["binds"],
        }
        for name in ("overlapped", "in_turn"):
            row[f"{name}_seconds"] = found[f"{name}_seconds"]
            per_example = row[f"{name}_seconds"] * count / batch
            row[f"{name}_efficiency"] = 1.0 if not rows else rows[0][f"{name}_cost"] / per_example
            row[f"{name}_cost"] = per_example  # device seconds per example
        rows.append(row)
    return rows
