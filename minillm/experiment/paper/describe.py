"""`minillm describe`: what a config would cost, from shapes alone. No array is allocated, no text is read (images are)."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh

from minillm import sharding
from minillm.bits import flatten_paths
from minillm.config import Experiment, MeshConfig
from minillm.experiment.data import vocabulary_size
from minillm.experiment.examples import made_up
from minillm.experiment.paired import made_up_pairs
from minillm.experiment.paper.collectives import Collective, collectives, summarise
from minillm.experiment.paper.estimate import Work, estimate
from minillm.experiment.paper.hardware import Hardware
from minillm.experiment.paper.program import compile_partitioned
from minillm.experiment.recipes import tasks
from minillm.experiment.recipes.around import recipe_gradient
from minillm.experiment.setup import Setup, abstract_state, make_objective, make_setup, with_own_kernel
from minillm.experiment.supervised import made_up_rows
from minillm.experiment.write import parameter_rows
from minillm.params import count
from minillm.sections.data import is_paired
from minillm.sections.experiment import IMAGES, LABELLED
from minillm.tuning.freeze import attach_apart

WIDENED = (
    "this CPU computes in float32 what is bfloat16 elsewhere: temporaries take up to half of this on an accelerator"
)
NARROWER = "pairs of texts: this is the widest batch; most are narrower, so that here work, exchanges and time are upper bounds"


class Compiled(NamedTuple):
    """A training step as the compiler made it; nothing has run."""

    setup: Setup
    arrays: list[dict[str, Any]]  # what goes in: path, shape, dtype, placement, bytes per device
    memory: dict[str, float]  # bytes per device
    collectives: list[Collective]


def describe(experiment: Experiment, machines: Sequence[Hardware] = ()) -> dict[str, Any]:
    """The parameter table, every array's place, memory per device, FLOPs, collectives, and a step's time on hardware."""
    experiment = with_own_kernel(experiment)
    compiled = compile_step(experiment)
    setup, flops, devices = compiled.setup, step_flops(experiment), compiled.setup.mesh.size
    trained = setup.tuning.specs(setup.specs)
    work = Work(flops / devices, experiment.model.get("dtype", "float32"), compiled.memory, compiled.collectives)
    return {
        "parameters": parameter_rows(setup, experiment.mesh.rules),
        "total_parameters": count(setup.specs | trained),
        "trainable_parameters": count(trained),
        "mesh": dict(setup.mesh.shape),
        "rules": experiment.mesh.rules,
        "compiled_for": setup.mesh.devices.flat[0].platform,
        "arrays": compiled.arrays,
        "memory_per_device": compiled.memory,
        "flops_per_step": flops,
        "dtype": work.dtype,
        "collectives": summarise(compiled.collectives),
        "steps": experiment.train.steps,
        "notes": [
            *([WIDENED] if widens(experiment, setup.mesh) else []),
            *([NARROWER] if is_paired(experiment.data) and experiment.objective.name == "sequence_to_sequence" else []),
            *_idle(experiment, setup),
        ],
        "hardware": [estimate(work, machine) for machine in machines],
    }


def compile_step(experiment: Experiment) -> Compiled:
    """The training step on the config's mesh, of real devices or, where they are too few, of simulated ones."""
    devices = sharding.enough_devices(experiment.mesh.data * experiment.mesh.model)
    setup = make_setup(experiment, vocabulary_size(experiment), devices)
    arguments = step_arguments(experiment, setup)
    lowered = setup.train_step.lower(*arguments)
    if setup.mesh.size > 1 and widens(experiment, setup.mesh):
        compiled, text = compile_partitioned(lowered)
    else:
        compiled = lowered.compile()
        text = compiled.as_text()
    found = collectives(text, setup.mesh.shape)
    return Compiled(setup, arrays_of(setup, *arguments[:3]), memory_of(compiled), found)


def _idle(experiment: Experiment, setup: Setup) -> list[str]:
    """A word about devices along "model" among which no parameter is split."""
    placed = sharding.param_shardings(setup.specs, sharding.RULES[experiment.mesh.rules], setup.mesh)
    if experiment.mesh.model == 1 or any("model" in place.spec for place in jax.tree.leaves(placed)):
        return []
    return [f"mesh.model = {experiment.mesh.model} divides neither heads nor hidden units nor the vocabulary: "
            "its devices repeat each other's work"]  # fmt: skip


def widens(experiment: Experiment, mesh: Mesh) -> bool:
    """Whether the devices compute the model's bfloat16 in float32."""
    return experiment.model.get("dtype") == "bfloat16" and mesh.devices.flat[0].platform == "cpu"


