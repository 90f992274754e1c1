"""Sentence embeddings: the masked mean by hand, and nothing but the text decides them."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.inference import sentence
from minillm.models import bert
from minillm.models.contract import bind

CONFIG = bert.Config(vocabulary=30, context=24, layers=1, width=8, heads=2, tasks=())
ENCODE = bind(bert, CONFIG).apply


class Letters(NamedTuple):
    """A letter a token."""

    pad: int = 0
    bos: int = 1
    eos: int = 2

    def encode_many(self, texts):
        return [[3 + ord(c) - ord("a") for c in text] for text in texts]


@pytest.fixture(scope="module")
def weights():
    generator = np.random.default_rng(0)
    specs = bert.param_specs(CONFIG).items()
    return params.unflatten({path: jnp.asarray(generator.normal(size=s.shape), jnp.float32) for path, s in specs})


def embed(weights, texts, **options):
    return sentence.embed_texts(ENCODE, weights, Letters(), texts, **{"context": 24, "batch_size": 4} | options)


def test_the_mean_by_hand():
    hidden = jnp.array([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]], [[5.0, 5.0], [1.0, 1.0], [1.0, 1.0]]])
    mask = jnp.array([[True, True, False], [False, False, False]])
    np.testing.assert_array_equal(sentence.mean_pool(hidden, mask, unit=False), [[2.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(sentence.mean_pool(hidden, mask)[0], np.array([2.0, 4.0]) / 20**0.5, rtol=1e-6)
    assert not np.isnan(sentence.mean_pool(hidden, mask)).any()


def test_neighbours_padding_and_order_change_nothing(weights):
    texts = ["abc", "z", "hello", "abcdefghijklmnopqrst", "", "abc"]
    together = embed(weights, texts)
    assert together.shape == (6, 8)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, rtol=1e-6)
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_allclose(embed(weights, [text], batch_size=1)[0], row, atol=1e-6)
    np.testing.assert_allclose(embed(weights, texts[::-1]), together[::-1], atol=1e-6)
    np.testing.assert_array_equal(together[0], together[5])
    assert abs(together[0] - together[2]).max() > 1e-3
    plain = embed(weights, texts, unit=False)
    np.testing.assert_allclose(plain / np.linalg.norm(plain, axis=1, keepdims=True), together, atol=1e-6)


def test_long_texts_are_cut_to_the_context(weights):
    long, cut = "abcdefgh" * 9, ("abcdefgh" * 9)[:22]
    np.testing.assert_array_equal(embed(weights, [long]), embed(weights, [cut]))
    assert embed(weights, []).shape == (0, 0)
