"""BM25 against its definition, written word by word; ranks and their means; the command."""

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from minillm.cli import app
from minillm.errors import UserError
from minillm.evaluation import retrieval
from minillm.experiment.ask import search as searching

WORDS = ["cat", "dog", "sat", "mat", "on", "big", "red", "hat"]


def naive(question, passages, k1, b):
    """Robertson and Zaragoza's equation 3.15 with Lucene's idf, in loops."""
    parts = [passage.split() for passage in passages]
    mean, found = sum(map(len, parts)) / len(parts), []
    for part in parts:
        score = 0.0
        for word in question.split():
            having, often = sum(word in other for other in parts), part.count(word)
            idf = math.log(1 + (len(parts) - having + 0.5) / (having + 0.5))
            score += idf * often / (often + k1 * (1 - b + b * len(part) / mean))
        found.append(score)
    return found


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.5, 0.0), (2.0, 1.0)])
def test_bm25_is_its_definition(k1, b):
    generator = np.random.default_rng(0)
    draw = lambda most: " ".join(generator.choice(WORDS, generator.integers(1, most)))
    passages = [draw(20) for _ in range(30)]
    questions = [draw(6) for _ in range(20)] + ["unknown words", "unknown cat"]
    found = retrieval.bm25(retrieval.build(passages, k1, b), questions)
    np.testing.assert_allclose(found, [naive(question, passages, k1, b) for question in questions], atol=1e-12)
    assert not found[-2].any()


def test_chinese_is_found_by_characters():
    index = retrieval.build(["北京是首都。", "上海很大。"])
    assert retrieval.bm25(index, ["首都在哪里？"])[0].argmax() == 0


def test_ranks_count_equal_scores_against_the_right_passage():
    scores = np.array([[3.0, 1.0, 2.0], [0.0, 0.0, 0.0], [1.0, 2.0, 2.0]])
    places = retrieval.ranks(scores, np.array([2, 0, 1]))
    assert places.tolist() == [2, 3, 2]
    found = retrieval.judge(places, (1, 2))
    assert found["recall@1"]["value"] == 0.0
    assert found["recall@2"]["value"] == pytest.approx(2 / 3)
    assert found["mrr"]["value"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3)
    assert found["mrr"]["low"] <= found["mrr"]["value"] <= found["mrr"]["high"]


def test_fusion_adds_the_inverses_of_ranks():
    fused = retrieval.reciprocal_fusion(np.array([[9.0, 8.0, 1.0, 0.0]]), np.array([[0.0, 0.9, 0.7, 0.8]]))
    np.testing.assert_allclose(fused[0], [1 / 61 + 1 / 64, 1 / 62 + 1 / 61, 1 / 63 + 1 / 63, 1 / 64 + 1 / 62])
    assert fused[0].argmax() == 1
    nothing = np.zeros((2, 3))
    assert retrieval.ranks(retrieval.reciprocal_fusion(nothing, nothing), np.array([0, 1])).tolist() == [3, 3]


def test_the_command_finds_by_words_without_a_model(tmp_path):
    (tmp_path / "notes.txt").write_text("The cat sat.\n\nDogs bark at night.\nA red hat.\n")
    command = ["search", "none", "--file", str(tmp_path / "notes.txt"), "--query", "Which hat?", "--method", "words"]
    (row,) = json.loads(CliRunner().invoke(app, [*command, "--top", "2", "--json"]).stdout)
    assert [passage["text"] for passage in row["passages"]] == ["A red hat."], "the others share no word"
    assert "A red hat." in CliRunner().invoke(app, command).stdout
    nothing = CliRunner().invoke(app, [*command[:5], "zebra", *command[6:]]).stdout
    assert "no passage has any of these words" in nothing


@pytest.mark.parametrize(
    ("queries", "method", "message"),
    [(["a"], "magic", "unknown method"), ([" "], "words", "a query"), ([], "words", "a query")],
)
def test_what_cannot_be_searched_is_said(queries, method, message):
    with pytest.raises(UserError, match=message):
        searching.search("none", ["a"], queries, method)


@pytest.mark.parity
def test_the_real_model_finds_by_meaning():
    passages = ["The feline slept on the rug.", "Interest rates rose again.", "A striker scored twice."]
    queries = ["a cat takes a nap", "football results", "the cost of borrowing money"]
    dense = searching.search("minilm-bert", passages, queries, "dense", 1)
    assert [row["passages"][0]["line"] for row in dense] == [1, 3, 2]
    assert searching.search("minilm-bert", passages, queries[:1], "both", 1)[0]["passages"][0]["line"] == 1
