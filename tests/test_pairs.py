"""Pairs of texts: catalogues, placeholders, cleaning, splits without leaks, rows and batches, baselines."""

import random

import numpy as np
import pytest

from minillm.data import catalogues, clean_pairs, placeholders, targets
from minillm.data.document import Document
from minillm.data.rows import Frame
from minillm.errors import UserError
from minillm.evaluation import memory, word_table

FRAME = Frame(begin=2, end=3, pad=0)
CATALOGUE = r"""
msgid ""
msgstr "Language: zh\n"

#: a.py:1
msgctxt "menu"
msgid "Open"
msgstr "打开"

#, fuzzy, python-format
msgid "Close %s"
msgstr "关门 %s"

#, python-format
msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d 个文件"

msgid ""
"Two "
"\"lines\"\n"
msgstr ""
"两"
"行\n"

msgid "Not translated"
msgstr ""

#~ msgid "Old"
#~ msgstr "旧"
"""


def test_a_catalogue_gives_what_is_translated_checked_and_in_use():
    keys = {"&File": "File", "Cu&t": "Cut", "O&pen": "Open", "文件(&F)": "文件", "R&D": "R&D", "a &lt; b": "a &lt; b"}
    assert {text: catalogues.ACCELERATOR.sub("", text) for text in keys} == keys
    found = list(catalogues.parse_catalogue(CATALOGUE))
    assert found == [
        ("menu", "Open", "Open", "打开"),
        ("", "%d file", "%d files", "%d 个文件"),
        ("", 'Two "lines"\n', 'Two "lines"\n', "两行\n"),
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Delete %(name)s?", ["%(name)s"]),
        ("{0} of {total:d}, 100% sure, 50%%", ["{0}", "{total:d}", "%%"]),
        ('<a href="%s">here</a> &nbsp;x < y', ['<a href="%s">', "</a>", "&nbsp;"]),
        ("one\n  two %1 {{ user }}", ["\n  ", "%1", "{{ user }}"]),
        ("R&D 5 % of, 20%discount", []),
    ],
)
def test_placeholders_become_signs_and_come_back(text, names):
    hidden, found = placeholders.hide(text)
    assert found == names
    assert not names or not any(name in hidden for name in names)
    assert placeholders.show(hidden, found) == text
    assert placeholders.kept(text, text)


def test_a_target_has_the_signs_of_its_source():
    hidden, names = placeholders.hide("%(a)s before %(b)s")
    assert hidden == f"{placeholders.SIGNS[0]} before {placeholders.SIGNS[1]}"
    assert (
        placeholders.hide("在%(b)s前%(a)s和%s", names)[0] == f"在{placeholders.SIGNS[1]}前{placeholders.SIGNS[0]}和%s"
    )
    assert placeholders.show(f"x{placeholders.SIGNS[1]}{placeholders.SIGNS[7]}", names) == "x%(b)s"
    assert not placeholders.kept("%s %s", "%s")
    assert not placeholders.kept("%s", "%d")
    assert placeholders.kept("%s then %d", "%d%s")


def test_cleaning_counts_what_goes_and_keeps_the_most_frequent_target():
    rows = [("Save", "保存"), ("save!", "储存"), ("SAVE", "储存"), ("Save", "保存 "), ("", "空"), ("OK", "ok"),
            ("%s rows", "行"), ("%d rows", "%d 行"), ("rows", "行"), ("x" * 50, "长"), ("Open", "打开")]  # fmt: skip
    documents = [Document(str(number), *row[:1], target=row[1]) for number, row in enumerate(rows)]
    kept, report = clean_pairs.clean_pairs(documents, placeholders=True, longest=40)
    assert [(d.text, d.target) for d in kept] == [
        ("save!", "储存"),
        ("%d rows", "%d 行"),
        ("rows", "行"),
        ("Open", "打开"),
    ]
    counts = {name.removesuffix("_documents"): value for name, value in report.to_dict().items()}
    expected = {"empty": 1, "equal": 1, "placeholders": 1, "long": 1, "duplicate_folded": 1, "other_target": 2}
    assert {name: counts[name] for name in expected} == expected
    assert report.documents_before == len(rows) == len(kept) + sum(expected.values())
    with pytest.raises(UserError, match="no pair"):
        clean_pairs.clean_pairs(documents[4:6])


