"""`minillm describe`: what a config would cost, from shapes alone. No array is allocated, no text is read (images are)."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params
from rich import box
from rich.console import Console
from rich.table import Table

from minillm.config import Experiment, MeshConfig
from minillm.experiment.data import vocabulary_size
from minillm.experiment.examples import made_up
from minillm.experiment.setup import Setup, abstract_state, make_objective, make_setup
from minillm.experiment.supervised import made_up_rows
from minillm.experiment.write import parameter_rows
from minillm.params import count
from minillm.sections import IMAGES, LABELLED
from minillm.training.step import make_gradient
from minillm.tuning.freeze import attach_apart

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
ASSUMED = 100e9  # FLOP/s: half of what two cores reach on a large float32 product


def describe(experiment: Experiment) -> dict[str, Any]:
    """The parameter table, memory per device, FLOPs per step, collectives of the compiled step, a time estimate."""
    setup = make_setup(experiment, vocabulary_size(experiment))
    compiled = setup.train_step.lower(*step_arguments(experiment, setup)).compile()
    memory = compiled.memory_analysis()
    flops = step_flops(experiment)
    trained = setup.tuning.specs(setup.specs)
    return {
        "parameters": parameter_rows(setup, experiment.mesh.rules),
        "total_parameters": count(setup.specs | trained),
        "trainable_parameters": count(trained),
        "mesh": dict(setup.mesh.shape),
        "state_bytes_per_device": int(memory.argument_size_in_bytes),
        "temporary_bytes_per_device": int(memory.temp_size_in_bytes),
        "flops_per_step": flops,
        "collectives": dict(Counter(re.findall(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(", compiled.as_text()))),
        "seconds_estimate": flops * experiment.train.steps / ASSUMED,
        "assumed_flops_per_second": ASSUMED,
    }


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
    gradient = make_gradient(objective, setup.model, setup.tuning._replace(attach=attach_apart), coefficients)
    return lambda state, frozen, batch, key: gradient(state.trainable, frozen, state.extra, batch, key)


def step_arguments(experiment: Experiment, setup: Setup) -> tuple:
    """(state, frozen, batch, key) of the training step, as shapes, types and shardings."""
    text = experiment.objective.name in LABELLED and experiment.data.source not in IMAGES
    batch = made_up_rows(experiment) if text else made_up(experiment, vocabulary_size(experiment))
    shape = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=setup.shardings[2])
    return (*abstract_state(setup), jax.tree.map(shape, batch), jax.eval_shape(lambda: jax.random.key(0)))


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


def show(found: dict[str, Any]) -> None:
    """Tables for a person."""
    total, trained = found["total_parameters"], found["trainable_parameters"]
    share = f", of which {trained:,} train ({trained / total:.2%})" if trained < total else ""
    title = f"{total:,} parameters{share}, on a mesh of {found['mesh']}"
    table = Table(title=title, box=box.SIMPLE)
    table.add_column("path", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    for name in ("placement", "trains") if share else ("placement",):
        table.add_column(name)
    for row in found["parameters"]:
        cells = (row["path"], " × ".join(map(str, row["shape"])), f"{row['count']:,}", row["placement"], row["trains"])
        table.add_row(*cells[: len(table.columns)])
    console = Console()
    console.print(table)
    facts = {
        "state and batch per device": f"{found['state_bytes_per_device'] / 1e6:,.1f} MB",
        "temporary memory per device": f"{found['temporary_bytes_per_device'] / 1e6:,.1f} MB",
        "work per step": f"{found['flops_per_step'] / 1e9:,.1f} GFLOP",
        "collectives per step": ", ".join(f"{n} {name}" for name, n in found["collectives"].items()) or "none",
        "time": f"{found['seconds_estimate']:,.0f} s at an assumed {found['assumed_flops_per_second'] / 1e9:.0f} GFLOP/s",
    }
    for name, fact in facts.items():
        console.print(f"{name:30} {fact}", highlight=False, soft_wrap=True)
