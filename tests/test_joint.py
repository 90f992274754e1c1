"""Joint training: the parts' losses side by side, on batches of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.models import gpt
from minillm.models.contract import bind
from minillm.objectives.causal import causal
from minillm.objectives.contract import total_loss
from minillm.objectives.joint import joint
from minillm.objectives.supervised import classify
from minillm.training.step import accumulate, make_eval_step, make_gradient
from minillm.tuning.freeze import full

CONFIG = gpt.Config(
    vocabulary=20, context=8, layers=2, width=16, heads=2, dropout=0.2, tasks=("classify",), labels=3, init_scale=0.3
)
MODEL = bind(gpt, CONFIG)
PARAMS = params.init_params(gpt.param_specs(CONFIG), jax.random.key(0))
BOTH = joint({"task": classify, "text": causal})
HALF = {"text/loss": 0.5}


def make_batch(seed=0, rows=4):
    """Labelled rows and, of another length and with other weights, text."""
    random = np.random.default_rng(seed)
    ids = lambda *shape: random.integers(20, size=shape).astype(np.int32)
    index = np.arange(rows, dtype=np.int32)
    task = {"tokens": ids(rows, 6), "labels": ids(rows) % 3, "weights": np.array([1, 1, 1, 0], np.float32)}
    text = {"tokens": ids(rows, 8), "targets": ids(rows, 8), "weights": random.random((rows, 8)).astype(np.float32)}
    return jax.tree.map(jnp.asarray, {"task": task | {"index": index}, "text": text | {"index": index}})


def test_the_loss_is_the_weighted_sum_of_the_parts_means():
    batch = make_batch()
    sums = BOTH(MODEL, PARAMS, batch)
    alone = {"task": classify(MODEL, PARAMS, batch["task"]), "text": causal(MODEL, PARAMS, batch["text"])}
    mean = lambda found: float(found.sums["loss"] / found.weights["loss"])
    expected = mean(alone["task"]) + 0.5 * mean(alone["text"])
    assert np.isclose(total_loss(sums, sums.weights, HALF), expected, rtol=1e-6)
    assert set(sums.metrics) == {"task/nll", "task/accuracy", "text/nll", "text/accuracy"}
    assert sums.metrics["text/nll"] == alone["text"].metrics["nll"]


def test_the_gradient_is_the_weighted_sum_of_the_parts_gradients():
    batch = make_batch()
    gradient = lambda objective, batch, factors: make_gradient(objective, MODEL, full(), factors)(
        PARAMS, {}, {}, batch, None
    )[0]
    found = gradient(BOTH, batch, HALF)
    task, text = gradient(classify, batch["task"], {}), gradient(causal, batch["text"], {"loss": 0.5})
    for path, leaf in params.flatten(found).items():
        expected = params.flatten(task)[path] + params.flatten(text)[path]
        np.testing.assert_allclose(leaf, expected, rtol=2e-4, atol=1e-6, err_msg=path)
    assert jnp.abs(params.flatten(text)["embedding/table"]).max() > 1e-3


def test_accumulated_gradients_are_those_of_the_whole_batch_dropout_included():
    batch, key = make_batch(), jax.random.key(3)
    whole = make_gradient(BOTH, MODEL, full(), HALF)
    found, _ = accumulate(whole, 2)(PARAMS, {}, {}, batch, key)
    expected, _ = whole(PARAMS, {}, {}, batch, key)
    for path, leaf in params.flatten(found).items():
        np.testing.assert_allclose(leaf, params.flatten(expected)[path], rtol=2e-4, atol=1e-6, err_msg=path)


def test_each_part_draws_dropout_of_its_own():
    batch, key = make_batch(), jax.random.key(3)
    twice = joint({"one": classify, "two": classify})(MODEL, PARAMS, {"one": batch["task"], "two": batch["task"]}, key)
    assert twice.sums["one/loss"] != twice.sums["two/loss"]


def test_evaluation_names_every_part():
    found, _ = make_eval_step(BOTH, MODEL, full())(PARAMS, {}, make_batch(), {})
    assert {"task/accuracy", "text/nll", "term/task/loss", "term/text/loss"} < set(found)


def test_other_parts_and_carries_are_refused():
    batch = make_batch()
    with pytest.raises(ValueError, match="needs a batch of each"):
        BOTH(MODEL, PARAMS, batch | {"more": batch["text"]})
    with pytest.raises(ValueError, match="needs a batch of each"):
        BOTH(MODEL, PARAMS, batch["task"])
    with pytest.raises(ValueError, match="no carry"):
        BOTH(MODEL, PARAMS, batch, None, {"carry": 0})
