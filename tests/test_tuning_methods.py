"""Every tuning method on every model that has the weights for it: what moves, what does not, and how it begins."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.errors import UserError
from minillm.models import MODELS
from minillm.models.contract import bind
from minillm.nn import attention
from minillm.objectives import OBJECTIVES
from minillm.sections.experiment import TuningConfig
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state, make_gradient, make_train_step
from minillm.tuning import METHODS, make_tuning
from minillm.tuning.adding import matching

ROWS, LENGTH, VOCABULARY = 2, 6, 11
SIZE = {"vocabulary": VOCABULARY, "context": 10, "layers": 2, "width": 8, "heads": 2, "hidden": 8}
CONFIGS = {
    "gpt": SIZE, "bert": SIZE | {"tasks": ("masked",), "dropout": 0.0}, "t5": SIZE | {"buckets": 4, "distance": 5},
    "transformer": SIZE, "transformer_xl": SIZE | {"memory": 10},
    "vit": {"image": (4, 4), "layers": 2, "width": 8, "heads": 2, "hidden": 8, "tasks": ("patches",)},
    "lstm": {"vocabulary": VOCABULARY, "context": 10, "layers": 2, "width": 8},
    "rnn": {"vocabulary": VOCABULARY, "context": 10, "layers": 2, "width": 8},
    "autoencoder": {"shape": (4, 4, 1), "hidden": (6,), "code": 3},
}  # fmt: skip
TASKS = {"bert": "masked", "t5": "sequence_to_sequence", "transformer": "sequence_to_sequence", "vit": "masked_patches",
         "autoencoder": "denoising"}  # fmt: skip
HEADS = {"bert": ("masked/*",), "vit": ("patches/*",)}
SETTINGS = {
    "full": {}, "freeze": {"freeze_layers": 1}, "adapter": {"adapter_size": 3}, "prefix": {"prefix_length": 3},
    "prompt": {"prompt_length": 3}, "lora": {"rank": 2}, "adalora": {"rank": 2, "target_rank": 1.0},
}  # fmt: skip
OWN = {"bitfit": "bias", "adapter": "/adapter/", "prefix": "/prefix/", "prompt": "prompt/"}
IDENTITY = {"full", "freeze", "bitfit", "adapter", "lora", "adalora"}  # these begin as the model itself
RECURRENT = ("rnn", "lstm")
REFUSED = {
    ("bitfit", "t5"): "no bias",
    ("freeze", "autoencoder"): "not made of equal blocks",
    ("prompt", "autoencoder"): "embeds no tokens",
}
REFUSED |= {("adapter", name): "no Transformer blocks" for name in (*RECURRENT, "autoencoder")}
REFUSED |= {("prefix", name): "no self-attention" for name in (*RECURRENT, "autoencoder")}


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def example(name):
    """A batch for the model's objective."""
    if name in ("vit", "autoencoder"):
        images, hidden = draw(0, ROWS, 4, 4, 1), jnp.zeros((ROWS, 4), bool).at[:, 1].set(True)
        batch = {"images": images, "weights": jnp.ones(ROWS)}
        return batch | (
            {"clean": images} if name != "vit" else {"masked_patches": hidden, "targets": draw(2, ROWS, 4, 4)}
        )
    ids = jax.random.randint(jax.random.key(1), (3, ROWS, LENGTH), 0, VOCABULARY)
    batch = {"tokens": ids[0], "targets": ids[1], "weights": jnp.ones((ROWS, LENGTH)).at[1, 4:].set(0.0)}
    if name in ("t5", "transformer"):
        batch |= {"source": ids[2], "source_mask": jnp.ones((ROWS, LENGTH), bool).at[0, 5:].set(False)}
    return batch | ({"mask": jnp.ones((ROWS, LENGTH), bool).at[1, 4:].set(False)} if name == "bert" else {})


