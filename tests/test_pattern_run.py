"""Runs that learn from labels by words: from a config to F1, sharded, resumed, predicted, asked, and refused."""

import contextlib
import json
import signal

import numpy as np
import pytest
from tiny_labelled import config, reviews, silent

from minillm.errors import UserError
from minillm.experiment import base as bases
from minillm.experiment import run as runs
from minillm.experiment.ask import prompt as prompting
from minillm.experiment.ask import reopen
from minillm.experiment.ask.predict import predict
from minillm.experiment.paper import describe

PROMPT = '[prompt]\ntemplate = "{text} :{label}"\nwords = ["b", "g"]\n'
SHOTS = PROMPT + "shots = [0, 1]\n"
TEXTS = ["the room good a book", "awful screen the food a", "a"]


def write(root, name, text):
    (root / name).write_text(text)
    return root / name


def tiny(root, kind="bert", steps=40, prompt=PROMPT, more=""):
    """A run on words, 48 tokens of context: room for a demonstration."""
    text = config(root / "reviews.txt", objective="pattern", steps=steps, length=24).replace(
        "context = 24", "context = 48"
    )
    text = text.replace('kind = "bert"', f'kind = "{kind}"') + prompt + more
    return write(root, f"{kind}-{steps}-{len(more)}.toml", text)


