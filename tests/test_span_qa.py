"""Whole runs on questions: learned, predicted, stopped and resumed, on several devices; and what a config may not say."""

import contextlib
import csv
import json
import random
import signal

import numpy as np
import pytest
from tiny_labelled import config, silent
from typer.testing import CliRunner

from minillm.cli import app
from minillm.errors import UserError
from minillm.experiment import base as bases
from minillm.experiment import run as runs
from minillm.experiment.ask.predict import predict

KEYS = 'source = "csv"\ntext_key = "question"\npair_key = "passage"\nanswer_key = "answer"\nstart_key = "start"'
NAMES, PLACES = ("ann", "bob", "cat", "dan", "eve", "fay"), ("rome", "oslo", "bonn", "lima", "kyiv", "bern")


def write(path, number=160):
    """Passages such as "ann: rome. bob: oslo. cat: bonn.", a question "bob" each."""
    generator, rows = random.Random(0), {}
    while len(rows) < number:
        names, places = generator.sample(NAMES, 3), generator.sample(PLACES, 3)
        passage = " ".join(f"{name}: {place}." for name, place in zip(names, places, strict=True))
        asked = generator.randrange(3)
        rows[names[asked], passage] = (names[asked], passage, places[asked], passage.index(places[asked]))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("question", "passage", "answer", "start"), *rows.values()])


def run(root, settings=(), resume=False):
    return runs.run(bases.load(root.parent / "c.toml", list(settings)), root, resume, silent, silent)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("span")
    write(root / "q.csv")
    text = config(root / "q.csv", data=KEYS, objective="span_qa", steps=6, kind="char", length=40)
    (root / "c.toml").write_text(text + "[baselines]\ntext = true\n")
    return root


@pytest.fixture(scope="module")
def tiny(folder):
    return run(folder / "run")


def test_a_run_is_judged_beside_its_baselines(tiny, folder):
    assert tiny["judged"] == "test"
    assert set(tiny["baselines"]) == {"shared words", "most frequent name"}
    for row in (tiny["test"], *tiny["baselines"].values()):
        assert 0.0 <= row["exact_match"] <= row["answer_f1"] <= 1.0
    assert set(tiny["differences"]["shared words"]) == {"answer_f1"}
    assert "answer F1" in (folder / "run/report.html").read_text()


def test_predict_gives_a_span_of_the_passage_with_its_probability(tiny, folder):
    passages = ["ann: rome. bob: oslo.", "dan: bern. " * 9 + "eve: lima."]  # one row, and several
    rows = predict(folder / "run", ["bob", "eve"], passages)
    for row, passage in zip(rows, passages, strict=True):
        assert row["answer"] == passage[row["start"] : row["end"]] != ""
        assert 0.0 < row["probability"] <= 1.0
        assert not row["cut"]
    assert predict(folder / "run", ["b" * 60], passages[:1])[0]["cut"]
    with pytest.raises(UserError, match="learned from pairs"):
        predict(folder / "run", ["bob"])
    shown = CliRunner().invoke(app, ["predict", str(folder / "run"), "--text", "bob", "--pair", passages[0]])
    assert rows[0]["answer"] in shown.stdout


@pytest.mark.slow
def test_a_tiny_model_learns_where_answers_stand(folder, tmp_path):
    """A run of rotary positions, which can learn what stands behind a name."""
    settings = ["train.steps=250", "train.batch_size=16", "train.evaluate_every=250", "model.position='rotary'",
                "model.width=32", "model.dropout=0.0", "model.layers=2", "data.validation=0.1", "data.test=0.1",
                "tokenizer.vocabulary=300"]  # fmt: skip
    (tmp_path / "c.toml").write_text((folder / "c.toml").read_text())
    summary = run(tmp_path / "run", settings)
    assert summary["test"]["exact_match"] > summary["baselines"]["shared words"]["exact_match"] + 0.1


@pytest.mark.slow
def test_shards_and_devices_agree_and_a_stopped_run_resumes_exactly(folder, tiny, tmp_path, monkeypatch):
    (tmp_path / "c.toml").write_text((folder / "c.toml").read_text())
    every = ["train.log_every=1"]
    single = run(tmp_path / "one", every)
    for name, settings in {"mesh": ["mesh.data=2"], "shards": ["train.shards=2"]}.items():
        other = run(tmp_path / name, [*every, *settings])
        losses = [
            [
                json.loads(line)["loss"]
                for line in (tmp_path / who / "metrics.jsonl").read_text().splitlines()
                if '"loss"' in line
            ]
            for who in ("one", name)
        ]
        np.testing.assert_allclose(*losses, rtol=2e-5)
        assert other["validation"]["nll"] == pytest.approx(single["validation"]["nll"], rel=1e-4)
    fit, asked = runs.loop.fit, iter([False, False, True, True])
    stop = lambda *parts: fit(*parts[:-1], parts[-1]._replace(stopping=lambda: next(asked)))
    monkeypatch.setattr(runs.loop, "fit", stop)
    monkeypatch.setattr(runs, "_signals", lambda: contextlib.nullcontext([signal.SIGTERM]))
    with pytest.raises(runs.Stopped, match="step 3"):
        run(tmp_path / "again", every)
    monkeypatch.undo()
    assert run(tmp_path / "again", every, resume=True)["parameter_hash"] == single["parameter_hash"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("objective.name='classify'", "classify needs the classes"),
        ("objective.name='regression'", "regression cannot learn from the source 'csv'"),
        ("model.kind='gpt'", "needs a model that has a head for spans"),
        ("data.labels=['a', 'b']", "labels say nothing beside it"),
        ("objective.answer_length=0", "answer_length must be at least 1"),
        ("data.length=7", "at least 8 tokens"),
        ("data.source='countries-qa'", "path says nothing to the source"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder, tmp_path, setting, message):
    (tmp_path / "c.toml").write_text((folder / "c.toml").read_text())
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", [setting])
    assert not (tmp_path / "run/checkpoints").exists()


def test_an_answer_that_is_not_there_is_said_with_file_and_record_before_anything_is_written(folder, tmp_path):
    lines = (folder / "q.csv").read_text().splitlines()
    (tmp_path / "q.csv").write_text("\n".join([*lines[:3], "bob,ann: rome.,oslo,5", *lines[3:]]) + "\n")
    (tmp_path / "c.toml").write_text((folder / "c.toml").read_text().replace(str(folder), str(tmp_path)))
    with pytest.raises(
        UserError, match="at character 5 of the passage stands 'rome', not the answer 'oslo'"
    ) as failure:
        run(tmp_path / "run")
    assert failure.value.where.endswith("q.csv, record 4")
    assert not (tmp_path / "run/config.toml").exists()
