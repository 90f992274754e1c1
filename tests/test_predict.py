"""`minillm predict` on what users really give it: emoji, very long texts, pairs where none are due, untagged sentences."""

import json
import random

import pytest
from tiny_labelled import config, reviews, silent
from typer.testing import CliRunner

from minillm.cli import app
from minillm.errors import UserError
from minillm.experiment import base as bases
from minillm.experiment import display, display_drift
from minillm.experiment import run as runs
from minillm.experiment.ask import drift
from minillm.experiment.ask.predict import predict

WORDS = ["room", "book", "food", "screen", "the", "was", "so", "quite"]


def train(root, text, **settings):
    """A run on a file with this text; what it said on the way."""
    said, path = [], root / "data.txt"
    path.write_text(text, encoding="utf8")
    (root / "c.toml").write_text(config(path, **({"steps": 2} | settings)))
    runs.run(bases.load(root / "c.toml"), root / "run", False, said.append, silent)
    return root / "run", said


@pytest.fixture(scope="module")
def sentences():
    generator = random.Random(0)
    return [" ".join(generator.choices(WORDS, k=6)) + f" {number}" for number in range(60)]


@pytest.fixture(scope="module")
def single(tmp_path_factory, sentences):
    text = "".join(f"{sentence}:{('neg', 'pos')[number % 2]}\n" for number, sentence in enumerate(sentences))
    return train(tmp_path_factory.mktemp("single"), text + "room " * 40 + ":pos\n")


def test_a_run_says_how_many_texts_it_cuts(single):
    assert any("training texts are longer than 16 tokens" in line for line in single[1])


def test_any_text_gets_an_answer_and_one_that_is_cut_is_told(single, capsys):
    texts = ["👍🏽 room", "房间很好", "room " * 3000, "\u200b", "a\x00b", "x" * 500]
    rows = predict(single[0], ["room", *texts])
    assert [row["cut"] for row in rows] == [False, False, False, True, False, False, True]
    assert [row["text"] for row in rows] == ["room", *texts]
    assert rows[3]["probabilities"] == predict(single[0], ["room " * 2000])[0]["probabilities"]
    display.predictions(rows)
    shown = capsys.readouterr().out
    assert len(shown) < 4000
    assert "2 texts are longer than the run's data.length" in " ".join(shown.split())


def test_a_second_text_is_asked_for_where_the_run_learned_from_pairs_and_there_only(single, sentences, tmp_path):
    with pytest.raises(UserError, match="learned from single texts"):
        predict(single[0], ["room"], ["book"])
    rows = "".join(f"{sentence}\t{sentence[::-1]}\t{number % 2}\n" for number, sentence in enumerate(sentences))
    keys = 'source = "tsv"\ntext_key = "a"\nlabel_key = "label"\npair_key = "b"\nlabels = ["0", "1"]'
    root, _ = train(tmp_path, f"a\tb\tlabel\n{rows}", data=keys)
    with pytest.raises(UserError, match="learned from pairs"):
        predict(root, ["room"])
    with pytest.raises(UserError, match="1 second texts for 2 first ones"):
        predict(root, ["room", "book"], ["a"])
    with pytest.raises(UserError, match="text 2: the second text is empty"):
        predict(root, ["room", "book"], ["a", " "])
    assert predict(root, ["room"], ["book"])[0]["pair"] == "book"
    (tmp_path / "first.txt").write_text("room\n\nfood\n")
    (tmp_path / "second.txt").write_text("book\nscreen\n")
    files = ["--file", str(tmp_path / "first.txt"), "--pair-file", str(tmp_path / "second.txt")]
    done = CliRunner().invoke(app, ["predict", str(root), *files, "--json"])
    assert [(row["text"], row["pair"]) for row in json.loads(done.stdout)] == [("room", "book"), ("food", "screen")]
    assert "first.txt: 1 blank line is left out" in done.stderr


@pytest.mark.parametrize(("kind", "units"), [("bpe", "characters"), ("char", "words")])
def test_a_sentence_is_parted_as_the_tagged_ones_were_whatever_the_tokenizer(sentences, tmp_path, kind, units):
    """A tokenizer of pieces on tagged characters, and one of characters on tagged words."""
    parted = [list(sentence.replace(" ", "")) if units == "characters" else sentence.split() for sentence in sentences]
    tagged = [[f"{unit}\tB-X" if unit.startswith("b") else f"{unit}\tO" for unit in row] for row in parted]
    text = "\n\n".join("\n".join(row) for row in tagged) + "\n"
    keys = 'source = "conll"\nlabels = ["X"]\ndrop_duplicates = false'
    root, _ = train(tmp_path, text, objective="tag", steps=150, kind=kind, data=keys)
    (row,) = predict(root, ["thebook"] if units == "characters" else ["the book"])
    entity = {"kind": "X", "text": "b", "start": 3, "end": 4} if units == "characters" else {
        "kind": "X", "text": "book", "start": 1, "end": 2}  # fmt: skip
    assert row["entities"] == [entity]
    far = predict(root, ["the" * 40 + "book" if units == "characters" else "the " * 40 + "book"])[0]  # several rows
    assert [found["start"] for found in far["entities"]] == [120 if units == "characters" else 40]
    assert not far["cut"]


def test_a_file_has_a_text_per_line_whatever_else_looks_like_a_line_end(single, tmp_path, monkeypatch, capsys):
    from minillm import cli

    (tmp_path / "texts.txt").write_bytes("a\u2028b\r\n\r\nc\x85d\n".encode())
    command = ["minillm", "predict", str(single[0]), "--file", str(tmp_path / "texts.txt"), "--json"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert [row["text"] for row in json.loads(capsys.readouterr().out)] == ["a\u2028b", "c\x85d"]


def test_texts_of_another_kind_raise_an_alarm_and_those_of_the_run_s_own_do_not(tmp_path, capsys):
    """Of 25 held-out texts 10 make the window that sets the threshold at a rate of a half; 15 are the reference."""
    lines = reviews(64).splitlines()
    root, _ = train(tmp_path, "\n".join(lines), steps=30)
    own = [line.rpartition(":")[0] for line in lines[:10]]
    other = [f"{number} {number} {number}" for number in range(1000, 1010)]
    found = drift.watch(root, [*own, *other, "left over"], window=10, rate=0.5)
    assert [(row["first"], row["last"]) for row in found["windows"]] == [(1, 10), (11, 20)]
    assert "AUC, window against reference" in found["windows"][1]["above"]
    areas = [row["statistics"]["AUC, window against reference"] for row in found["windows"]]
    assert areas[1] > 0.95 > areas[0]
    display_drift.show(found)
    assert "Alarm at texts" in capsys.readouterr().out
    for texts, settings, words in (
        (own[:3], {"rate": 0.5}, "3 texts do not fill a window of 10"), (own, {"rate": 0.01}, "fewer than 99 windows of 10"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            drift.watch(root, texts, window=10, **settings)
