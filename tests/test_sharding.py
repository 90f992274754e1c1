"""Sharded equals single, on eight simulated devices; and every array lies where the rules say."""

import jax
import numpy as np
import pytest

from minillm import config as configs
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
    {"data": 8}, {"model": 4}, {"data": 4, "model": 2}, {"data": 4, "model": 2, "rules": "fsdp"}, {"data": 2, "shards": 4},
])  # fmt: skip
def test_sharded_losses_equal_single_device(mesh, tmp_path):
    single, _, _ = losses(tmp_path)
    sharded, state, setup = losses(tmp_path, **mesh)
    np.testing.assert_allclose(sharded, single, rtol=2e-5)
    assert setup.train_step._cache_size() == 1
    kernel = flatten(state.trainable)["blocks/attention/query/kernel"]
    data, model = mesh.get("data", 1), mesh.get("model", 1)
    rows = 32 // data if mesh.get("rules") == "fsdp" else 32
    assert kernel.addressable_shards[0].data.shape == (2, rows, 32 // model)
    moments = [
        leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.optimizer) if leaf.shape == kernel.shape
    ]
    assert len(moments) >= 2
    assert any(leaf.sharding.is_equivalent_to(kernel.sharding, 3) for leaf in moments)
