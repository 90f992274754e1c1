"""Labelled data: what files mean, what is wrong with them, what cleaning removes, and what splits promise."""

import json

import pytest

from minillm import config as configs
from minillm.data import clean_labelled, corpora, labels
from minillm.data.document import Document
from minillm.errors import UserError
from minillm.experiment.data import split_documents
from minillm.experiment.labelled import split_labelled_documents
from minillm.sections.data import DataConfig

SENTIMENT = ("neg", "pos")
REVIEWS = "".join(f"book {i} is {'good' if i % 2 else 'bad'}:{'pos' if i % 2 else 'neg'}\n" for i in range(40))


def read(folder, source, content, **settings):
    """The documents of a file with this content after `resolve`."""
    path = folder / f"data.{source}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    section = DataConfig(source, str(path), **settings)
    fields = corpora.Fields(section.text_key, section.label_key, section.pair_key)
    found = corpora.read_fields(source, str(path), fields)
    return labels.resolve(found, section.labels, labels.place(source, str(path)), section.label_separator)


def pairs(documents):
    return [(d.text, d.label) for d in documents]


def write(folder, **contents):
    for name, content in contents.items():
        (folder / f"{name}.txt").write_bytes(content if isinstance(content, bytes) else content.encode())


def split(folder, **settings):
    settings = {"source": "lines", "path": str(folder / "train.txt"), "labels": SENTIMENT} | settings
    return split_labelled_documents(DataConfig(**settings))


def test_lines_are_parted_at_the_last_colon_of_either_width(tmp_path):
    content = "很好：pos\r\n时间: 8:30，差 : neg\n\n比分3：2:pos\nlast ：neg"
    expected = [("很好", "pos"), ("时间: 8:30，差", "neg"), ("比分3：2", "pos"), ("last", "neg")]
    assert pairs(read(tmp_path, "lines", content, labels=SENTIMENT)) == expected
    assert pairs(read(tmp_path, "lines", "\ufeff" + content.replace("\n", "\r"), labels=SENTIMENT)) == expected


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_tables_hold_labels_pairs_and_numbers(kind, tmp_path):
    rows = [("a, b", "x\ty", "pos", 1.5), ("c\nd", "z", "neg", -2)]
    if kind == "jsonl":
        content = "\r\n".join(json.dumps(dict(zip(("one", "two", "what", "score"), row, strict=True))) for row in rows)
    else:
        mark = "," if kind == "csv" else "\t"
        quoted = [mark.join(f'"{part}"' for part in row) for row in [("one", "two", "what", "score"), *rows]]
        content = "\r\n".join(quoted)
    found = read(tmp_path, kind, content, text_key="one", pair_key="two", label_key="what", labels=SENTIMENT)
    assert [(d.text, d.pair, d.label) for d in found] == [row[:3] for row in rows]
    found = read(tmp_path, kind, content, text_key="one", label_key="score")
    assert pairs(found) == [("a, b", 1.5), ("c\nd", -2.0)]


def test_several_classes_stand_in_the_order_of_the_config(tmp_path):
    settings = {"labels": ("a", "b", "c"), "label_separator": "|"}
    expected = [("one", ("a", "c")), ("two", ()), ("three", ("b",))]
    assert pairs(read(tmp_path, "lines", "one: c| a|c\ntwo:\nthree:b", **settings)) == expected
    rows = [{"text": "one", "l": ["c", "a"]}, {"text": "two", "l": []}, {"text": "three", "l": "b"}]
    content = "\n".join(map(json.dumps, rows))
    assert pairs(read(tmp_path, "jsonl", content, labels=("a", "b", "c"), label_key="l")) == expected
    numbered = "\n".join(json.dumps({"text": str(n), "l": n % 2}) for n in range(4))
    assert [d.label for d in read(tmp_path, "jsonl", numbered, labels=("0", "1"), label_key="l")] == ["0", "1"] * 2


def test_conll_parts_sentences_at_blank_lines(tmp_path):
    chinese = "-DOCSTART- O\n\n王\tB-PER\n明\tI-PER\n在\tO\r\n　\tO\n\n \n北\tB-LOC\n京\tI-LOC\n"
    first, second = read(tmp_path, "conll", chinese, labels=("PER", "LOC"))
    assert (first.text, first.units) == ("王明在　", ("王", "明", "在", "　"))
    assert first.label == ("B-PER", "I-PER", "O", "O")
    assert (second.name, second.text) == ("data.conll:9", "北京")
    english = "John NNP B-PER\nSmith NNP I-PER \nsleeps VBZ O\n"
    (only,) = read(tmp_path, "conll", english, labels=("PER",))
    assert (only.text, only.label) == ("John Smith sleeps", ("B-PER", "I-PER", "O"))


