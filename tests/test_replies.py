"""Replies and handing over: metrics by hand, likelihoods equal to whole rows, sources as they are said to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm.data import conversations, corpora
from minillm.errors import UserError
from minillm.evaluation import coverage, replies
from minillm.experiment.ask.predict import hand_over
from minillm.inference.prompting import score_rows
from minillm.models import gpt
from minillm.models.contract import bind
from minillm.params import init_params


def test_distinct_n_by_hand():
    texts = ["a b a", "a b"]  # 1-grams a b a a b, 2-grams ab ba ab
    assert replies.distinct(texts, 1) == pytest.approx(2 / 5)
    assert replies.distinct(texts, 2) == pytest.approx(2 / 3)
    assert replies.distinct(["好的 好"], 1) == pytest.approx(2 / 3)  # characters
    assert replies.distinct(["a"], 2) == 0.0


def test_recall_at_k_by_hand_and_equal_scores_win_nothing():
    scores = np.array([[3.0, 1.0, 2.0], [1.0, 3.0, 2.0], [2.0, 3.0, 1.0], [1.0, 1.0, 1.0]])
    assert [replies.recall_at(scores, k) for k in (1, 2, 3)] == [0.25, 0.5, 1.0]


def test_candidates_are_the_reply_and_different_others_drawn_by_seed():
    others = [f"reply {number}" for number in range(20)] + ["reply 0"]
    found = replies.draw_candidates(["reply 3", "another"], others, 10, 5)
    assert [row[0] for row in found] == ["reply 3", "another"]
    assert all(len(set(row)) == 10 for row in found)
    assert found == replies.draw_candidates(["reply 3", "another"], others, 10, 5)
    assert found != replies.draw_candidates(["reply 3", "another"], others, 10, 6)


def test_tfidf_prefers_the_reply_that_shares_words():
    known = ["do you like cats", "yes cats are nice", "what is rain", "rain is water"]
    scores = replies.tfidf_scores(known, ["is rain wet"], [["rain is water", "yes cats are nice"]])
    assert scores.shape == (1, 2)
    assert scores[0, 0] > scores[0, 1]


def test_accuracy_against_coverage_by_hand():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array(
        [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]]
    )  # sure of .9 .6 .8 .7; the second is wrong
    rows = coverage.accuracy_at(labels, probabilities, (1.0, 0.75, 0.25))
    assert [row["accuracy"] for row in rows] == [0.75, 1.0, 1.0]
    assert [row["coverage"] for row in rows] == [1.0, 0.75, 0.25]
    assert [row["threshold"] for row in rows] == [0.6, 0.7, 0.9]
    equal = np.full((4, 2), 0.5)
    assert coverage.accuracy_at(labels, equal, (0.25,))[0] == {"coverage": 1.0, "threshold": 0.5, "accuracy": 0.5}


def test_what_is_unsure_is_handed_over():
    rows = [
        {"label": "a", "probabilities": {"a": 0.9, "b": 0.1}},
        {"label": "b", "probabilities": {"a": 0.4, "b": 0.6}},
    ]
    assert [row["label"] for row in hand_over(rows, 0.8)] == ["a", None]
    assert hand_over(rows, 0.0) == rows
    with pytest.raises(UserError, match="no single class"):
        hand_over([{"value": 1.0}], 0.5)


def test_the_likelihood_of_a_reply_equals_the_sum_over_a_whole_row():
    config = gpt.Config(40, 32, layers=1, width=16, heads=2, position="rotary")
    params = jax.tree.map(lambda leaf: 3.0 * leaf, init_params(gpt.param_specs(config), jax.random.key(1)))
    model = bind(gpt, config)
    rows, starts = [[2, 5, 6, 7, 8, 3], [2, 9, 10, 11, 3], [2, 5, 3]], [3, 1, 2]
    found = score_rows(model.apply, model.logits, params, rows, starts, pad=0, context=32)
    read = jax.jit(
        lambda tokens: jax.nn.log_softmax(model.logits(params, model.apply(params, {"tokens": tokens}).hidden))
    )
    for row, start, score in zip(rows, starts, found, strict=True):
        whole = np.asarray(read(jnp.array([row + [0] * (6 - len(row))])))[0]
        assert score == pytest.approx(sum(whole[i - 1, row[i]] for i in range(start, len(row))), rel=1e-5)


def test_conversations_become_turns_with_replies_and_questions_with_topics(monkeypatch):
    many = "".join(f"- - question {number}\n  - answer {number}\n" for number in range(20))
    files = {
        "ai": "conversations:\n- - What  is\n    AI?\n  - A branch\n  - Oh\n- - what is ai?\n  - 12\n",
        "movies": "conversations:\n" + many,
        "conversations": "conversations:\n" + many,
    }
    names = {f"chatterbot_corpus/data/english/{name}.yml": text.encode() for name, text in files.items()}
    read = lambda source, wanted: [(name, data) for name, data in names.items() if wanted(name)]
    monkeypatch.setattr(conversations, "read_files", read)
    pairs = dict(conversations.turn_pairs("en"))
    assert pairs["ai:0.0"] == "What is AI?\nA branch"
    assert pairs["ai:0.1"] == "A branch\nOh"
    assert pairs["ai:1.0"] == "what is ai?\n12"
    assert {name.partition(":")[0] for name, _ in conversations.intents("en")} == {
        "movies"
    }  # the others are too few, or no topic
    text = "ham\tSee &lt;#&gt;\nspam\tWIN a prize\n\n"
    monkeypatch.setattr(conversations, "read_files", lambda *_: [("spam_collection.csv", text.encode())])
    found = corpora.read("sms-spam")
    assert [(document.label, document.text) for document in found] == [("ham", "See <#>"), ("spam", "WIN a prize")]
