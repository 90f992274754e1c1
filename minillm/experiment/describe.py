"""`minillm describe`: what a config would cost, from shapes alone. No array is allocated, no text is read."""

import re
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from rich import box
from rich.console import Console
from rich.table import Table

from minillm.config import Experiment
from minillm.experiment.data import example_length, vocabulary_size
from minillm.experiment.setup import abstract_state, make_setup
from minillm.experiment.write import parameter_rows
from minillm.params import count

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
ASSUMED = 100e9  # FLOP/s: half of what two cores reach on a large float32 product


def describe(experiment: Experiment) -> dict[str, Any]:
    """The parameter table, memory per device, FLOPs per step, collectives of the compiled step, a time estimate."""
    setup = make_setup(experiment, vocabulary_size(experiment))
    length, rows = example_length(experiment), experiment.train.batch_size
    state, frozen = abstract_state(setup)
    shape = lambda kind: jax.ShapeDtypeStruct((rows, length), kind, sharding=setup.shardings[2])
    batch = {"tokens": shape(jnp.int32), "targets": shape(jnp.int32), "weights": shape(jnp.float32),
             "index": jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=setup.shardings[2])}  # fmt: skip
    key = jax.eval_shape(lambda: jax.random.key(0))
    compiled = setup.train_step.lower(state, frozen, batch, key).compile()
    memory = compiled.memory_analysis()
    flops = step_flops(setup, rows, length)
    return {
        "parameters": parameter_rows(setup, experiment.mesh.rules),
        "total_parameters": count(setup.specs),
        "mesh": dict(setup.mesh.shape),
        "state_bytes_per_device": int(memory.argument_size_in_bytes),
        "temporary_bytes_per_device": int(memory.temp_size_in_bytes),
        "flops_per_step": flops,
        "collectives": dict(Counter(re.findall(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(", compiled.as_text()))),
        "seconds_estimate": flops * experiment.train.steps / ASSUMED,
        "assumed_flops_per_second": ASSUMED,
    }


def step_flops(setup, rows: int, length: int) -> float:
    """6 per weight of a matrix product and token, and 12 * layers * length * width for attention, masked half included.

    Kaplan et al. 2020, section 2.1, with the output layer counted and the lookup not.
    """
    config = setup.config
    products = sum(s.size for path, s in setup.specs.items() if path.endswith("kernel"))
    products += config.vocabulary * config.width if config.tied else 0
    return float(rows * length * (6 * products + 12 * config.layers * length * config.width))


def show(found: dict[str, Any]) -> None:
    """Tables for a person."""
    title = f"{found['total_parameters']:,} parameters on a mesh of {found['mesh']}"
    table = Table(title=title, box=box.SIMPLE)
    table.add_column("path", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("placement")
    for row in found["parameters"]:
        table.add_row(row["path"], " × ".join(map(str, row["shape"])), f"{row['count']:,}", row["placement"])
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
