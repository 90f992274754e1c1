"""Faults that no file shows, injected while a run is under way: a replay names the step, and the leaf or the batch."""

from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_labelled import silent

from minillm import config as configs
from minillm.experiment import run as runs
from minillm.experiment.recipes import mixture
from minillm.experiment.verify import verify
from minillm.params import flatten, unflatten

ROOT = Path(__file__).parents[1]
SETTINGS = (
    "train.steps=12",
    "train.evaluate_every=12",
    "train.batch_size=4",
    "model.width=16",
    "model.heads=2",
    "model.layers=1",
)
LEAF = "blocks/attention/query/kernel"


def run_with(change, root, hash_every):
    """A run whose setup, data or both are `change`d on the way; nothing on the disk tells."""
    experiment = configs.load(ROOT / "configs/copy.toml", (*SETTINGS, f"train.hash_every={hash_every}"))
    with pytest.MonkeyPatch.context() as patch:
        change(patch)
        patch.setattr(runs, "finish", lambda *_: {"steps": experiment.train.steps})  # nothing here looks at the results
        runs.run(experiment, root, False, silent, silent)


def flip(step, bit):
    """One bit of one number of LEAF, in memory, after that step's update."""

    def change(patch):
        make = runs.make_setup

        def faulty(*arguments, **others):
            setup = make(*arguments, **others)

            def train_step(state, frozen, batch, key):
                state, metrics = setup.train_step(state, frozen, batch, key)
                if int(state.step) == step:
                    leaves = flatten(state.trainable)
                    bits = np.array(leaves[LEAF]).view(np.uint32)
                    bits.flat[3] ^= np.uint32(1 << bit)
                    leaves[LEAF] = jax.device_put(bits.view(np.float32), leaves[LEAF].sharding, may_alias=False)
                    state = state._replace(trainable=unflatten(leaves))
                return state, metrics

            return setup._replace(train_step=train_step)

        patch.setattr(runs, "make_setup", faulty)

    return change


def swap(step):
    """Two tokens of one row of that step's batch change places."""

    def change(patch):
        load = mixture.load_data

        def faulty(*arguments):
            data = load(*arguments)

            def batch(number):
                found = data.batch(number)
                if number == step - 1:
                    found["tokens"] = found["tokens"].copy()
                    row = found["tokens"][2]
                    first = int(np.flatnonzero(row[1:] != row[:-1])[0])
                    row[[first, first + 1]] = row[[first + 1, first]]
                return found

            return data._replace(batch=batch)

        patch.setattr(mixture, "load_data", faulty)

    return change


def test_a_flipped_bit_is_named_with_its_leaf_where_every_step_is_hashed(tmp_path):
    run_with(flip(5, 0), tmp_path / "run", 1)  # the last bit of 24: no loss would show it
    found = verify(tmp_path / "run", None, silent)
    assert (found["equal"], found["step"], found["field"], found["leaf"]) == (False, 5, "parameters", LEAF)
    assert f"step 5 differs in its parameters ({LEAF})" in found["verdict"]


def test_a_flipped_bit_shows_in_the_next_loss_or_the_next_hash(tmp_path):
    run_with(flip(5, 26), tmp_path / "large", 10)  # the exponent
    found = verify(tmp_path / "large", None, silent)
    assert (found["step"], found["field"]) == (6, "loss")
    run_with(flip(9, 4), tmp_path / "small", 10)  # 16 units in the last place: one alone may be rounded away for good
    found = verify(tmp_path / "small", None, silent)
    assert (found["step"], found["field"]) in ((10, "loss"), (10, "parameters"))


def test_a_changed_batch_is_named(tmp_path):
    run_with(swap(7), tmp_path / "run", 1)
    found = verify(tmp_path / "run", None, silent)
    assert (found["equal"], found["step"], found["field"]) == (False, 7, "batch")
    assert found["recorded"] != found["replayed"]