@functools.cache
def case(name):
    """(module, config, model, objective, batch, weights); no weight is zero."""
    module = MODELS[name]
    config = module.Config(**CONFIGS[name])
    born = params.flatten(params.init_params(module.param_specs(config), jax.random.key(0)))
    weights = params.unflatten({path: leaf + 0.1 * draw(i, *leaf.shape) for i, (path, leaf) in enumerate(born.items())})
    return module, config, bind(module, config), OBJECTIVES[TASKS.get(name, "causal")], example(name), weights


@functools.cache
def plain_loss(name):
    _, _, model, objective, batch, weights = case(name)
    found = jax.jit(lambda weights: objective(model, weights, batch, None, {})._replace(extra=None))(weights)
    return float(sum(value / found.weights[term] for term, value in found.sums.items()))


def tuned(name, method, **settings):
    """(tuning, state, frozen, step) of a model at its first step."""
    module, config, model, objective, _, weights = case(name)
    section = TuningConfig(method=method, **(SETTINGS.get(method, {}) | settings))
    tuning = make_tuning(section, heads=HEADS.get(name, ()), steps=10)
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=0.1, schedule="constant", weight_decay=0.0),
        10,
        params.decay_mask(tuning.specs(module.param_specs(config))),
    )
    trainable, frozen, extra = tuning.init(weights, jax.random.key(7))
    step = jax.jit(make_train_step(make_gradient(objective, model, tuning, {}), optimizer, tuning, {}))
    return tuning, init_state(trainable, extra, optimizer), frozen, step


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_model(method, name):
    """One step: the loss is finite, and at first the model's own; what trains moves, all else keeps its bits."""
    if (method, name) in REFUSED:
        with pytest.raises(UserError, match=REFUSED[method, name]):
            tuned(name, method)
        return
    other = {"targets": ("*/kernel",)} if "lora" in method and name in (*RECURRENT, "autoencoder") else {}
    tuning, state, frozen, step = tuned(name, method, **other)
    module, config, *_, batch, weights = case(name)
    before, penalty = params.flatten(state.trainable), tuning.penalty or (lambda trainable, frozen: 0.0)
    wanted = plain_loss(name) + penalty(state.trainable, frozen)
    specs = tuning.specs(module.param_specs(config))
    assert {path: leaf.shape for path, leaf in before.items()} == {path: spec.shape for path, spec in specs.items()}
    state, metrics = step(state, frozen, batch, jax.random.key(0))
    assert np.isfinite(metrics["loss"])
    if method in IDENTITY:
        np.testing.assert_allclose(metrics["loss"], wanted, rtol=2e-6)
    after = params.flatten(state.trainable)
    still = {path for path in before if np.array_equal(before[path], after[path])}
    if method == "adapter":  # nothing reaches what stands below a zero
        assert still == {path for path in before if "/down/" in path}
    elif method not in ("lora", "adalora"):
        assert not still
    if method in OWN:
        heads = matching(before, HEADS.get(name, ()))
        assert heads.keys() < before.keys()
        assert all(OWN[method] in path for path in before.keys() - heads.keys())
    if method in ("adapter", "prefix", "prompt", "bitfit"):
        attached = params.flatten(tuning.attach(state.trainable, frozen))
        for path, leaf in params.flatten(weights).items():
            assert path in before or np.array_equal(attached[path], leaf)


@pytest.mark.parametrize("name", ["gpt", "bert", "t5", "transformer", "transformer_xl", "vit"])
def test_without_rows_the_program_is_the_one_without_hooks(name, monkeypatch):
    module, _, model, _, batch, weights = case(name)
    text = lambda: jax.jit(lambda weights: model.apply(weights, batch).hidden).lower(weights).as_text()
    hooked = text()
    assert "prefix" not in hooked
    monkeypatch.setattr(module, "adapt", lambda rows, x: x)
    monkeypatch.setattr(attention, "with_prefix", lambda rows, key, value, mask=None: (key, value, mask))
    monkeypatch.setattr(attention, "grow", lambda rows, scores, value=0.0: scores)
    assert text() == hooked
    monkeypatch.undo()
    tuning, state, frozen, _ = tuned(name, "adapter")
    attached = tuning.attach(state.trainable, frozen)
    assert jax.jit(lambda weights: model.apply(weights, batch).hidden).lower(attached).as_text() != hooked
