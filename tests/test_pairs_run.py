"""Runs on pairs of texts, as a user would make them: train, write, judge, predict, resume, several devices."""

import contextlib
import dataclasses
import json
import random
import shutil
import signal

import jax
import numpy as np
import pytest
from tiny_labelled import silent

from minillm.config import load
from minillm.data.augment import read_paraphrases
from minillm.data.placeholders import SIGNS, find, kept
from minillm.errors import UserError
from minillm.experiment import display, writing
from minillm.experiment import run as runs
from minillm.experiment.ask import paraphrase, reopen
from minillm.experiment.ask.predict import predict
from minillm.experiment.ask.translate import open_translator, translate
from minillm.experiment.data import load_data, split_documents

DIGITS = dict(
    zip(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
        "零一二三四五六七八九",
        strict=True,
    )
)
CONFIG = """
name = "digits"
[data]
source = "jsonl"
path = "{path}"
text_key = "en"
target_key = "zh"
length = 16
target_length = 8
validation = 0.1
test = 0.1
[pairs]
placeholders = true
longer = "drop"
capitals = "fold"
beams = 2
[tokenizer]
vocabulary = 340
[model]
kind = "{kind}"
context = 24
layers = 1
width = 32
heads = 2
[objective]
name = "sequence_to_sequence"
[train]
steps = {steps}
batch_size = 16
evaluate_every = {every}
log_every = 1
[optimizer]
learning_rate = 1e-2
warmup_steps = 10
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Numbers word by word, with a placeholder in some."""
    root, draw = tmp_path_factory.mktemp("pairs"), random.Random(0)
    rows = {}
    while len(rows) < 260:
        words = [draw.choice([*DIGITS, "%(x)s"]) for _ in range(draw.randint(1, 4))]
        rows[" ".join(words)] = "".join(DIGITS.get(word, word) for word in words)
    lines = [json.dumps({"en": source, "zh": target}) for source, target in rows.items()]
    (root / "pairs.jsonl").write_text("\n".join(lines))
    return root / "pairs.jsonl"