def pretraining(objective):
    return f"""
[pretrain]
objective = {{ name = "{objective}" }}
train = {{ steps = 6, batch_size = 8, evaluate_every = 6 }}
baselines = {{ orders = [1], xz = false }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pattern")
    (root / "reviews.txt").write_text(reviews(120))
    return root


@pytest.fixture(scope="module")
def masked(folder):
    path = tiny(folder, prompt=SHOTS, more=pretraining("masked"))
    return folder / "masked", runs.run(bases.load(path), folder / "masked", False, silent, silent)


@pytest.mark.slow
def test_a_masked_run_pretrains_is_asked_learns_words_and_is_judged(masked):
    root, summary = masked
    assert summary["test"]["macro_f1"] > 0.9  # one word of the text decides
    names = ["0 shots", "0 shots, calibrated", "1 shot", "1 shot, calibrated"]
    assert {f"base, {name}" for name in names} <= set(summary["baselines"])
    assert "TF-IDF + logistic regression" in summary["baselines"]
    manifest = json.loads((root / "manifest.json").read_text())
    assert manifest["base"]["new"] == []  # every parameter was pretrained
    good, bad, _ = predict(root, TEXTS)
    assert (good["label"], bad["label"]) == ("pos", "neg")
    assert "accuracy" in reopen.evaluate(root, "test")


@pytest.mark.slow
def test_a_run_is_asked_by_command_with_the_same_answers(masked):
    root, summary = masked
    found = prompting.prompt(
        root / "pretrain", prompting.read_config(root / "config.toml"), "config", prompting.Wanted()
    )
    assert found["texts"] == 24
    for name in ("0 shots", "0 shots, calibrated"):
        row, expected = found["rows"][name]["accuracy"], summary["baselines"][f"base, {name}"]["accuracy"]
        assert row["mean"] == pytest.approx(expected)
        assert row["low"] <= row["mean"] <= row["high"]
    assert len(found["rows"]["1 shot"]["accuracy"]["values"]) == 3  # draws
    assert found["rows"]["1 shot"]["accuracy"]["values"][0] == summary["baselines"]["base, 1 shot"]["accuracy"]
    tuned = prompting.prompt(root, prompting.with_options({}, {"shots": "0", "demonstrations": "similar",
        "template": "{text} :{label}", "words": "pos=g,neg=b"}), "options")  # fmt: skip
    assert tuned["rows"]["0 shots"]["accuracy"]["mean"] == pytest.approx(summary["test"]["accuracy"])


def test_a_config_without_a_prompt_says_nothing_of_one(folder):
    from minillm.config import plain

    assert "prompt" not in plain(bases.load(write(folder, "plain.toml", config(folder / "reviews.txt"))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (['prompt.words=["bad"]'], "1 words for 2 classes"),
        (['prompt.template="no slot"'], "template needs {text} once"),
        (["objective.name=classify"], "classify asks by no template"),
        (["prompt.shots=[0]"], "begins by chance, so that there is nothing to ask"),
        (["model.kind=lstm"], "pattern needs a model that scores words"),
        (['prompt.words=["b", " g"]'], "without blanks around them"),
        (["prompt.shots=[-1]"], "different numbers from 0"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(folder, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        runs.run(bases.load(tiny(folder), change), tmp_path / "run", False, silent, silent)
    assert not (tmp_path / "run").exists()


def test_words_the_tokenizer_parts_and_rows_too_short_leave_nothing_behind(folder, tmp_path):
    for change, message in (
        ('prompt.words=["badly", "goodness"]', "tokens, and there is one place to fill"),
        ("data.length=5", "leave [0-3] tokens to each text in rows of 5"),
    ):
        with pytest.raises(UserError, match=message):
            runs.run(bases.load(tiny(folder), [change]), tmp_path / "run", False, silent, silent)
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_that_knows_no_words_cannot_be_asked(folder, masked, tmp_path):
    path = write(folder, "two.toml", config(folder / "reviews.txt", steps=2))
    runs.run(bases.load(path), tmp_path / "run", False, silent, silent)
    with pytest.raises(UserError, match="has no words to say"):
        prompting.prompt(tmp_path / "run", {}, "here")
    with pytest.raises(UserError, match="no labelled data of its own"):
        prompting.prompt(masked[0] / "pretrain", {}, "here")
    text = tiny(folder).read_text().replace("length = 24", "length = 16")
    text = text[: text.index("[tokenizer]")] + text[text.index("[objective]") :]
    text += f"[base]\nrun = '{tmp_path / 'run'}'\n"
    with pytest.raises(UserError, match="no masked-LM head"):
        runs.run(bases.load(write(folder, "based.toml", text)), tmp_path / "other", False, silent, silent)


def test_describe_counts_a_step_of_words(folder):
    found = describe.describe(bases.load(tiny(folder, "gpt")))
    assert found["trainable_parameters"] == sum(np.prod(row["shape"]) for row in found["parameters"])


MESHES = {"gpt": ["mesh.data=2"], "bert": ["mesh.data=2", "mesh.model=2"]}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt", "bert"])
def test_several_devices_give_the_losses_of_one_and_resume_exactly(kind, folder, tmp_path, monkeypatch):
    path = tiny(folder, kind, steps=6)
    meshes, losses = {"one": [], "several": MESHES[kind]}, {}

    def finish(mesh, root, resume=False):
        settings = ["train.log_every=1", "baselines.text=false", *meshes[mesh]]
        return runs.run(bases.load(path, settings), root, resume, silent, silent)

    found = {mesh: finish(mesh, tmp_path / mesh) for mesh in meshes}
    for mesh in meshes:
        lines = map(json.loads, (tmp_path / mesh / "metrics.jsonl").read_text().splitlines())
        losses[mesh] = [value for line in lines for key, value in line.items() if key in ("loss", "validation_loss")]
    np.testing.assert_allclose(losses["several"], losses["one"], rtol=2e-5)
    asked, fit = iter([False, False, True, True]), runs.loop.fit

    def stop(train_step, state, frozen, key, plan, progress, hooks):
        return fit(train_step, state, frozen, key, plan, progress, hooks._replace(stopping=lambda: next(asked)))

    monkeypatch.setattr(runs.loop, "fit", stop)
    monkeypatch.setattr(runs, "_signals", lambda: contextlib.nullcontext([signal.SIGTERM]))
    with pytest.raises(runs.Stopped, match="step 3"):
        finish("several", tmp_path / "again")
    monkeypatch.undo()
    assert finish("several", tmp_path / "again", resume=True)["parameter_hash"] == found["several"]["parameter_hash"]
