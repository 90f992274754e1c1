"""Adversarial training: gradients at changed embeddings, equal to torch's and by hand, whatever the shards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import config as configs
from minillm import params
from minillm.errors import UserError
from minillm.models import bert, gpt
from minillm.models.contract import Model, Output, bind
from minillm.nn.dropout import dropout, example_keys
from minillm.objectives.causal import causal
from minillm.objectives.supervised import classify
from minillm.training.adversarial import adversarial, climb, norm, own_places, perturbable, random_start, unit
from minillm.training.step import accumulate, make_gradient
from minillm.tuning import full, lora, prompt_tuning

METHODS = {"fgm": {}, "pgd": {"steps": 3}, "freelb": {"steps": 3}}
KEY = jax.random.key(7)


def toy_model():
    """Scores = tanh(the sum of the embedded tokens, with dropout) times a matrix: slopes are known on paper."""

    def embed(weights, batch):
        return weights["table"][batch["tokens"]]

    def apply(weights, batch, *, embeddings=None, key=None):
        x = embed(weights, batch) if embeddings is None else embeddings
        x = dropout(x, None if key is None else example_keys(key, batch["index"]), 0.2)
        return Output(jnp.tanh(jnp.where(batch["mask"][..., None], x, 0.0).sum(1))[:, None])

    head = lambda weights, hidden, keys=None: hidden[:, 0] @ weights["head"]
    return Model(embed, apply, None, {"classify": head})


def toy_weights(width=5):
    random = np.random.default_rng(1)
    shapes = {"table": (20, width), "head": (width, 2)}
    return {name: 0.3 * random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


MODEL, PARAMS = toy_model(), toy_weights()


def make_batch(rows=4, length=6):
    """Rows of different lengths, the last without weight."""
    random = np.random.default_rng(0)
    lengths = random.integers(3, length + 1, size=rows)
    batch = {
        "tokens": random.integers(20, size=(rows, length)).astype(np.int32),
        "mask": np.arange(length) < lengths[:, None],
        "labels": random.integers(2, size=rows).astype(np.int32),
        "weights": (np.arange(rows) < rows - 1).astype(np.float32),
        "index": np.arange(rows, dtype=np.int32),
    }
    return jax.tree.map(jnp.asarray, batch)


def plain(objective=classify, model=MODEL, tuning=None):
    return make_gradient(objective, model, perturbable(tuning or full()), {})


def compare(found, expected, rtol=2e-4, atol=1e-6):
    for path, leaf in params.flatten(expected).items():
        np.testing.assert_allclose(params.flatten(found)[path], leaf, rtol=rtol, atol=atol, err_msg=path)


def test_fgm_is_the_normalised_slope_by_hand():
    table, head, batch, strength = PARAMS["table"], PARAMS["head"], make_batch(), 0.7
    sums = adversarial(plain(), "fgm", strength)(PARAMS, {}, {}, batch, None)[1]
    own, labels = np.array(batch["mask"]), np.array(batch["labels"])
    losses = {"nll": 0.0, "adversarial_loss": 0.0}
    for row in range(3):
        added = table[np.array(batch["tokens"])[row][own[row]]].sum(0)
        scores = np.tanh(added) @ head
        p = np.exp(scores) / np.exp(scores).sum()
        slope = (1 - np.tanh(added) ** 2) * (head @ (p - np.eye(2)[labels[row]]))  # the same at each of n own tokens
        moved = added + np.sqrt(own[row].sum()) * strength * slope / np.linalg.norm(slope)
        for name, x in (("nll", added), ("adversarial_loss", moved)):
            scores = np.tanh(x) @ head
            losses[name] += np.log(np.exp(scores).sum()) - scores[labels[row]]
    for name, expected in losses.items():
        assert float(sums.metrics[name][0]) == pytest.approx(expected, rel=1e-4)
    assert float(sums.metrics["adversarial_loss"][1]) == 3.0


def test_pgd_and_freelb_are_their_algorithms_line_by_line():
    batch, gradient, strength, size = make_batch(), plain(), 0.6, 0.4
    own = own_places(batch, (4, 6, 5))

    def at(change):
        return gradient(PARAMS, {}, {}, {**batch, "perturbation": change}, KEY)[0]

    def slope(change):
        loss = lambda change: gradient.loss(PARAMS, {}, {}, {**batch, "perturbation": change}, KEY, None)[0]
        return jax.grad(loss)(change)

    def step(change):
        g = np.where(own, slope(change), 0.0).astype(np.float64)
        change = change + size * g / np.maximum(np.sqrt((g**2).sum((1, 2), keepdims=True)), 1e-30)
        return (change * np.minimum(1.0, strength / np.sqrt((change**2).sum((1, 2), keepdims=True) + 1e-60))).astype(
            np.float32
        )

    change = np.zeros((4, 6, 5), np.float32)
    for _ in range(3):
        change = step(change)
    compare(adversarial(gradient, "pgd", strength, 3, size)(PARAMS, {}, {}, batch, KEY)[0], at(change), 1e-3)
    changes = [np.array(random_start(KEY, batch, own, 5, strength))]
    for _ in range(2):
        changes.append(step(changes[-1]))
    mean = jax.tree.map(lambda *parts: sum(parts) / 3, *map(at, changes))
    compare(adversarial(gradient, "freelb", strength, 3, size)(PARAMS, {}, {}, batch, KEY)[0], mean, 1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_vanishing_strength_tends_to_the_plain_gradient(method):
    batch = make_batch()
    expected, sums = plain()(PARAMS, {}, {}, batch, KEY)
    errors = []
    for strength in (1e-2, 1e-4):
        found, near = adversarial(plain(), method, strength, **METHODS[method])(PARAMS, {}, {}, batch, KEY)
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
        errors.append(max(float(jnp.abs(a - b).max()) for a, b in pairs))
    assert 0.0 < errors[0] < 0.2
    assert errors[1] < 0.05 * errors[0]
    assert float(near.sums["loss"]) == pytest.approx(float(sums.sums["loss"]), abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_shards_give_the_full_batch_s_gradient_dropout_included(method):
    batch = make_batch()
    gradient = adversarial(plain(), method, 0.5, **METHODS[method])
    expected, whole = jax.jit(gradient)(PARAMS, {}, {}, batch, KEY)
    found, sums = jax.jit(accumulate(gradient, 2))(PARAMS, {}, {}, batch, KEY)
    compare(found, expected)
    assert set(sums.metrics) == {"nll", "accuracy", "adversarial_loss"}
    for name, (value, weight) in sums.metrics.items():
        np.testing.assert_allclose((value, weight), whole.metrics[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_the_change_makes_the_loss_worse(method):
    _, sums = adversarial(plain(), method, 0.5, **METHODS[method])(PARAMS, {}, {}, make_batch(), KEY)
    assert float(sums.metrics["adversarial_loss"][0]) > float(sums.metrics["nll"][0]) + 1e-2


def test_changes_are_per_example_within_the_bound_and_never_at_padding():
    batch = make_batch()
    own = own_places(batch, (4, 6, 5))
    slope = 1e-25 * jax.random.normal(KEY, (4, 6, 5)).at[2].set(0.0)  # whose squares are 0 in float32
    direction = unit(slope, own)
    np.testing.assert_allclose(norm(direction)[:, 0, 0], [1.0, 1.0, 0.0, 1.0], rtol=1e-5)
    start = random_start(KEY, batch, own, 5, 0.9)
    for change in (direction, start, climb(start, slope, own, 5.0, 0.9)):
        assert not np.where(own, 0.0, change).any()
    assert float(norm(climb(start, slope, own, 5.0, 0.9)).max()) <= 0.9 * (1 + 1e-5)
    assert 0.0 < float(norm(start).max()) <= 0.9
    rest = jax.tree.map(lambda leaf: leaf[2:], batch)
    np.testing.assert_array_equal(random_start(KEY, rest, own[2:], 5, 0.9), start[2:])


def test_a_prompt_before_the_row_is_left_alone():
    config = bert.Config(vocabulary=20, context=8, layers=1, width=8, heads=2, tasks=("classify",), init_scale=0.3)
    tuning = prompt_tuning(2, ("classify/*", "pooler/*"))
    weights = params.init_params(bert.param_specs(config), jax.random.key(0))
    (trainable, frozen, extra), batch = tuning.init(weights, jax.random.key(1)), make_batch()
    gradient = plain(model=bind(bert, config), tuning=tuning)
    own = own_places(batch, gradient.embeddings(trainable, frozen, batch).shape)
    np.testing.assert_array_equal(own[:, :2], False)
    np.testing.assert_array_equal(own[:, 2:, 0], batch["mask"])
    changed = jax.jit(adversarial(gradient, "fgm", 0.5))
    gradients, sums = changed(trainable, frozen, extra, batch, KEY)
    assert float(jnp.abs(gradients["prompt"]["table"]).max()) > 0.0
    assert float(sums.metrics["adversarial_loss"][0]) > float(sums.metrics["nll"][0])


def test_only_what_trains_gets_gradients_and_language_models_are_perturbed_too():
    config = gpt.Config(vocabulary=20, context=8, layers=1, width=8, heads=2, init_scale=0.3)
    weights = params.init_params(gpt.param_specs(config), jax.random.key(0))
    tuning = lora(("*/query/kernel",), 2, 4.0)
    trainable, frozen, extra = tuning.init(weights, jax.random.key(1))
    tokens = jax.random.randint(KEY, (2, 7), 0, 20)
    batch = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "weights": jnp.ones((2, 6)), "index": jnp.arange(2)}
    gradient = jax.jit(adversarial(plain(causal, bind(gpt, config), tuning), "freelb", 0.5, 2))
    gradients, sums = gradient(trainable, frozen, extra, batch, KEY)
    assert params.flatten(gradients).keys() == params.flatten(trainable).keys()
    assert float(sums.metrics["adversarial_loss"][0]) > float(sums.metrics["nll"][0])


def config(**settings):
    raw = {"data": {"source": "python-docs"}, "model": {"kind": "gpt"}, "adversarial": settings}
    return configs.check(raw, "c.toml")


def test_sections_that_make_no_sense_are_refused_by_their_keys():
    assert config(method="pgd", strength=0.1).adversarial.steps == 3
    assert "adversarial" not in configs.plain(configs.check({"data": {"source": "python-docs"}, "model": {}}, "c.toml"))
    for settings, message in (
        ({"method": "fgm", "strength": -1.0}, "must not be negative"),
        ({"method": "fgm", "strength": 0.1, "steps": 2}, "say nothing to fgm"),
        ({"method": "pgd", "strength": 0.1, "steps": 0}, "at least 1"),
        ({"method": "fgm", "strenght": 0.1}, "unknown key"),
    ):
        with pytest.raises(UserError, match=message) as error:
            config(**settings)
        assert error.value.where.startswith("c.toml: adversarial")
    raw = {"data": {"source": "copy"}, "model": {"kind": "t5"}, "objective": {"name": "sequence_to_sequence"},
           "adversarial": {"method": "fgm", "strength": 0.1}}  # fmt: skip
    with pytest.raises(UserError, match="which t5 has not"):
        configs.check(raw, "c.toml")
