"""One task after the other: what is held, what is mixed in, and that a strength of zero holds nothing."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_labelled import config, reviews, silent

from minillm import config as configs
from minillm.config import load
from minillm.errors import UserError
from minillm.experiment import base as bases
from minillm.experiment import exchange
from minillm.experiment import run as runs
from minillm.experiment.ask.reopen import open_run
from minillm.experiment.many import lab as labs
from minillm.experiment.many import sequences
from minillm.experiment.recipes import continual, mixture
from minillm.experiment.verify import verify
from minillm.models.contract import Model
from minillm.objectives.contract import Sums, total_loss
from minillm.objectives.distill import OLD, distilled, with_old_scores
from minillm.params import flatten
from minillm.training import checkpoint
from minillm.tuning import elastic
from minillm.tuning.freeze import full

NEXT = """
[base]
run = '{base}'
[tests.old]
source = "lines"
path = "{old}"
labels = ["neg", "pos"]
validation = 0.2
test = 0.2
"""
METHODS = {"plain": 'method = "plain"', "ewc": 'method = "ewc"\nstrength = 50.0\nbuffer = 20',
           "replay": 'method = "replay"\nshare = 0.3\nbuffer = 20', "distill": 'method = "distill"'}  # fmt: skip


MODEL = Model(None, None, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("continual")
    lines = reviews(160).splitlines(keepends=True)
    (root / "old.txt").write_text("".join(lines[:80]))
    (root / "new.txt").write_text("".join(lines[80:]))
    (root / "old.toml").write_text(config(root / "old.txt", steps=10))
    runs.run(bases.load(root / "old.toml", ["baselines.text=false"]), root / "old", False, silent, silent)
    text = config(root / "new.txt", steps=4)
    text = text[: text.index("[tokenizer]")] + text[text.index("[objective]") :]
    text += NEXT.format(base=root / "old", old=root / "old.txt")
    for name, section in METHODS.items():
        (root / f"{name}.toml").write_text(f"{text}[continual]\n{section}\n")
    return root


def make(folder, name, root, *settings, resume=False):
    experiment = bases.load(folder / f"{name}.toml", ["baselines.text=false", "train.log_every=1", *settings])
    return runs.run(experiment, root, resume, silent, silent)


def test_the_penalty_and_its_slope_are_those_of_the_paper():
    params = {"a": jnp.array([1.0, 2.0]), "fisher": {"a": jnp.array([4.0, 0.0])}}
    tuning = elastic.elastic(full(), 3.0)
    trainable, frozen, _ = tuning.init(params, jax.random.key(0))
    assert set(trainable) == {"a"}
    moved = {"a": jnp.array([1.5, 9.0])}
    assert float(tuning.penalty(trainable, frozen)) == 0.0
    np.testing.assert_allclose(tuning.penalty(moved, frozen), 0.5 * 3.0 * 4.0 * 0.25)
    np.testing.assert_allclose(jax.grad(tuning.penalty)(moved, frozen)["a"], [3.0 * 4.0 * 0.5, 0.0])
    np.testing.assert_array_equal(tuning.attach(moved, frozen)["a"], moved["a"])


def test_the_fisher_information_is_the_curvature_of_the_divergence():
    """F is the diagonal of the Hessian of KL(p_theta* || p_theta) at theta*: another way to the same numbers."""
    random = np.random.default_rng(0)
    rows = {"x": jnp.asarray(random.normal(size=(7, 3)), jnp.float32)}
    kernel = {"w": jnp.asarray(random.normal(size=(3, 4)), jnp.float32)}
    said = lambda params, row: jax.nn.log_softmax(jnp.tanh(row["x"]) @ params["w"])

    def divergence(w):
        logs, new = (jnp.stack([said({"w": k}, {"x": x}) for x in rows["x"]]) for k in (kernel["w"], w))
        return (jnp.exp(logs) * (logs - new)).sum() / 7

    hessian = jax.hessian(divergence)(kernel["w"]).reshape(12, 12)
    found = elastic.fisher_information(said, kernel, rows)
    np.testing.assert_allclose(found["w"].reshape(-1), np.diag(hessian), rtol=1e-4, atol=1e-6)


def test_old_answers_are_softened_and_weigh_rows(monkeypatch):
    from minillm.objectives import distill

    scores, old = jnp.array([[1.0, 3.0], [0.0, 0.0], [5.0, 1.0]]), jnp.array([[2.0, 0.0], [1.0, 1.0], [9.0, 9.0]])
    monkeypatch.setattr(distill, "head_scores", lambda *_: scores)
    plain = lambda *_: Sums({"loss": 1.0}, {"loss": 2.0}, {})
    batch = {"weights": jnp.array([1.0, 1.0, 0.0]), OLD: old}
    found = distilled(plain, 2.0)(MODEL, None, batch)
    q, p = jax.nn.softmax(old / 2.0), jax.nn.softmax(scores / 2.0)
    expected = -(q * jnp.log(p)).sum(-1)[:2].sum()
    np.testing.assert_allclose(found.sums["distill"], expected, rtol=1e-6)
    np.testing.assert_allclose(total_loss(found, found.weights, {"distill": 3.0}), 0.5 + 1.5 * expected, rtol=1e-6)
    without = distilled(plain, 2.0)(MODEL, None, {"weights": jnp.ones(3)})
    assert float(without.sums["distill"]) == 0.0


def test_old_scores_reach_the_gradient_and_its_weights():
    seen = []

    def gradient(trainable, frozen, extra, batch, key, weights=None):
        seen.append(set(batch))
        return batch[OLD], None

    gradient.weights = lambda trainable, frozen, extra, batch, key: seen.append(set(batch))
    wrapped = with_old_scores(gradient, lambda frozen, batch: frozen["anchor"] * batch["x"])
    assert wrapped({}, {"anchor": 3.0}, {}, {"x": 2.0}, None)[0] == 6.0
    wrapped.weights({}, {"anchor": 3.0}, {}, {"x": 2.0}, None)
    assert seen == [{"x", OLD}] * 2


@pytest.mark.slow
def test_replay_is_an_exact_share_and_both_streams_are_read_in_order(folder):
    experiment = bases.load(folder / "replay.toml", ["continual.share=0.3", "train.batch_size=8"])
    opened = open_run(folder / "old")
    data = mixture.load(experiment, opened.folder.tokenizer, opened.tokenizer)
    plain = mixture.load(bases.load(folder / "plain.toml"), opened.folder.tokenizer, opened.tokenizer)
    key = lambda row: tuple(row.tolist())
    new = {key(row) for step in range(30) for row in plain.batch(step)["tokens"]}
    counts, seen = [], set()
    for step in range(40):
        batch = data.batch(step)
        old = [row for row in batch["tokens"] if key(row) not in new]
        seen |= set(map(key, old))
        counts.append(len(old))
        assert len(batch["tokens"]) == 8
        assert batch["index"].tolist() == list(range(8))
    assert [int(0.3 * 8 * (step + 1)) for step in range(40)] == np.cumsum(counts).tolist()
    assert len(seen) == 20  # the buffer
    first = [key(row) for step in range(9) for row in data.batch(step)["tokens"] if key(row) in new]
    wanted = [key(row) for step in range(9) for row in plain.batch(step)["tokens"]]
    assert first == wanted[: len(first)]
    assert data.sha256 != plain.sha256


@pytest.mark.slow
def test_each_method_runs_is_judged_on_the_past_and_holds_nothing_at_strength_zero(folder, tmp_path):
    plain = make(folder, "plain", tmp_path / "plain")
    old = plain["tests"]["old"]
    assert (old["judged"], old["texts"], old["baselines"]) == ("test", 16, {})
    assert 0.0 <= old["test"]["accuracy"] <= 1.0
    zero = {"ewc": "continual.strength=0.0", "replay": "continual.share=0.0", "distill": "continual.strength=0.0"}
    hashes = {}
    for name, setting in zero.items():
        assert make(folder, name, tmp_path / f"{name}-0", setting)["parameter_hash"] == plain["parameter_hash"]
    for name in zero:
        hashes[name] = make(folder, name, tmp_path / name)["parameter_hash"]
    assert len({plain["parameter_hash"], *hashes.values()}) == 4
    assert load(tmp_path / "ewc/config.toml").continual.past == (str(folder / "old"),)
    manifest = json.loads((tmp_path / "ewc/manifest.json").read_text())
    assert "classify/kernel" not in manifest["base"]["new"]  # the head goes on
    saved = checkpoint.verify(tmp_path / "ewc/frozen", 0)["leaves"]
    assert {"anchor/classify/kernel", "fisher/classify/kernel"} <= set(saved)
    assert verify(tmp_path / "ewc", 2, silent)["equal"]
    # a third task on the second: the past is both
    raw = (folder / "ewc.toml").read_text().replace(str(folder / "old") + "'", str(tmp_path / "ewc") + "'")
    (tmp_path / "third.toml").write_text(raw)
    third = bases.load(tmp_path / "third.toml", ["baselines.text=false"])
    assert third.continual.past == (str(folder / "old"), str(tmp_path / "ewc"))
    base = bases.read(third, tmp_path / "x", open_run(tmp_path / "ewc").setup.specs)
    ended = open_run(tmp_path / "ewc")
    state = checkpoint.restore(ended.folder.checkpoints, 4, runs.restore(ended.folder, ended.setup, 4)[0])[0]
    np.testing.assert_array_equal(base.arrays["classify/kernel"], flatten(state.trainable)["classify/kernel"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ewc", "distill"])
def test_two_devices_give_the_losses_of_one_and_a_stopped_run_goes_on_exactly(name, folder, tmp_path, monkeypatch):
    short = ["train.steps=4", "train.evaluate_every=2", "train.shards=2"]
    for root, devices in (("one", 1), ("two", 2)):
        found = make(folder, name, tmp_path / root, *short, f"mesh.data={devices}")
    read = lambda root: [json.loads(line) for line in (tmp_path / root / "metrics.jsonl").read_text().splitlines()]
    losses = [[line["loss"] for line in read(root) if "loss" in line] for root in ("one", "two")]
    np.testing.assert_allclose(*losses, rtol=2e-5)
    checkpoint.drop_after(tmp_path / "two/checkpoints", 2)
    about = json.loads((tmp_path / "two/manifest.json").read_text())["base"]
    monkeypatch.setattr(continual, "fisher_information", None)  # it is read where it was saved
    again = make(folder, name, tmp_path / "two", *short, "mesh.data=2", resume=True)
    assert again["parameter_hash"] == found["parameter_hash"]
    assert json.loads((tmp_path / "two/manifest.json").read_text())["base"] == about


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ewc", "distill"])
def test_what_is_held_lies_where_its_parameters_lie(name, folder, tmp_path):
    """Fully sharded and tensor parallel at once: the losses of one device, the same anchor and Fisher information."""
    read = lambda root: [json.loads(line) for line in (tmp_path / root / "metrics.jsonl").read_text().splitlines()]
    meshes = {"one": [], "four": ["mesh.data=2", "mesh.model=2", "mesh.rules=fsdp"]}
    losses, saved = {}, {}
    for root, settings in meshes.items():
        make(folder, name, tmp_path / root, "train.steps=2", "train.evaluate_every=2", *settings)
        losses[root] = [line["loss"] for line in read(root) if "loss" in line]
        saved[root] = exchange.read_arrays(tmp_path / root / "frozen", 0, "")
    np.testing.assert_allclose(losses["four"], losses["one"], rtol=2e-5)
    assert saved["four"].keys() == saved["one"].keys()
    for path, leaf in saved["one"].items():
        np.testing.assert_allclose(saved["four"][path], leaf, rtol=1e-4, atol=1e-7, err_msg=path)


@pytest.mark.slow
def test_the_adapter_of_a_run_that_held_weights_says_the_same_beside_another_task(folder, tmp_path):
    """It is stored without anchor and Fisher information, and put on the base in a run of another method and task."""
    first = make(folder, "ewc", tmp_path / "first", "tuning.method=lora")
    make(folder, "plain", tmp_path / "last", "tuning.method=lora", f"data.path={folder / 'old.txt'}")
    pair = [tmp_path / "first", tmp_path / "last"]
    (row,) = sequences.kept([pair], tmp_path / "adapters", silent)["kept"]
    assert row["same"]
    assert row["accuracy"] == first["test"]["accuracy"]
    assert row["bytes"] == (tmp_path / "adapters" / row["adapter"]).stat().st_size
    assert sequences.kept([pair], tmp_path / "adapters", None)["kept"] == [row]  # it is not asked again
    assert sequences.kept([[folder / "old", *pair]], tmp_path / "none", silent) == {}


def test_a_lab_refuses_what_cannot_go_on_before_its_bases_have_run(folder):
    section = lambda name, labels=("neg", "pos"): {"source": "lines", "path": str(folder / name), "labels": list(labels),
                                                   "validation": 0.2, "test": 0.2, "length": 16}  # fmt: skip
    raw = configs.read_toml(folder / "old.toml")
    tests = {"old": section("old.txt"), "new": section("new.txt")}
    first = {key: value for key, value in raw.items() if key != "name"} | {"data": tests["old"], "tests": tests}
    second = {"base": {"run": "@first-{seed}"}, "data": tests["new"], "objective": raw["objective"], "tests": tests,
              "continual": {"method": "ewc"}}  # fmt: skip
    lab = lambda members, **more: labs.Lab("lab", members=members, seeds=(0,), **more)
    order = {"sequences": {"one": ("first", "second")}}
    labs._refuse_early(lab({"first": first, "second": second}, **order))
    other = {"data": section("new.txt", ("neg", "pos", "so")), "tests": {}}
    for wrong, words in (
        (other, "tasks share one head"), ({"continual": {"method": "ewc", "share": 0.5}}, "share says nothing"),
        ({"base": {"run": "@bare"}}, "the base has 'masked'"), ({"data": section("new.txt") | {"split_seed": 1}}, "data of second"),
        ({"data": tests["old"]}, "2 members in the sequence and 1 tests"),
    ):  # fmt: skip
        bare = first | {
            "objective": {"name": "masked"},
            "data": {"source": "text", "path": str(folder / "old.txt")},
            "name": "bare",
        }
        bare.pop("tests")
        with pytest.raises(UserError, match=words):
            labs._refuse_early(lab({"first": first, "second": second | wrong}, bases={"bare": bare}, **order))


def test_a_past_run_gives_the_labels_that_it_had_bought(folder, tmp_path):
    """Of a run with few labels those, wrong ones among them, and none that its annotators never wrote."""
    from minillm.experiment.data import split_documents
    from minillm.experiment.recipes.annotation import annotate

    (tmp_path / "past").mkdir()
    past = bases.load(folder / "old.toml", ["annotation={labels = 12, noise = 0.25}"])
    (tmp_path / "past/config.toml").write_text(configs.to_toml(past))
    experiment = bases.load(folder / "replay.toml", ["continual.buffer=20", f"continual.past=['{tmp_path / 'past'}']"])
    found = continual.past_documents(experiment, str(tmp_path / "past"))
    bought = annotate(past, split_documents(past)[0].train)
    assert {(d.text, d.label) for d in found} == {(d.text, d.label) for d in bought.labelled}
    true = {d.text: d.label for d in split_documents(past)[0].train}
    assert sum(true[d.text] != d.label for d in found) == bought.report["wrong"] > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("continual.share=0.2",), "share says nothing to the method 'ewc'"),
        (("continual.strength=-1.0",), "strength must not be negative"),
        (("continual.methud='ewc'",), "did you mean 'method'"),
        (("data.labels=['neg', 'pos', 'x']", "tests.old.labels=['neg', 'pos', 'x']"), "tasks share one head"),
        (
            ("continual={method='replay'}", "annotation.labels=4", "consistency.method=uda"),
            "other rows are read beside it",
        ),
        (("tests.old.labels=['neg']",), "tests are of the run's own classes"),
        (("tests.old.lables=['neg']",), "did you mean 'labels'"),
    ],
)
def test_what_is_wrong_is_said_before_training(folder, settings, words):
    with pytest.raises(UserError, match=words):
        bases.load(folder / "ewc.toml", settings)


def test_texts_to_be_judged_on_are_read_before_training(folder, tmp_path):
    experiment = bases.load(folder / "plain.toml", [f"tests.old.path={tmp_path / 'none.txt'}"])
    with pytest.raises(UserError, match=r"tests\.old: .*none\.txt: no such file"):
        runs.run(experiment, tmp_path / "run", False, silent, silent)
    assert not (tmp_path / "run").exists()


def test_there_must_be_something_to_forget(folder, tmp_path):
    (tmp_path / "first.toml").write_text((folder / "old.toml").read_text() + '[continual]\nmethod = "plain"\n')
    with pytest.raises(UserError, match="nothing that could be forgotten"):
        bases.load(tmp_path / "first.toml")
