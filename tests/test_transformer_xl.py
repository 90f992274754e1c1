"""Transformer-XL against its formulas, term by term, and what its memory promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.inference.generate import Sampling, generate
from minillm.models import transformer_xl as xl

SMALL = {"vocabulary": 29, "context": 32, "memory": 32, "layers": 2, "width": 16, "heads": 2, "hidden": 24}


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """These tests compile much and compute little: they take half the time without XLA's optimizations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def make(**settings):
    config, draw = xl.Config(**SMALL | settings), np.random.default_rng(0)
    born = lambda path, row: (1.0 if path.endswith("scale") else 0.0) + 0.4 * draw.normal(size=row.shape)
    rows = xl.param_specs(config).items()  # u, v and biases too, where initialisation has zeros
    return config, params.unflatten({path: jnp.array(born(path, row), jnp.float32) for path, row in rows})


def tokens(rows=2, length=12, seed=1):
    return jnp.array(np.random.default_rng(seed).integers(29, size=(rows, length)))


@functools.partial(jax.jit, static_argnames="config")
def run(weights, batch, config, carry=None):
    return xl.apply(weights, batch, config, carry=carry)


def in_segments(weights, ids, config, cuts):
    """Hidden states of `ids`, read in segments that end at `cuts`, and the carry after them."""
    carry, hidden = xl.init_carry(weights, {"tokens": ids}, config, ids.shape[1]), []
    for start, end in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True):
        output = run(weights, {"tokens": ids[:, start:end]}, config, carry)
        carry = output.carry
        hidden.append(output.hidden)
    return jnp.concatenate(hidden, axis=1), carry


def close(a, b, atol=2e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol, rtol=1e-4), a, b)


# --- the formulas; tests/test_parity_transformer_xl.py holds the whole model against them, gradients too


def encoding(distance, width):
    """R_distance, one number at a time."""
    angle = lambda place: distance / 10000 ** ((place - place % 2) / width)
    return np.array([np.cos(angle(place)) if place % 2 else np.sin(angle(place)) for place in range(width)])


def naive_attention(p, x, memory, heads):
    """x [length, width], memory [memory, width] -> [length, width]: a query, a key, a head and a term at a time."""
    width, seen, output = x.shape[1], np.concatenate([memory, x]), []
    head = width // heads
    for i in range(len(x)):
        parts = []
        for h in range(heads):
            mine = slice(h * head, (h + 1) * head)
            query, u, v = (x[i] @ p["query"]["kernel"])[mine], p["content_bias"][mine], p["position_bias"][mine]
            scores = []
            for j in range(len(memory) + i + 1):
                key = (seen[j] @ p["key"]["kernel"])[mine]
                relative = (encoding(len(memory) + i - j, width) @ p["position"]["kernel"])[mine]
                scores.append((query @ key + query @ relative + u @ key + v @ relative) / np.sqrt(head))
            weights = np.exp(scores) / np.exp(scores).sum()
            parts.append(sum(weights[j] * (seen[j] @ p["value"]["kernel"])[mine] for j in range(len(scores))))
        output.append(np.concatenate(parts) @ p["output"]["kernel"])
    return np.stack(output)


@pytest.mark.parametrize(("length", "size"), [(5, 0), (4, 3), (1, 6)])
def test_attention_equals_the_four_terms_of_the_paper(length, size):
    config, weights = make()
    p = jax.tree.map(lambda leaf: leaf[0], weights["blocks"]["attention"])
    draw = np.random.default_rng(4)
    x, memory = draw.normal(size=(1, length, 16)), draw.normal(size=(1, size, 16))
    mask, _ = xl.visible(length, jnp.ones((1, size), bool), None, None)
    distances = jnp.arange(length + size - 1, -1, -1)
    scope = xl.Scope(xl.position.sinusoidal_positions(distances, 16)[None], mask, ())
    attend = jax.jit(lambda x, memory: xl.relative_attention(p, x, memory, config, scope, None)[0])
    found = attend(jnp.array(x, jnp.float32), jnp.array(memory, jnp.float32))
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), p)
    np.testing.assert_allclose(found[0], naive_attention(exact, x[0], memory[0], 2), atol=2e-5)


