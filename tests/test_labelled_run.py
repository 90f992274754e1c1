"""Runs that learn from labels, as a user would make them: pretrain, fine-tune, judge, predict, resume, verify, sweep."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_labelled import OTHER, PRETRAIN, based, config, reviews, silent

from minillm import config as configs
from minillm.data import tokenizer
from minillm.data.document import Document
from minillm.errors import UserError
from minillm.experiment import base as bases
from minillm.experiment import display, display_lab, judging
from minillm.experiment import fork as forks
from minillm.experiment import run as runs
from minillm.experiment.ask import reopen
from minillm.experiment.ask.predict import predict
from minillm.experiment.data import load_data
from minillm.experiment.many import lab as labs
from minillm.experiment.many import sweep as sweeps
from minillm.experiment.verify import verify
from minillm.training import checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("labelled")
    path = root / "reviews.txt"
    path.write_text(reviews())
    (root / "plain.toml").write_text(config(path))
    (root / "staged.toml").write_text(config(path) + PRETRAIN)
    return root


@pytest.fixture(scope="module")
def staged(folder):
    root = folder / "run"
    summary = runs.run(bases.load(folder / "staged.toml"), root, False, silent, silent)
    return root, summary


def test_one_command_pretrains_tunes_and_judges(staged):
    root, summary = staged
    assert summary["judged"] == "test"
    assert summary["test"]["macro_f1"] > 0.9  # one word decides
    low, high = summary["intervals"]["macro_f1"]
    assert low <= summary["test"]["macro_f1"] <= high
    assert (root / "pretrain/summary.json").exists()
    evaluation = json.loads((root / "evaluation.json").read_text())
    confusion = np.array(evaluation["this model"]["details"]["confusion"])
    assert confusion.sum() == 60
    assert np.trace(confusion) / 60 == pytest.approx(summary["test"]["accuracy"])
    with pytest.raises(UserError, match="learned to label texts, not to write them -> use `minillm predict`"):
        reopen.sample(root, configs.SampleConfig(("a <mask> b",)))


def test_the_model_is_compared_with_each_baseline_on_the_same_documents(staged):
    _, summary = staged
    assert summary["differences"].keys() == summary["baselines"].keys() >= {"most frequent class"}
    for name, found in summary["differences"].items():
        row = found["macro_f1"]
        assert row["value"] == pytest.approx(summary["test"]["macro_f1"] - summary["baselines"][name]["macro_f1"])
        assert row["low"] <= row["value"] <= row["high"]
    assert summary["differences"]["most frequent class"]["macro_f1"]["low"] > 0.0
    row = {"value": 0.1, "low": 0.05, "high": 0.2}
    assert display.difference("X", "macro_f1", row) == "macro F1 +0.100 [+0.050, +0.200] against X"
    assert "may be chance" in display.difference("X", "macro_f1", row | {"low": -0.05})


def test_scores_that_are_undefined_are_named_in_words_where_there_are_any(folder, staged):
    assert not any("undefined" in name for name in reopen.evaluate(staged[0], "test"))
    documents = [Document(str(number), "a", label) for number, label in enumerate(["neg", "pos", "neg"])]
    found = judging.judge(bases.load(folder / "plain.toml"), documents, np.array([[0.9, 0.1]] * 3))
    assert found.metrics["scores_undefined_and_counted_as_0"] == 1.0  # the precision of "pos", which is never predicted
    assert found.intervals.keys() == found.metrics.keys() - {judging.ZEROS}


def test_pretraining_and_tokenizer_see_the_training_part_only(staged, tmp_path):
    root, _ = staged
    before, after = (json.loads((root / name / "manifest.json").read_text()) for name in ("pretrain", "."))
    assert before["tokenizer_sha256"] == after["tokenizer_sha256"]
    train = bases_splits(bases.configs.load(root / "config.toml"))["train"]
    tokenizer.train(train, 300, "bpe", model_file=tmp_path / "again.model")
    assert (tmp_path / "again.model").read_bytes() == (root / "tokenizer.model").read_bytes()
    experiments = [bases.configs.load(root / name / "config.toml") for name in ("pretrain", ".")]
    parts = [bases_splits(experiment) for experiment in experiments]
    assert parts[0] == parts[1]
    assert not set(parts[0]["train"]) & set(parts[0]["test"])


def bases_splits(experiment):
    from minillm.experiment.data import split_documents

    return {name: [d.text for d in part] for name, part in split_documents(experiment)[0]._asdict().items()}


def test_tuning_begins_with_what_pretraining_learned(staged):
    from minillm.experiment.setup import make_setup, new_state
    from minillm.params import flatten

    root, _ = staged
    experiment = bases.configs.load(root / "config.toml")
    setup = make_setup(experiment, 301)
    base = bases.read(experiment, root, setup.specs)
    assert base.about["new"] == ["classify/bias", "classify/kernel", "pooler/bias", "pooler/kernel"]
    state, _ = new_state(setup, base.arrays)
    born = flatten(state.trainable)
    for path, array in base.arrays.items():
        np.testing.assert_array_equal(born[path], array)
    assert not np.array_equal(born["embedding/table"], flatten(new_state(setup)[0].trainable)["embedding/table"])


def test_predict_gives_probabilities_and_says_what_it_cannot_read(staged):
    root, _ = staged
    good, bad = predict(root, ["the room good a book", "awful screen the food a"])
    assert (good["label"], bad["label"]) == ("pos", "neg")
    assert sum(good["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
    for texts, words in (([], "no text"), ([" "], "text is empty")):
        with pytest.raises(UserError, match=words):
            predict(root, texts)
    with pytest.raises(UserError, match="labels no texts"):
        predict(root / "pretrain", ["a"])


def test_the_run_replays_from_its_base_and_names_another_one(staged, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(staged[0], root)
    assert verify(root, 3, silent)["equal"]
    other = runs.run(bases.configs.load(root / "pretrain/config.toml"), tmp_path / "other", False, silent, silent)
    assert other["steps"] == 6
    shutil.rmtree(root / "pretrain/checkpoints")
    experiment = bases.load(root / "pretrain/config.toml", ["train.seed=5"])
    runs.run(experiment, tmp_path / "seeded", False, silent, silent)
    shutil.copytree(tmp_path / "seeded/checkpoints", root / "pretrain/checkpoints")
    with pytest.raises(UserError, match="no longer those"):
        verify(root, 3, silent)


# `minillm run`, which after the first step of a stage says so and waits until it may go on
WAITING = """
import sys
from minillm.commands.shared import prepare
prepare()
from minillm import cli
from minillm.experiment import folder as folders
append, place = folders.append_line, sys.argv.pop(1)
def append_and_wait(path, line):
    append(path, line)
    if str(path.parent) == place and line["step"] == 1:
        print("waiting", flush=True)
        sys.stdin.readline()
