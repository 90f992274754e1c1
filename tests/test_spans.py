"""Span corruption: counts, exact inverse, purity, and what is learned from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.data.spans import Spans, corrupt_spans, is_sentinel, restore_spans, span_counts, span_lengths
from minillm.models import t5
from minillm.models.contract import bind
from minillm.objectives.span import span

SPANS = Spans(sentinel=199, end=1, sentinels=100)


def text(rows=64, length=128, seed=0):
    return np.random.default_rng(seed).integers(1, 100, size=(rows, length)).astype(np.int32)  # ends (1) occur in it


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 20, 128, 512])
@pytest.mark.parametrize(("density", "mean_length"), [(0.15, 3.0), (0.5, 1.0), (0.9, 10.0)])
def test_the_original_comes_back_from_source_and_targets(length, density, mean_length):
    spans = Spans(sentinel=699, end=1, sentinels=600, density=density, mean_length=mean_length)
    tokens = text(8, length)
    batch = corrupt_spans({"tokens": tokens}, 3, 5, spans)
    assert (batch["source"].shape[1], batch["targets"].shape[1]) == span_lengths(length, spans)
    assert batch["source_mask"].all()
    assert batch["weights"].all()
    np.testing.assert_array_equal(np.array(restore_spans(batch, spans)).reshape(8, length), tokens)


def test_padded_rows_come_back_too_and_padding_has_no_weight():
    tokens, lengths = text(6, 40), [40, 39, 17, 2, 1, 0]
    batch = corrupt_spans({"tokens": tokens, "lengths": lengths}, 0, 0, SPANS)
    for row, (length, back) in enumerate(zip(lengths, restore_spans(batch, SPANS), strict=True)):
        np.testing.assert_array_equal(back, tokens[row, :length])
        cut, count = span_counts(length, SPANS)
        assert batch["source_mask"][row].sum() == length - cut + count + 1
        assert batch["weights"][row].sum() == cut + count + 1
        assert batch["removed"][row].sum() == cut
        assert not batch["source"][row][~batch["source_mask"][row]].any()
        assert not batch["targets"][row][batch["weights"][row] == 0].any()


def test_counts_and_order_of_the_sentinels():
    tokens = text()
    batch = corrupt_spans({"tokens": tokens}, 0, 0, SPANS)
    assert span_counts(128, SPANS) == (19, 6)  # 0.15 * 128 = 19.2, 19 / 3 = 6.3
    assert span_counts(512, SPANS) == (77, 26)
    expected = 199 - np.arange(6)
    for row in range(64):
        for name in ("source", "targets"):
            np.testing.assert_array_equal(batch[name][row][is_sentinel(batch[name][row], SPANS)], expected)
    assert np.all(batch["targets"][:, 0] == 199)
    assert np.all(batch["targets"][:, -1] == 1)
    assert np.all(batch["source"][:, -1] == 1)
    np.testing.assert_array_equal(batch["tokens"][:, 1:], batch["targets"][:, :-1])
    assert np.all(batch["tokens"][:, 0] == 0)
    assert np.all(batch["removed"].sum(1) == 19)
    assert np.all(batch["removed"][is_sentinel(batch["targets"], SPANS)] == 0)


def test_spans_are_uniform_divisions():
    tokens = np.tile(np.arange(2, 22, dtype=np.int32), (4000, 1))
    spans = Spans(sentinel=199, end=1, density=0.3, mean_length=3.0)  # 6 tokens in 2 spans, 14 kept in 2 pieces
    batch = corrupt_spans({"tokens": tokens}, 1, 0, spans)
    second = (batch["targets"] == 198).argmax(1)
    sizes = np.bincount(second - 1, minlength=6)[1:6]
    assert np.all(np.abs(sizes - 800) < 4 * np.sqrt(4000 * 0.2 * 0.8))  # the first span has 1 ... 5 tokens, each 1/5
    kept = np.bincount((batch["source"] == 199).argmax(1), minlength=14)[1:14]
    assert np.all(np.abs(kept - 4000 / 13) < 4.5 * np.sqrt(4000 / 13))
    assert abs(np.mean(second - 1) - 3.0) < 0.1


def test_a_batch_is_a_function_of_seed_and_step():
    batch = {"tokens": text(4, 64)}
    same = corrupt_spans(batch, 7, 2, SPANS)
    for name, leaf in corrupt_spans(batch, 7, 2, SPANS).items():
        np.testing.assert_array_equal(leaf, same[name])
        assert leaf.dtype in (np.int32, np.float32, bool)
    for seed, step in ((8, 2), (7, 3)):
        assert not np.array_equal(corrupt_spans(batch, seed, step, SPANS)["source"], same["source"])


def test_what_cannot_be_told_apart_is_refused():
    with pytest.raises(ValueError, match="ids of sentinels: 100"):
        corrupt_spans({"tokens": np.full((1, 20), 100)}, 0, 0, SPANS)
    with pytest.raises(ValueError, match="need 26 sentinels, there are 10"):
        corrupt_spans({"tokens": text(1, 512)}, 0, 0, Spans(sentinel=199, end=1, sentinels=10))
    with pytest.raises(ValueError, match="packed"):
        corrupt_spans({"tokens": text(1, 20), "segments": text(1, 20)}, 0, 0, SPANS)
    with pytest.raises(ValueError, match="must not be sentinels"):
        Spans(sentinel=199, end=150)
    with pytest.raises(ValueError, match="do not fit"):
        Spans(sentinel=50, end=1, sentinels=100)
    with pytest.raises(ValueError, match="density"):
        Spans(sentinel=199, end=1, density=0.0)


def test_recovered_counts_what_was_cut_out():
    config = t5.Config(vocabulary=200, context=64, layers=1, width=8, heads=2, hidden=8)
    weights = params.init_params(t5.param_specs(config), jax.random.key(0))
    batch = {name: jnp.array(leaf) for name, leaf in corrupt_spans({"tokens": text(4, 32)}, 0, 0, SPANS).items()}
    model = bind(t5, config)
    logits = jax.jit(lambda w: model.logits(w, model.apply(w, batch).hidden))(weights)
    batch["targets"] = logits.argmax(-1).at[0, 1].add(1)  # also the sentinels are right, which does not count
    found = jax.jit(lambda w: span(model, w, batch))(weights)
    assert tuple(map(float, found.metrics["recovered"])) == (4 * 5 - 1, 4 * 5)
    assert found.weights["loss"] == batch["weights"].sum()
    with pytest.raises(ValueError, match="corrupt_spans"):
        span(model, weights, {"tokens": batch["tokens"]})
