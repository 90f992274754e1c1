"""Adapters, prefixes and prompts against what they are by definition: written out, or as words of a larger vocabulary."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_tuning_methods import ROWS, VOCABULARY, case, draw, tuned

from minillm import params
from minillm.errors import UserError
from minillm.inference.beam import Beam, beam_search
from minillm.inference.generate import Sampling, generate
from minillm.models import bert, gpt
from minillm.models.contract import bind
from minillm.nn import attention
from minillm.nn.adapter import adapt
from minillm.objectives import causal
from minillm.training.step import make_gradient
from minillm.tuning.prefix import bake, make_prefix, prefix_tuning
from minillm.tuning.prompt import prompt_tuning, wrap, wrap_module

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def shaken(tree, seed=3, size=0.3):
    """The tree with noise on every leaf: nothing is at its start."""
    rows = params.flatten(tree)
    return params.unflatten(
        {path: leaf + size * draw(seed + i, *leaf.shape) for i, (path, leaf) in enumerate(rows.items())}
    )


def softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_an_adapter_by_its_formula():
    rows = {"down": {"kernel": draw(0, 5, 2), "bias": draw(1, 2)}, "up": {"kernel": draw(2, 2, 5), "bias": draw(3, 5)}}
    x = np.asarray(draw(4, 3, 5), np.float64)
    low = x @ np.asarray(rows["down"]["kernel"]) + np.asarray(rows["down"]["bias"])
    low = 0.5 * low * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (low + 0.044715 * low**3)))
    wanted = x + low @ np.asarray(rows["up"]["kernel"]) + np.asarray(rows["up"]["bias"])
    np.testing.assert_allclose(adapt(rows, jnp.asarray(x, jnp.float32)), wanted, **CLOSE)


@pytest.mark.parametrize(("placement", "each"), [("houlsby", 2), ("pfeiffer", 1)])
def test_adapters_stand_behind_both_sublayers_or_behind_the_second(placement, each):
    _, state, _, _ = tuned("gpt", "adapter", placement=placement)
    rows = [path for path in params.flatten(state.trainable) if path.endswith("adapter/up/kernel")]
    assert len(rows) == each
    assert ("blocks/attention/adapter/up/kernel" in rows) == (placement == "houlsby")


@pytest.mark.parametrize("method", ["adapter", "prefix"])
@pytest.mark.parametrize("name", ["gpt", "bert", "t5", "transformer", "transformer_xl", "vit"])
def test_every_row_that_is_added_is_read(name, method):
    """Each adapter and each prefix of each layer changes the loss: its gradient is not zero."""
    _, _, model, objective, batch, _ = case(name)
    tuning, state, frozen, _ = tuned(name, method)
    loss = lambda trainable: sum(objective(model, tuning.attach(trainable, frozen), batch, None, {}).sums.values())
    gradients = params.flatten(jax.jit(jax.grad(loss))(shaken(state.trainable)))
    own = {path: leaf for path, leaf in gradients.items() if f"/{method}/" in path}
    assert own
    for path, leaf in own.items():
        assert np.all(np.abs(leaf).reshape(len(leaf), -1).max(1) > 0.0), path


def test_adapters_under_a_scan_and_remat_as_unrolled():
    _, config, _, _, batch, _ = case("gpt")
    tuning, state, frozen, _ = tuned("gpt", "adapter")
    weights = tuning.attach(shaken(state.trainable), frozen)
    run = lambda **settings: gpt.apply(weights, batch, gpt.Config(**(vars(config) | settings))).hidden
    np.testing.assert_allclose(run(scan=True, remat=True), run(), **CLOSE)


def naive_attention(query, key, value, mask, bias=0.0, scale=1.0):
    """[batch, length, heads, head] by three loops in float64; prefix keys are keys like any other."""
    out = np.zeros(query.shape)
    for row in range(query.shape[0]):
        for head in range(query.shape[2]):
            for place in range(query.shape[1]):
                seen = np.flatnonzero(mask[row, place])
                added = np.broadcast_to(bias, mask.shape)[row, place] if np.ndim(bias) < 4 else bias[row, head, place]
                scores = np.array([query[row, place, head] @ key[row, k, head] * scale + added[k] for k in seen])
                out[row, place, head] = softmax(scores) @ value[row, seen, head]
    return out


def test_a_prefix_is_so_many_more_keys_that_all_may_see():
    """BERT's attention, with a mask that hides what is not of the prefix, against naive loops."""
    _, config, _, _, batch, weights = case("bert")
    layer = jax.tree.map(lambda leaf: leaf[0], weights["blocks"]["attention"])
    rows = {"key": draw(8, 3, 8), "value": draw(9, 3, 8)}
    x, seen = draw(5, ROWS, 6, 8), np.asarray(batch["mask"])
    split = lambda y: np.asarray(y, np.float64).reshape(*y.shape[:-1], 2, 4)
    project = lambda name: split(x @ layer[name]["kernel"] + layer[name]["bias"])
    more = lambda name: np.concatenate([np.broadcast_to(split(rows[name]), (ROWS, 3, 2, 4)), project(name)], axis=1)
    mask = np.concatenate([np.ones((ROWS, 6, 3), bool), np.broadcast_to(seen[:, None], (ROWS, 6, 6))], axis=2)
    wanted = naive_attention(project("query"), more("key"), more("value"), mask, scale=4**-0.5).reshape(ROWS, 6, 8)
    wanted = wanted @ np.asarray(layer["output"]["kernel"]) + np.asarray(layer["output"]["bias"])
    visible = attention.padding_mask(jnp.asarray(seen)) & jnp.ones((ROWS, 1, 6, 6), bool)
    scope = bert.Scope(jnp.zeros((ROWS, 6), jnp.int32), visible, ("attention",))
    found, captured = bert.self_attention(layer | {"prefix": rows}, x, config, scope, None)
    np.testing.assert_allclose(found, wanted, **CLOSE)
    np.testing.assert_allclose(captured["attention"].sum(-1), 1.0, rtol=1e-6)
    assert captured["attention"].shape == (ROWS, 2, 6, 9)