@pytest.mark.parametrize(("length", "keys"), [(1, 1), (1, 5), (4, 4), (3, 8)])
def test_the_shift_brings_every_distance_to_its_key(length, keys):
    scores = jnp.array(np.random.default_rng(0).normal(size=(2, 3, length, keys)), jnp.float32)
    shifted = xl.relative_shift(scores)
    for i in range(length):
        for j in range(keys - length + i + 1):
            distance = keys - length + i - j
            np.testing.assert_array_equal(shifted[:, :, i, j], scores[:, :, i, keys - 1 - distance])


# --- what the memory promises


@pytest.mark.parametrize(("placement", "cuts"), [("post", (4, 8)), ("pre", (1,))])
def test_a_memory_of_everything_equals_one_long_segment(placement, cuts):
    config, weights = make(placement=placement)
    ids = tokens()
    close(in_segments(weights, ids, config, cuts)[0], run(weights, {"tokens": ids}, config).hidden)


def test_with_a_span_a_memory_of_the_span_equals_one_long_segment():
    config, weights = make(memory=4, span=5)
    ids, cuts = tokens(), (4, 8)
    whole = run(weights, {"tokens": ids}, config).hidden
    close(in_segments(weights, ids, config, cuts)[0], whole)
    short, _ = make(memory=3, span=5)
    assert jnp.abs(in_segments(weights, ids, short, cuts)[0] - whole).max() > 1e-3  # one token less is not enough


def test_no_gradient_flows_into_the_memory_though_values_do():
    config, weights = make(memory=6)
    _, carry = in_segments(weights, tokens(), config, (6,))
    batch = {"tokens": tokens(seed=2)[:, :5]}
    score = lambda memory: jnp.square(xl.apply(weights, batch, config, carry=carry | {"memory": memory}).hidden).sum()
    value, gradient = jax.jit(jax.value_and_grad(score))(carry["memory"])
    assert jnp.all(gradient == 0.0)
    assert abs(float(jax.jit(score)(carry["memory"] + 0.3) - value)) > 1e-3


def test_no_position_sees_a_later_one():
    config, weights = make(placement="pre", memory=4)
    _, carry = in_segments(weights, tokens(1), config, ())
    batch = {"tokens": tokens(1, 6)}
    hidden = lambda x: xl.apply(weights, batch, config, embeddings=x, carry=carry).hidden[0] @ jnp.arange(1.0, 17.0)
    influence = jax.jit(jax.jacobian(lambda x: jnp.square(hidden(x))))(xl.embed(weights, batch, config))
    influence = jnp.abs(influence[:, 0]).sum(-1)
    assert jnp.all(jnp.triu(influence, 1) == 0.0)
    assert jnp.all(influence[np.tril_indices(6)] > 0.0)


def test_padding_does_not_enter_the_memory():
    config, weights = make(memory=6)
    ids, lengths = tokens(3), jnp.array([5, 8, 0])
    _, before = in_segments(weights, tokens(3, 4, seed=2), config, ())
    padded = run(weights, {"tokens": ids[:, :9], "lengths": lengths}, config, before)
    for row, length in enumerate(lengths):
        carry = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], before)
        if length:
            exact = run(weights, {"tokens": ids[row : row + 1, :length]}, config, carry)
            close(padded.hidden[row, :length], exact.hidden[0])
            carry = exact.carry
        close(padded.carry["memory"][row], carry["memory"][0])
        np.testing.assert_array_equal(padded.carry["valid"][row], carry["valid"][0])


def test_documents_do_not_see_each_other_nor_a_memory_of_another():
    config, weights = make(memory=8)
    ids = tokens()
    _, carry = in_segments(weights, tokens(seed=2), config, ())
    starts = jnp.zeros((2, 12), bool).at[:, 6].set(True).at[0, 0].set(True)
    told = run(weights, {"tokens": ids, "reset": starts}, config, carry)
    first, second = (run(weights, {"tokens": half}, config).hidden for half in (ids[:, :6], ids[:, 6:]))
    close(told.hidden[0, :6], first[0])
    close(told.hidden[1, :6], run(weights, {"tokens": ids}, config, carry).hidden[1, :6])
    close(told.hidden[:, 6:], second)
    np.testing.assert_array_equal(told.carry["valid"], [[False, False] + [True] * 6] * 2)  # the last document only
    packed = run(weights, {"tokens": ids, "segments": jnp.cumsum(starts, axis=1)}, config)
    close(packed.hidden, jnp.concatenate([first, second], axis=1))


