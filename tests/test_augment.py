"""Augmentation: what each change keeps, that it is pure in (seed, step, row), and that rate 0 changes no bit."""

import itertools

import numpy as np
import pytest
from tiny_labelled import config, reviews

from minillm.data import augment
from minillm.errors import UserError
from minillm.experiment import base as bases
from minillm.experiment import display_lab
from minillm.experiment.data import load_data
from minillm.report.lab import write_curves, write_figure

TEXTS = [
    "这本书的质量非常不错，服务也很好！",
    "the room isn't good, the food 3 times worse",
    "房间 very good",
    "！？",
    "a",
]
THESAURUS = {"质量": ("品质",), "很好": ("不错", "良好"), "good": ("fine",), "质": ("性",)}


def draws(count=20):
    return (augment.noise(3, step, 5) for step in range(count))


@pytest.mark.parametrize("text", TEXTS)
def test_what_each_change_keeps(text):
    units, gaps = augment.parted(text)
    assert augment.joined(units, gaps) == text
    for generator in draws():
        swapped = augment.swap(text, 0.3, generator)
        assert sorted(swapped) == sorted(text)
        assert "".join(augment.parted(swapped)[1]) == "".join(gaps)
        deleted, _ = augment.parted(augment.delete(text, 0.4, generator))
        left = iter(units)
        assert all(unit in left for unit in deleted)
        assert deleted or not units
    assert augment.parted(augment.delete(text, 1.0, generator))[0] != [] or not units


def test_units_are_chinese_characters_and_words():
    assert augment.parted("房间isn't bad，第3次")[0] == ["房", "间", "isn't", "bad", "第", "3", "次"]
    assert augment.delete("a b c", 0.0, next(draws())) == "a b c"


def test_synonyms_are_of_the_longest_words_and_of_nothing_else():
    every = {augment.replace_words("质量很好 goods are good", 1.0, THESAURUS, generator) for generator in draws()}
    assert every == {"品质不错 goods are fine", "品质良好 goods are fine"}
    assert augment.replace_words("质 量", 1.0, THESAURUS, next(draws())) == "性 量"


def test_synonyms_take_the_capitals_of_the_words_that_they_stand_for():
    thesaurus = {"good": ("fine",), "IT": ("software",)}
    say = lambda text: augment.replace_words(text, 1.0, thesaurus, next(draws()))
    assert say("Good, GOOD or good iT?") == "Fine, FINE or fine iT?"
    assert say("IT is it") == "software is it"


def test_neighbours_are_the_same_in_blocks(monkeypatch):
    vectors = np.random.default_rng(3).normal(size=(50, 8))
    words = [str(number) for number in range(50)]
    whole = augment.neighbours(words, vectors, 4)
    monkeypatch.setattr(augment, "BLOCK", 7)
    assert augment.neighbours(words, vectors, 4) == whole
    unit = vectors - vectors.mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for row, word in enumerate(words):
        best = [place for place in np.argsort(-unit @ unit[row]) if place != row][:4]
        assert whole[word] == tuple(words[place] for place in best)
    assert augment.neighbours(words[:1], vectors[:1]) == {"0": ()}


def test_rates_are_shares():
    text = " ".join(f"w{number}" for number in range(200))
    words = [len(augment.parted(augment.delete(text, 0.25, generator))[0]) for generator in draws()]
    assert np.mean(words) == pytest.approx(150, abs=4)
    moved = [
        sum(a != b for a, b in zip(text.split(), augment.swap(text, 0.1, g).split(), strict=True)) for g in draws()
    ]
    assert 30 < np.mean(moved) < 40  # two for each of 20 exchanges, less those that hit a place twice


def test_a_rewording_is_pure_in_seed_step_and_row_and_differs_between_them():
    rewording = augment.Rewording(0.3, 0.2, 0.5, 0.0, THESAURUS)
    say = lambda *key: augment.reword(TEXTS[0], rewording, augment.noise(*key))
    keys = list(itertools.product((0, 1), (0, 1), (0, 1)))
    found = [say(*key) for key in keys]
    assert found == [say(*key) for key in keys]
    assert len(set(found)) == len(keys)
    assert augment.reword(TEXTS[0], augment.Rewording(), augment.noise(0, 0, 0)) == TEXTS[0]


def test_neighbours_are_the_nearest_by_cosine_and_paraphrases_come_whole():
    vectors = np.array([[5.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.1, 2.0]])
    vectors -= vectors.mean(0)
    found = augment.neighbours(list("abcd"), vectors, 1)
    nearness = np.corrcoef(np.hstack([vectors, -vectors]))  # rows of mean 0: the correlation is the cosine
    np.fill_diagonal(nearness, -2)
    assert found == {"abcd"[row]: ("abcd"[best],) for row, best in enumerate(nearness.argmax(1))}
    paraphrases = augment.Rewording(paraphrase=1.0, paraphrases={"a": ("b",)})
    assert [augment.reword(text, paraphrases, next(draws())) for text in ("a", "c")] == ["b", "c"]


