"""Sharded equals single, on eight simulated devices; and every array lies where the rules say."""

import jax
import numpy as np
import pytest

from minillm import config as configs
from minillm.bits import leaf_hashes
from minillm.experiment.data import load_data
from minillm.experiment.setup import make_setup, new_state
from minillm.params import flatten

RAW = {
    "data": {"source": "copy"},
    "model": {"context": 24, "layers": 2, "width": 32, "heads": 4},
    "train": {"batch_size": 16},
}


def losses(tmp_path, steps=8, **mesh):
    shards = mesh.pop("shards", 1)
    raw = RAW | {"mesh": mesh, "train": {"batch_size": 16, "shards": shards}}
    experiment = configs.validate(configs.Experiment, raw, "test")
    data = load_data(experiment, tmp_path / "none")
    setup = make_setup(experiment, data.vocabulary)
    state, frozen = new_state(setup)
    found = []
    for step in range(steps):
        state, metrics = setup.train_step(
            state, frozen, jax.device_put(data.batch(step), setup.shardings[3 - 1]), setup.key
        )
        found.append(float(metrics["loss"]))
    return found, state, setup


@pytest.mark.parametrize("mesh", [
    {"data": 8}, {"model": 4}, {"data": 2, "model": 2, "rules": "sequence"}, {"data": 4, "model": 2}, {"data": 4, "model": 2, "rules": "fsdp"}, {"data": 2, "shards": 4},
    {"data": 2, "model": 2, "shards": 4, "rules": "fsdp"},
])  # fmt: skip
def test_sharded_losses_equal_single_device(mesh, tmp_path):
    single, _, _ = losses(tmp_path)
    sharded, state, setup = losses(tmp_path, **mesh)
    np.testing.assert_allclose(sharded, single, rtol=2e-5)
    assert setup.train_step._cache_size() == 1
    for tree in (state.trainable, state.optimizer[1][0].mu, state.optimizer[1][0].nu):
        for path, leaf in flatten(tree).items():
            assert leaf.addressable_shards[0].data.shape == expected_shape(path, leaf.shape, mesh), path


# which axis of each parameter is split over mesh.model, and which over mesh.data under FSDP; written out by hand
SPLIT = {
    "embedding/table": (0, 1), "position/table": (None, 1), "final_norm": (None, None), "attention_norm": (None, None),
    "feedforward_norm": (None, None), "query/kernel": (2, 1), "key/kernel": (2, 1), "value/kernel": (2, 1), "query/bias": (1, None),
    "key/bias": (1, None), "value/bias": (1, None), "output/kernel": (1, 2), "output/bias": (None, 1), "up/kernel": (2, 1),
    "up/bias": (1, None), "down/kernel": (1, 2), "down/bias": (None, 1),
}  # fmt: skip


def expected_shape(path, shape, mesh):
    model, data = next(axes for name, axes in SPLIT.items() if name in path)
    shape = list(shape)
    if path == "position/table" and mesh.get("rules") == "fsdp":
        data = 0
    if model is not None and shape[model] % mesh.get("model", 1) == 0:
        shape[model] //= mesh.get("model", 1)
    if mesh.get("rules") == "fsdp" and data is not None and shape[data] % mesh.get("data", 1) == 0:
        shape[data] //= mesh.get("data", 1)
    return tuple(shape)


def bits(tmp_path, devices, steps=5, **sections):
    """Every bit that training and evaluation leave: parameters, moments, losses and sums of the evaluation step."""
    raw = {"data": {"source": "copy"}, "model": {"context": 24, "layers": 2, "width": 32, "heads": 4, "dropout": 0.1}}
    raw |= {"train": {"batch_size": 16, "shards": 8}, "mesh": {"data": devices}} | sections
    experiment = configs.check(raw, "test")
    data = load_data(experiment, tmp_path / "tokenizer.model")
    setup = make_setup(experiment, data.vocabulary)
    state, frozen = new_state(setup)
    losses = []
    for step in range(steps):
        batch = jax.device_put(data.batch(step), setup.shardings[2])
        state, metrics = setup.train_step(state, frozen, batch, setup.key)
        losses.append(metrics)
    evaluated, _ = setup.eval_step(state.trainable, frozen, batch, {})
    return leaf_hashes({"state": state._asdict(), "losses": dict(enumerate(losses)), "evaluated": evaluated}), losses


DIGITS = {"data": {"source": "digits"}, "objective": {"name": "classify"},
          "model": {"kind": "vit", "patch": 2, "layers": 1, "width": 16, "heads": 2}}  # fmt: skip


ADALORA = {"tuning": {"method": "adalora", "target_rank": 2.0}}


@pytest.mark.parametrize("sections", [{}, *(pytest.param(sections, marks=pytest.mark.slow) for sections in (DIGITS, ADALORA))],
                         ids=["gpt", "vit", "adalora"])  # fmt: skip
def test_virtual_shards_give_the_same_bits_on_2_4_and_8_devices(sections, tmp_path):
    two, losses = bits(tmp_path, 2, **sections)
    assert bits(tmp_path, 4, **sections)[0] == bits(tmp_path, 8, **sections)[0] == two
    assert float(losses[-1]["loss"]) != float(losses[0]["loss"]), "nothing was learned that could differ"
    # a program for one device takes another way through the compiler: equal in value, not in bits
    _, alone = bits(tmp_path, 1, **sections)
    np.testing.assert_allclose([m["loss"] for m in alone], [m["loss"] for m in losses], rtol=1e-5)


def test_without_virtual_shards_devices_leave_their_mark_in_the_last_bits(tmp_path):
    """What the test above would miss if it could not see a difference."""
    train = {"batch_size": 16, "shards": 1}
    assert bits(tmp_path, 2, train=train)[0] != bits(tmp_path, 8, train=train)[0]
