"""Properties of BERT and its pretraining objectives: what must hold whatever the weights are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.data import masking, pairs
from minillm.models import bert
from minillm.models.contract import Output, bind
from minillm.nn import dropout
from minillm.objectives.masked import masked
from minillm.objectives.next_sentence import join, masked_next_sentence, next_sentence
from minillm.objectives.structural import structural
from minillm.objectives.supervised import head_scores
from minillm.training.step import accumulate, make_gradient
from minillm.tuning import full

VOCABULARY, LENGTH, ROWS = 29, 16, 8
SETTINGS = masking.Masking(VOCABULARY, 3, (0, 1, 2, 3))
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles 3 times faster
ALL = ("pool", "masked", "next_sentence", "classify", "tag", "span")


def make(seed=0, **settings):
    settings = {"layers": 1, "tasks": ALL, "relations": 3, "labels": 5, "dropout": 0.0} | settings
    config = bert.Config(vocabulary=VOCABULARY, context=LENGTH + 4, width=16, heads=2, **settings)
    weights = params.init_params(bert.param_specs(config), jax.random.key(seed))
    return config, jax.tree.map(lambda leaf: leaf * 3.0, weights)


def make_batch(step=0, kind="structural", gathered=False):
    """Pairs of sentences of different lengths, masked and shuffled."""
    generator = np.random.default_rng(0)
    documents = [[generator.integers(4, VOCABULARY, size=n) for n in (3, 6, 2, 5)] for _ in range(9)]
    batch = pairs.pair_batch_at(pairs.make_pair_dataset(documents, LENGTH, kind, 1, 2), 0, step, ROWS)
    batch = masking.shuffle_trigrams(masking.mask_tokens(batch, 0, step, SETTINGS), 0, step, SETTINGS.special)
    batch["weights"][2] = 0.0  # a row without targets, and one whose label does not count
    batch["sentence_weights"][5] = 0.0
    return jax.tree.map(jnp.asarray, masking.gather_targets(batch, 7) if gathered else batch)


@functools.partial(quick, static_argnums=(2, 3))
def run(weights, batch, config, capture=(), key=None):
    return bert.apply(weights, batch, config, capture=capture, key=key)


def gradient_of(objective, config):
    return quick(make_gradient(objective, bind(bert, config), full(), {}))


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **({"atol": 1e-6} | tolerance)), a, b)


def test_every_position_sees_every_other_and_none_the_padding():
    config, weights = make()
    batch = {"tokens": jnp.arange(8)[None] + 3, "mask": jnp.arange(8)[None] < 6}
    x = jax.random.normal(jax.random.key(1), (1, 8, 16))
    score = lambda x: jnp.square(bert.apply(weights, batch, config, embeddings=x).hidden[0] @ jnp.arange(1.0, 17.0))
    influence = quick(lambda x: jnp.abs(jax.jacobian(score)(x)[:, 0]).sum(-1))(x)
    assert jnp.all(influence[:, :6] > 0.0)
    assert jnp.all(influence[:6, 6:] == 0.0)


def test_padding_changes_nothing():
    """Neither more of it nor what stands in it: sums, weights, metrics and gradients stay."""
    config, weights = make()
    batch = make_batch()
    wide = dict(batch)
    for name in ("tokens", "mask", "token_types", "targets", "weights", "order_weights"):
        wide[name] = jnp.pad(batch[name], ((0, 0), (0, 4)))
    wide["tokens"] = jnp.where(wide["mask"], wide["tokens"], 17)
    gradient = gradient_of(structural, config)
    close(gradient(weights, {}, {}, batch, None), gradient(weights, {}, {}, wide, None), atol=1e-5, rtol=1e-5)


def test_packed_documents_do_not_see_each_other():
    config, weights = make()
    tokens, positions = jnp.arange(12)[None] + 3, jnp.array([[*range(5), *range(7)]])
    segments = jnp.array([[1] * 5 + [2] * 7])
    packed = run(weights, {"tokens": tokens, "segments": segments, "positions": positions}, config).hidden
    for part in (slice(0, 5), slice(5, 12)):
        close(packed[:, part], run(weights, {"tokens": tokens[:, part]}, config).hidden, atol=2e-5)


def test_rotary_positions_know_distances_alone():
    config, weights = make(position="rotary", layers=2)
    assert "position" not in weights
    batch = {"tokens": jax.random.randint(jax.random.key(1), (2, 9), 4, VOCABULARY)}
    moved = batch | {"positions": jnp.arange(9, dtype=jnp.int32)[None] + 5}
    stretched = batch | {"positions": 2 * jnp.arange(9, dtype=jnp.int32)[None]}
    here, there, apart = (run(weights, x, config).hidden for x in (batch, moved, stretched))
    close(here, there, atol=1e-5)
    assert float(jnp.abs(here - apart).max()) > 1e-2


def test_the_second_sentence_is_told_from_the_first():
    config, weights = make()
    batch = make_batch()
    without = {name: leaf for name, leaf in batch.items() if name != "token_types"}
    hidden = lambda batch: run(weights, batch, config).hidden
    close(hidden(without), hidden(batch | {"token_types": jnp.zeros_like(batch["tokens"])}))
    assert jnp.abs(hidden(without) - hidden(batch)).max() > 0.1


def test_what_is_to_be_predicted_does_not_reach_the_model():
    config, weights = make()
    batch = make_batch()
    answers = ("targets", "weights", "order_weights", "sentence_labels", "sentence_weights")
    hidden = run(weights, batch, config).hidden
    np.testing.assert_array_equal(run(weights, {n: batch[n] for n in batch if n not in answers}, config).hidden, hidden)
    unmasked = batch | {"tokens": jnp.asarray(masking.restore(jax.tree.map(np.asarray, batch)))}
    assert jnp.abs(run(weights, unmasked, config).hidden - hidden).max() > 0.1


def test_scan_and_remat_change_nothing():
    batch, results = make_batch(), []
    for settings in ({}, {"scan": True, "remat": True}):
        config, weights = make(layers=2, **settings)
        results.append(gradient_of(masked, config)(weights, {}, {}, batch, None))
    close(*results, atol=1e-4, rtol=1e-4)


def test_dropout_belongs_to_the_example():
    """The same noise in a part of the batch, and scanned or not."""
    config, weights = make(layers=2, dropout=0.4)
    scanned, _ = make(layers=2, dropout=0.4, scan=True)
    batch, key = make_batch(), jax.random.key(1)
    part = {name: leaf[5:] for name, leaf in batch.items()}
    hidden = run(weights, batch, config, (), key).hidden
    close(run(weights, part, scanned, (), key).hidden, hidden[5:], atol=1e-5)
    assert jnp.abs(run(weights, batch, config).hidden - hidden).max() > 0.1


def test_each_layer_drops_out_with_keys_of_its_own(monkeypatch):
    seen = []
    monkeypatch.setattr(bert, "block", lambda rows, x, config, scope, keys: (seen.append(keys), (x, {}))[1])
    config, weights = make(layers=3, dropout=0.4)
    bert.apply(weights, make_batch(), config, key=jax.random.key(1))
    assert len({tuple(row) for keys in seen for row in jax.random.key_data(keys).tolist()}) == 3 * ROWS


OBJECTIVES = {
    "masked_next_sentence": (masked_next_sentence, {"next_sentence": 0.7}),
    "structural": (structural, {"word_order": 0.5, "next_sentence": 2.0}),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_accumulation_equals_the_full_batch(name):
    objective, coefficients = OBJECTIVES[name]
    config, weights = make()
    batch, key = make_batch(), None
    gradient = make_gradient(objective, bind(bert, config), full(), coefficients)
    whole, sums = quick(gradient)(weights, {}, {}, batch, key)
    parts, added = quick(accumulate(gradient, 4))(weights, {}, {}, batch, key)
    close(whole, parts, atol=2e-6)
    close(sums._replace(extra=None), added._replace(extra=None), rtol=1e-5)
    for name in ("weights", "sentence_weights"):  # uneven over the parts: means of means would be wrong
        assert len(set(batch[name].reshape(4, -1).sum(1).tolist())) > 1


@pytest.mark.parametrize("name", OBJECTIVES)
def test_weights_of_the_objective_cost_nothing(name):
    config, weights = make()
    gradient = make_gradient(OBJECTIVES[name][0], bind(bert, config), full(), {})
    compiled = jax.jit(gradient.weights).lower(weights, {}, {}, make_batch(), jax.random.key(0)).compile()
    assert compiled.cost_analysis()["flops"] < 400  # sums of at most 264 weights


def test_sums_by_their_formulas():
    config, weights = make()
    batch, model = make_batch(), bind(bert, config)
    hidden = run(weights, batch, config).hidden
    found, *parts = quick(
        lambda: [f(model, weights, batch) for f in (structural, masked_next_sentence, masked, next_sentence)]
    )()

    def by_hand(scores, targets, weight):
        scores = np.asarray(scores, np.float64)
        losses = np.log(np.exp(scores).sum(-1)) - np.take_along_axis(scores, np.asarray(targets)[..., None], -1)[..., 0]
        return (losses * weight).sum(), weight.sum(), ((scores.argmax(-1) == targets) * weight).sum()

    tokens, rows = model.logits(weights, hidden), model.heads["next_sentence"](weights, hidden)
    expected = {
        "masked": by_hand(tokens, batch["targets"], batch["weights"]),
        "word_order": by_hand(tokens, batch["targets"], batch["order_weights"]),
        "next_sentence": by_hand(rows, batch["sentence_labels"], batch["sentence_weights"]),
    }
    for name, (loss, weight, correct) in expected.items():
        stem = "" if name == "masked" else f"{name}_"
        close((found.sums[name], found.weights[name]), (loss, weight), rtol=1e-5)
        close(found.metrics[f"{stem}nll"], (loss, weight), rtol=1e-5)
        close(found.metrics[f"{stem}accuracy"], (correct, weight))
    assert set(parts[0].sums) == set(parts[0].weights) == {"masked", "next_sentence"}
    for part in parts:
        close(part.sums, {name: found.sums[name] for name in part.sums})
        close(part.weights, {name: found.weights[name] for name in part.weights})
        close(part.metrics, {name: found.metrics[name] for name in part.metrics})
    with pytest.raises(ValueError, match="share the names"):
        join(found, parts[0])


def test_gathered_targets_give_the_same_sums_and_gradients():
    config, weights = make()
    gradient = gradient_of(structural, config)
    dense, short = (gradient(weights, {}, {}, make_batch(gathered=gathered), None) for gathered in (False, True))
    close(dense, short, atol=1e-5, rtol=1e-5)


def test_tasks_name_the_rows_of_the_table():
    rows = {task: {path.split("/")[0] for path in bert.param_specs(make(tasks=(task,))[0])} for task in ALL}
    body = {"embedding", "position", "token_type", "embedding_norm", "blocks"}
    heads = {task: found - body for task, found in rows.items()}
    assert heads == {
        "pool": {"pooler"}, "masked": {"masked"}, "next_sentence": {"pooler", "next_sentence"},
        "classify": {"pooler", "classify"}, "tag": {"tag"}, "span": {"span"},
    }  # fmt: skip
    config, weights = make(tasks=("tag",))
    hidden = bert.apply(weights, {"tokens": jnp.ones((1, 4), jnp.int32)}, config).hidden
    assert bind(bert, config).heads["tag"](weights, hidden).shape == (1, 4, 5)
    for head in (bert.logits, bind(bert, config).heads["classify"]):
        with pytest.raises(ValueError, match=r"no rows for the head .*name the task in model\.tasks"):
            head(weights, hidden)


def test_a_classifier_of_marks_reads_those_tokens_side_by_side_and_no_pooler():
    config, weights = make(tasks=("classify",), marks=2)
    assert weights["classify"]["kernel"].shape == (32, 5)
    assert "pooler" not in weights
    hidden, places = jax.random.normal(jax.random.key(0), (3, 6, 16)), jnp.array([[4, 1], [0, 5], [2, 2]])
    model = bind(bert, config)._replace(apply=lambda params, batch, key=None: Output(hidden, None, {}))
    batch = {"tokens": jnp.ones((3, 6), jnp.int32), "labels": jnp.zeros(3, jnp.int32), "target_positions": places}
    side = np.stack([np.concatenate([hidden[row, a], hidden[row, b]]) for row, (a, b) in enumerate(places.tolist())])
    by_hand = side @ np.asarray(weights["classify"]["kernel"]) + np.asarray(weights["classify"]["bias"])
    close(head_scores(model, weights, batch, None, "classify"), by_hand, atol=1e-5)


def test_classifiers_drop_out_by_example():
    config, weights = make(dropout=0.5)
    hidden = jax.random.normal(jax.random.key(0), (4, 6, 16))
    keys = dropout.example_keys(jax.random.key(1), jnp.arange(4))
    for name in ("classify", "tag"):
        head = quick(bind(bert, config).heads[name])
        dropped = head(weights, hidden, keys=keys)
        assert jnp.abs(dropped - head(weights, hidden)).max() > 0.01
        close(dropped[2:], head(weights, hidden[2:], keys=keys[2:]))


def test_capture_gives_weights_that_sum_to_one_and_changes_nothing():
    config, weights = make(layers=2)
    batch = make_batch()
    plain = run(weights, batch, config)
    found = run(weights, batch, config, ("attention", "hidden"))
    np.testing.assert_array_equal(plain.hidden, found.hidden)
    assert plain.captured == {}
    assert found.captured["attention"].shape == (2, ROWS, 2, LENGTH, LENGTH)
    close(found.captured["attention"].sum(-1), jnp.ones((2, ROWS, 2, LENGTH)), atol=1e-5)
    np.testing.assert_array_equal(found.captured["hidden"][-1], found.hidden)


def test_bfloat16_keeps_float32_parameters_and_gradients():
    config, weights = make(dtype="bfloat16")
    batch = make_batch()
    gradient = gradient_of(structural, config)(weights, {}, {}, batch, None)[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    hidden = run(weights, batch, config).hidden
    assert hidden.dtype == bert.logits(weights, hidden).dtype == jnp.bfloat16
    close(hidden.astype(jnp.float32), run(weights, batch, make()[0]).hidden, atol=0.15)


def test_what_is_impossible_is_refused():
    config, weights = make()
    for missing, objective in (("order_weights", structural), ("sentence_labels", masked_next_sentence)):
        batch = {name: leaf for name, leaf in make_batch().items() if name != missing}
        with pytest.raises(ValueError, match=r"needs a batch of data\.(masking|pairs)"):
            jax.eval_shape(lambda batch, f=objective: f(bind(bert, config), weights, batch), batch)
    long = {"tokens": jnp.zeros((1, LENGTH + 5), jnp.int32)}
    with pytest.raises(ValueError, match="21 tokens is longer than the context of 20"):
        bert.apply(weights, long, config)
    with pytest.raises(ValueError, match="longer than the context"):
        bert.apply(weights, long, config, embeddings=jnp.zeros((1, LENGTH + 5, 16)))
    with pytest.raises(ValueError, match="unknown capture"):
        bert.apply(weights, make_batch(), config, capture=("attn",))
    with pytest.raises(ValueError, match="carry must be None"):
        bert.apply(weights, make_batch(), config, carry={})
    settings = ({"heads": 3}, {"layers": 0}, {"relations": 0}, {"dropout": 1.0}, {"tasks": ("tag", "tag")},
                {"width": 6, "position": "rotary"})  # fmt: skip
    for wrong, message in zip(
        settings, ("heads must divide", "layers", "relations", "dropout", "twice", "even head size"), strict=True
    ):
        with pytest.raises(ValueError, match=message):
            bert.Config(vocabulary=9, **({"width": 8, "heads": 2} | wrong))