def prefixed(name, seed=5):
    tuning, state, frozen, _ = tuned(name, "prefix")
    return tuning.attach(shaken(state.trainable, seed), frozen)


@pytest.mark.parametrize("settings", [{}, {"position": "rotary"}])
def test_a_prefix_leaves_gpt_causal_and_its_documents_apart(settings):
    _, config, _, _, _, _ = case("gpt")
    config = gpt.Config(**(vars(config) | settings))
    weights = prefixed("gpt")
    segments = jnp.array([[0, 0, 0, 1, 1, 1]])
    batch = {"tokens": jnp.arange(6)[None], "segments": segments}
    x = gpt.embed(weights, batch, config)
    hidden = lambda x: gpt.apply(weights, batch, config, embeddings=x).hidden[0] @ jnp.arange(1.0, 9.0)
    influence = np.abs(jax.jit(jax.jacobian(hidden))(x)[:, 0]).sum(-1)
    allowed = np.tril(np.ones((6, 6))) * (segments[0][:, None] == segments[0][None])
    np.testing.assert_array_equal(influence > 0.0, allowed > 0.0)


@pytest.mark.parametrize("name", ["gpt", "t5", "transformer", "transformer_xl"])
def test_generation_with_a_prefix_follows_the_whole_model(name):
    """Greedy continuation from the cache: each token is the most likely one of a pass without a cache."""
    module, config, _, _, _, _ = case(name)
    weights, sources = prefixed(name), None if name in ("gpt", "transformer_xl") else [[3, 4, 5], [6, 7, 8, 9]]
    follow(module, config, weights, sources, lambda batch: module.apply(weights, batch, config).hidden)


def follow(module, config, weights, sources, whole):
    """Greedy and beam search against a model that is run anew for every token."""
    prompts, new = [[1, 2], [3, 4, 5]], 3
    rows = generate(
        module, config, weights, prompts, new, key=jax.random.key(0), sampling=Sampling(0.0), sources=sources
    )
    beams = beam_search(module, config, weights, prompts, new, Beam(1), sources=sources)
    assert [row[0].tokens for row in beams] == rows
    for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        batch = {"tokens": jnp.array([[*prompt, *row]])}
        if sources is not None:
            batch |= {"source": jnp.array([sources[number]])}
        scores = module.logits(weights, whole(batch))[0, len(prompt) - 1 : -1]
        assert scores.argmax(-1).tolist() == row