folders.append_line = append_and_wait
cli.main()
"""


@pytest.mark.parametrize("stage", ["pretrain", pytest.param(".", marks=pytest.mark.slow)])
def test_ctrl_c_in_either_stage_saves_and_the_command_that_is_said_ends_as_the_straight_run(
    folder, staged, tmp_path, stage
):
    root, steps = tmp_path / "run", {"pretrain": 6, ".": 80}[stage]
    command = [sys.executable, "-c", WAITING, str(root / stage), "run", str(folder / "staged.toml"), "--out", str(root)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        while run.stdout.readline() not in ("waiting\n", ""):
            pass
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate("\n", timeout=120)
    assert run.returncode == 130, errors
    saved = checkpoint.latest(root / stage / "checkpoints")
    assert 0 < saved < steps
    assert (root / "checkpoints").exists() == (stage == ".")
    again = f"minillm run {folder / 'staged.toml'} --out {root} --resume"
    assert errors == f"minillm: stopped and saved at step {saved} in {root / stage}; go on with: {again}\n"
    summary = runs.run(bases.load(folder / "staged.toml"), root, True, silent, silent)
    assert summary["parameter_hash"] == staged[1]["parameter_hash"]
    for log in ("provenance.jsonl", "pretrain/provenance.jsonl"):
        assert (root / log).read_bytes() == (staged[0] / log).read_bytes()


def test_another_run_is_a_base_with_its_tokenizer_and_model(folder, staged, tmp_path):
    (tmp_path / "based.toml").write_text(based(folder / "reviews.txt", staged[0] / "pretrain"))
    experiment = bases.load(tmp_path / "based.toml", ["train.steps=4"])
    assert experiment.model["width"] == 16
    assert experiment.base.vocabulary == 301
    summary = runs.run(experiment, tmp_path / "based", False, silent, silent)
    assert (tmp_path / "based/tokenizer.model").read_bytes() == (staged[0] / "tokenizer.model").read_bytes()
    shutil.move(staged[0] / "pretrain", tmp_path / "moved")  # a run that has ended needs its base no longer
    try:
        assert predict(tmp_path / "based", ["good"])[0]["label"] in ("neg", "pos")
    finally:
        shutil.move(tmp_path / "moved", staged[0] / "pretrain")
    assert summary["steps"] == 4


def test_a_vit_fills_in_patches_before_it_learns_classes(tmp_path):
    """A stage before without a tokenizer: images have none."""
    sections = {
        "data": {"source": "digits"}, "model": {"kind": "vit", "patch": 4, "layers": 1, "width": 16, "heads": 2},
        "objective": {"name": "classify"}, "train": {"steps": 2, "evaluate_every": 2},
        "pretrain": {"objective": {"name": "masked_patches"}, "train": {"steps": 2, "evaluate_every": 2}},
    }  # fmt: skip
    summary = runs.run(bases.check(sections, "test"), tmp_path / "run", False, silent, silent)
    assert summary["steps"] == 2
    about = json.loads((tmp_path / "run/manifest.json").read_text())["base"]
    assert about["taken"] > 10
    assert {path.partition("/")[0] for path in about["new"]} == {"classify"}
    assert not (tmp_path / "run/tokenizer.model").exists()


def test_adapters_are_saved_and_switched_on_their_own_base_alone(folder, staged, tmp_path):
    from minillm.experiment import adapters

    (tmp_path / "c.toml").write_text(based(folder / "reviews.txt", staged[0] / "pretrain"))
    said = {}
    for method, settings in {"lora": [], "adalora": ["data.labels=['pos', 'neg']"]}.items():
        experiment = bases.load(tmp_path / "c.toml", [f"tuning.method={method}", "train.steps=20", *settings])
        runs.run(experiment, tmp_path / method, False, silent, silent)
        said[method] = predict(tmp_path / method, ["good room", "awful room"])
        assert adapters.save(tmp_path / method, tmp_path / f"{method}.safetensors")["bytes"] < 60_000
    assert (
        predict(tmp_path / "adalora", ["good room", "awful room"], None, tmp_path / "lora.safetensors") == said["lora"]
    )
    assert predict(tmp_path / "lora", ["good room", "awful room"], None, tmp_path / "lora.safetensors") == said["lora"]
    other = bases.load(folder / "plain.toml", ["tuning.method=lora", "train.steps=2", "tokenizer.vocabulary=300"])
    runs.run(other, tmp_path / "other", False, silent, silent)
    with pytest.raises(UserError, match="base"):
        predict(tmp_path / "other", ["good"], None, tmp_path / "lora.safetensors")


@pytest.mark.parametrize(("settings", "words"), [
    (["model.width=32"], "the base has 16, got 32"), (["model.heads=4"], "the base has 2, got 4"),
    (["model.position='rotary'"], "the base has 'learned', got 'rotary'"),
    (["model.context=24"], "is .* in the base and .* here"),
    (["model.kind='gpt'"], "needs a model that|the base is a bert"),
    (["tokenizer.vocabulary=300"], "the base brings its tokenizer"),
    (["base.run='nowhere'"], "not a run"),
])  # fmt: skip
def test_a_base_that_does_not_fit_is_refused(folder, staged, tmp_path, settings, words):
    (tmp_path / "c.toml").write_text(based(folder / "reviews.txt", staged[0] / "pretrain"))
    with pytest.raises(UserError, match=words):
        runs.run(bases.load(tmp_path / "c.toml", settings), tmp_path / "run", False, silent, silent)
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_a_pretraining_of_the_trunk_s_own_becomes_the_base_of_its_branches(staged, tmp_path):
    root, summary = staged
    found = runs.run(forks.make(root, 40, []), tmp_path / "branch", False, silent, silent)
    assert found["parameter_hash"] == summary["parameter_hash"]
    assert not (tmp_path / "branch/pretrain").exists()
    assert json.loads((tmp_path / "branch/manifest.json").read_text())["base"]["run"] == str(root / "pretrain")
    assert verify(tmp_path / "branch", 3, silent)["equal"]


@pytest.mark.slow
def test_a_sweep_shares_pretraining_and_gives_a_row_per_point(folder, tmp_path):
    command = [sys.executable, "-m", "minillm.cli", "sweep", str(folder / "staged.toml"), "--set", "train.steps=10",
               "--set", "train.evaluate_every=10", "--grid", "optimizer.learning_rate=1e-4,1e-2", "--seeds", "0,1", "--parallel", "2",
               "--out", str(tmp_path), "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "XLA_FLAGS": ""})
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["point"] for row in table["rows"]] == [
        {"optimizer.learning_rate": "1e-4"},
        {"optimizer.learning_rate": "1e-2"},
    ]
    assert all(len(row["macro_f1"]["values"]) == 2 and "low" in row["macro_f1"] for row in table["rows"])
    assert sorted(path.name for path in (tmp_path / "bases").iterdir()) == ["pretrain-0", "pretrain-1"]
    made = [bases.load(path) for path in sorted((tmp_path / "configs").glob("learning_rate*"))]
    own = bases.load(folder / "staged.toml").model
    assert all({**found.model, "tasks": None} == {**own, "tasks": None} for found in made)
    judged = json.loads((tmp_path / "runs/learning_rate-1e-4-0/summary.json").read_text())
    assert table["rows"][0]["log_loss"]["values"][0] == judged["validation"]["log_loss"] != judged["test"]["log_loss"]
    assert not table["baselines"]  # they are judged on the test part
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_goes_on_pretraining_a_base_once_per_seed(folder, staged, tmp_path):
    (tmp_path / "adapted.toml").write_text(based(folder / "reviews.txt", staged[0] / "pretrain") + PRETRAIN)
    lab = sweeps.plan(tmp_path / "adapted.toml", [], ["train.steps=2,3"], (0, 1)).lab
    stages = {name: bases.check(sections, name) for name, sections in lab.bases.items()}
    assert [stage.train.seed for stage in stages.values()] == [0, 1]
    assert {stage.objective.name for stage in stages.values()} == {"masked"}
    assert {stage.base.run for stage in stages.values()} == {str(staged[0] / "pretrain")}
    assert {sections["base"]["run"] for sections in lab.sections().values()} == {"@pretrain-{seed}"}
    labs._refuse_early(lab)


@pytest.mark.parametrize(("grid", "seeds", "words"), [
    (["train.steps"], (0,), "expected section.key=value"), (["train.steps=2,2"], (0,), "two points are called steps-2"),
    (["train.steps=2"], (0, 0), "no seed twice"), (["train.stepz=2"], (0,), "did you mean 'steps'"),
])  # fmt: skip
def test_a_grid_that_makes_no_sense_is_refused_before_anything_runs(folder, tmp_path, grid, seeds, words):
    with pytest.raises(UserError, match=words):
        labs.plan(sweeps.plan(folder / "plain.toml", [], grid, seeds).lab, tmp_path, silent)
    assert not list(tmp_path.iterdir())


def test_a_base_that_has_changed_is_not_taken_for_the_new_one(folder, tmp_path):
    """The lab's folder holds the base of another file: it is refused, not reused."""
    (tmp_path / "matrix.toml").write_text(TASKS.format(path=folder / "reviews.txt"))
    lab = labs.load(tmp_path / "matrix.toml", ("bases.staged.train.steps=5",))
    (tmp_path / "out/configs").mkdir(parents=True)
    (tmp_path / "out/configs/staged.toml").write_text("name = 'staged'\n")
    with pytest.raises(UserError, match="another lab's run"):
        labs.run_lab(lab, tmp_path / "out", (), silent)


