"""Freezing from the bottom, rates by layer and gradual unfreezing: exact to the bit, and in what they cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.errors import UserError
from minillm.models import gpt, t5
from minillm.models.contract import bind
from minillm.objectives import causal
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state, make_gradient, make_train_step
from minillm.tuning import freeze, full
from minillm.tuning.layers import depths

IDS = jax.random.randint(jax.random.key(1), (2, 2, 8), 0, 11)
BATCH = {"tokens": IDS[0], "targets": IDS[1], "weights": jnp.ones((2, 8))}


def make(layers=3, **settings):
    config = gpt.Config(vocabulary=11, context=8, layers=layers, width=8, heads=2, hidden=8, tied=False, **settings)
    specs = gpt.param_specs(config)
    return config, specs, params.init_params(specs, jax.random.key(0))


def make_step(config, tuning, optimizer):
    return make_train_step(make_gradient(causal, bind(gpt, config), tuning, {}), optimizer, tuning, {})


def train(tuning, steps, name="sgd", rate=1.0):
    """The parameters after 0, 1, ..., `steps` updates."""
    config, specs, weights = make()
    clip = {"clip_norm": None, "schedule": "constant", "learning_rate": rate}
    optimizer = make_optimizer(OptimizerConfig(name=name, **clip), steps, params.decay_mask(tuning.specs(specs)))
    trainable, frozen, extra = tuning.init(weights, None)
    state, step, seen = init_state(trainable, extra, optimizer), jax.jit(make_step(config, tuning, optimizer)), []
    for _ in range(steps + 1):
        seen.append(jax.tree.map(np.asarray, params.flatten(tuning.attach(state.trainable, frozen))))
        state, _ = step(state, frozen, BATCH, jax.random.key(0))
    return seen


def test_depth_counts_from_the_top_of_each_stack():
    config = t5.Config(vocabulary=11, layers=3, decoder_layers=2, width=8, heads=2, tied=False)
    found = depths(t5.param_specs(config))
    assert found["encoder/blocks/feedforward/up/kernel"].tolist() == [[[3]], [[2]], [[1]]]
    assert found["decoder/blocks/cross_attention_norm/scale"].tolist() == [[2], [1]]
    assert found["embedding/table"] == found["encoder/distance/table"] == 4
    assert found["decoder/final_norm/scale"] == found["head/kernel"] == 0


def test_rates_fall_by_one_factor_per_layer():
    """A half is exact in binary, so that the updates are, too."""
    before, plain = train(full(), 1)
    _, scaled = train(full(layer_decay=0.5), 1)
    found = depths(before)
    for path, row in before.items():
        wanted = (plain[path] - row) * 0.5 ** found[path]
        assert np.abs(wanted).max() > 0.0
        np.testing.assert_allclose(scaled[path] - row, wanted, atol=1e-7)
    path = "blocks/feedforward/down/bias"  # these begin at zero: an update is the row
    np.testing.assert_array_equal(scaled[path], plain[path] * np.array([[0.125], [0.25], [0.5]], np.float32))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_blocks_thaw_from_the_top_and_until_then_keep_their_bits(name):
    seen = train(full(unfreeze_every=2), 9, name, rate=0.1)
    found = depths(seen[0])
    for path, depth in found.items():
        for step in range(9):
            moved = seen[step][path] != seen[step + 1][path]
            moved = moved.reshape(len(depth), -1).any(1) if depth.ndim else moved.any().reshape(1)
            np.testing.assert_array_equal(moved, step >= 2 * depth.reshape(-1), err_msg=f"{path} at step {step}")


def test_the_top_block_trains_at_once_where_nothing_stands_above_it():
    scale = full(unfreeze_every=5).scale
    rows = {"blocks": {"norm": {"scale": jnp.ones((2, 3))}}, "embedding": {"table": jnp.ones((4, 3))}}
    assert [scale(rows, step)["blocks"]["norm"]["scale"].ravel().tolist() for step in (0, 4, 5)] == [
        [0, 1],
        [0, 1],
        [1, 1],
    ]
    assert [float(scale(rows, step)["embedding"]["table"]) for step in (9, 10)] == [0, 1]
    assert full().scale is None


def test_bottom_layers_and_embeddings_stay_and_the_others_train_as_ever():
    before, after = train(freeze((), 2), 1)
    _, plain = train(full(), 1)
    for path, row in before.items():
        if path.startswith("blocks/"):
            np.testing.assert_array_equal(after[path][:2], row[:2])
            np.testing.assert_allclose(after[path][2:], plain[path][2:], atol=1e-6)
        elif path.startswith(("embedding", "position")):
            np.testing.assert_array_equal(after[path], row)
        else:
            np.testing.assert_allclose(after[path], plain[path], atol=1e-6)


def test_layers_and_patterns_freeze_together():
    _, specs, weights = make()
    tuning = freeze(["*/bias", "head/*"], 3)
    trainable, frozen, _ = tuning.init(weights, None)
    assert set(params.flatten(trainable)) == set(tuning.specs(specs)) == {"final_norm/scale"}
    for path, row in params.flatten(tuning.attach(trainable, frozen)).items():
        np.testing.assert_array_equal(row, params.flatten(weights)[path])
    with pytest.raises(UserError, match="4 blocks to freeze, the model has 3"):
        freeze((), 4).specs(specs)


def test_frozen_layers_cost_no_backward_pass():
    """The joined stacks cost what layers cost that were never stacked, of which only the top ones are differentiated."""

    def flops(function, *arguments):
        return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]

    config, _, weights = make(4)
    model = bind(gpt, config)

    def joined(layers):
        tuning = freeze((), layers)
        trainable, frozen, _ = tuning.init(weights, None)
        return flops(
            lambda *rows: make_gradient(causal, model, tuning, {})(*rows, {}, BATCH, None)[0], trainable, frozen
        )

    def apart(layers):
        blocks, above = params.unstack(weights["blocks"]), {name: weights[name] for name in ("final_norm", "head")}

        def loss(top, above):
            rows = weights | above | {"blocks": blocks[:layers] + top}
            return causal(model, rows, BATCH).sums["loss"] / BATCH["weights"].sum()

        return flops(jax.grad(loss, argnums=(0, 1)), blocks[layers:], above)

    costs = [joined(layers) for layers in range(5)]
    forward = flops(lambda weights: causal(model, weights, BATCH).sums["loss"], weights)
    block = (forward - flops(lambda x: gpt.logits(weights, x), jnp.zeros((2, 8, 8)))) / 4
    assert (-np.diff(costs) > 1.5 * block).all()
    np.testing.assert_allclose(costs[1:], [apart(layers) for layers in range(1, 5)], rtol=0.1)
