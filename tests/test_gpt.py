"""Properties of GPT: what must hold whatever the weights are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.inference.generate import Sampling, filter_logits, generate
from minillm.models import gpt
from minillm.models.contract import bind
from minillm.nn import attention
from minillm.objectives import causal
from minillm.objectives.contract import total_loss
from minillm.training.step import accumulate, make_gradient
from minillm.tuning import full

VARIANTS = {
    "gpt2": {},
    "modern": {"norm": "rms", "position": "rotary", "activation": "silu", "gated": True, "bias": False, "tied": False},
    "post": {"placement": "post", "position": "sinusoidal", "activation": "relu"},
}


def make(seed=0, **settings):
    config = gpt.Config(vocabulary=29, context=32, layers=2, width=16, heads=2, **settings)
    weights = params.init_params(gpt.param_specs(config), jax.random.key(seed))
    return config, jax.tree.map(lambda leaf: leaf * 3.0, weights)


def tokens(rows=2, length=32, seed=1):
    return jax.random.randint(jax.random.key(seed), (rows, length), 0, 29)


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_no_position_sees_a_later_one(settings):
    config, weights = make(**settings)
    batch = {"tokens": tokens(1, 8), "index": jnp.arange(1)}
    x = gpt.embed(weights, batch, config)
    hidden = lambda x: gpt.apply(weights, batch, config, embeddings=x).hidden[0] @ jnp.arange(1.0, 17.0)
    influence = jnp.abs(jax.jit(jax.jacobian(lambda x: jnp.square(hidden(x))))(x)[:, 0]).sum(-1)
    assert jnp.all(jnp.triu(influence, 1) == 0.0)
    assert jnp.all(influence[np.tril_indices(8)] > 0.0)


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_cached_equals_full(settings):
    config, weights = make(**settings)
    ids = tokens()
    full_run = gpt.apply(weights, {"tokens": ids}, config).hidden
    carry = gpt.init_carry(weights, {"tokens": ids}, config, 32)
    first = gpt.apply(weights, {"tokens": ids[:, :16], "lengths": jnp.array([10, 13])}, config, carry=carry)
    following = jnp.stack([ids[0, 10:14], ids[1, 13:17]])
    second = gpt.apply(weights, {"tokens": following}, config, carry=first.carry)
    np.testing.assert_allclose(second.hidden[0], full_run[0, 10:14], atol=2e-5)
    np.testing.assert_allclose(second.hidden[1], full_run[1, 13:17], atol=2e-5)


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_packed_documents_do_not_see_each_other(settings):
    config, weights = make(**settings)
    ids = tokens(1, 12)
    segments = jnp.array([[1] * 5 + [2] * 7])
    positions = jnp.array([[*range(5), *range(7)]])
    packed = gpt.apply(weights, {"tokens": ids, "segments": segments, "positions": positions}, config).hidden
    for part in (slice(0, 5), slice(5, 12)):
        alone = gpt.apply(weights, {"tokens": ids[:, part]}, config).hidden
        np.testing.assert_allclose(packed[:, part], alone, atol=2e-5)


@pytest.mark.parametrize("settings", [{"scan": True}, {"remat": True}, {"scan": True, "remat": True}])
def test_scan_and_remat_change_nothing(settings):
    config, weights = make()
    other, _ = make(**settings)
    batch = batch_of(tokens(), jnp.ones((2, 31)))
    loss = lambda config: lambda w: causal(bind(gpt, config), w, batch).sums["loss"]
    a, b = jax.jit(jax.grad(loss(config)))(weights), jax.jit(jax.grad(loss(other)))(weights)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4, rtol=1e-4), a, b)


@pytest.mark.parametrize("length", [7, 64, 96])
@pytest.mark.parametrize("packed", [False, True])
def test_fast_attention_equals_plain(length, packed):
    q, k, v = (jax.random.normal(jax.random.key(i), (2, length, 3, 4)) for i in range(3))
    segments = jnp.cumsum(jax.random.bernoulli(jax.random.key(5), 0.2, (2, length)), axis=1) if packed else None
    mask = attention.causal_mask(length)
    mask = mask & attention.segment_mask(segments) if packed else mask
    plain = lambda q: attention.dot_product_attention(q, k, v, mask)
    fast = lambda q: attention.causal_attention(q, k, v, segments)
    np.testing.assert_allclose(fast(q), plain(q), atol=1e-6)
    gradients = [jax.jit(jax.grad(lambda q, f=f: jnp.square(f(q)).sum()))(q) for f in (plain, fast)]
    np.testing.assert_allclose(*gradients, atol=1e-5)


def test_a_row_without_keys_is_zero_and_so_is_its_gradient():
    q, k, v = (jax.random.normal(jax.random.key(i), (1, 3, 1, 4)) for i in range(3))
    mask = jnp.zeros((1, 1, 3, 3), bool)
    out, gradient = jax.value_and_grad(lambda q: attention.dot_product_attention(q, k, v, mask).sum())(q)
    assert out == 0.0
    assert jnp.all(gradient == 0.0)


def batch_of(ids, weights):
    return {"tokens": ids[:, :-1], "targets": ids[:, 1:], "weights": weights, "index": jnp.arange(ids.shape[0])}


@pytest.mark.parametrize("settings", [{}, {"dropout": 0.3}], ids=["plain", "dropout"])
def test_accumulation_equals_the_full_batch(settings):
    config, weights = make(**settings)
    mask = jax.random.bernoulli(jax.random.key(3), 0.6, (8, 15)).astype(jnp.float32).at[2].set(0.0)
    batch, key = batch_of(tokens(8, 16), mask), jax.random.key(7)
    gradient = make_gradient(causal, bind(gpt, config), full(), {})
    whole, sums = jax.jit(gradient)(weights, {}, {}, batch, key)
    parts, added = jax.jit(accumulate(gradient, 4))(weights, {}, {}, batch, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), whole, parts)
    np.testing.assert_allclose(sums.sums["loss"], added.sums["loss"], rtol=1e-6)


def test_weights_of_the_objective_cost_nothing():
    config, weights = make()
    gradient = make_gradient(causal, bind(gpt, config), full(), {})
    batch = batch_of(tokens(), jnp.ones((2, 31)))
    compiled = jax.jit(gradient.weights).lower(weights, {}, {}, batch, jax.random.key(0)).compile()
    assert compiled.cost_analysis()["flops"] < 200  # the sum of 62 weights


def test_label_smoothing_and_z_loss_by_their_formulas():
    config, weights = make()
    batch = batch_of(tokens(), jnp.ones((2, 31)).at[0, 3:].set(0.0))
    model = bind(gpt, config)
    found = causal(model, weights, batch, label_smoothing=0.2, z_loss=True)
    logits = np.asarray(model.logits(weights, model.apply(weights, batch).hidden), np.float64)
    log_z = np.log(np.exp(logits).sum(-1))
    target = np.full(logits.shape, 0.2 / 29)
    np.put_along_axis(target, np.asarray(batch["targets"])[..., None], 0.8 + 0.2 / 29, -1)
    losses = (target * (log_z[..., None] - logits)).sum(-1)
    np.testing.assert_allclose(found.sums["loss"], (losses * np.asarray(batch["weights"])).sum(), rtol=1e-5)
    np.testing.assert_allclose(found.sums["z"], (log_z**2 * np.asarray(batch["weights"])).sum(), rtol=1e-5)
    with pytest.raises(ValueError, match="unknown terms"):
        total_loss(found, found.weights, {"typo": 1.0})


def test_capture_gives_weights_that_sum_to_one_and_changes_nothing():
    config, weights = make()
    plain = gpt.apply(weights, {"tokens": tokens()}, config)
    found = gpt.apply(weights, {"tokens": tokens()}, config, capture=("attention", "hidden"))
    np.testing.assert_array_equal(plain.hidden, found.hidden)
    assert found.captured["attention"].shape == (2, 2, 2, 32, 32)
    np.testing.assert_allclose(found.captured["attention"].sum(-1), 1.0, atol=1e-5)
    with pytest.raises(ValueError, match="unknown capture"):
        gpt.apply(weights, {"tokens": tokens()}, config, capture=("attn",))


def test_bfloat16_keeps_float32_parameters_and_gradients():
    config, weights = make(dtype="bfloat16")
    exact, _ = make()
    batch = batch_of(tokens(), jnp.ones((2, 31)))
    gradient = jax.jit(make_gradient(causal, bind(gpt, config), full(), {}))(weights, {}, {}, batch, jax.random.key(0))[
        0
    ]
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    hidden = gpt.apply(weights, batch, config).hidden
    assert hidden.dtype == jnp.bfloat16
    np.testing.assert_allclose(hidden.astype(jnp.float32), gpt.apply(weights, batch, exact).hidden, atol=0.15)


def test_bfloat16_gradients_are_those_of_float32_but_for_rounding():
    """One token makes up most of the text: its embedding's gradient is a long sum, which bfloat16 cannot hold."""
    ids = jnp.where(jax.random.bernoulli(jax.random.key(2), 0.9, (64, 32)), 5, tokens(64))
    batch, found = batch_of(ids, jnp.ones((64, 31))), []
    for settings in ({}, {"dtype": "bfloat16"}):
        config, weights = make(**settings)
        gradient = make_gradient(causal, bind(gpt, config), full(), {})
        found.append(params.flatten(jax.jit(gradient)(weights, {}, {}, batch, jax.random.key(0))[0]))
    for path, exact in found[0].items():
        if not path.endswith("key/bias"):  # a bias of all keys changes no softmax: its true gradient is 0
            error = jnp.linalg.norm(exact - found[1][path]) / jnp.linalg.norm(exact)
            assert error < 0.05, (path, error)