def test_a_member_that_cannot_run_is_refused_before_any_has(folder, tmp_path):
    """A prompt takes up context that the rows of the task need."""
    raw = bases.configs.read_toml(folder / "plain.toml", [])
    member = {key: value for key, value in raw.items() if key != "name"} | {"tuning": {"method": "prompt"}}
    lab = labs.Lab("lab", members={"plain": {**member, "tuning": {}}, "prompt": member}, seeds=(0,))
    with pytest.raises(UserError, match=r"longer than what tuning\.prompt_length leaves"):
        labs.run_lab(lab, tmp_path, (), silent)
    assert not list(tmp_path.iterdir())


def test_names_that_run_together_are_refused():
    section = {"a": {}}
    with pytest.raises(ValueError, match="same name"):
        labs.Lab("lab", tasks={"x": section, "x-y": section}, methods={"y-z": section, "z": section})


TASKS = """
name = "matrix"
seeds = [0]
[bases.staged]
data = {{ source = "lines", path = "{path}", labels = ["neg", "pos"], validation = 0.2, test = 0.2, length = 16 }}
tokenizer = {{ vocabulary = 300 }}
model = {{ kind = "bert", context = 16, layers = 1, width = 16, heads = 2 }}
objective = {{ name = "masked" }}
train = {{ steps = 4, batch_size = 8, evaluate_every = 4 }}
[shared]
base = {{ run = "@staged" }}
train = {{ steps = 6, batch_size = 8, evaluate_every = 6, log_every = 2 }}
[tasks.whole]
data = {{ source = "lines", path = "{path}", labels = ["neg", "pos"], validation = 0.2, test = 0.2, length = 16 }}
objective = {{ name = "classify" }}
[tasks.short]
data = {{ source = "lines", path = "{path}", labels = ["neg", "pos"], validation = 0.2, test = 0.2, length = 8 }}
objective = {{ name = "classify" }}
[methods.full]
optimizer = {{ learning_rate = 1e-3 }}
[methods.lora]
tuning = {{ method = "lora" }}
optimizer = {{ learning_rate = 1e-2 }}
"""