def config(file, *, steps=120, kind="transformer", more=()):
    path = file.with_name(f"{kind}.toml")
    path.write_text(CONFIG.format(path=file, kind=kind, steps=steps, every=max(steps // 2, 1)))
    return load(path, more)


@pytest.fixture(scope="module")
def done(file, tmp_path_factory):
    root = tmp_path_factory.mktemp("done") / "run"
    return root, runs.run(config(file), root, False, silent, silent)


def test_a_run_is_judged_by_what_it_writes(done):
    root, summary = done
    assert summary["judged"] == "test"
    assert {"nll", "exact", "bleu", "chrf"} <= set(summary["validation"])
    assert {"word by word", "nearest training text"} == set(summary["baselines"])
    low, high = summary["intervals"]["chrf"]
    assert low <= summary["test"]["chrf"] <= high
    assert set(summary["differences"]["word by word"]) == {"bleu", "chrf"}
    assert summary["test"]["placeholders_kept"] > 0.5
    assert summary["baselines"]["word by word"]["exact_match"] > 0.8  # the task is a word table
    evaluation = json.loads((root / "evaluation.json").read_text())
    exact = np.mean([row["this model"] == row["reference"] for row in evaluation["written"]])
    assert exact == pytest.approx(summary["test"]["exact_match"])
    speeds = [line for line in (root / "metrics.jsonl").read_text().splitlines() if "per_second" in line]
    assert speeds
    assert all("examples_per_second" in line for line in speeds)  # tokens would be counted with their padding
    report = (root / "report.html").read_text()
    assert "BLEU" in report
    assert "word by word" in report
    assert evaluation["written"][0]["reference"] in report


def test_what_was_learned_is_evaluated_predicted_and_sampled_alike(done, capsys):
    root, summary = done
    found = reopen.evaluate(root, "test")
    assert {name: found[name] for name in summary["test"]} == pytest.approx(summary["test"])
    texts = ["one %(x)s two", "Nine", "one two three four " * 5]
    rows = predict(root, texts)
    assert [row["written"] for row in rows] == translate(root, texts)
    assert [row["cut"] for row in rows] == [False, False, True]
    assert all(row["placeholders_kept"] == (find(row["text"]) == find(row["written"])) for row in rows)
    display.predictions(rows)
    assert rows[1]["written"] in capsys.readouterr().out
    from minillm.config import SampleConfig

    (sample,) = reopen.sample(root, SampleConfig(prompts=(texts[0],)))
    assert sample["text"] == f"\n→ {rows[0]['written']}"
    for bad in ([], [" "]):
        with pytest.raises(UserError):
            predict(root, bad)


@pytest.mark.slow
def test_held_to_its_signs_a_run_keeps_them_all_and_may_be_sampled(done):
    opened, params = open_translator(done[0])
    exact = dataclasses.replace(opened.experiment, pairs=dataclasses.replace(opened.experiment.pairs, exact=True))
    write = lambda texts, draw=None: writing.write(opened.setup, exact, params, opened.tokenizer, texts, draw)
    texts = [
        "one %(x)s two",
        "nine",
        "%(y)s",
        "%d one %s %d",
        "%s %s %s",
        "<b>two</b> %%",
        "one %(x)s two " * 3,
    ]
    loose = writing.write(opened.setup, opened.experiment, params, opened.tokenizer, texts)
    assert not all(kept(text, said) for text, said in zip(texts, loose, strict=True))
    drawn = [writing.Draw(2.0, jax.random.key(seed)) for seed in (0, 0, 1)]
    found = [write(texts), *(write(texts, draw) for draw in drawn)]
    for said in found:
        assert [sorted(find(text)) for text in texts] == [sorted(find(text)) for text in said]
    assert found[1] == found[2] != found[3]
    assert found[0][1] == loose[1]  # what had them is written as before


def test_training_texts_come_back_in_other_words(done, file, tmp_path):
    root, _ = done
    shutil.copytree(root, tmp_path / "back")  # of Chinese it knows nothing: what it says is other words at least
    (tmp_path / "texts.jsonl").write_text(
        "".join(json.dumps({"text": f"{a} {b}", "label": a}) + "\n" for a in ("one", "two") for b in DIGITS)
        + json.dumps({"text": "one two three four " * 9, "label": "one"})
    )
    data = f'source = "jsonl", path = "{tmp_path}/texts.jsonl", label_key = "label", labels = ["one", "two"]'
    (tmp_path / "lab.toml").write_text(f"""name = "lab"
[shared]
data = {{ {data}, validation = 0.2 }}
[members.a]
[members.b]
data = {{ split_seed = 1 }}
""")
    (tmp_path / "one.toml").write_text(f"data = {{ {data}, validation = 0.2 }}")
    lines, runs_there = [], (root, tmp_path / "back")
    reword = lambda name, out, wanted: paraphrase.paraphrase(
        tmp_path / name, [], runs_there, tmp_path / out, wanted, lines.append
    )
    found = reword("one.toml", "a.jsonl", paraphrase.Wanted(2, 1.0))
    made = read_paraphrases(tmp_path / "a.jsonl")
    train = paraphrase.training_texts(tmp_path / "one.toml")
    assert 10 < len(train) < 20
    assert set(made) <= set(train)
    assert found["reworded"] == len(made)
    assert found["cut"] == any(len(text) > 100 for text in train)
    assert all(text not in others and len(set(others)) == len(others) for text, others in made.items())
    assert max(map(len, made.values())) == 2
    assert len(lines) == 2
    assert found["texts"] == len(train)
    both = paraphrase.training_texts(tmp_path / "lab.toml")
    assert set(train) < set(both)
    assert len(both) == len(set(both))
    refused = {
        "already": lambda: reword("one.toml", "a.jsonl", paraphrase.Wanted()),
        "temperature": lambda: reword("one.toml", "b.jsonl", paraphrase.Wanted(temperature=0.0)),
        "same run": lambda: paraphrase.paraphrase(
            tmp_path, [], (root, root), tmp_path / "b", paraphrase.Wanted(), print
        ),
        "no such config": lambda: reword("none.toml", "b.jsonl", paraphrase.Wanted()),
        "other words": lambda: paraphrase.training_texts(file.with_name("transformer.toml")),
    }
    for words, asked in refused.items():
        with pytest.raises(UserError) as error:
            asked()
        assert words in str(error.value)
    assert not (tmp_path / "b.jsonl").exists()


def test_signs_are_pieces_of_their_own_and_no_text_of_a_part_is_in_another(done, file):
    root, _ = done
    data = load_data(reopen.open_run(root).experiment, root / "tokenizer.model")
    pieces = [data.tokenizer.processor.id_to_piece(number) for number in range(data.tokenizer.vocabulary)]
    assert [[piece for piece in pieces if sign in piece] for sign in SIGNS] == [[sign] for sign in SIGNS]
    parts = [{d.text for d in part} for part in data.documents.values()]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    whole, part = data.batch(3), data.batch_rows(3, slice(4, 9))
    assert all((whole[name][4:9] == part[name]).all() for name in whole)


def test_a_source_in_two_files_is_an_error_or_leaves_the_part_nearer_to_training(file, tmp_path):
    (tmp_path / "test.csv").write_text("en,zh\nONE  two!,一二\nnew words,新词\n")
    (tmp_path / "train.csv").write_text("en,zh\none two,一二\nthree,三\nfour,四\nfive,五\nsix,六\n")
    more = [
        f"data.path={tmp_path}/train.csv",
        f"data.test_path={tmp_path}/test.csv",
        "data.source=csv",
        "data.test=0.0",
    ]
    with pytest.raises(UserError, match="1 texts stand in two parts"):
        split_documents(config(file, more=more))
    splits, report = split_documents(config(file, more=[*more, "data.drop_leaks=true", "data.validation=0.3"]))
    assert {d.text for d in splits.test} == {"ONE  two!", "new words"}
    assert "one two" not in {d.text for d in (*splits.train, *splits.validation)}
    assert report["leaks"]["train in test"]["folded"] == 1


@pytest.mark.slow
def test_a_t5_writes_too(file, tmp_path):
    summary = runs.run(config(file, steps=4, kind="t5"), tmp_path / "t5", False, silent, silent)
    assert set(summary["test"]) == {"bleu", "chrf", "exact_match", "placeholders_kept", "placeholders_kept_where_any"}
    assert len(translate(tmp_path / "t5", ["one two", "nine"])) == 2


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_same_bits_and_two_devices_give_its_losses(file, tmp_path, monkeypatch):
    whole = runs.run(config(file, steps=6), tmp_path / "one", False, silent, silent)
    losses = lambda root: [json.loads(line)["loss"] for line in (root / "metrics.jsonl").read_text().splitlines()
                           if '"loss"' in line]  # fmt: skip
    two = config(file, steps=6, more=["mesh.data=2"])
    runs.run(two, tmp_path / "two", False, silent, silent)
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=2e-5)
    fit = runs.loop.fit

    def stop(train_step, state, frozen, key, plan, progress, hooks):
        asked = iter([False, False, True, True])
        return fit(train_step, state, frozen, key, plan, progress, hooks._replace(stopping=lambda: next(asked)))

    with monkeypatch.context() as patch:
        patch.setattr(runs.loop, "fit", stop)
        patch.setattr(runs, "_signals", lambda: contextlib.nullcontext([signal.SIGTERM]))
        with pytest.raises(runs.Stopped):
            runs.run(config(file, steps=6), tmp_path / "again", False, silent, silent)
    again = runs.run(config(file, steps=6), tmp_path / "again", True, silent, silent)
    assert again["parameter_hash"] == whole["parameter_hash"]


def test_what_does_not_fit_together_is_refused(file, tmp_path):
    cases = {
        "data.target_key=nothing": "no field",
        "data.pair_key=en2": "labels or a target",
        "pairs.beams=0": "beams",
        "pairs={exact=true}": "placeholders",
        "pairs.judges=1": "judge",
        "pairs.longest=1": "no pair",
        "data.target_length=30": "longer",
        "objective.name=classify": "needs",
    }
    for setting, words in cases.items():
        with pytest.raises(UserError) as refused:
            runs.run(config(file, more=[setting]), tmp_path / "run", False, silent, silent)
        assert words in str(refused.value), (setting, refused.value)
        assert not (tmp_path / "run").exists()
    text = CONFIG.format(path=file, kind="t5", steps=1, every=1).replace('target_key = "zh"\n', "")
    text = text.replace("target_length = 8\n", "")
    (tmp_path / "single.toml").write_text(text)
    with pytest.raises(UserError, match="needs pairs of texts"):
        load(tmp_path / "single.toml")
