"""What devices exchange in a step, read from the compiled program and held against counts by hand."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from minillm import config as configs
from minillm import sharding
from minillm.errors import UserError
from minillm.experiment.paper import costs
from minillm.experiment.paper.collectives import Collective, collectives, first_group, sent, summarise
from minillm.experiment.paper.describe import compile_step
from minillm.experiment.paper.estimate import exchange_seconds
from minillm.experiment.paper.hardware import ASSUMED_CPU, H100
from minillm.experiment.paper.scaling import find_laws, predict, scale, sizes_of
from minillm.report import cost

ROWS, LENGTH, WIDTH, HIDDEN, LAYERS, VOCABULARY, FLOAT = 16, 18, 32, 64, 3, 14, 4
BLOCK = 4 * WIDTH * WIDTH + 3 * WIDTH * HIDDEN  # matrices of one
TABLES, NORMS = 2 * VOCABULARY * WIDTH, (2 * LAYERS + 1) * WIDTH
ACTIVATIONS, PER_TOKEN = ROWS * LENGTH * WIDTH * FLOAT, ROWS * LENGTH * FLOAT  # of all examples


def tiny(**mesh):
    """A GPT without biases, whose two tables are not tied; sixteen rows of the copy task."""
    model = {"context": 24, "layers": LAYERS, "width": WIDTH, "heads": 4, "hidden": HIDDEN, "scan": True, "bias": False,
             "tied": False, "norm": "rms", "position": "rotary", "activation": "silu", "gated": True}  # fmt: skip
    raw = {"data": {"source": "copy"}, "model": model, "train": {"batch_size": ROWS}, "mesh": mesh,
           "optimizer": {"name": "sgd"}}  # fmt: skip
    return configs.check(raw, "test")


@functools.cache
def exchanged(**mesh):
    """({(kind, axes): bytes} per step, the compiled step)."""
    compiled = compile_step(tiny(**mesh))
    return {(row["kind"], row["axes"]): row["bytes"] for row in summarise(compiled.collectives)}, compiled


def test_data_parallel_devices_add_up_their_gradients_and_nothing_else():
    found, _ = exchanged(data=4)
    gradients = FLOAT * (TABLES + LAYERS * BLOCK + NORMS)
    assert set(found) == {("all-reduce", "data")}
    assert 0 <= found["all-reduce", "data"] - gradients <= 16 * FLOAT  # the loss and its weights are numbers, too


def test_fsdp_gathers_weights_twice_and_scatters_gradients_once():
    """Each block's matrices for the forward and the backward pass; both tables once. Norms are copies on all devices."""
    found, compiled = exchanged(data=4, rules="fsdp")
    assert found["all-gather", "data"] == FLOAT * (2 * LAYERS * BLOCK + TABLES)
    assert found["reduce-scatter", "data"] == FLOAT * (LAYERS * BLOCK + TABLES)
    assert 0 <= found["all-reduce", "data"] - FLOAT * NORMS <= 64 * FLOAT  # and each leaf's part of the gradient's norm
    assert len(found) == 3
    whole = exchanged(data=4)[1].memory
    assert compiled.memory["arguments"] < 0.4 * whole["arguments"]
    assert compiled.memory["temporaries"] < whole["temporaries"]


def test_tensor_parallel_devices_add_up_activations():
    """Forward: the outputs of attention and feed-forward, and the embedding. Backward: the gradients by the inputs of query,
    key and value, of both kernels of the feed-forward, and of the head. On top come a few numbers per token: the softmax."""
    found, _ = exchanged(model=2)
    assert 0 <= found["all-reduce", "model"] - ACTIVATIONS * (LAYERS * (2 + 3 + 2) + 2) <= 4 * PER_TOKEN


