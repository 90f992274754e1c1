"""`minillm describe`: what a config would cost, known without allocating it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from minillm import config as configs
from minillm.experiment.paper import costs
from minillm.experiment.paper.describe import describe, product_flops, step_flops
from minillm.experiment.paper.hardware import H100, hardware

QUICKSTART = Path(__file__).parents[1] / "configs/quickstart.toml"
LARGE = ["model.width=2048", "model.layers=24", "model.heads=16", "model.hidden=5632", "train.batch_size=1",
         "tokenizer.vocabulary=32000"]  # fmt: skip


def test_a_model_of_a_billion_parameters_is_described_and_not_allocated():
    before = sum(array.nbytes for array in jax.live_arrays())
    found = describe(configs.load(QUICKSTART, LARGE))
    by_hand = 32000 * 2048 + 24 * (4 * 2048 * 2048 + 3 * 2048 * 5632 + 2 * 2048) + 2048
    assert found["total_parameters"] == by_hand
    assert found["memory_per_device"]["arguments"] > 12 * by_hand  # parameters and two moments in float32
    assert sum(array.nbytes for array in jax.live_arrays()) - before < 1000


def test_flops_by_hand_and_collectives_only_where_something_is_split():
    single = describe(configs.load(QUICKSTART))
    products = 1024 * 192 + 4 * (4 * 192 * 192 + 3 * 192 * 512)
    computed = 10 / 16  # of the attention's square, in four causal blocks
    assert single["flops_per_step"] == 16 * 128 * (6 * products + computed * 12 * 4 * 128 * 192)
    assert single["collectives"] == []
    split = describe(configs.load(QUICKSTART, ["mesh.data=4", "mesh.model=2", "mesh.rules='fsdp'"]), hardware())
    assert {("all-gather", "data"), ("reduce-scatter", "data"), ("all-reduce", "model")} <= {
        (row["kind"], row["axes"]) for row in split["collectives"]
    }
    assert split["memory_per_device"]["arguments"] < single["memory_per_device"]["arguments"] / 6
    assert {row["placement"] for row in single["parameters"]} == {"whole"}
    places = {row["path"]: row["placement"] for row in split["parameters"]}
    assert places["blocks/attention/query/kernel"] == "model over mesh.data, attention over mesh.model"
    assert places["final_norm/scale"] == "copied"
    estimate_by_hand(split)


def estimate_by_hand(found):
    """The first row is an H100's: every time from the tables beside it; a mesh of eight lies within one machine."""
    row, memory = found["hardware"][0], found["memory_per_device"]
    moved = memory["arguments"] + memory["outputs"] + 2 * memory["temporaries"]
    times = {"compute": found["flops_per_step"] / 8 / H100.float32, "memory": moved / H100.memory_bandwidth,
             "communication": sum(row["sent"] for row in found["collectives"]) / H100.link}  # fmt: skip
    assert {name: row[f"{name}_seconds"] for name in times} == pytest.approx(times)
    assert row["overlapped_seconds"] == pytest.approx(max(times.values()))
    assert row["in_turn_seconds"] == pytest.approx(sum(times.values()))
    assert row["binds"] == max(times, key=times.get)
    arguments = sum(row["bytes_per_device"] for row in found["arrays"])
    assert arguments == pytest.approx(memory["arguments"], abs=64)  # a key comes on top
    assert memory["aliased"] / memory["outputs"] > 0.99, "donated arguments hold the new state"
    costs.show(found)


def test_frozen_bottom_blocks_have_no_backward_pass():
    """By hand: they are computed forward only, and the frozen table of the tied output layer has no gradient of its own."""
    found = step_flops(configs.load(QUICKSTART, ["tuning.method='freeze'", "tuning.freeze_layers=3"]))
    block, attention = 4 * 192 * 192 + 3 * 192 * 512, 10 / 16 * 128 * 192
    forward = 2 * block + 4 * attention
    assert found == 16 * 128 * (4 * 1024 * 192 + 3 * forward + 3 * forward)


def test_low_rank_rows_are_in_the_table_and_split_as_their_kernels():
    rules = ["mesh.data=4", "mesh.model=2", "mesh.rules='fsdp'", "tuning.method='lora'", "tuning.rank=4"]
    found = describe(configs.load(QUICKSTART, rules))
    rows = {row["path"]: row for row in found["parameters"]}
    assert found["trainable_parameters"] == 4 * 2 * 2 * 4 * 192
    assert found["total_parameters"] == sum(row["count"] for row in rows.values())
    assert rows["blocks/attention/query/lora/down"]["placement"] == "model over mesh.data"
    assert rows["blocks/attention/query/lora/up"]["placement"] == "attention over mesh.model"
    assert {path.split("/")[-2] for path, row in rows.items() if row["trains"] == "yes"} == {"lora"}


def test_products_are_counted_through_loops_branches_and_calls():
    square = jnp.ones((8, 8))

    def program(x):
        looped = jax.lax.scan(lambda carry, _: (carry @ square, None), x, length=5)[0]
        return jax.lax.cond(x.sum() > 0, lambda y: y @ square @ square, lambda y: y, jax.jit(jnp.dot)(looped, square))

    assert product_flops(jax.make_jaxpr(program)(jnp.ones((3, 8))).jaxpr) == (5 + 1 + 2) * 2 * 3 * 8 * 8
    image, kernel = jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 3, 4))
    convolve = lambda x: jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert product_flops(jax.make_jaxpr(convolve)(image).jaxpr) == 2 * (2 * 4 * 4 * 4) * (3 * 3 * 3)
