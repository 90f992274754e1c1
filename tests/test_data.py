"""The data room: exact round trips, pure batches, every token scored once."""

import json
import re

import numpy as np
import pytest

from minillm.data import batches, clean, corpora, synthetic, tokenizer
from minillm.data.packing import pack
from minillm.errors import UserError

NASTY = [
    "  a\n\n b\t\tc  ",
    "<s>hi</s><pad>",
    "中文 🎉\n",
    "",
    " ",
    "\n\n",
    "a\u0301 é ﬁ",
    "x" * 5000,
    "\r\n",
    "　全角",
    "a ▁▁b▁",
]


@pytest.fixture(scope="module")
def texts():
    return [d.text for d in corpora.read("python-docs")[:20]]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_tokenizer_round_trips_anything_and_trains_reproducibly(kind, texts, tmp_path):
    for name in ("a", "b"):
        tokenizer.train(texts, 500, kind, model_file=tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    pieces = tokenizer.load(tmp_path / "a")
    assert pieces.vocabulary == 500
    for text in [*NASTY, *texts]:
        ids = pieces.encode(text)
        assert pieces.decode(ids) == text
        assert not {pieces.pad, pieces.unk, pieces.bos, pieces.eos} & set(ids)


def test_tokenizer_errors(texts, tmp_path):
    with pytest.raises(UserError, match="at most"):
        tokenizer.train(texts[:1], 100000, "unigram", model_file=tmp_path / "m")
    assert not (tmp_path / "m").exists()
    (tmp_path / "bad").write_bytes(b"junk")
    with pytest.raises(UserError, match="bad"):
        tokenizer.load(tmp_path / "bad")


def documents(count=30, seed=0):
    generator = np.random.default_rng(seed)
    return [np.array([2, *generator.integers(4, 99, generator.integers(1, 60)), 3], np.int32) for _ in range(count)]


@pytest.mark.parametrize(("length", "stride"), [(16, 8), (7, 7), (10, 1), (200, 100)])
def test_evaluation_scores_every_token_once(length, stride):
    parts = documents()
    found = list(batches.evaluation_batches(parts, length, 4, stride))
    scored = np.concatenate([b["targets"][b["weights"] > 0] for b in found])
    np.testing.assert_array_equal(scored, np.concatenate([p[1:] for p in parts]))
    assert {b["tokens"].shape for b in found} == {(4, length)}


def test_stream_batches_are_pure_and_cover_an_epoch():
    dataset = batches.make_dataset([np.arange(1000, dtype=np.int32)], 10)
    first = batches.batch_at(dataset, 1, 5, 4)
    batches.batch_at(dataset, 1, 77, 4)
    np.testing.assert_array_equal(first["tokens"], batches.batch_at(dataset, 1, 5, 4)["tokens"])
    assert not np.array_equal(first["tokens"], batches.batch_at(dataset, 2, 5, 4)["tokens"])
    np.testing.assert_array_equal(first["targets"], (first["tokens"] + 1) % 1000)
    windows = 100
    seen = np.concatenate([batches.batch_at(dataset, 1, s, 1)["tokens"][0] for s in range(windows)])
    assert len(set(seen.tolist())) == windows * 10


def test_packing_keeps_every_token_and_targets_stay_inside_documents():
    parts = documents()
    rows = pack(parts, 65)
    kept = sorted(rows.tokens[rows.segments > 0].tolist())
    assert kept == sorted(np.concatenate(parts).tolist())
    dataset = batches.make_dataset(parts, 64, "packed")
    batch = batches.batch_at(dataset, 0, 0, 4)
    assert np.all(batch["tokens"][batch["weights"] > 0] != 3)
    assert np.all(batch["targets"][batch["weights"] > 0] != 2)


def test_split_keeps_duplicates_together_and_ignores_order():
    texts = [corpora.Document(str(i), f"text {i // 2}") for i in range(40)]
    split = clean.split(texts, 0.2, 0.2, 0)
    sets = [{d.text for d in part} for part in split]
    assert all(sets)
    assert not sets[0] & sets[1]
    assert not (sets[0] | sets[1]) & sets[2]
    again = clean.split(texts[::-1], 0.2, 0.2, 0)
    assert [{d.text for d in part} for part in again] == sets


def test_cleaning_reports_what_it_removed():
    parts = [
        corpora.Document("a", "same\nx\r\n"),
        corpora.Document("b", "same\nx\n"),
        corpora.Document("c", "same\nｙ"),
    ]
    kept, report = clean.clean(parts, "NFKC", drop_repeated_lines=True)
    assert [d.text for d in kept] == ["same\nx\n", "y"]
    assert (report.duplicate_documents, report.repeated_lines) == (1, 1)


def test_dropping_lines_leaves_no_longer_runs_of_blank_ones():
    parts = [corpora.Document("a", "x\n\ny\n\nz\n"), corpora.Document("b", "1\n\nx\n\ny\n\nz\n\n\n2\n")]
    kept, _ = clean.clean(parts, drop_repeated_lines=True)
    assert [d.text for d in kept] == ["x\n\ny\n\nz\n", "1\n\n2\n"]
    raw = corpora.read("python-docs")
    longest = lambda documents: max(len(run) for d in documents for run in re.findall(r"\n+", d.text))
    assert longest(clean.clean(raw, drop_repeated_lines=True)[0]) <= longest(raw)


def test_tables_and_json_lines(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"x, y",1\nz,2\n')
    assert [d.text for d in corpora.read("csv", str(tmp_path / "a.csv"))] == ["x, y", "z"]
    (tmp_path / "b.csv").write_text("text,label\nx\n")
    with pytest.raises(UserError, match="record 2"):
        corpora.read("csv", str(tmp_path / "b.csv"))
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x"}) + "\n{broken\n")
    with pytest.raises(UserError, match="line 2"):
        corpora.read("jsonl", str(tmp_path / "a.jsonl"))
    with pytest.raises(UserError, match="body"):
        corpora.read("csv", str(tmp_path / "a.csv"), "body")


def test_copy_task_holds_strings_out():
    make = lambda split: synthetic.copy_batch(0, 3, 64, 6, 5, split)["tokens"][:, 1:7]
    for split, held_out in (("train", False), ("validation", True)):
        sums = (make(split) - synthetic.FIRST).sum(1) % 4 == 0
        assert np.all(sums == held_out)
    batch = synthetic.copy_batch(0, 0, 4, 6, 5)
    np.testing.assert_array_equal(batch["targets"][:, 7:13], batch["tokens"][:, 1:7])
    assert np.all(batch["weights"].sum(1) == 7)