def test_the_sequence_rule_scatters_and_gathers_instead_and_keeps_less():
    found, compiled = exchanged(model=2, rules="sequence")
    table = FLOAT * VOCABULARY * WIDTH
    assert 0 <= found["all-gather", "model"] - ACTIVATIONS * (LAYERS * 4 + 1) <= table + 4 * PER_TOKEN
    assert 0 <= found["reduce-scatter", "model"] - ACTIVATIONS * (LAYERS * 7 + 1) <= table
    assert found["all-reduce", "model"] <= FLOAT * (NORMS + 32) + 3 * PER_TOKEN
    plain, whole = exchanged(model=2)
    assert total_sent(compiled) < 0.8 * total_sent(whole)
    assert compiled.memory["temporaries"] < 0.9 * whole.memory["temporaries"]
    assert set(plain) != set(found)


def total_sent(compiled):
    return sum(row["sent"] for row in summarise(compiled.collectives))


@functools.cache
def fsdp_laws():
    return find_laws(tiny(data=8, rules="fsdp"))


@pytest.mark.slow
def test_a_law_from_few_devices_holds_on_more():
    """Steps compiled for 2 and 4 devices tell what is exchanged by 8, and by 4 with twice the examples; memory nearly so."""
    laws = fsdp_laws()
    for compiled, rows, data in (
        (exchanged(data=8, rules="fsdp")[1], 2, 8),
        (exchanged(data=4, rules="fsdp")[1], 4, 4),
    ):
        work = predict(laws, rows, data)
        law = {(one.kind, one.axes): one.bytes for one in work.collectives}
        assert law == {key: size for key, size in sizes_of(compiled).items() if key[1] is not None}
        assert work.memory["arguments"] == pytest.approx(compiled.memory["arguments"], rel=1e-3)
        assert work.memory["temporaries"] == pytest.approx(compiled.memory["temporaries"], rel=0.05)
    assert predict(laws, 2, 1).collectives == []


def test_scaling_by_hand(tmp_path):
    """Weak: a device's examples stay, and its products; strong: they are shared. 16 rows cannot be split over 32."""
    laws = fsdp_laws()
    found = scale(laws, [8, 16, 32], [H100._replace(float32=1e9, link=1e6, network=1e6)])
    rows = {(row["way"], row["devices"]): row for row in found["hardware"][0]["rows"]}
    assert set(rows) == {("weak", 8), ("weak", 16), ("weak", 32), ("strong", 8), ("strong", 16)}
    assert [rows["weak", devices]["batch"] for devices in (8, 16, 32)] == [16, 32, 64]
    assert rows["weak", 8]["overlapped_efficiency"] == 1.0
    one, two = rows["strong", 8], rows["strong", 16]
    assert two["in_turn_efficiency"] == pytest.approx(one["in_turn_seconds"] * 8 / (two["in_turn_seconds"] * 16))
    assert two["in_turn_efficiency"] < one["in_turn_efficiency"]
    assert rows["weak", 32]["memory"] < rows["weak", 8]["memory"]
    costs.show_scaling(found)
    cost.write_scaling(found, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
    with pytest.raises(UserError, match="cannot be split over 64"):
        scale(laws, [64], [H100])  # a width of 32


@pytest.mark.slow
def test_a_laptop_describes_a_mesh_that_it_does_not_have(tmp_path):
    """The command as a user types it, with no variable set; the CPU counts eight devices for it."""
    environment = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    small = ["model.layers=1", "model.width=16", "model.heads=2", "model.dtype=bfloat16"]
    settings = [part for setting in small for part in ("--set", setting)]
    command = [sys.executable, "-m", "minillm.cli", "describe", "configs/copy.toml", *settings, "--mesh", "data=4,model=2",
               "--json", "--figure", str(tmp_path / "step.png")]  # fmt: skip
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["mesh"] == {"data": 4, "model": 2}
    assert {row["axes"] for row in found["collectives"]} == {"data", "model"}
    assert len(found["hardware"]) == 3
    assert "float32 what is bfloat16" in found["notes"][0]
    assert (tmp_path / "step.png").stat().st_size > 10_000


def test_loops_count_as_often_as_they_run_and_branches_both():
    """A program whose exchanges are known: five sums over "model" of [8, 4] in a loop, then "data" is gathered."""
    mesh = sharding.make_mesh(2, 4)

    def on_device(x):
        looped, _ = jax.lax.scan(lambda total, _: (jax.lax.psum(total * 0.5, "model"), None), x, length=5)
        return jax.lax.all_gather(looped, "data", tiled=True)

    places = {"in_specs": PartitionSpec("data"), "out_specs": PartitionSpec()}
    program = jax.jit(jax.shard_map(on_device, mesh=mesh, check_vma=False, **places))
    x = jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))
    assert collectives(program.lower(x).compile().as_text(), mesh.shape) == [
        Collective("all-reduce", ("model",), (0, 1, 2, 3), 8 * 4 * 4, 5),
        Collective("all-gather", ("data",), (0, 4), 16 * 4 * 4, 1),
    ]


