"""Properties of the recurrent language models: what must hold whatever the weights are, and what the carry is for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from minillm import params, sharding
from minillm.inference.generate import Sampling, generate
from minillm.models import lstm, rnn
from minillm.objectives.causal import token_losses

VARIANTS = {"rnn": (rnn, {}), "lstm": (lstm, {"tied": False, "layers": 3})}  # parity tests have the others
variants = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """These tests compile much and compute little: they take half the time without XLA's optimizations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def make(variant, **settings):
    module, own = VARIANTS[variant]
    config = module.Config(**{"vocabulary": 29, "context": 32, "layers": 2, "width": 16} | own | settings)
    return module, config, random_params(module.param_specs(config))


def random_params(specs):
    """Biases too, where initialisation has zeros."""
    draw = np.random.default_rng(0)
    return params.unflatten(
        {path: jnp.array(0.3 * draw.normal(size=row.shape), jnp.float32) for path, row in specs.items()}
    )


def run(module, config):
    return jax.jit(lambda weights, batch, carry=None: module.apply(weights, batch, config, carry=carry))


def tokens(rows=2, length=12, seed=1):
    return jnp.array(np.random.default_rng(seed).integers(29, size=(rows, length)))


def close(a, b, atol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol, rtol=1e-4), a, b)


@variants
def test_no_position_sees_a_later_one(variant):
    module, config, weights = make(variant)
    batch = {"tokens": tokens(1, 6)}
    hidden = lambda x: jnp.square(module.apply(weights, batch, config, embeddings=x).hidden[0]) @ jnp.arange(1.0, 17.0)
    influence = jnp.abs(jax.jit(jax.jacobian(hidden))(module.embed(weights, batch, config))[:, 0]).sum(-1)
    assert jnp.all(jnp.triu(influence, 1) == 0.0)
    assert jnp.all(influence[np.tril_indices(6)] > 0.0)


@variants
def test_two_halves_with_carry_equal_the_whole_and_so_does_their_gradient(variant):
    module, config, weights = make(variant)
    ids = tokens()

    def whole(weights):
        hidden = module.apply(weights, {"tokens": ids}, config).hidden
        return jnp.square(hidden).sum(), hidden

    def halves(weights):
        carry = module.init_carry(weights, {"tokens": ids}, config, 12)
        first = module.apply(weights, {"tokens": ids[:, :5]}, config, carry=carry)
        second = module.apply(weights, {"tokens": ids[:, 5:]}, config, carry=first.carry)
        hidden = jnp.concatenate([first.hidden, second.hidden], axis=1)
        return jnp.square(hidden).sum(), hidden

    found, expected = (jax.jit(jax.value_and_grad(f, has_aux=True))(weights) for f in (halves, whole))
    close(found, expected, atol=1e-4)


@variants
def test_the_carry_is_that_of_each_rows_last_real_token(variant):
    module, config, weights = make(variant)
    apply, ids, lengths = run(module, config), tokens(3), jnp.array([4, 8, 0])
    before = apply(
        weights, {"tokens": tokens(3, 5, seed=2)}, module.init_carry(weights, {"tokens": ids}, config, 12)
    ).carry
    padding = jnp.zeros((3, 9), bool).at[:, 8].set(True)  # what stands after the last real token does nothing
    padded = apply(weights, {"tokens": ids[:, :9], "lengths": lengths, "reset": padding}, before)
    for row, length in enumerate(lengths):
        alone = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], before)
        if length:
            exact = apply(weights, {"tokens": ids[row : row + 1, :length]}, alone)
            close(padded.hidden[row, :length], exact.hidden[0])
            alone = exact.carry
        close(jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], padded.carry), alone)


@variants
def test_documents_do_not_see_each_other(variant):
    module, config, weights = make(variant)
    apply, ids = run(module, config), tokens()
    starts = jnp.zeros((2, 12), bool).at[:, 6].set(True).at[0, 0].set(True)
    carry = apply(weights, {"tokens": ids}, module.init_carry(weights, {"tokens": ids}, config, 12)).carry
    told = apply(weights, {"tokens": ids, "reset": starts}, carry)
    first, second = (apply(weights, {"tokens": half}).hidden for half in (ids[:, :6], ids[:, 6:]))
    close(told.hidden[0, :6], first[0])
    close(told.hidden[1, :6], apply(weights, {"tokens": ids}, carry).hidden[1, :6])
    close(told.hidden[:, 6:], second)
    packed = apply(weights, {"tokens": ids, "segments": jnp.cumsum(starts, axis=1)})
    close(packed.hidden, jnp.concatenate([first, second], axis=1))


@pytest.mark.parametrize("prompts", [[[3, 4, 5], [6] * 14]])
@variants
def test_greedy_generation_equals_the_uncached_model(variant, prompts):
    module, config, weights = make(variant)
    found = generate(module, config, weights, prompts, 6, key=jax.random.key(0), sampling=Sampling(0.0))
    uncached = jax.jit(
        lambda ids: module.logits(weights, module.apply(weights, {"tokens": ids}, config).hidden)[0].argmax(-1)
    )
    for prompt, row in zip(prompts, found, strict=True):
        ids = list(prompt)
        for _ in range(6):
            ids.append(int(uncached(jnp.array([ids + [0] * (32 - len(ids))]))[len(ids) - 1]))
        assert row == ids[len(prompt) :]