@pytest.mark.parametrize("drop", [True, False])
def test_no_source_stands_in_two_parts(drop):
    draw = random.Random(0)
    change = [str.upper, str.title, lambda text: text + " !", lambda text: text.replace(" ", "  "), str]
    texts = [f"copy {draw.choice('abcdefghij')} %s to {draw.choice('klmnopq')}" for _ in range(300)]
    documents = [Document(str(n), draw.choice(change)(text), target=f"{n}") for n, text in enumerate(texts)]
    kept, _ = clean_pairs.clean_pairs(documents, drop_duplicates=drop)
    parts = clean_pairs.split_pairs(kept, 0.2, 0.2, seed=0)
    keys = [{clean_pairs.source_key(d) for d in part} for part in parts]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    assert sum(map(len, parts)) == len(kept)
    assert all(len(part) >= 0.15 * len(kept) for part in parts)
    again = clean_pairs.split_pairs(kept[::-1], 0.2, 0.2, seed=0)
    assert {d.name for d in again.test} == {d.name for d in parts.test}  # whatever the order
    with pytest.raises(UserError, match="too few"):
        clean_pairs.split_pairs(kept[:1], 0.2, 0.0, seed=0)


def _rows(count=45, seed=0):
    draw = np.random.default_rng(seed)
    sides = [[draw.integers(10, 99, draw.integers(1, 20)).tolist() for _ in range(count)] for _ in range(2)]
    return sides, targets.pair_rows(*sides, (16, 12), FRAME)


def test_rows_hold_both_sides_and_say_what_was_cut():
    (sources, written), rows = _rows()
    for row, (source, target) in enumerate(zip(sources, written, strict=True)):
        assert rows.source[row][rows.source_mask[row]].tolist() == [*source[:15], 3]
        said = [*target, 3][:12]
        size = int(rows.weights[row].sum())
        assert rows.targets[row, :size].tolist() == said  # of a target that is too long no end is learned
        assert rows.tokens[row, :size].tolist() == [2, *said[:-1]]
        assert rows.cut[row] == (len(source) > 15 or len(target) > 11)


def test_batches_are_pure_cover_an_epoch_and_can_be_read_in_parts():
    _, rows = _rows(targets.GROUP * 4)
    batches = [targets.pair_rows_batch_at(rows, 7, step, 4) for step in range(targets.GROUP)]
    seen = sorted(tuple(row[row > 0]) for batch in batches for row in batch["source"])
    assert seen == sorted(tuple(row[row > 0]) for row in rows.source)
    assert {batch["source"].shape[1] for batch in batches} == {8, 16}
    for batch in batches:
        assert batch["source"].shape[1] <= 16
        assert batch["targets"].shape[1] <= 12
        assert ((batch["weights"] > 0).sum(1) >= 2).all()  # nothing of a target is lost with the columns
    again = targets.pair_rows_batch_at(rows, 7, 5, 4)
    part = targets.pair_rows_batch_at(rows, 7, 5, 4, slice(2, 4))
    for name, leaf in again.items():
        np.testing.assert_array_equal(leaf, batches[5][name])
        np.testing.assert_array_equal(leaf[2:4], part[name])
    assert any((targets.pair_rows_batch_at(rows, 8, 5, 4)["source"].shape != again["source"].shape,
                (targets.pair_rows_batch_at(rows, 8, 5, 4)["source"] != again["source"]).any()))  # fmt: skip


def test_evaluation_reads_every_pair_once():
    _, rows = _rows()
    batches = list(targets.pair_rows_evaluation(rows, 8))
    assert len(batches) == 6
    assert sum(float(batch["weights"].sum()) for batch in batches) == rows.weights.sum()
    np.testing.assert_array_equal(np.concatenate([batch["targets"] for batch in batches])[:45], rows.targets)


def test_a_word_table_finds_the_words_and_drops_what_has_no_counterpart():
    words, draw = ["open", "close", "file", "window", "red", "blue"], random.Random(0)
    made = [draw.sample(words, 3) for _ in range(60)]
    sources = ["the ".join(["", *(f"{word} " for word in row)]) for row in made]  # "the " before every word
    answers = [[words.index(word) + 10 for word in draw.sample(row, 3)] for row in made]
    table = word_table.fit_table(sources, answers)
    assert {word: table[word] for word in words} == {word: place + 10 for place, word in enumerate(words)}
    assert table["the"] is None
    assert word_table.translate(table, "The Blue door", lambda word: [len(word)]) == [15, 4]


def test_a_memory_answers_as_the_nearest_text_does():
    answers = memory.answer_alike(
        ["delete the volume", "create a network"], ["删除卷", "创建网络"], ["Create network", "delete volumes"]
    )
    assert answers == ["创建网络", "删除卷"]