@pytest.mark.slow
def test_methods_by_tasks_share_a_base_and_make_one_table(folder, tmp_path):
    (tmp_path / "matrix.toml").write_text(TASKS.format(path=folder / "reviews.txt"))
    command = [
        sys.executable,
        "-m",
        "minillm.cli",
        "lab",
        str(tmp_path / "matrix.toml"),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "XLA_FLAGS": ""})
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out/table.json").read_text())["rows"]
    assert [(row["task"], row["method"]) for row in rows] == [
        (t, m) for t in ("whole", "short") for m in ("full", "lora")
    ]
    full, lora = rows[:2]
    assert lora["trainable_parameters"] < full["trainable_parameters"] == full["parameters"]
    assert lora["checkpoint_bytes"]["mean"] < full["checkpoint_bytes"]["mean"]
    assert all(row["step_seconds"]["mean"] > 0.0 for row in rows)
    assert (tmp_path / "out/table.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "out/bases").iterdir()] == ["staged"]


def test_the_table_of_methods_names_them_in_a_narrow_terminal(capsys, monkeypatch):
    """Also where no run was long enough to time a step."""
    monkeypatch.setenv("COLUMNS", "80")
    score = {"mean": 0.8, "deviation": 0.02, "values": [0.8, 0.8], "low": 0.75, "high": 0.85}
    row = {"macro_f1": score, "trainable_parameters": 2_359_643, "peak_memory_bytes": score, "checkpoint_bytes": score}
    rows = [row | {"task": t, "method": m} for t in ("sentiment", "names", "titles") for m in ("full", "adalora")]
    display_lab.lab(
        {"name": "methods", "rows": rows, "baselines": {"names": {"most frequent class": {"macro_f1": 0.3}}}}, "out"
    )
    printed = capsys.readouterr().out
    assert printed.count("adalora") == 2  # what it reaches, and what it costs
    assert printed.count("0.800 ± 0.050") == 6
    assert "most frequent class" in printed


def test_document_4_reads_files_of_one_s_own_as_its_header_says(tmp_path, monkeypatch):
    """200 lines with colons in the text too, and both kinds of colon before the label."""
    path = Path(__file__).parents[1] / "configs/documents/d4.toml"
    settings = [found.strip("'") for found in re.findall(r"--set ('[^']*'|[^\s,]+)", path.read_text())]
    one, apart = settings[:3], settings[3:6]
    lines = [f"{'好坏'[number % 2]}, 8:{number} 到货{':：'[number // 2 % 2]}{number % 2}\n" for number in range(200)]
    monkeypatch.chdir(tmp_path)
    parts = {"my.txt": lines[:160], "val.txt": lines[160:180], "test.txt": lines[180:]}
    for sets, files, sizes in ((one, {"my.txt": lines}, (160, 20, 20)), ([*one, *apart], parts, (160, 20, 20))):
        for name, rows in files.items():
            Path(name).write_text("".join(rows), encoding="utf8")
        experiment = bases.load(path, sets)
        data = load_data(experiment, tmp_path / "tokenizer.model")
        assert tuple(len(part) for part in data.documents.values()) == sizes
        assert data.batch(0)["tokens"].shape == (16, 64)
        for document in data.documents["train"]:
            number = int(re.fullmatch(r"[好坏], 8:(\d+) 到货", document.text)[1])
            assert document.label == str(number % 2)


KINDS = {
    "multi_label": (
        'source = "tsv"\nlabel_key = "label"\nlabel_separator = ","\nlabels = ["plant", "animal"]',
        "macro_f1",
    ),
    "regression": ('source = "tsv"\nlabel_key = "label"', "r2"),
    "tag": ('source = "conll"\nlabels = ["LOC"]', "entity_f1"),
    "classify": ('source = "tsv"\nlabel_key = "label"\npair_key = "other"\nlabels = ["same", "different"]', "macro_f1"),
}


def rows_of(kind):
    generator, found = random.Random(1), {}
    while len(found) < 240:
        words = [generator.choice([*OTHER, "leaf", "wolf", "rome", "oslo"]) for _ in range(6)]
        if kind == "multi_label":
            label = ",".join(name for name, word in (("plant", "leaf"), ("animal", "wolf")) if word in words)
            row = f"{' '.join(words)}\t{label}" if label else ""
        elif kind == "regression":
            row = f"{' '.join(words)}\t{words.count('leaf') - words.count('wolf')}"
        elif kind == "classify":
            other = generator.choice(["leaf", "wolf"])
            words = [word for word in words if word not in ("leaf", "wolf")]  # only the second sentence tells
            row = f"{' '.join(words)}\t{'same' if other == 'leaf' else 'different'}\tthe {other} {generator.choice(OTHER)} {len(found)}"
        else:
            row = "\n".join(f"{word} {'B-LOC' if word in ('rome', 'oslo') else 'O'}" for word in words) + "\n"
        found[row] = None
        found.pop("", None)
    head = {"tag": "", "classify": "text\tlabel\tother\n"}.get(kind, "text\tlabel\n")
    return head + "\n".join(found) + "\n"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_label_is_learned_judged_and_predicted(kind, tmp_path):
    section, metric = KINDS[kind]
    (tmp_path / "data.txt").write_text(rows_of(kind))
    text = config(tmp_path / "data.txt", data=section, objective=kind, steps=500, length=24)
    (tmp_path / "c.toml").write_text(text)
    experiment = bases.load(tmp_path / "c.toml", ["train.evaluate_every=500", "model.dropout=0.0"])
    summary = runs.run(experiment, tmp_path / "run", False, silent, silent)
    assert summary["test"][metric] > 0.8, summary["test"]
    assert summary["baselines"]
    asked = {"pairs": ["the leaf book 120"]} if kind == "classify" else {}
    (row,) = predict(tmp_path / "run", ["the room a book" if asked else "the wolf the rome a"], **asked)
    if kind == "multi_label":
        assert row["labels"] == ["animal"]
    elif kind == "regression":
        assert row["value"] == pytest.approx(-1.0, abs=0.5)
    elif kind == "tag":
        assert row["entities"] == [{"kind": "LOC", "text": "rome", "start": 3, "end": 4}]
    else:
        assert row["label"] == "same"


def test_markers_say_which_tokens_a_classifier_reads(tmp_path):
    """From the config to a prediction; a text without them is refused."""
    texts = (line.rpartition(":") for line in reviews(40).splitlines())
    (tmp_path / "marked.txt").write_text("\n".join(f"{text} E1 x E1 E2 y E2:{label}" for text, _, label in texts))
    (tmp_path / "c.toml").write_text(config(tmp_path / "marked.txt", steps=2))
    settings = ["objective.markers=['E1', 'E2']", "baselines.text=false", "data.length=64", "model.context=64"]
    experiment = bases.load(tmp_path / "c.toml", settings)
    assert experiment.model["marks"] == 2
    data = load_data(experiment, tmp_path / "tokenizer.model")
    batch = data.batch(0)
    for row, places in zip(batch["tokens"], batch["target_positions"], strict=True):  # each where its marker begins
        for place, marker in zip(places, ("E1", "E2"), strict=True):
            before, after = data.tokenizer.decode(row[:place]), data.tokenizer.decode(row[place:])
            assert (marker in before, after.lstrip().startswith(marker)) == (False, True)
    assert runs.run(experiment, tmp_path / "run", False, silent, silent)["steps"] == 2
    assert predict(tmp_path / "run", ["a E2 nice E2 room E1 book E1"])[0]["label"] in ("neg", "pos")
    with pytest.raises(UserError, match="no 'E2' in the text"):
        predict(tmp_path / "run", ["a nice E1 room E1"])
    for more, words in (
        ("augment.swap=0.1", "may lose the words"),
        ("model.marks=1", "needs 2, got 1"),
        ("model.kind='gpt'", "a gpt reads no"),
    ):
        with pytest.raises(UserError, match=words):
            bases.load(tmp_path / "c.toml", [*settings, more])


def test_a_gpt_judges_a_text_whatever_padding_stands_before_it(folder, tmp_path):
    """Pretrained on next tokens, tuned on labels; rows of another length give the same scores."""
    from minillm.experiment import supervised
    from minillm.experiment.ask.predict import as_documents
    from minillm.experiment.ask.reopen import open_run
    from minillm.experiment.saved import restore

    text = (folder / "staged.toml").read_text().replace('name = "masked"', 'name = "causal"')
    text = text.replace('kind = "bert"\ncontext = 16', 'kind = "gpt"\nposition = "rotary"\ncontext = 32')
    (tmp_path / "gpt.toml").write_text(text)
    summary = runs.run(bases.load(tmp_path / "gpt.toml"), tmp_path / "gpt", False, silent, silent)
    assert summary["test"]["macro_f1"] > 0.9
    opened = open_run(tmp_path / "gpt")
    state, frozen, _ = restore(opened.folder, opened.setup, summary["steps"])
    documents = as_documents(opened, ["good room", "the a awful book food screen the"], None)
    read, said = supervised.scorer(opened.setup, opened.experiment), []
    for length in (20, 32):
        dataset = supervised.make_rows(opened.experiment, opened.tokenizer, documents, length)
        assert not dataset.cut.any()
        said.append(read(state.trainable, frozen, list(supervised.rows.row_evaluation_batches(dataset, 2))))
    np.testing.assert_allclose(*said, atol=1e-5)