def test_a_network_makes_the_prefix_and_baking_leaves_plain_rows():
    module, _, _, _, batch, weights = case("t5")
    tuning = prefix_tuning(3, 5)
    trainable, frozen, _ = tuning.init(weights, jax.random.key(2))
    rows = params.flatten(trainable)
    assert {path: leaf.shape for path, leaf in rows.items()} == {
        path: spec.shape for path, spec in tuning.specs(module.param_specs(case("t5")[1])).items()
    }
    assert {path.split("/prefix")[0] for path in rows} == {
        "encoder/blocks/self_attention",
        "decoder/blocks/self_attention",
    }
    trainable = shaken(trainable)
    part = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64), trainable["decoder"]["blocks"]["self_attention"]["prefix"]
    )
    inner = np.tanh(part["table"] @ part["up"]["kernel"] + part["up"]["bias"])
    made = make_prefix(trainable["decoder"]["blocks"]["self_attention"]["prefix"])
    for name, layer in (("key", 0), ("value", 1)):
        wanted = inner @ part[name]["kernel"][layer] + part[name]["bias"][layer]
        np.testing.assert_allclose(made[name][layer], wanted, **CLOSE)

    plain = prefix_tuning(3)
    baked = bake(trainable)
    assert params.flatten(baked).keys() == plain.specs(module.param_specs(case("t5")[1])).keys()
    run = lambda tuning, rows: case("t5")[2].apply(tuning.attach(rows, frozen), batch).hidden
    np.testing.assert_array_equal(run(plain, baked), run(tuning, trainable))
    assert jax.tree.all(jax.tree.map(np.array_equal, bake(baked), baked))


def as_words(name, weights, vectors):
    """The model with the prompt as words of its vocabulary, and a batch in which they stand before each row."""
    table = jnp.concatenate([weights["embedding"]["table"], vectors])
    batch, words = case(name)[4], VOCABULARY + jnp.broadcast_to(jnp.arange(len(vectors)), (ROWS, len(vectors)))
    put = lambda leaf, first: jnp.concatenate([jnp.asarray(first, leaf.dtype), leaf], axis=1)
    kind, mask = ("source", "source_mask") if "source" in batch else ("tokens", "mask")
    longer = batch | {kind: put(batch[kind], words)}
    if mask in batch:
        longer |= {mask: put(batch[mask], jnp.ones(words.shape, bool))}
    return weights | {"embedding": {"table": table}}, longer


@pytest.mark.parametrize("name", ["gpt", "bert", "t5", "transformer", "transformer_xl", "lstm"])
def test_a_prompt_is_new_words_before_the_row(name):
    """Values and gradients, at the vectors and at the model, equal those of a larger vocabulary."""
    _, _, model, _, batch, weights = case(name)
    vectors = draw(4, 3, 8)

    def prompted(weights, vectors):
        hidden = wrap(model).apply(weights | {"prompt": {"table": vectors}}, batch).hidden
        return jnp.sum(jnp.square(hidden) * jnp.arange(8.0)), hidden

    def by_hand(weights, vectors):
        larger, longer = as_words(name, weights, vectors)
        hidden = model.apply(larger, longer).hidden
        hidden = hidden if "source" in batch else hidden[:, 3:]
        return jnp.sum(jnp.square(hidden) * jnp.arange(8.0)), hidden

    both = [jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(weights, vectors) for loss in (prompted, by_hand)]
    size = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(both[1][0]))
    assert float(jnp.abs(both[1][0][1]).max()) > 0.0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * max(size, 1.0)), *both)


def test_a_prompt_stands_before_the_class_token_of_an_image_and_heads_find_it_at_0():
    _, _, model, _, batch, weights = case("vit")
    vectors = draw(4, 3, 8)
    x = jnp.concatenate([jnp.broadcast_to(vectors, (ROWS, 3, 8)), model.embed(weights, batch)], axis=1)
    wanted = model.apply(weights, batch, embeddings=x).hidden[:, 3:]
    found = wrap(model).apply(weights | {"prompt": {"table": vectors}}, batch).hidden
    np.testing.assert_allclose(found, wanted, **CLOSE)
    assert found.shape == model.apply(weights, batch).hidden.shape


