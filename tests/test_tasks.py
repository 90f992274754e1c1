"""Several tasks in one run: exact shares, heads of their own, and what a plain run was before."""

import json
import random

import jax
import numpy as np
import pytest
from tiny_labelled import BAD, GOOD, OTHER, config, reviews, silent

from minillm.data import mixing
from minillm.errors import UserError
from minillm.experiment import base as bases
from minillm.experiment import run as runs
from minillm.experiment.ask.predict import predict
from minillm.experiment.ask.reopen import evaluate
from minillm.experiment.recipes import mixture
from minillm.experiment.verify import verify
from minillm.params import flatten
from minillm.training import checkpoint

TASKS = """
[tasks.topic]
data = {{ source = "lines", path = "{topics}", labels = ["screen", "book", "food"], validation = 0.2, test = 0.2, length = 12 }}
objective = {{ name = "classify" }}
[tasks.text]
objective = {{ name = "masked" }}
strength = 0.5
"""


def topics(number=150):
    """Which of three words is there?"""
    generator, lines = random.Random(1), {}
    while len(lines) < number:
        label = ("screen", "book", "food")[len(lines) % 3]
        words = [generator.choice(GOOD + BAD + OTHER[:3]) for _ in range(5)]
        lines[" ".join([*words[:2], label, *words[2:]])] = label
    return "".join(f"{text}:{label}\n" for text, label in lines.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("tasks")
    (root / "reviews.txt").write_text(reviews(300))
    (root / "topics.txt").write_text(topics())
    plain = config(root / "reviews.txt", steps=60)
    (root / "plain.toml").write_text(plain)
    (root / "tasks.toml").write_text(plain + TASKS.format(topics=root / "topics.txt"))
    return root


def make(folder, root, *settings, name="tasks.toml", resume=False):
    return runs.run(bases.load(folder / name, settings), root, resume, silent, silent)


@pytest.fixture(scope="module")
def mixed(folder):
    root = folder / "mixed"
    return root, make(
        folder, root, "train.batch_size=24", "mixing.temperature=2.0", "train.steps=6", "baselines.text=false"
    )


def test_shares_follow_the_temperature():
    counts = [9000, 900, 100]
    np.testing.assert_allclose(mixing.proportions(counts), [0.9, 0.09, 0.01])
    root = np.sqrt(counts)
    np.testing.assert_allclose(mixing.proportions(counts, 2.0), root / root.sum())
    np.testing.assert_allclose(mixing.proportions(counts, 1e9), [1 / 3] * 3, atol=1e-6)
    np.testing.assert_allclose(mixing.proportions(counts, 1.0, limit=100), [1 / 3] * 3)
    for wrong in (([], 1.0), ([3, 0], 1.0), ([3, 1], 0.0)):
        with pytest.raises(UserError, match="cannot be mixed"):
            mixing.proportions(*wrong)


def test_every_row_is_read_once_and_no_source_is_a_row_behind_its_share():
    shares = mixing.proportions([700, 311, 37], 1.3)
    parts, size = mixing.whole_parts(shares), 24
    assert sum(parts) == mixing.WHOLE
    for share, part in zip(shares, parts, strict=True):
        spans = [mixing.row_span(part, size, step) for step in range(500)]
        assert [first for first, _ in spans[1:]] == [after for _, after in spans[:-1]]
        read = np.array([after for _, after in spans])
        assert np.abs(read - share * size * np.arange(1, 501)).max() <= 1.0
        assert max(after - first for first, after in spans) <= mixing.most_rows(part, size)
        assert mixing.most_rows(part, size, 4) % 4 == 0
    assert mixing.row_span(parts[0], size, 10**9)[0] == parts[0] * size * 10**9 // mixing.WHOLE  # far out, still exact


def test_what_only_fills_a_batch_has_no_weight_and_is_read_later():
    batch_at = lambda step: {"tokens": np.arange(4)[:, None] + 4 * step, "weights": np.ones(4), "index": np.arange(4)}
    found = mixing.mixed_rows(batch_at, 4, (6, 9), 5)
    assert found["tokens"][:, 0].tolist() == [6, 7, 8, 9, 10]
    assert found["weights"].tolist() == [1, 1, 1, 0, 0]
    assert found["index"].tolist() == [0, 1, 2, 3, 4]
    assert mixing.mixed_rows(batch_at, 4, (9, 12), 5)["tokens"][0, 0] == 9


def test_texts_that_are_compared_count_as_texts_and_others_as_windows(folder, tmp_path):
    counts = {}
    for objective in ("simcse", "masked"):
        settings = [f"tasks.text.objective.name={objective}", "mixing.temperature=2.0", "train.batch_size=24"]
        data = mixture.load(bases.load(folder / "tasks.toml", settings), tmp_path / f"{objective}.model")
        counts[objective] = data.cleaning["mixing"]["text"]["examples"]
    tokens = sum(map(len, data.tasks["text"].tokens["train"]))
    assert counts == {"simcse": 180, "masked": tokens // 16}


@pytest.mark.slow
def test_every_task_is_trained_and_judged(mixed):
    root, summary = mixed
    topic, text = summary["tasks"]["topic"], summary["tasks"]["text"]
    assert topic["judged"] == "test"
    assert topic["intervals"]["accuracy"][0] <= topic["test"]["accuracy"] <= topic["intervals"]["accuracy"][1]
    assert text["baselines"]["unigram"]["nll"] > 0.0
    losses = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    assert {"main/nll", "topic/accuracy", "text/nll"} <= set(losses[0])
    about = json.loads((root / "cleaning.json").read_text())["mixing"]
    assert sum(row["share"] for row in about.values()) == pytest.approx(1.0)
    assert about["main"]["examples"] == 180
    assert about["topic"]["examples"] == 90
    assert (root / "tasks/topic/evaluation.json").exists()
    assert verify(root, 2, silent)["equal"]


@pytest.mark.slow
def test_every_task_can_be_asked_again(mixed):
    root, summary = mixed
    found = evaluate(root, "test", task="topic")
    assert found["accuracy"] == summary["tasks"]["topic"]["test"]["accuracy"]
    assert evaluate(root, "test", task="main") == evaluate(root, "test")
    text = evaluate(root, "validation", task="text")
    assert text["nll"] == summary["tasks"]["text"]["validation"]["nll"]
    own, topic = (predict(root, ["the good book"], task=task)[0]["probabilities"] for task in (None, "topic"))
    assert (set(own), set(topic)) == ({"neg", "pos"}, {"screen", "book", "food"})
    with pytest.raises(UserError, match="its tasks are main, topic, text"):
        evaluate(root, "test", task="topics")
    with pytest.raises(UserError, match="labels no texts"):
        predict(root, ["the good book"], task="text")
    with pytest.raises(UserError, match="a saved adapter answers for one task"):
        predict(root, ["the good book"], adapter=root / "x", task="topic")
    page = (root / "report.html").read_text()
    assert "<h3>topic <small>(test part" in page
    assert f"{summary['tasks']['topic']['test']['accuracy']:.1%}" in page


def test_few_labels_are_those_of_the_runs_own_task(folder, tmp_path):
    settings = ["annotation.labels=20", "mixing.temperature=5.0", "train.batch_size=24"]
    data = mixture.load(bases.load(folder / "tasks.toml", settings), tmp_path / "tokenizer.model")
    assert len(data.documents["train"]) == 20
    assert len(data.tasks["topic"].documents["train"]) == 90
    assert len(data.tasks["text"].texts["train"]) == 180  # language modelling needs none
    examples = data.cleaning["mixing"]
    assert (examples["main"]["examples"], examples["topic"]["examples"]) == (20, 90)
    labelled = {tuple(row) for step in range(9) for row in data.batch(step)["main"]["tokens"].tolist()}
    assert len(labelled) == 20


@pytest.mark.slow
def test_the_tokenizer_has_read_the_training_texts_of_all_tasks(mixed):
    from minillm.experiment.ask.reopen import open_run, read_data

    opened = open_run(mixed[0])
    data = read_data(opened)
    assert opened.tokenizer.sha256 == data.tokenizer.sha256
    assert set(data.tasks) == {"topic", "text"}
    assert set(data.batch(3)) == {"main", "topic", "text"}
    train = set(data.texts["train"])
    assert set(data.tasks["text"].texts["train"]) == train  # the same split: language modelling sees no test text
    paths = flatten(jax.eval_shape(opened.setup.born, jax.random.key(0))[0].trainable)
    assert {"classify/kernel", "tasks/topic/classify/kernel", "tasks/text/masked/bias"} <= set(paths)
    assert "tasks/topic/pooler/kernel" not in paths  # it is shared


@pytest.mark.slow
def test_a_strength_of_zero_is_the_plain_run_to_the_last_bit(folder, tmp_path):
    short = ("train.steps=3", "train.evaluate_every=3", "baselines.text=false")
    plain = make(folder, tmp_path / "plain", *short, name="plain.toml")
    zero = make(folder, tmp_path / "zero", *short, "tasks.topic.strength=0.0", "tasks.text.strength=0.0")
    assert zero["parameter_hash"] == plain["parameter_hash"]
    assert "[tasks" not in (tmp_path / "plain/config.toml").read_text()
    logs = [(tmp_path / name / "provenance.jsonl").read_bytes() for name in ("plain", "zero")]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_two_devices_give_the_losses_of_one_and_a_stopped_run_goes_on_exactly(folder, tmp_path):
    short = ["train.steps=4", "train.evaluate_every=2", "train.batch_size=24", "train.shards=2", "train.log_every=1",
             "baselines.text=false", "tasks.text.strength=0.0"]  # fmt: skip
    for root, devices in (("one", 1), ("two", 2)):
        found = make(folder, tmp_path / root, *short, f"mesh.data={devices}")
    read = lambda root: [json.loads(line) for line in (tmp_path / root / "metrics.jsonl").read_text().splitlines()]
    losses = [[line["loss"] for line in read(root) if "loss" in line] for root in ("one", "two")]
    np.testing.assert_allclose(*losses, rtol=2e-5)
    checkpoint.drop_after(tmp_path / "two/checkpoints", 2)
    again = make(folder, tmp_path / "two", *short, "mesh.data=2", resume=True)
    assert again["parameter_hash"] == found["parameter_hash"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("tasks.topic.rows=8",), "it is not set, and tasks.topic.rows is -> set rows for every task"),
        (("tasks.topic.rows=8", "tasks.text.rows=8", "mixing.temperature=2.0"), "mixing says nothing"),
        (("tasks.topic.rows=3", "tasks.text.rows=8", "train.shards=2"), "3 rows of topic cannot be split"),
        (("train.batch_size=1",), "less than a row of 1 a step"),
        (("tasks.topic.objective.name=causal",), "tasks.topic: model.kind"),
        (("tasks.topic.data.labels=['screen']",), "needs the classes"),
        (("tasks.topic.dota.labels=['screen']",), "did you mean 'data'"),
        (("tasks.topic.data.lables=['screen']",), "did you mean 'labels'"),
        (("tasks.topic.data.length=99",), "longer than"),
        (("tasks.topic.objective.markers=['the']",), "reads 1 marked words for this task, and 0 for the run's own"),
        (("tasks.main.objective.name=masked",), "not 'main'"),
        (("tasks.topic.strength=-1.0",), "strength must not be negative"),
        (("mixing.temperature=0.0",), "temperature must be above 0"),
        (("consistency.method=r_drop",), r"\[consistency\] and \[tasks\] do not go together"),
        (("contrastive.strength=0.1",), r"\[contrastive\] and \[tasks\] do not go together"),
    ],
)
def test_what_does_not_go_together_is_said_before_training(folder, tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        make(folder, tmp_path / "wrong", *settings)
    assert not (tmp_path / "wrong").exists()


@pytest.mark.slow
def test_radfords_auxiliary_objective_keeps_the_main_rows_as_they_were(folder, tmp_path):
    from minillm.experiment.data import load_data

    experiment = bases.load(folder / "tasks.toml", ["tasks.topic.rows=2", "tasks.text.rows=8"])
    plain = bases.load(folder / "plain.toml")
    file = tmp_path / "tokenizer.model"
    joint, alone = mixture.load(experiment, file), load_data(plain, file)
    for step in (0, 7, 50):
        for name, leaf in alone.batch(step).items():
            np.testing.assert_array_equal(joint.batch(step)["main"][name], leaf)
        assert len(joint.batch(step)["text"]["tokens"]) == 8
    assert mixture.shares(joint) is None
