"""Properties of the encoder-decoders, Transformer and T5: what must hold whatever the weights are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.models import t5, transformer
from minillm.models.contract import bind
from minillm.objectives.sequence_to_sequence import sequence_to_sequence
from minillm.training.step import make_gradient
from minillm.tuning import full

VARIANTS = {
    "transformer": (transformer, {}),
    "pre": (transformer, {"placement": "pre", "tied": False}),
    "t5": (t5, {}),
    "t5-1.1": (t5, {"activation": "gelu", "gated": True, "tied": False, "head": 3}),
}
jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)  # compiling takes the time here
both = pytest.mark.parametrize("name", ["transformer", "t5"])
every = pytest.mark.parametrize("name", VARIANTS)
ROWS, SOURCE, TARGET = 4, 7, 6


@functools.cache
def make(name, **settings):
    module, more = VARIANTS[name]
    settings = {"vocabulary": 19, "context": 16, "layers": 1, "width": 12, "heads": 2, "hidden": 16} | more | settings
    config = module.Config(**settings)
    weights = params.init_params(module.param_specs(config), jax.random.key(0))
    noise = lambda leaf: leaf + 0.2 * jnp.array(np.random.default_rng(leaf.size).normal(size=leaf.shape), jnp.float32)
    return module, config, jax.tree.map(noise, weights)


def example(lengths=(7, 5, 1, 7)):
    random = np.random.default_rng(1)
    ids = lambda n: jnp.array(random.integers(19, size=(ROWS, n)), jnp.int32)
    targets = ids(TARGET)
    return {
        "source": ids(SOURCE),
        "source_mask": jnp.arange(SOURCE) < jnp.array(lengths)[:, None],
        "tokens": jnp.roll(targets, 1, axis=1).at[:, 0].set(0),
        "targets": targets,
        "weights": jnp.array(random.random((ROWS, TARGET)) < 0.7, jnp.float32).at[1].set(0.0),
        "index": jnp.arange(ROWS),
    }


@functools.cache
def compiled(module, config):
    """(hidden states, gradients and sums), each compiled once for all tests."""
    gradient = make_gradient(sequence_to_sequence, bind(module, config), full(), {})
    hidden = jit(lambda weights, batch: module.apply(weights, batch, config).hidden)
    return hidden, jit(lambda weights, batch: gradient(weights, {}, {}, batch, jax.random.key(0)))


def run(module, config, weights, batch):
    return compiled(module, config)[0](weights, batch)


def differentiate(module, config, weights, batch):
    return compiled(module, config)[1](weights, batch)


@both
def test_the_decoder_is_causal_and_the_encoder_is_not(name):
    module, config, weights = make(name)
    batch = {key: leaf[:1] for key, leaf in example().items()}

    @jit
    @jax.jacobian
    def influence(embeddings):
        output = module.apply(weights, batch, config, embeddings=embeddings, capture=("encoder_hidden",))
        score = lambda hidden: jnp.square(hidden[0] @ jnp.arange(1.0, 13.0))
        return score(output.captured["encoder_hidden"][-1]), score(output.hidden)

    encoder, decoder = influence(module.embed(weights, batch, config))
    strength = lambda jacobian: np.abs(jacobian[:, 0]).sum(-1)
    assert np.all(strength(encoder["source"]) > 0.0)  # every source token sees every other
    assert np.all(strength(encoder["tokens"]) == 0.0)
    assert np.all(strength(decoder["source"]) > 0.0)  # every target position sees the whole source
    assert np.all(np.triu(strength(decoder["tokens"]), 1) == 0.0)
    assert np.all(strength(decoder["tokens"])[np.tril_indices(TARGET)] > 0.0)


@both
def test_padding_of_the_source_changes_nothing(name):
    module, config, weights = make(name)
    batch = example()
    whole = run(module, config, weights, batch)
    other = batch | {"source": jnp.where(batch["source_mask"], batch["source"], 3)}
    np.testing.assert_array_equal(whole, run(module, config, weights, other))
    wider = {key: jnp.pad(batch[key], ((0, 0), (0, 4))) for key in ("source", "source_mask")}
    np.testing.assert_allclose(whole, run(module, config, weights, batch | wider), atol=1e-5)
    shorter = {key: batch[key][:, :5] for key in ("source", "source_mask")}  # row 1 has no padding then
    np.testing.assert_allclose(whole[1:3], run(module, config, weights, batch | shorter)[1:3], atol=1e-5)


@both
def test_a_source_of_nothing_but_padding_gives_numbers(name):
    module, config, weights = make(name)
    batch = example((0, 5, 1, 7))
    leaves = jax.tree.leaves(differentiate(module, config, weights, batch))
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves)
    other = batch | {"source": batch["source"].at[0].set(3)}
    np.testing.assert_array_equal(*(run(module, config, weights, b) for b in (batch, other)))
    del batch["source_mask"]  # none: the whole source is real
    real = batch | {"source_mask": jnp.ones((ROWS, SOURCE), bool)}
    np.testing.assert_allclose(*(run(module, config, weights, b) for b in (batch, real)), atol=1e-5)


@every
def test_cached_equals_full_and_reads_the_source_once(name):
    module, config, weights = make(name)
    batch, lengths = example(), jnp.array([1, 3, 2, 3])
    whole = run(module, config, weights, batch)
    carry = jit(lambda weights, batch: module.init_carry(weights, batch, config, 10))(weights, batch)
    used = params.flatten(weights)
    for path in used:  # whatever concerns the source is not looked at again
        if path.startswith("encoder") or "cross_attention/key" in path or "cross_attention/value" in path:
            used[path] = used[path] * jnp.nan
    step = jit(lambda batch, carry: module.apply(params.unflatten(used), batch, config, carry=carry)[:2])
    first, carry = step({"tokens": batch["tokens"][:, :3], "lengths": lengths}, carry)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(first[row, :length], whole[row, :length], atol=2e-5)
    rows = jnp.arange(ROWS)
    for place in range(3):
        hidden, carry = step({"tokens": batch["tokens"][rows, lengths + place][:, None]}, carry)
        np.testing.assert_allclose(hidden[:, 0], whole[rows, lengths + place], atol=2e-5)
    np.testing.assert_array_equal(carry["index"], lengths + 3)


def test_scan_and_remat_change_nothing():
    _, _, weights = make("t5", layers=2)
    found = [differentiate(*make("t5", layers=2, **settings)[:2], weights, example())
             for settings in ({}, {"scan": True, "remat": True})]  # fmt: skip
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5, rtol=1e-4), *found)


@both
def test_dropout_belongs_to_the_example_so_that_sums_over_parts_are_the_whole(name):
    module, config, weights = make(name, dropout=0.3)
    model, batch = bind(module, config), example()
    sums = jit(lambda weights, batch: sequence_to_sequence(model, weights, batch, jax.random.key(7)))
    whole = sums(weights, batch)
    parts = [sums(weights, {key: leaf[rows] for key, leaf in batch.items()}) for rows in (slice(2), slice(2, 4))]
    added = jax.tree.map(jnp.add, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole, added)
    plain = differentiate(*make(name)[:2], weights, batch)[1]
    assert abs(plain.sums["loss"] - whole.sums["loss"]) > 1e-3  # dropout was on


@both
def test_capture_and_embeddings(name):
    module, config, weights = make(name, layers=2, decoder_layers=1)
    batch = example()
    plain = run(module, config, weights, batch)
    embeddings = module.embed(weights, batch, config)
    found = jit(lambda e: module.apply(weights, batch, config, embeddings=e, capture=module.CAPTURES))(embeddings)
    np.testing.assert_allclose(plain, found.hidden, atol=1e-5)
    shapes = {name: leaf.shape for name, leaf in found.captured.items()}
    assert shapes == {
        "encoder_attention": (2, ROWS, 2, SOURCE, SOURCE),
        "encoder_hidden": (2, ROWS, SOURCE, 12),
        "attention": (1, ROWS, 2, TARGET, TARGET),
        "cross_attention": (1, ROWS, 2, TARGET, SOURCE),
        "hidden": (1, ROWS, TARGET, 12),
    }
    for name in ("encoder_attention", "attention", "cross_attention"):
        np.testing.assert_allclose(found.captured[name].sum(-1), 1.0, atol=1e-5)
    assert np.all(found.captured["cross_attention"][:, 1, :, :, 5:] == 0.0)
    with pytest.raises(ValueError, match="unknown capture"):
        module.apply(weights, batch, config, capture=("attn",))


@both
def test_bfloat16_keeps_float32_parameters_and_gradients(name):
    module, config, weights = make(name, dtype="bfloat16")
    gradients, sums = differentiate(module, config, weights, example())
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
    exact = differentiate(*make(name)[:2], weights, example())[1]
    np.testing.assert_allclose(sums.sums["loss"], exact.sums["loss"], rtol=0.05)
    assert jax.eval_shape(lambda: module.apply(weights, example(), config).hidden).dtype == jnp.bfloat16


def test_exact_counts_rows_whose_weighted_targets_are_all_right():
    module, config, weights = make("t5")
    batch = example()
    logits = module.logits(weights, run(module, config, weights, batch))
    best = logits.argmax(-1)
    wrong = best.at[0, 0].add(1)
    weighted = jnp.ones((ROWS, TARGET)).at[1].set(0.0).at[2, 3].set(0.0)
    measure = jit(lambda batch: sequence_to_sequence(bind(module, config), weights, batch).metrics["exact"])
    for targets, right in ((best, 3), (wrong, 2), (best.at[2, 3].add(1), 3), (best.at[1].add(1), 3)):
        found = measure(batch | {"targets": targets, "weights": weighted})
        assert tuple(map(float, found)) == (right, 3.0)
    with pytest.raises(ValueError, match="source"):
        sequence_to_sequence(bind(module, config), weights, {"tokens": batch["tokens"]})


def test_t5_knows_distances_only_and_shares_them_between_layers():
    _, config, _ = make("t5")
    table = {"table": jnp.arange(2.0 * config.buckets).reshape(config.buckets, 2)}
    bias = t5.distance_bias(table, jnp.arange(300)[None], 300, config, causal=False)[0]
    for offset in (-299, -130, -128, -5, 0, 1, 7, 128, 200):
        assert len(np.unique(jnp.diagonal(bias, offset, 1, 2)[0])) == 1
    assert bias[0, 0, 128] == bias[0, 0, 299] != bias[0, 128, 0]
    shared = [path for path in t5.param_specs(config) if "distance" in path]
    assert shared == ["encoder/distance/table", "decoder/distance/table"]
    assert not [path for path in t5.param_specs(config) if path.endswith("bias")]


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (transformer, {"heads": 5}, "heads must divide width"),
        (transformer, {"decoder_layers": 0}, "at least 1"),
        (transformer, {"width": 9, "heads": 3}, "even width"),
        (transformer, {"dropout": 1.0}, "dropout"),
        (t5, {"heads": 5}, "heads must divide width"),
        (t5, {"hidden": 0}, "hidden must be at least 1"),
        (t5, {"buckets": 30}, "multiple of 4"),
        (t5, {"distance": 16}, "distance must be above"),
    ],
)
def test_configs_say_what_is_wrong(module, settings, message):
    with pytest.raises(ValueError, match=message):
        module.Config(**{"vocabulary": 19, "width": 12, "heads": 2} | settings)


@both
def test_what_an_encoder_decoder_cannot_do_is_refused(name):
    module, config, weights = make(name)
    batch = example()
    with pytest.raises(ValueError, match="packed"):
        module.apply(weights, batch | {"segments": batch["tokens"]}, config)
    with pytest.raises(ValueError, match="longer than the context"):
        module.apply(weights, batch | {"source": jnp.zeros((ROWS, 17), jnp.int32)}, config)
    with pytest.raises(ValueError, match="longer than the context"):
        module.init_carry(weights, batch, config, 17)