@variants
def test_dropout_stands_between_layers_only(variant):
    module, config, weights = make(variant, dropout=0.5, layers=2)
    batch = {"tokens": tokens(), "index": jnp.arange(2)}
    apply = lambda key: jax.jit(lambda batch: module.apply(weights, batch, config, key=key, capture=("hidden",)))
    noisy, quiet = apply(jax.random.key(0))(batch), apply(None)(batch)
    close(noisy.captured["hidden"][0], quiet.captured["hidden"][0])  # not before the first layer
    assert jnp.abs(noisy.hidden - quiet.hidden).max() > 0.01
    assert jnp.all(noisy.hidden != 0.0)  # nor after the last
    part = apply(jax.random.key(0))(jax.tree.map(lambda leaf: leaf[1:], batch))
    close(part.hidden, noisy.hidden[1:])  # a micro-batch has the noise of the full batch
    with pytest.raises(ValueError, match="between layers"):
        make(variant, dropout=0.25, layers=1)


@variants
def test_capture_gives_every_layer_and_changes_nothing(variant):
    module, config, weights = make(variant)
    batch = {"tokens": tokens()}
    plain = run(module, config)(weights, batch)
    found = jax.jit(lambda w: module.apply(w, batch, config, capture=module.CAPTURES))(weights)
    assert plain.carry is None
    assert plain.captured == {}
    close(plain.hidden, found.hidden)
    close(found.captured["hidden"][-1], plain.hidden)
    assert {leaf.shape for leaf in found.captured.values()} == {(config.layers, 2, 12, 16)}
    with pytest.raises(ValueError, match="unknown capture"):
        module.apply(weights, batch, config, capture=("gates",))


@variants
def test_bfloat16_keeps_float32_parameters_gradients_and_cells(variant):
    module, config, weights = make(variant, dtype="bfloat16")
    ids = tokens()
    carry = module.init_carry(weights, {"tokens": ids}, config, 12)
    output = run(module, config)(weights, {"tokens": ids}, carry)
    kinds = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    assert output.hidden.dtype == jnp.bfloat16
    assert kinds(output.carry) == kinds(carry)
    assert {name: leaf.dtype for name, leaf in carry.items()}.get("cell", jnp.float32) == jnp.float32
    exact = run(module, make(variant)[1])(weights, {"tokens": ids}).hidden
    np.testing.assert_allclose(output.hidden.astype(jnp.float32), exact, atol=0.05)
    score = lambda w: module.apply(w, {"tokens": ids}, config).hidden.astype(jnp.float32).sum()
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(jax.grad(score), weights))} == {jnp.dtype("float32")}


@variants
def test_sharded_equals_single(variant):
    module, config, weights = make(variant)
    mesh = sharding.make_mesh(data=4, model=2)
    places = sharding.param_shardings(module.param_specs(config), sharding.RULES["fsdp"], mesh)
    placed = jax.device_put(weights, places)
    batch = {"tokens": tokens(8)}
    carry = module.init_carry(weights, batch, config, 12)
    rows = sharding.batch_sharding(mesh)  # a carry lies where its rows lie
    sharded = run(module, config)(placed, jax.device_put(batch, rows), jax.device_put(carry, rows))
    single = run(module, config)(weights, batch, carry)
    close((sharded.hidden, sharded.carry), (single.hidden, single.carry))
    assert params.flatten(placed)["blocks/recurrent/kernel"].addressable_shards[0].data.shape[1] == 4


def test_the_carry_tells_what_no_segment_shows():
    """Truncated back-propagation on 0 0 0 1 0 0 0 2 ... in segments of 4, with and without the carry."""
    config = lstm.Config(vocabulary=3, context=4, layers=1, width=16)
    weights = random_params(lstm.param_specs(config))
    stream = jnp.stack([jnp.roll(jnp.tile(jnp.array([0, 0, 0, 1, 0, 0, 0, 2]), 3), 4 * row) for row in range(4)])
    empty = lstm.init_carry(weights, {"tokens": stream}, config, 4)
    optimizer = optax.adam(0.02)

    def step(state, number, kept):
        weights, moments, carry = state
        ids = jax.lax.dynamic_slice_in_dim(stream, 4 * (number % 2), 5, axis=1)

        def loss(weights):
            output = lstm.apply(weights, {"tokens": ids[:, :-1]}, config, carry=carry)
            return token_losses(lstm.logits(weights, output.hidden), ids[:, 1:])[0].mean(), output.carry

        (value, after), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(weights, updates), moments, jax.tree.map(lambda leaf: leaf * kept, after)), value

    def train(kept):
        return jax.lax.scan(lambda *now: step(*now, kept), (weights, optimizer.init(weights), empty), jnp.arange(250))[
            1
        ]

    losses = jax.jit(train)
    assert losses(1.0)[-16:].mean() < 0.02
    assert losses(0.0)[-16:].mean() > 0.16  # one target in four is a coin: ln 2 / 4 = 0.173