def test_dropout_drops_its_share_keeps_the_mean_and_belongs_to_the_example():
    from minillm.nn.dropout import dropout, example_keys, fold_keys

    keys = example_keys(jax.random.key(0), jnp.arange(4))
    x = jnp.ones((4, 100, 50))
    out = dropout(x, keys, 0.3)
    assert abs(float((out == 0).mean()) - 0.3) < 0.015
    np.testing.assert_allclose(out[out != 0], 1 / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(out[2:], dropout(x[2:], keys[2:], 0.3))  # the place in the batch does not matter
    assert not np.array_equal(out[0], out[1])
    assert not np.array_equal(out, dropout(x, fold_keys(keys, 1), 0.3))
    assert dropout(x, None, 0.3) is x


@pytest.mark.parametrize("layers", [1, 2])
def test_dropout_reaches_the_model_only_with_a_key(layers):
    config = gpt.Config(vocabulary=29, context=32, layers=layers, width=16, heads=2, dropout=0.5)
    weights = params.init_params(gpt.param_specs(config), jax.random.key(0))
    batch = {"tokens": tokens(2, 8), "index": jnp.arange(2)}
    run = lambda key: gpt.apply(weights, batch, config, key=key).hidden
    plain, noisy, again, other = run(None), run(jax.random.key(1)), run(jax.random.key(1)), run(jax.random.key(2))
    np.testing.assert_array_equal(noisy, again)
    assert not np.allclose(plain, noisy)
    assert not np.allclose(noisy, other)


def test_a_leaf_does_not_depend_on_other_rows():
    config, _ = make()
    specs = gpt.param_specs(config)
    fewer = {path: spec for path, spec in specs.items() if not path.startswith("position")}
    a, b = (params.flatten(params.init_params(s, jax.random.key(0))) for s in (specs, fewer))
    assert all(np.array_equal(a[path], b[path]) for path in fewer)
    assert not specs["final_norm/scale"].decays
    assert specs["blocks/attention/query/kernel"].decays
    assert not specs["blocks/attention/query/bias"].decays


@pytest.mark.parametrize("prompts", [[[3]], [[3, 4, 5], [6]], [[3] * 14, [4] * 9]])
def test_greedy_generation_equals_the_uncached_model(prompts):
    config, weights = make()
    found = generate(gpt, config, weights, prompts, 10, key=jax.random.key(0), sampling=Sampling(0.0))
    uncached = jax.jit(
        lambda ids: gpt.logits(weights, gpt.apply(weights, {"tokens": ids}, config).hidden)[0].argmax(-1)
    )
    for prompt, row in zip(prompts, found, strict=True):
        ids = list(prompt)
        for _ in range(10):
            padded = jnp.array([ids + [0] * (32 - len(ids))])  # causal: what follows changes nothing
            ids.append(int(uncached(padded)[len(ids) - 1]))
        assert row == ids[len(prompt) :]


def test_one_compilation_serves_every_length_and_setting_of_a_bucket():
    from minillm.inference import generate as module

    config, weights = make(seed=4)
    before = module._generate._cache_size()
    for length, settings in ((1, Sampling(0.0)), (7, Sampling(0.7, 5, 0.9)), (16, Sampling(1.3))):
        generate(gpt, config, weights, [[1] * length], 6, key=jax.random.key(length), sampling=settings)
    assert module._generate._cache_size() == before + 1


def test_filtering_keeps_the_top_k_and_the_nucleus():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
    kept = lambda **settings: np.isfinite(filter_logits(logits, Sampling(**settings)))[0].tolist()
    assert kept() == [True] * 4
    assert kept(top_k=2) == [True, True, False, False]
    assert kept(top_p=0.5) == [True, False, False, False]
    assert kept(top_p=0.79) == [True, True, False, False]
    assert kept(top_k=3, top_p=0.9) == [True, True, True, False]  # of the three: 0.526, 0.316, 0.158
    assert kept(top_k=3, top_p=0.8) == [True, True, False, False]


def test_stop_token_ends_a_row():
    config, weights = make()
    row = generate(gpt, config, weights, [[3]], 10, key=jax.random.key(0), sampling=Sampling(0.0))[0]
    stop = row[4]
    cut = generate(gpt, config, weights, [[3]], 10, key=jax.random.key(0), sampling=Sampling(0.0), stop=(stop,))[0]
    assert cut == row[: row.index(stop)]