@pytest.mark.parametrize(("written", "group"), [
    ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", (0, 1)),
    ("replica_groups={}", tuple(range(8))),
    ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
    ("replica_groups=[2,4]<=[4,2]T(1,0)", (0, 2, 4, 6)),
    ("replica_groups=[4,2]<=[2,2,2]T(2,1,0)", (0, 4)),
    ("replica_groups=mesh['a'=4,'b'=2] {'b'}", (0, 1)),
    ("replica_groups=mesh['a'=4,'b'=2] {'a'}", (0, 2, 4, 6)),
    ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", tuple(range(8))),
    ("replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}", (0, 2, 4, 6)),
    ("source_target_pairs={{0,0},{1,4},{4,1},{5,5}}", (1, 4)),
    ("source_target_pairs={{0,1},{1,2},{2,3}}", (0, 1, 2, 3)),
])  # fmt: skip
def test_groups_are_read_in_every_way_that_they_are_written(written, group):
    assert first_group(f"  %x = f32[] all-reduce(%y), {written}, to_apply=%add", 8) == group


def test_groups_written_in_an_unknown_way_are_an_error():
    with pytest.raises(ValueError, match="unknown here"):
        first_group("  %x = f32[] all-reduce(%y), replica_groups=torus<0,1>", 8)


ACCELERATOR = """HloModule step
%body (arg: f32[8]) -> f32[8] {
  %rs = bf16[4]{0} reduce-scatter(%arg), replica_groups=[4,2]<=[8], dimensions={0}, to_apply=%add
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %sum = (f32[8]{0}, f32[3]{0}) all-reduce-start(%p, %q), replica_groups=[1,8]<=[8], to_apply=%add
  %done = (f32[8]{0}, f32[3]{0}) all-reduce-done(%sum)
  %gathered = ((f32[1]{0}, f32[2]{0}), (f32[8]{0}, f32[16]{0})) all-gather-start(%a, %b), replica_groups=[1,8]<=[8]
  %moved = (f32[5]{0}, f32[5]{0}, u32[], u32[]) collective-permute-start(%c), source_target_pairs={{0,1},{1,0}}
  %loop = f32[8]{0} while(%p), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}
"""


def test_exchanges_that_accelerators_start_and_finish_apart_count_once():
    found = [(one.kind, one.bytes, one.times) for one in collectives(ACCELERATOR, {"data": 4, "model": 2})]
    assert found == [
        ("all-reduce", 44.0, 1), ("all-gather", 96.0, 1), ("collective-permute", 20.0, 1), ("reduce-scatter", 16.0, 3),
    ]  # fmt: skip


def test_seconds_of_an_exchange_by_hand():
    """Within a machine of eight the ring's bytes over NVLink; beyond, each device also sends an eighth's share outwards."""
    inside = Collective("all-reduce", ("data",), tuple(range(8)), 8e9, 1)
    assert exchange_seconds(inside, H100) == pytest.approx(2 * 7 / 8 * 8e9 / 450e9)
    across = inside._replace(group=tuple(range(32)))
    assert exchange_seconds(across, H100) == pytest.approx(2 * 7 / 8 * 8e9 / 450e9 + 2 * 3 / 4 * 1e9 / 50e9)
    apart = Collective("all-gather", ("data",), (0, 8, 16, 24), 8e9, 1)
    assert exchange_seconds(apart, H100) == pytest.approx(3 / 4 * 8e9 / 50e9)
    assert exchange_seconds(inside, ASSUMED_CPU) == pytest.approx(sent("all-reduce", 8e9, 8) / 1.25e9)
