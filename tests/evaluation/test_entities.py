"""Entities of BIO tags: by hand, and equal to seqeval on random, often malformed, tags."""

import numpy as np
import pytest

from minillm.errors import UserError
from minillm.evaluation.entities import count_entities, describe_types, entity_scores, find_entities, type_f1
from minillm.evaluation.intervals import bootstrap

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-made-up", "I-made-up")


def random_tags(seed: int, sentences: int = 30) -> tuple[list[list[str]], list[list[str]]]:
    """True tags, and predicted ones that share most of them; any tag may follow any other."""
    random = np.random.default_rng(seed)
    actual = [[TAGS[i] for i in random.integers(0, len(TAGS), random.integers(0, 12))] for _ in range(sentences)]
    noise = lambda tag: TAGS[random.integers(0, len(TAGS))] if random.random() < 0.2 else tag
    return actual, [[noise(tag) for tag in row] for row in actual]


def test_entities_by_hand():
    assert find_entities(["B-PER", "I-PER", "O", "B-LOC", "B-LOC"]) == [("PER", 0, 1), ("LOC", 3, 3), ("LOC", 4, 4)]
    assert find_entities(["I-PER", "I-PER", "I-LOC", "O", "I-LOC"]) == [("PER", 0, 1), ("LOC", 2, 2), ("LOC", 4, 4)]
    assert find_entities(["B-PER", "I-LOC", "I-LOC", "B-LOC", "I-LOC"]) == [("PER", 0, 0), ("LOC", 1, 2), ("LOC", 3, 4)]
    assert find_entities([]) == find_entities(["O"]) == []


def test_scores_by_hand():
    """Three true entities, three predicted: one right, one too long, one of another type."""
    actual = [["B-PER", "I-PER", "O", "B-LOC", "O"], ["B-LOC"]]
    predicted = [["B-PER", "I-PER", "O", "B-LOC", "I-LOC"], ["B-ORG"]]
    found = entity_scores(count_entities(actual, predicted))
    assert found["micro_f1"] == pytest.approx(1 / 3)
    assert found["macro_f1"] == pytest.approx((1 + 0 + 0) / 3)
    assert found["undefined"] == 1  # recall of ORG, of which there is none
    rows = describe_types(count_entities(actual, predicted))
    assert rows[0] == {"class": "LOC", "precision": 0.0, "recall": 0.0, "f1": 0.0, "actual": 2, "predicted": 1}
    assert [row["class"] for row in rows] == ["LOC", "ORG", "PER"]


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(20))
def test_equals_seqeval(seed):
    from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support

    actual, predicted = random_tags(seed)
    for tags in actual:
        assert find_entities(tags) == get_entities(tags)
    counted = count_entities(actual, predicted)
    found = entity_scores(counted)
    for average in ("micro", "macro"):
        expected = precision_recall_fscore_support(actual, predicted, average=average, zero_division=0)[:3]
        names = [f"{average}_{name}" for name in ("precision", "recall", "f1")]
        np.testing.assert_allclose([found[name] for name in names], expected, rtol=1e-12)
    columns = precision_recall_fscore_support(actual, predicted, average=None, zero_division=0)
    rows = describe_types(counted)
    for name, column in zip(("precision", "recall", "f1", "actual"), columns, strict=True):
        np.testing.assert_allclose([row[name] for row in rows], column, rtol=1e-12)


def test_perfect_tags_are_perfect_and_a_bootstrap_draws_sentences():
    actual, predicted = random_tags(1)
    counted = count_entities(actual, actual)
    assert entity_scores(counted)["micro_f1"] == entity_scores(counted)["macro_f1"] == 1.0
    counted = count_entities(actual, predicted)
    found = bootstrap(lambda weights: entity_scores(counted, weights) | type_f1(counted, weights), len(actual))
    assert found["micro_f1"]["low"] < found["micro_f1"]["value"] < found["micro_f1"]["high"]
    assert {"PER", "LOC", "made-up"} <= set(found)
    twice = entity_scores(count_entities(actual[:3] * 2, predicted[:3] * 2))
    weights = np.array([2.0] * 3 + [0.0] * (len(actual) - 3))
    assert twice["micro_f1"] == pytest.approx(entity_scores(counted, weights)["micro_f1"])


def test_without_entities_everything_is_undefined():
    found = entity_scores(count_entities([["O", "O"]], [["O", "O"]]), np.ones((4, 1)))
    assert found["micro_f1"].tolist() == [0.0] * 4
    assert found["undefined"].tolist() == [3.0] * 4


def test_mistakes_are_named():
    for tag in ("PER", "B", "B-", "E-PER", "", "o"):
        with pytest.raises(UserError, match=r"unit 1: '.*' is no tag"):
            find_entities(["O", tag])
    with pytest.raises(UserError, match="sentence 1: 2 true and 1 predicted"):
        count_entities([["O"], ["O", "O"]], [["O"], ["O"]])
    with pytest.raises(UserError, match="2 sentences with true tags and 1"):
        count_entities([["O"], ["O"]], [["O"]])
