"""Prompts and label words: equal to plain references, deterministic, and refused where they cannot be asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from minillm.data import prompts, rows
from minillm.data.rows import Frame
from minillm.errors import UserError
from minillm.evaluation import demonstrations
from minillm.evaluation.similarity import nearest
from minillm.inference import prompting
from minillm.models import bert, gpt, lstm
from minillm.models.contract import bind
from minillm.objectives.pattern import pattern, word_scores
from minillm.params import init_params

GPT = gpt.Config(40, 32, layers=1, width=16, heads=2, position="rotary")
LSTM = lstm.Config(40, layers=1, width=16)
BERT = bert.Config(40, 32, layers=1, width=16, heads=2, tasks=("masked",), dropout=0.0)
WORDS = ((5,), (6, 7), (8, 9, 10))
PROMPTS = [[2, 11, 12], [2, 13, 14, 15, 16, 17, 18], [2, 5]]


class Letters:
    """A tokenizer of single characters; "?" is unknown."""

    vocabulary, pad, unk, bos, eos = 40, 0, 1, 2, 3

    def encode(self, text):
        return [self.unk if letter == "?" else 4 + ord(letter) % 35 for letter in text]

    def encode_many(self, texts):
        return [self.encode(text) for text in texts]


def encoded(template="{text}:{label}.", words=("a", "b"), mask=None):
    return prompts.encode(prompts.parse(template), words, "|", Letters(), mask)


def weights(module, config):
    params = init_params(module.param_specs(config), jax.random.key(1))
    return jax.tree.map(lambda leaf: 3.0 * leaf, params)  # far from uniform


def whole_rows(module, config, params, prompts_, words):
    """Whole rows, no cache, the softmax over all of the vocabulary written out; what stands behind a row is not seen."""
    ids = [[*prompt, *word] for prompt in prompts_ for word in words]
    padded = np.array([[*row, *[0] * (12 - len(row))] for row in ids], np.int32)
    read = jax.jit(lambda tokens: module.logits(params, module.apply(params, {"tokens": tokens}, config).hidden))
    found = []
    for row, scores in zip(ids, np.asarray(read(padded), np.float64), strict=True):
        full = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        size = len(words[len(found) % len(words)])
        found.append(sum(full[place - 1, row[place]] for place in range(len(row) - size, len(row))))
    return np.array(found).reshape(len(prompts_), len(words))


@pytest.mark.parametrize(("module", "config"), [(gpt, GPT), (lstm, LSTM)], ids=["gpt", "lstm"])
def test_cached_scores_of_words_equal_whole_rows_without_a_cache(module, config):
    params = weights(module, config)
    expected = whole_rows(module, config, params, PROMPTS, WORDS)
    found = prompting.score_words(module, config, params, PROMPTS, WORDS)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    mean = prompting.score_words(module, config, params, PROMPTS, WORDS, mean=True)
    np.testing.assert_allclose(mean, expected / [1, 2, 3], rtol=1e-5, atol=1e-5)
    assert np.ptp(expected, axis=1).min() > 0.1


def test_scores_at_a_mask_equal_the_full_softmax_whatever_stands_beside_a_row():
    params, model = weights(bert, BERT), bind(bert, BERT)
    rows_, places = [[2, 11, 39, 3], [2, 12, 13, 14, 15, 39, 16, 3]], [2, 5]
    found = prompting.score_masks(model.apply, model.logits, params, rows_, places, [(5,), (7,)], pad=0, context=32)
    for row, place, scores in zip(rows_, places, found, strict=True):
        logits = np.asarray(bert.logits(params, bert.apply(params, {"tokens": jnp.array([row])}, BERT).hidden))[
            0, place
        ]
        full = logits - np.log(np.exp(logits.astype(np.float64)).sum())
        np.testing.assert_allclose(scores, full[[5, 7]], rtol=1e-5, atol=1e-5)


def test_prompts_longer_than_the_context_are_refused():
    with pytest.raises(UserError, match="do not fit into the context of 32"):
        prompting.score_words(gpt, GPT, weights(gpt, GPT), [[2] * 31], WORDS)


def test_calibration_makes_content_free_prompts_uniform_and_keeps_what_exceeds_them():
    generator = np.random.default_rng(0)
    scores, empty = generator.normal(size=(5, 3)), generator.normal(size=(1, 3))
    np.testing.assert_allclose(prompting.calibrate(empty, empty), np.full((1, 3), 1 / 3))
    found = prompting.calibrate(scores, empty)
    by_hand = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    by_hand = by_hand / (np.exp(empty) / np.exp(empty).sum())
    np.testing.assert_allclose(found, by_hand / by_hand.sum(1, keepdims=True), rtol=1e-12)
    several = prompting.calibrate(scores, np.repeat(empty[None], 5, axis=0))  # one content-free text for each prompt
    np.testing.assert_allclose(several, found)


def test_demonstrations_are_drawn_by_seed_and_found_by_likeness():
    assert np.array_equal(demonstrations.draw(50, 4, 7), demonstrations.draw(50, 8, 7)[:4])
    assert not np.array_equal(demonstrations.draw(50, 4, 7), demonstrations.draw(50, 4, 8))
    assert len(set(demonstrations.draw(50, 50, 7))) == 50
    known, asked = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    for form in (np.asarray, sparse.csr_matrix):
        assert nearest(form(known), form(asked), 3).tolist() == [[0, 3, 1], [2, 1, 0]]  # ties go to the first
        assert nearest(form(known), form(asked)).tolist() == [[0], [2]]
    texts = ["the room was cold", "a fine book of maps", "cold soup and cold rice"]
    assert demonstrations.nearest_texts(texts, ["maps in a book", "a cold room"], 1).tolist() == [[1], [0]]
    with pytest.raises(UserError, match="4 demonstrations are wanted, and there are 3 labelled examples"):
        demonstrations.nearest_texts(texts, ["x"], 4)


def test_templates_are_read_as_written():
    assert prompts.parse("{text} It was {label}.") == prompts.Template(("", " It was", "."), ("text", "label"), True)
    assert prompts.parse("{{x}} {text}：") == prompts.Template(("{x} ", "：", ""), ("text", "label"), False)
    assert prompts.parse("{label}: {text}").slots == ("label", "text")
    for wrong in ("no slot", "{label}", "{text} {text}", "{text} {other}", "{text!r}", "{text:3}", "{text"):
        with pytest.raises(ValueError, match="template"):
            prompts.parse(wrong)


def test_questions_and_demonstrations_by_hand():
    left, both = encoded(), encoded(mask=39)
    letters = Letters().encode
    text, shown = letters("xy"), [(letters("uvw"), 1)]
    assert prompts.question(left, text) == (letters("xy:"), 2)
    assert prompts.question(both, text) == ([*letters("xy:"), 39, *letters(".")], 3)
    ids, place, cut = prompts.prompt(left, shown, text, 32)
    assert ids == [2, *letters("uvw:"), *left.words[1], *letters(".|xy:")]
    assert (place, cut) == (len(ids) - 1, False)
    ids, place, cut = prompts.prompt(both, shown, text, 32)
    assert ids == [2, *letters("uvw:"), *both.words[1], *letters(".|xy:"), 39, *letters("."), 3]
    assert ids[place] == 39
    first = encoded("{label}? {text}!", ("a", "b"), 39)
    ids, place, _ = prompts.prompt(first, [], text, 32)
    assert (ids[place], place) == (39, 1)


def test_long_texts_share_the_row_and_short_rows_are_refused():
    pattern = encoded()
    most = prompts.room(pattern, 2, 32)
    long = [20] * 50
    ids, _, cut = prompts.prompt(pattern, [(long, 0), (long, 1)], long, 32)
    assert cut
    assert 32 - 3 < len(ids) <= 32
    assert ids.count(20) == 3 * most
    with pytest.raises(UserError, match="4 demonstrations and a question leave 2 tokens to each text in rows of 32"):
        prompts.prompt(pattern, [(long, 0)] * 4, long, 32)


def test_words_that_cannot_be_told_or_said_are_refused():
    cases = [
        ({"words": ("a", "?")}, "does not know the word '\\?'"),
        ({"words": ("ab", "c"), "mask": 39}, "the word 'ab' is 2 tokens, and there is one place to fill"),
        ({"words": ("a", "a")}, "are the same tokens"),
        ({"template": "{label} {text}"}, "has not read {text} where {label} stands before it"),
    ]
    for settings, message in cases:
        with pytest.raises(UserError, match=message):
            encoded(**settings)
    assert encoded(words=("ab", "c")).words == (tuple(Letters().encode("ab")), tuple(Letters().encode("c")))


def batch_of(pattern_, texts, length=12):
    found = [prompts.prompt(pattern_, [], text, length) for text in texts]
    ids, places, cut = zip(*found, strict=True)
    words = prompts.single_tokens(pattern_.words, ("a", "b"))
    made = rows.pattern_rows(ids, places, cut, np.array([0, 1], np.int32), words, length, Frame(2, 3, 0))
    made = rows.to_the_right(made) if pattern_.mask is None else made
    return next(rows.row_evaluation_batches(made, 2))


@pytest.mark.parametrize(("module", "config", "mask"), [(gpt, GPT, None), (bert, BERT, 39)], ids=["causal", "masked"])
def test_the_objective_s_scores_are_the_untrained_answers_and_its_loss_their_cross_entropy(module, config, mask):
    params, model, texts = weights(module, config), bind(module, config), [[11, 12, 13], [14, 15, 16, 17, 18]]
    pattern_ = encoded(mask=mask)
    batch = batch_of(pattern_, texts)
    asked = [prompts.prompt(pattern_, [], text, 12) for text in texts]
    ids, places = [row for row, _, _ in asked], [place for _, place, _ in asked]
    if mask is None:
        scores = prompting.score_words(module, config, params, ids, pattern_.words)
    else:
        scores = prompting.score_masks(
            model.apply, model.logits, params, ids, places, pattern_.words, pad=0, context=32
        )
    answers = prompting.answers(scores)
    found, sums = jax.jit(lambda batch: (word_scores(model, params, batch), pattern(model, params, batch)))(batch)
    np.testing.assert_allclose(prompting.answers(np.asarray(found, np.float64)), answers, atol=1e-5)
    assert float(sums.sums["loss"]) == pytest.approx(-np.log(answers[[0, 1], [0, 1]]).sum(), rel=1e-4)
    assert float(sums.weights["loss"]) == 2.0
    with pytest.raises(ValueError, match="a pattern needs a batch"):
        pattern(model, params, {"tokens": batch["tokens"]})
