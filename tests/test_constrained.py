"""Constrained decoding: exact over all texts, exactly the signs that are asked for, and nothing changed where none are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_beam import LENGTH, PROMPTS, SOURCES, STOP, exhaustive, make

from minillm.inference import beam
from minillm.inference.beam import Beam, beam_search
from minillm.inference.constrained import Owed, allowed, make_owed, pay
from minillm.inference.generate import Sampling, generate
from minillm.models import gpt, t5

SIGNS, ROOM, ROWS = (2, 5, 6), 6, 16


@pytest.mark.parametrize("counts", [[[1, 0], [0, 1]], [[0, 0], [0, 2]], [[1, 1], [2, 1]]])
def test_a_beam_that_holds_everything_finds_the_best_of_the_texts_that_are_right(counts):
    signs = (4, 0)
    config, weights = make(t5)
    owed = make_owed(signs, counts)
    found = beam_search(t5, config, weights, PROMPTS, LENGTH, Beam(40, 0.6, STOP), sources=SOURCES, owed=owed)
    for row, prompt, source, wanted in zip(found, PROMPTS, SOURCES, counts, strict=True):
        truth = exhaustive(t5, 0, prompt, source, 0.6)
        right = {text: score for text, score in truth.items() if [text.count(sign) for sign in signs] == wanted}
        expected = sorted(right.items(), key=lambda pair: -pair[1])[:20]
        assert [h.tokens for h in row[:20]] == [list(text) for text, _ in expected]
        np.testing.assert_allclose([h.score for h in row[:20]], [score for _, score in expected], atol=1e-5)


@pytest.fixture(scope="module")
def random_model():
    config, weights = make(gpt, vocabulary=9, seed=1)
    draw = np.random.default_rng(0)
    prompts = draw.integers(7, 9, (ROWS, 3)).tolist()
    return config, weights, prompts


@pytest.mark.parametrize("seed", range(4))
def test_every_text_has_exactly_its_signs(random_model, seed):
    config, weights, prompts = random_model
    draw = np.random.default_rng(seed)
    counts = np.stack([draw.multinomial(draw.integers(0, ROOM + 1), np.ones(3) / 3) for _ in range(ROWS)])
    counts[0] = (0, 0, ROOM)  # the room only just suffices
    owed = make_owed(SIGNS, counts)
    search = lambda owed: beam_search(gpt, config, weights, prompts, ROOM, Beam(3, 0.6, STOP), owed=owed)
    search(make_owed(SIGNS, np.zeros_like(counts)))
    before = beam._beam_search._cache_size()
    texts = [(place, h.tokens) for place, row in enumerate(search(owed)) for h in row]
    assert before == beam._beam_search._cache_size()  # whatever is asked for
    for temperature in (0.0, 1.0, 5.0):
        how = {"key": jax.random.key(seed), "sampling": Sampling(temperature), "stop": (STOP,)}
        texts += enumerate(generate(gpt, config, weights, prompts, ROOM, **how, owed=owed))
    assert len(texts) > 4 * ROWS
    for place, text in texts:
        assert [text.count(sign) for sign in SIGNS] == counts[place].tolist()


@pytest.mark.slow
def test_without_signs_nothing_changes(random_model):
    config, weights, prompts = random_model
    none = make_owed((), [()] * ROWS)
    search = lambda **more: beam_search(gpt, config, weights, prompts, ROOM, Beam(3, 0.6, STOP), **more)
    assert search(owed=none) == search()
    how = {"key": jax.random.key(0), "sampling": Sampling(0.0), "stop": (STOP,)}
    plain = generate(gpt, config, weights, prompts, ROOM, **how)
    owed = make_owed(SIGNS, [[row.count(sign) for sign in SIGNS] for row in plain])
    # greedy text that has its signs as the model likes them is what the model likes
    assert generate(gpt, config, weights, prompts, ROOM, **how, owed=owed) == plain


def test_the_rule_at_one_place():
    owed = Owed(jnp.array([2, 3]), jnp.array([[1, 0], [0, 0], [2, 1]]))
    say = lambda room: allowed(owed, 6, jnp.array([STOP]), jnp.array(room)).astype(int).tolist()
    assert say(2) == [[1, 0, 1, 0, 1, 1], [1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 0, 0]]
    assert say(1)[0] == [0, 0, 1, 0, 0, 0]
    assert say(4)[2] == [1, 0, 1, 1, 1, 1]
    assert pay(owed, jnp.array([2, 4, 3])).left.tolist() == [[0, 0], [0, 0], [2, 0]]


def test_where_the_room_is_too_small_only_signs_are_written(random_model):
    config, weights, prompts = random_model
    owed = make_owed(SIGNS, [(4, 3, 2)] * ROWS)
    for row in beam_search(gpt, config, weights, prompts, ROOM, Beam(3, 0.6, STOP), owed=owed):
        for hypothesis in row:
            assert len(hypothesis.tokens) == ROOM
            assert set(hypothesis.tokens) <= set(SIGNS)