def test_files_are_read_or_refused_by_their_lines(tmp_path):
    file = tmp_path / "t.tsv"
    file.write_text("好\t棒 佳\n\nbad\tpoor\n")
    assert augment.read_thesaurus(file) == {"好": ("棒", "佳"), "bad": ("poor",)}
    file.write_text("好\t棒\nbad poor\n")
    with pytest.raises(UserError, match="a word, a tab") as error:
        augment.read_thesaurus(file)
    assert error.value.where.endswith("line 2")
    file.write_text('{"text": "a", "paraphrases": ["b", "c"]}\n')
    assert augment.read_paraphrases(file) == {"a": ("b", "c")}
    for line in ('{"text": "a", "paraphrases": []}', '{"paraphrases": ["b"]}', "[1]", "{"):
        file.write_text(line)
        with pytest.raises(UserError, match="at least one paraphrase"):
            augment.read_paraphrases(file)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    root = tmp_path_factory.mktemp("augment")
    (root / "reviews.txt").write_text(reviews(60))
    (root / "c.toml").write_text(config(root / "reviews.txt", steps=4))
    return root / "c.toml"


def test_batches_of_reworded_texts_keep_labels_and_places(file, tmp_path):
    read = lambda *settings: load_data(bases.load(file, settings), tmp_path / "tokenizer.model")
    plain, idle = read(), read("augment.share=0.0", "augment.delete=0.5")
    same, reworded = read("augment.share=1.0", "augment.swap=1e-12"), read("augment.share=1.0", "augment.delete=0.5")
    changed = 0
    for step in (0, 3):
        expected = plain.batch(step)
        for data in (idle, same):
            found = data.batch(step)
            assert found.keys() == expected.keys()
            for name, leaf in expected.items():
                np.testing.assert_array_equal(found[name], leaf, err_msg=name)
                assert found[name].dtype == leaf.dtype
        found, part = reworded.batch(step), reworded.batch_rows(step, slice(2, 5))
        np.testing.assert_array_equal(found["labels"], expected["labels"])
        np.testing.assert_array_equal(found["index"], expected["index"])
        for name, leaf in part.items():
            np.testing.assert_array_equal(leaf, found[name][2:5], err_msg=name)
        changed += (found["tokens"] != expected["tokens"]).any(1).sum()
        assert (found["mask"].sum(1) <= expected["mask"].sum(1)).all()
    assert changed > 8
    for name, leaf in plain.evaluation("validation")[0].items():
        np.testing.assert_array_equal(reworded.evaluation("validation")[0][name], leaf)


def test_sections_that_make_no_sense_are_refused_by_their_keys(file):
    for setting, message, key in (
        ("augment.swap=1.5", r"must be in \[0, 1\]", "augment"),
        ("augment.synonyms=0.1", "needs thesaurus", "augment"),
        ("augment={ synonyms = 0.1, thesaurus = 'base' }", "no base to find", "augment.thesaurus"),
        ("attack={ synonyms = 0.1, thesaurus = 'base' }", "no base to find", "attack.thesaurus"),
        ("attack.tries=0", "at least 1", "attack"),
        ("attack.strength=0.0", "nothing is attacked", "attack"),
        ("attack={ swap = 0.1, thesaurus = 'cilin' }", "says nothing without synonyms", "attack"),
        ("augment={ swap = 0.1, thesaurus = 'cilin' }", "says nothing without synonyms", "augment"),
    ):
        with pytest.raises(UserError, match=message) as error:
            bases.load(file, [setting])
        assert key in error.value.where
    for setting in ("augment.swap=0.1", "attack.swap=0.1"):
        text = file.read_text().replace('"classify"', '"masked"').replace('labels = ["neg", "pos"]', "")
        other = file.with_name("masked.toml")
        other.write_text(text.replace('"lines"', '"text"'))
        with pytest.raises(UserError, match=r"label of a whole text|classifiers of texts"):
            bases.load(other, [setting])


def test_files_of_a_section_are_kept_by_their_whole_paths(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    settings = ["augment={ synonyms = 0.1, thesaurus = 'words.tsv' }", "attack={ synonyms = 0.1, thesaurus = 'cilin' }"]
    found = bases.load(file, settings)
    assert found.augment.thesaurus == str(file.parent / "words.tsv")
    assert found.attack.thesaurus == "cilin"


def test_a_lab_of_classifiers_is_shown_with_its_attacks_and_drawn_with_its_curves(tmp_path, capsys):
    number = lambda value: {"mean": value, "low": value - 0.01, "high": value + 0.01, "values": [value]}
    rows = [{"member": name, "objective": "classify", "accuracy": number(0.9), "accuracy_pgd": number(value)}
            for name, value in (("plain", 0.1), ("pgd", 0.6))]  # fmt: skip
    table = {"name": "tiny", "rows": rows, "compute": None, "baselines": {"classify": {"counts": {"accuracy": 0.8}}}}
    display_lab.lab(table, tmp_path)
    said = capsys.readouterr().out
    assert "0.600 ± 0.010" in said
    assert "PGD" in said
    assert "masked" not in said
    lines = [{"step": step, "nll": 1 / step} for step in range(1, 30)]
    log = [*lines, {"step": 15, "validation_nll": 0.5}, {"step": 29, "bad": "skipped"}]
    write_figure(table, tmp_path / "table.png")
    write_curves({"plain": [log, log[:20]], "pgd": [log]}, tmp_path / "curves.png")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("table.png", "curves.png"))