@pytest.mark.parametrize("name", ["gpt", "t5", "transformer", "transformer_xl", "lstm"])
def test_generation_after_a_prompt_follows_the_whole_model(name):
    module, config, model, _, _, weights = case(name)
    weights = weights | {"prompt": {"table": draw(4, 3, 8)}}
    sources = [[3, 4, 5], [6, 7, 8, 9]] if name in ("t5", "transformer") else None
    whole = lambda batch: wrap(model).apply(weights, batch).hidden
    follow(*wrap_module(module, config, 3), weights, sources, whole)


def test_padding_before_a_row_is_no_place_between_it_and_its_prompt():
    """Rows that end at their right, as a GPT classifies them: the prompt is the row's, whatever the padding between."""
    _, _, model, _, _, weights = case("gpt")
    wrapped, weights = wrap(model), weights | {"prompt": {"table": draw(4, 3, 8)}}
    alone = wrapped.apply(weights, {"tokens": jnp.array([[5, 6, 7, 8]])}).hidden
    row = {
        "tokens": [0, 0, 5, 6, 7, 8],
        "mask": [0, 0, 1, 1, 1, 1],
        "segments": [0, 0, 1, 1, 1, 1],
        "positions": [0, 0, 0, 1, 2, 3],
    }
    batch = {name: jnp.array([values], bool if name == "mask" else int) for name, values in row.items()}
    np.testing.assert_allclose(wrapped.apply(weights, batch).hidden[:, 2:], alone, **CLOSE)


def test_a_prompt_begins_with_words_and_needs_room():
    module, config, model, _, batch, weights = case("gpt")
    tuning = prompt_tuning(4)
    vectors = tuning.init(weights, jax.random.key(3))[0]["prompt"]["table"]
    table = np.asarray(weights["embedding"]["table"])
    rows = [int(np.flatnonzero((table == row).all(1))[0]) for row in np.asarray(vectors)]
    assert len(set(rows)) == 4
    assert tuning.init(weights, jax.random.key(4))[0]["prompt"]["table"].tolist() != vectors.tolist()
    assert prompt_tuning(20).init(weights, jax.random.key(3))[0]["prompt"]["table"].shape == (20, 8)
    prompted, long = weights | {"prompt": {"table": draw(1, 5, 8)}}, batch | {"segments": jnp.zeros((ROWS, 6), int)}
    for wrong, options, words in (
        (batch, {}, "a prompt of 5 and a row of 6 tokens do not fit into the context of 10"),
        (long, {}, "packed"), (batch, {"carry": module.init_carry(weights, batch, config, 6)}, "whole rows"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            wrap(model).apply(prompted, wrong, **options)
    for length in (10, 11):
        with pytest.raises(UserError, match="fills the context of 10"):
            wrap_module(module, config, length)
    module, config, _, _, _, weights = case("transformer_xl")
    pair = wrap_module(module, dataclasses.replace(config, memory=4), 3)
    with pytest.raises(UserError, match="forgets the prompt"):
        generate(*pair, weights | {"prompt": {"table": draw(1, 3, 8)}}, [[1]], 2, key=jax.random.key(0))


@pytest.mark.parametrize("method", ["adapter", "prefix", "prompt"])
def test_weights_still_come_from_the_data_alone(method):
    """The denominators of a tuned model cost nothing: XLA drops the forward pass."""
    _, _, model, objective, batch, _ = case("bert")
    tuning, state, frozen, _ = tuned("bert", method)
    weights = make_gradient(objective, model, tuning, {}).weights
    compiled = jax.jit(lambda trainable: weights(trainable, frozen, {}, batch, None)).lower(state.trainable).compile()
    assert compiled.cost_analysis().get("flops", 0.0) == 0.0


def test_perturbing_the_embeddings_of_a_prompted_model():
    """`embed` gives prompt and row, and `apply` takes them back: adversarial training needs no more."""
    _, config, model, _, batch, weights = case("gpt")
    weights, wrapped = weights | {"prompt": {"table": draw(4, 3, 8)}}, wrap(model)
    x = wrapped.embed(weights, batch)
    assert x.shape == (ROWS, 9, 8)
    np.testing.assert_array_equal(
        wrapped.apply(weights, batch, embeddings=x).hidden, wrapped.apply(weights, batch).hidden
    )
    assert bind(gpt, config).config == config
    assert causal(wrapped, weights, batch).weights["loss"] == batch["weights"].sum()