def test_greedy_generation_equals_the_uncached_model():
    config, weights = make(memory=6, span=7)
    prompts = [[3, 4, 5], [6, 2] * 7]
    found = generate(xl, config, weights, prompts, 8, key=jax.random.key(0), sampling=Sampling(0.0))
    uncached = jax.jit(lambda ids: xl.logits(weights, xl.apply(weights, {"tokens": ids}, config).hidden)[0].argmax(-1))
    for prompt, row in zip(prompts, found, strict=True):
        ids = list(prompt)
        for _ in range(8):
            ids.append(int(uncached(jnp.array([ids + [0] * (32 - len(ids))]))[len(ids) - 1]))
        assert row == ids[len(prompt) :]


# --- the contract


def test_scan_and_remat_change_nothing():
    config, weights = make()
    other, _ = make(scan=True, remat=True)
    score = lambda config: lambda w: jnp.square(xl.apply(w, {"tokens": tokens()}, config).hidden).sum()
    close(*(jax.jit(jax.grad(score(c)))(weights) for c in (config, other)), atol=2e-4)


def test_dropout_belongs_to_the_example():
    config, weights = make(dropout=0.4)
    ids, index = tokens(4, 6), jnp.arange(4)
    noisy = jax.jit(
        lambda ids, index: xl.apply(weights, {"tokens": ids, "index": index}, config, key=jax.random.key(7))
    )
    whole = noisy(ids, index).hidden
    close(whole[2:], noisy(ids[2:], index[2:]).hidden)  # a micro-batch has the noise of the full batch
    assert jnp.abs(whole - run(weights, {"tokens": ids}, config).hidden).max() > 0.01


def test_dropout_stands_in_every_place(monkeypatch):
    config, weights = make(dropout=0.4)
    places = []
    monkeypatch.setattr(xl.dropout, "dropout", lambda x, keys, rate: places.append(keys is not None) or x)
    batch = {"tokens": tokens(), "index": jnp.arange(2)}
    jax.eval_shape(lambda w: xl.apply(w, batch, config, key=jax.random.key(0)).hidden, weights)
    assert places == [True] * (1 + 3 * config.layers)  # embedding; each block's attention weights and two sublayers


def test_capture_gives_weights_that_sum_to_one_and_changes_nothing():
    config, weights = make(memory=5)
    batch, carry = {"tokens": tokens()}, xl.init_carry({}, {"tokens": tokens()}, make(memory=5)[0], 12)
    found = jax.jit(lambda w: xl.apply(w, batch, config, carry=carry, capture=xl.CAPTURES))(weights)
    plain = run(weights, batch, config)
    assert plain.carry is None
    assert plain.captured == {}
    close(found.hidden, plain.hidden)  # an empty memory is no memory
    assert found.captured["attention"].shape == (2, 2, 2, 12, 17)
    assert jnp.all(found.captured["attention"][..., :5] == 0.0)
    np.testing.assert_allclose(found.captured["attention"].sum(-1), 1.0, atol=1e-5)
    close(found.captured["hidden"][-1], found.hidden)
    with pytest.raises(ValueError, match="unknown capture"):
        xl.apply(weights, batch, config, capture=("memory",))


def test_bfloat16_keeps_the_carrys_types_and_float32_gradients():
    config, weights = make(dtype="bfloat16", placement="pre")
    batch, kinds = {"tokens": tokens()}, lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    carry = xl.init_carry(weights, batch, config, 12)
    output = run(weights, batch, config, carry)
    assert output.hidden.dtype == jnp.bfloat16
    assert kinds(output.carry) == kinds(carry)
    score = lambda w: xl.apply(w, batch, config).hidden.astype(jnp.float32).sum()
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(jax.grad(score), weights))} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"heads": 3}, "divide"), ({"span": 0}, "span"), ({"memory": 0}, "memory"), ({"width": 15, "heads": 5}, "even")],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)