LINES = {"source": "lines", "labels": SENTIMENT}
TABLE = {"source": "csv", "labels": SENTIMENT, "label_key": "label"}
CONLL = {"source": "conll", "labels": ("PER", "LOC")}

# name -> content, settings, words of the one line (message, where, mend)
BAD = {
    "unknown class": ("good:pos\nbad:neg\nso so:postive\nfine:so so", LINES, ["unknown class 'postive', one of 2 labels", "line 3", "did you mean 'pos'?", "neg, pos"]),
    "another case": ("good:Pos\nbad:neg", LINES, ["'Pos'", "line 1", "did you mean 'pos'?"]),
    "several in one field": ("good:pos,neg\nbad:neg", LINES, ["'pos,neg'", "line 1", "data.label_separator"]),
    "empty class of several": ("good:pos,\nbad:neg", LINES | {"label_separator": ","}, ["an empty class", "line 1"]),
    "empty label": ("good:pos\nbad:\n", LINES, ["the label is empty", "line 2", "one of neg, pos"]),
    "no colon": ("good:pos\nbad neg\n", LINES, ["no colon in 'bad neg'", "line 2", "text:label"]),
    "label first": ("pos:very good\nneg:very bad\npos:fine", LINES, ["'pos', in 3 documents", "line 1", "text:label"]),
    "columns swapped": ("text,label\npos,good\nneg,bad", TABLE, ["'pos', in 2 documents", "record 2", "swap data.text_key"]),
    "texts are labels": ("text,label\npos,pos\nneg,neg", TABLE, ["every text is the name of a class", "data.text_key"]),
    "no such column": ("text,klass\ngood,pos", TABLE, ["no column 'label'", "'text', 'klass'", "data.label_key"]),
    "column twice": ("text,label,label\ngood,pos,neg", TABLE, ["2 columns are called 'label'"]),
    "no such pair": ("text,label\ngood,pos", TABLE | {"pair_key": "other"}, ["no column 'other'", "data.pair_key"]),
    "broken quote": ('text,label\ngood,pos\n"bad,neg\nso,neg\n', TABLE, ["not a table", "record 3, which begins in line 3", "RFC 4180"]),
    "quote inside": ('text,label\n"a\nb",pos\n"bad" x,neg\n', TABLE, ["not a table", "record 3, which begins in line 4"]),
    "empty cell": ("text,label\ngood,pos\nbad,\n", TABLE, ["the label is empty", "record 3"]),
    "not a number": ("text,label\ngood,1.5\nbad,two", {"source": "csv", "label_key": "label"}, ["'two' is not a number", "record 3", "1.5 (1), two (1)"]),
    "infinite": ("text,label\ngood,1.5\nbad,inf", {"source": "csv", "label_key": "label"}, ["'inf' is not a number", "record 3"]),
    "one number": ("text,label\ngood,2\nbad,2.0", {"source": "csv", "label_key": "label"}, ["every label is 2"]),
    "labels not named": ("good:pos\nbad:neg\nfine:pos", {"source": "lines"}, ["'pos' is not a number", "line 1", "pos (2), neg (1)", "data.labels"]),
    "one class": ("good:pos\nfine:pos", LINES | {"labels": ("pos",)}, ["'pos' is the only class", "pos (2)"]),
    "class without example": ("good:pos\nfine:pos\nbest:pos\nwell:pos", LINES, ["no example of the class 'neg'", "pos (4)", "leave it out"]),
    "few examples": (REVIEWS + "so so:mixed\n", LINES | {"labels": ("neg", "pos", "mixed")}, ["2 parts needs 2 different texts: mixed (1)", "join it"]),
    "nothing left": ("good:pos\ngood:neg", LINES, ["no labelled text is left"]),
    "not JSON": ('{"text": "a", "label": "pos"}\n{"text": "b"\n', {"source": "jsonl", "labels": SENTIMENT, "label_key": "label"}, ["not JSON", "line 2"]),
    "no field": ('{"text": "a", "klass": "pos"}\n', {"source": "jsonl", "labels": SENTIMENT, "label_key": "label"}, ["no field 'label'", "line 1", "text, klass"]),
    "null label": ('{"text": "a", "label": null}\n', {"source": "jsonl", "labels": SENTIMENT, "label_key": "label"}, ["the label is empty", "line 1"]),
    "object as label": ('{"text": "a", "label": {"x": 1}}\n', {"source": "jsonl", "labels": SENTIMENT, "label_key": "label"}, ["is no label", "line 1"]),
    "unknown tag": ("王\tB-PER\n明\tI-PRE\n", CONLL, ["unknown tag 'I-PRE'", "line 2", "did you mean I-PER"]),
    "other scheme": ("王\tB-PER\n明\tE-PER\n", CONLL, ["unknown tag 'E-PER'", "line 2", "B- or I- with PER, LOC"]),
    "inside of nothing": ("王\tO\n明\tI-PER\n", CONLL, ["'I-PER' goes on", "line 2", "B-PER"]),
    "inside of another": ("王\tB-LOC\n明\tI-PER\n", CONLL, ["'I-PER' goes on", "line 2"]),
    "no tag": ("王\tB-PER\n明\n", CONLL, ["no unit and tag in '明'", "line 2"]),
    "kinds not named": ("王\tB-PER\n明\tI-PER\n", {"source": "conll"}, ["not named", "data.labels", "PER (1)"]),
    "empty file": ("", LINES, ["the file is empty"]),
    "only blanks": (" \n\n", LINES, ["there is no text in it"]),
    "Latin-1": ("caf\u00e9:pos\nbad:neg".encode("latin-1"), LINES, ["not UTF-8 (byte 0xe9 at offset 3, in line 1)", "iconv"]),
    "Chinese code": ("好:pos\n很差:neg\n".encode("gb18030"), LINES, ["in line 1", "GB18030"]),
    "mixed encodings": ("好:pos\n".encode() * 3 + "很差:neg\n".encode("gb18030"), LINES, ["in line 4", "1 of 5 lines are not, 3 others are: mixed encodings", "GB18030"]),
    "UTF-16": ("good:pos".encode("utf-16"), LINES, ["UTF-16"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_found_and_named(name, tmp_path):
    content, settings, words = BAD[name]
    path = tmp_path / "data.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        split_labelled_documents(DataConfig(path=str(path), **settings))
    line = str(caught.value)
    assert "\n" not in line
    assert [word for word in words if word not in line] == [], line


# settings of [data] -> words
SETTINGS = {
    "labels twice": ({"source": "lines", "labels": ["a", "a"]}, "labels must be different"),
    "blank label": ({"source": "lines", "labels": ["a", " "]}, "labels must be different"),
    "separator without labels": ({"source": "lines", "label_separator": ","}, "label_separator"),
    "separator in a label": ({"source": "lines", "labels": ["a,b", "c"], "label_separator": ","}, "inside of the class 'a,b'"),
    "colon in lines": ({"source": "lines", "labels": ["a", "b"], "label_separator": "："}, "a colon parts text and label"),
    "colon in a label": ({"source": "lines", "labels": ["a:1", "b"]}, "a colon parts text and label"),
    "no label_key": ({"source": "csv", "labels": ["a", "b"]}, "label_key is missing"),
    "one field twice": ({"source": "csv", "labels": ["a", "b"], "label_key": "text"}, "different fields"),
    "file without labels": ({"source": "csv", "validation_path": "x"}, "for labelled data"),
    "share and file": ({"source": "lines", "validation_path": "x", "validation": 0.2}, "validation says nothing"),
    "test share and file": ({"source": "lines", "test_path": "x", "test": 0.2}, "test says nothing"),
    "drop without files": ({"source": "lines", "drop_leaks": True}, "drop_leaks says nothing"),
    "lines of labelled texts": ({"source": "lines", "drop_repeated_lines": True}, "drop_repeated_lines"),
    "labels of text": ({"source": "text", "labels": ["a", "b"]}, "labels says nothing to the source 'text'"),
    "labels of plain corpora": ({"source": "python-docs", "labels": ["a", "b"]}, "labels says nothing"),
    "fields of lines": ({"source": "lines", "text_key": "x"}, "text_key says nothing"),
    "pair of lines": ({"source": "lines", "pair_key": "x"}, "pair_key says nothing"),
    "label field of corpora": ({"source": "reviews-zh", "label_key": "x"}, "label_key says nothing"),
    "several of tags": ({"source": "conll", "labels": ["a", "b"], "label_separator": ","}, "label_separator says nothing"),
    "files of corpora": ({"source": "reviews-zh", "labels": ["neg", "pos"], "test_path": "x"}, "test_path says nothing"),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_do_not_fit(name):
    settings, words = SETTINGS[name]
    with pytest.raises(UserError, match=words):
        configs.check({"data": settings, "model": {"context": 64}}, "c.toml")


def test_paths_are_kept_whole():
    data = {"source": "lines", "labels": ["a", "b"], "path": "x", "validation_path": "y", "test_path": "z"}
    found = configs.check({"data": data, "model": {"context": 64}}, "c.toml").data
    assert all(path.startswith("/") for path in (found.path, found.validation_path, found.test_path))


def test_folding():
    for a, b in (
        ("很好！", "很好。 "),
        ("ＯＫ，Good", "ok good"),
        ("Straße", "STRASSE"),
        ("a\u200b-b", "A B"),
        ("1．5", "1 5"),
    ):
        assert clean_labelled.fold(a) == clean_labelled.fold(b)
    for a, b in (("！！", "？"), ("good 👍", "good 👎"), ("a1", "a2"), ("C", "C++"), ("好", "很好")):
        assert clean_labelled.fold(a) != clean_labelled.fold(b)


def make(*rows):
    return [Document(f"d:{number}", *row) for number, row in enumerate(rows, start=1)]


def test_cleaning_counts_and_names_everything_that_goes():
    rows = [("Good.", "pos"), ("good", "pos"), ("Good.", "pos"), ("odd", "pos"), ("odd", "neg"), ("Even!", "pos"),
            ("even", "neg"), (" ", "neg"), ("ｂａｄ", "neg"), ("x\ufffd", "neg")]  # fmt: skip
    kept, report = clean_labelled.clean_labelled(make(*rows), "NFKC")
    assert pairs(kept) == [("Good.", "pos"), ("bad", "neg"), ("x\ufffd", "neg")]
    found = report.to_dict()
    counts = {key.removesuffix("_documents"): found[key] for key in found if key.endswith("_documents")}
    assert counts == {
        "empty": 1,
        "ambiguous": 2,
        "ambiguous_folded": 2,
        "duplicate": 1,
        "duplicate_folded": 1,
        "damaged": 1,
    }
    assert (found["documents_before"], found["documents_after"], found["documents_normalised"]) == (10, 3, 1)
    assert found["labels_before"] == {"neg": 5, "pos": 5}
    assert found["labels_after"] == {"neg": 2, "pos": 1}
    assert found["examples"]["ambiguous"] == ["d:4 [pos] odd", "d:5 [neg] odd"]
    assert found["examples"]["empty"] == ["d:8 [neg]"]
    kept, report = clean_labelled.clean_labelled(make(*rows), drop_duplicates=False)
    assert [d.name for d in kept] == ["d:1", "d:2", "d:3", "d:9", "d:10"]
    assert report.duplicate_documents == report.duplicate_folded_documents == 0


def test_pairs_tags_and_numbers_are_the_same_in_their_own_way():
    rows = [("a", "x", "p"), ("a", "x", "q"), ("A.", "x", "P"), ("a", "x", " "), ("b", "x", "q"), ("B", "y", "q")]
    kept, report = clean_labelled.clean_labelled(make(*rows))
    assert [(d.text, d.pair) for d in kept] == [("a", "p"), ("a", "q")]
    assert (report.empty_documents, report.duplicate_folded_documents, report.ambiguous_folded_documents) == (1, 1, 2)
    tagged = lambda text, *tags: Document("d", text, tags, None, tuple(text))
    parts = [
        tagged("王，", "B-PER", "O"),
        tagged("王", "B-PER"),
        tagged("李", "B-PER"),
        tagged("李", "O"),
        tagged("ｘ京", "O", "O"),
    ]
    kept, report = clean_labelled.clean_labelled(parts, "NFKC")
    assert [(d.text, d.units, d.label) for d in kept] == [
        ("王,", ("王", ","), ("B-PER", "O")), ("x京", ("x", "京"), ("O", "O")),
    ]  # fmt: skip
    assert (report.duplicate_folded_documents, report.ambiguous_documents) == (1, 2)
    assert report.labels_before == {"PER": 3}
    kept, report = clean_labelled.clean_labelled(make(("a", 1.0), ("a", 2.0), ("b", 1.0), ("c", 4.0)))
    assert report.ambiguous_documents == 2
    assert report.labels_after == {"least": 1.0, "mean": 2.5, "greatest": 4.0}


def test_one_character_and_windows_line_ends_are_texts(tmp_path):
    write(tmp_path, train="".join(f"{chr(0x4E00 + i)}:{SENTIMENT[i % 2]}\r\n" for i in range(20)))
    parts, report = split(tmp_path)
    assert [len(part) for part in parts] == [18, 2, 0]
    assert all(len(d.text) == 1 for part in parts for d in part)
    assert report["documents_after"] == 20


def test_given_parts_stay_as_they_are_and_the_rest_is_cut(tmp_path):
    write(tmp_path, train=REVIEWS, held="never seen:pos\nnot this either:neg\n")
    parts, report = split(tmp_path, test_path=str(tmp_path / "held.txt"))
    assert [d.text for d in parts.test] == ["never seen", "not this either"]
    assert (len(parts.train), len(parts.validation)) == (36, 4)
    assert report["test_path"]["documents_before"] == 2
    assert report["labels"]["validation"] == {"neg": 2, "pos": 2}
    parts, _ = split(tmp_path, validation_path=str(tmp_path / "held.txt"), test=0.1)
    assert [len(part) for part in parts] == [36, 2, 4]


def test_leaks_are_errors_or_leave_the_part_nearer_to_training(tmp_path):
    held = "never seen:pos\nbook 3 is good:pos\nBOOK 4 is bad!:neg\nfour:neg\n"
    write(tmp_path, train=REVIEWS, held=held, last="FOUR:neg\nbook 5 is good:pos\nfive:pos\n")
    settings = {"validation_path": str(tmp_path / "held.txt"), "test_path": str(tmp_path / "last.txt")}
    with pytest.raises(UserError) as caught:
        split(tmp_path, **settings)
    for words in (
        "4 texts stand in two parts (2 exactly, 2 but for",
        "train.txt, line 4",
        "held.txt, line 2",
        "drop_leaks",
    ):
        assert words in str(caught.value)
    parts, report = split(tmp_path, **settings, drop_leaks=True)
    assert [len(part) for part in parts] == [37, 3, 3]
    found = {name: (leak["exact"], leak["folded"]) for name, leak in report["leaks"].items()}
    assert found == {"train in validation": (1, 1), "train in test": (1, 0), "validation in test": (0, 1)}
    assert not clean_labelled.find_leaks(parts._asdict())


def test_all_files_are_read_before_any_label_is_judged(tmp_path):
    write(tmp_path, train="fine:so so\n", held="好:pos\n".encode("gb18030"))
    with pytest.raises(UserError, match=r"held.txt, line 1: not UTF-8"):
        split(tmp_path, test_path=str(tmp_path / "held.txt"))


def test_a_class_that_training_lacks_is_an_error(tmp_path):
    write(tmp_path, train=REVIEWS, held="never seen:pos\nnothing like it:mixed\n")
    with pytest.raises(UserError, match=r"held.txt, line 2: the class 'mixed' stands in the test part and not in"):
        split(tmp_path, test_path=str(tmp_path / "held.txt"), labels=(*SENTIMENT, "mixed"))
    write(tmp_path, train="甲\tB-PER\n\n乙\tO\n", held="丙\tB-LOC\n")
    settings = {"source": "conll", "labels": ("PER", "LOC"), "validation_path": str(tmp_path / "held.txt")}
    with pytest.raises(UserError, match="'LOC' stands in the validation part"):
        split(tmp_path, **settings)


def test_the_limit_takes_texts_of_all_classes(tmp_path):
    write(tmp_path, train="".join(f"text number {i}:{'neg' if i < 500 else 'pos'}\n" for i in range(1000)))
    parts, report = split(tmp_path, limit=3000)
    assert report["documents_before"] == pytest.approx(200, abs=10)
    assert min(report["labels"]["train"].values()) > 60
    assert split(tmp_path, limit=3000)[0] == parts


def test_a_run_reads_labelled_documents_and_says_what_they_are(tmp_path):
    write(tmp_path, train=REVIEWS + "odd:pos\nodd:neg\n")
    data = {"source": "lines", "path": str(tmp_path / "train.txt"), "labels": list(SENTIMENT), "test": 0.1}
    experiment = configs.check({"data": data, "model": {"context": 64}}, "c.toml")
    splits, report = split_documents(experiment)
    texts = {name: [document.text for document in part] for name, part in splits._asdict().items()}
    assert report["ambiguous_documents"] == 2
    assert {name: size["documents"] for name, size in report["split"].items()} == {
        "train": 32,
        "validation": 4,
        "test": 4,
    }
    assert json.loads(json.dumps(report)) == report
    assert [d.text for d in split_documents(experiment)[0].train] == texts["train"]
    assert labels.labels_found(split_documents(experiment)[0].train) == {"neg": 16, "pos": 16}
    assert labels.name_counts({"b": 2, "a": 1}) == "b (2), a (1)"
