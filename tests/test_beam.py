"""Beam search: exhaustive where the beam holds everything, greedy with one beam, and the same over any carry."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm import params
from minillm.errors import UserError
from minillm.inference.beam import Beam, beam_search
from minillm.inference.generate import Sampling, generate
from minillm.models import gpt, t5

STOP = 1
LENGTH = 3
PROMPTS = [[0], [3, 2]]
SOURCES = [[2, 3, 3], [4, 2, 3, 2, 4]]


@functools.cache
def make(module, vocabulary=5, seed=0):
    config = module.Config(vocabulary=vocabulary, context=32, layers=1, width=8, heads=2)
    weights = params.init_params(module.param_specs(config), jax.random.key(seed))
    if module is gpt:
        weights = jax.tree.map(lambda leaf: leaf * 8.0, weights)
    return config, weights


@functools.cache
def every_text(module, seed, prompt, source):
    """log p of each step of all 5^3 texts after the prompt, without a cache."""
    config, weights = make(module, seed=seed)
    texts = list(itertools.product(range(config.vocabulary), repeat=LENGTH))
    ids = jnp.array([[*prompt, *text] for text in texts])
    batch = {"tokens": ids[:, :-1]} | ({} if source is None else {"source": jnp.array([source] * len(texts))})

    @jax.jit
    def score(weights, batch):
        logits = module.logits(weights, module.apply(weights, batch, config).hidden)
        return jnp.take_along_axis(jax.nn.log_softmax(logits), ids[:, 1:, None], -1)[..., 0]

    return texts, np.asarray(score(weights, batch)[:, len(prompt) - 1 :], np.float64)


def exhaustive(module, seed, prompt, source, alpha):
    """{text without the stop token: score} of every text that ends with it or has full length."""
    found = {}
    for text, steps in zip(*every_text(module, seed, tuple(prompt), source and tuple(source)), strict=True):
        size = text.index(STOP) + 1 if STOP in text else LENGTH
        found[text[: size - 1] if STOP in text else text] = steps[:size].sum() / ((5 + size) / 6) ** alpha
    return found


def search(module, seed, beams, alpha):
    config, weights = make(module, seed=seed)
    sources = None if module is gpt else SOURCES
    found = beam_search(module, config, weights, PROMPTS, LENGTH, Beam(beams, alpha, STOP), sources=sources)
    truth = [exhaustive(module, seed, p, s, alpha) for p, s in zip(PROMPTS, sources or (None, None), strict=True)]
    return found, truth


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("module", [gpt, t5], ids=["gpt", "t5"])
def test_a_beam_that_holds_everything_is_exhaustive(module, alpha):
    for row, truth in zip(*search(module, 0, 40, alpha), strict=True):
        expected = sorted(truth.items(), key=lambda pair: -pair[1])[:20]
        assert [h.tokens for h in row[:20]] == [list(text) for text, _ in expected]
        np.testing.assert_allclose([h.score for h in row[:20]], [score for _, score in expected], atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_a_narrow_beam_scores_its_texts_rightly_and_finds_none_better_than_the_best(seed):
    for row, truth in zip(*search(t5, seed, 2, 0.6), strict=True):
        scores = [h.score for h in row]
        assert len(scores) == 2
        assert scores == sorted(scores, reverse=True)
        np.testing.assert_allclose(scores, [truth[tuple(h.tokens)] for h in row], atol=1e-5)
        assert scores[0] <= max(truth.values()) + 1e-5


@pytest.mark.parametrize("seed", range(6))
def test_one_beam_is_greedy(seed):
    config, weights = make(t5, seed=seed)
    found, _ = search(t5, seed, 1, 0.0)
    greedy = generate(t5, config, weights, PROMPTS, LENGTH, key=jax.random.key(0), sampling=Sampling(0.0), stop=(STOP,),
                      sources=SOURCES)  # fmt: skip
    assert [row[0].tokens for row in found] == greedy


def test_a_large_alpha_prefers_longer_texts():
    length = lambda alpha: [len(row[0].tokens) for row in search(gpt, 3, 40, alpha)[0]]
    assert length(100.0) == [LENGTH, LENGTH]
    assert min(length(0.0)) < LENGTH


def test_what_does_not_fit_is_refused():
    config, weights = make(t5)
    with pytest.raises(ValueError, match="beams"):
        beam_search(t5, config, weights, [[0]], 3, Beam(beams=0), sources=SOURCES[:1])
    with pytest.raises(ValueError, match="alpha"):
        beam_search(t5, config, weights, [[0]], 3, Beam(alpha=-1.0), sources=SOURCES[:1])
    with pytest.raises(UserError, match="sources"):
        beam_search(t5, config, weights, [[0]], 3, sources=SOURCES)
    with pytest.raises(UserError, match="context"):
        generate(t5, config, weights, [[0]], 32, key=jax.random.key(0), sources=SOURCES[:1])