def memory_of(compiled) -> dict[str, float]:
    """Bytes per device by the compiler's own account: outputs that are aliased lie where donated arguments did."""
    found = compiled.memory_analysis()
    sizes = {"arguments": found.argument_size_in_bytes, "outputs": found.output_size_in_bytes,
             "aliased": found.alias_size_in_bytes, "temporaries": found.temp_size_in_bytes}  # fmt: skip
    return sizes | {"total": sizes["arguments"] + sizes["outputs"] - sizes["aliased"] + sizes["temporaries"]}


def arrays_of(setup: Setup, state, frozen, batch) -> list[dict[str, Any]]:
    """A row per array that goes into the step; a copy of a parameter, such as a moment, is placed and named like it."""
    specs = setup.specs | setup.tuning.specs(setup.specs)
    rows = []
    for path, leaf in flatten_paths({"state": state._asdict(), "frozen": frozen, "batch": batch}).items():
        name = max((name for name in specs if path.endswith(f"/{name}")), key=len, default=None)
        axes = specs[name].axes if name and len(specs[name].axes) == len(leaf.shape) else range(len(leaf.shape))
        split = (f"{axis if isinstance(axis, str) else f'axis {axis}'} over mesh.{place}"
                 for axis, place in zip(axes, leaf.sharding.spec, strict=False) if place)  # fmt: skip
        size = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        rows.append({"path": path, "parameter": name, "shape": list(leaf.shape), "dtype": leaf.dtype.name,
                     "placement": ", ".join(split) or ("copied" if setup.mesh.size > 1 else "whole"), "bytes_per_device": size})  # fmt: skip
    return rows


def step_flops(experiment: Experiment) -> float:
    """`product_flops` of a training step, on one device and without shards of the batch: they add no work.

    Frozen bottom blocks of unrolled layers have no backward pass, which XLA finds out and the step's own program does not
    tell: there it is the work of the same gradient on blocks that are not stacked.
    """
    whole = dataclasses.replace(experiment.train, shards=1)
    experiment = dataclasses.replace(experiment, train=whole, mesh=MeshConfig())
    setup = make_setup(experiment, vocabulary_size(experiment))
    scans = getattr(setup.config, "scans", getattr(setup.config, "scan", False))
    step = _gradient_apart(experiment, setup) if experiment.tuning.freeze_layers and not scans else setup.train_step
    return product_flops(jax.make_jaxpr(step)(*step_arguments(experiment, setup)).jaxpr)


def _gradient_apart(experiment: Experiment, setup: Setup) -> Callable:
    """The training step's gradient, the blocks apart; a step adds no products to it."""
    objective, coefficients = make_objective(experiment)
    tuning = setup.tuning._replace(attach=attach_apart)
    gradient = recipe_gradient(experiment, objective, setup.model, tuning, coefficients)
    return lambda state, frozen, batch, key: gradient(state.trainable, frozen, state.extra, batch, key)


def step_arguments(experiment: Experiment, setup: Setup) -> tuple:
    """(state, frozen, batch, key) of the training step, as shapes, types and shardings."""
    batch = _made_up(experiment)
    if others := tasks.active(experiment):  # how a mixture shares its rows depends on the texts, which are not read
        size, names = experiment.train.batch_size, (tasks.MAIN, *others)
        own = {name: experiment.tasks[name].rows for name in others} | {tasks.MAIN: size}
        rows = dict.fromkeys(names, -(-size // len(names))) if tasks.mixes(experiment) else own
        resized = lambda part, rows: dataclasses.replace(
            part, train=dataclasses.replace(part.train, batch_size=rows, shards=1)
        )
        batch = {name: _made_up(resized(tasks.part(experiment, name), rows[name])) for name in names}
    shape = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=setup.shardings[2])
    return (*abstract_state(setup), jax.tree.map(shape, batch), jax.eval_shape(lambda: jax.random.key(0)))


def _made_up(experiment: Experiment) -> dict[str, Any]:
    text = experiment.objective.name in LABELLED and experiment.data.source not in IMAGES
    paired = experiment.objective.name == "sequence_to_sequence" and is_paired(experiment.data)
    make = made_up_rows if text else made_up_pairs if paired else None
    return make(experiment) if make else made_up(experiment, vocabulary_size(experiment))


def product_flops(jaxpr) -> float:
    """The work of a program's matrix products and convolutions: 2 per multiplication and addition, loops counted out.

    All else (norms, softmax, the optimizer) is left out, as in Kaplan et al. 2020, section 2.1. What is never computed,
    such as a block of attention after the query, does not count; what is computed twice, as with remat, counts twice.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2.0 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            kernel, numbers = equation.invars[1].aval, equation.params["dimension_numbers"]
            total += 2.0 * equation.outvars[0].aval.size * kernel.size / kernel.shape[numbers.rhs_spec[0]]
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        parts = [product_flops(part) for part in jaxprs_in_params(equation.params)]
        total += times * (max(parts, default=0.0) if equation.primitive.name == "cond" else sum(parts))
    return total
