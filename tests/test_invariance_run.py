"""Whole runs that should hold in every domain: which texts they read, bits, devices, resuming, and what is refused."""

import contextlib
import json
import signal

import jax
import numpy as np
import pytest
from tiny_labelled import config, reviews, silent

from minillm.data import packages
from minillm.errors import UserError
from minillm.experiment import base as bases
from minillm.experiment import run as runs
from minillm.experiment.data import load_data
from minillm.experiment.recipes import domains
from minillm.experiment.setup import make_setup, new_state
from minillm.experiment.verify import verify

IRM = "invariance={ method = 'irm', strength = 5.0, warmup = 2 }"
DRO = "invariance={ method = 'dro', strength = 0.5 }"
DATA = """
source = "jsonl"
label_key = "label"
labels = ["neg", "pos"]
domain_key = "place"
domains = ["here", "there"]
test_domains = ["away"]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Reviews of four places, one of which nobody reads."""
    root = tmp_path_factory.mktemp("domains")
    lines = [line.rpartition(":") for line in reviews(160).splitlines()]
    places = ["here", "there", "away", "nowhere"]
    rows = [{"text": text, "label": label, "place": places[n // 2 % 4]} for n, (text, _, label) in enumerate(lines)]
    (root / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = config(root / "reviews.jsonl", data=DATA, steps=6).replace("test = 0.2\n", "")
    (root / "c.toml").write_text(text + "[baselines]\ntext = false\n")
    return root / "c.toml"


def finish(file, root, *settings, resume=False):
    return runs.run(bases.load(file, ["train.log_every=1", *settings]), root, resume, silent, silent)


def test_texts_are_of_the_named_domains_and_rows_know_theirs(file, tmp_path):
    read = lambda *settings: load_data(bases.load(file, settings), tmp_path / "tokenizer.model")
    plain, data = read(), read(DRO)
    assert {name: {d.domain for d in part} for name, part in data.documents.items()} == {
        "train": {"here", "there"}, "validation": {"here", "there"}, "test": {"away"}}  # fmt: skip
    assert len(data.documents["test"]) == 40
    assert data.cleaning["domains"]["test"] == {"away": 40}
    assert "domains" not in plain.batch(0)
    assert "domains" not in data.evaluation("validation")[0]
    batch, row_of = data.batch(3), {tuple(data.tokenizer.encode(d.text)): d for d in data.documents["train"]}
    assert batch["domains"].dtype == np.int32
    for tokens, mask, domain in zip(batch["tokens"], batch["mask"], batch["domains"], strict=True):
        assert row_of[tuple(tokens[mask][1:-1].tolist())].domain == ("here", "there")[domain]
    reworded = read(DRO, "augment.delete=0.3").batch(3)
    np.testing.assert_array_equal(reworded["domains"], batch["domains"])
    np.testing.assert_array_equal(data.batch_rows(3, slice(2, 5))["domains"], batch["domains"][2:5])


def test_reviews_have_the_domain_whose_words_they_have():
    assert packages.domain_of("房间很大") == "hotels"
    assert packages.domain_of("酒店里读书") is None
    assert packages.domain_of("很好") is None


def test_what_does_not_go_together_is_refused(file):
    for settings, words in (
        (["data.domains=['here']", IRM], "two domains at least"),
        ([IRM, "train.shards=2"], "meets the others of its domain"),
        ([IRM, "objective.label_smoothing=0.1"], "smoothing asks for another"),
        ([DRO, "contrastive.strength=0.1"], "[contrastive] do not go together"),
        ([DRO, "adversarial={ method = 'fgm', strength = 0.1 }"], "[adversarial] do not go together"),
        (["invariance={ method = 'dro', strength = 0.1, warmup = 3 }"], "warmup says nothing to dro"),
        (["invariance={ method = 'irm', strength = -1.0 }"], "must not be negative"),
        (["data.domains=['here', 'away']"], "different names"),
        (["data.test=0.1"], "say nothing where test_domains"),
    ):  # fmt: skip
        with pytest.raises(UserError) as error:
            bases.load(file, settings)
        assert words in str(error.value), settings
    text = file.read_text()
    for old, new, words in (
        ('domain_key = "place"\n', "", "domain_key is missing"),
        ('domains = ["here", "there"]\n', "", "say nothing without domains"),
    ):
        other = file.with_name("other.toml")
        other.write_text(text.replace(old, new, 1))
        with pytest.raises(UserError, match=words):
            bases.load(other)
    with pytest.raises(UserError, match=r"no text is of the domain 'her'.*away, here, nowhere, there"):
        load_data(bases.load(file, ["data.domains=['her']"]), file.parent / "none.model")
    with pytest.raises(UserError, match="no field 'plac'"):
        load_data(bases.load(file, ["data.domain_key=plac"]), file.parent / "none.model")


@pytest.fixture(scope="module")
def whole(file):
    """Method -> its run, not stopped."""
    found = {name: finish(file, file.parent / name, settings) for name, settings in (("irm", IRM), ("dro", DRO))}
    return found | {"plain": finish(file, file.parent / "plain")}


@pytest.mark.slow
def test_strength_zero_is_the_plain_run_to_the_last_bit(file, whole):
    zero = {"irm": IRM.replace("5.0", "0.0"), "dro": DRO.replace("0.5", "0.0")}
    assert not any(domains.active(bases.load(file, [settings])) for settings in zero.values())
    found = finish(file, file.parent / "zero", zero["dro"])
    assert found["parameter_hash"] == whole["plain"]["parameter_hash"]
    assert len({run["parameter_hash"] for run in whole.values()}) == 3
    assert (file.parent / "zero/provenance.jsonl").read_bytes() == (file.parent / "plain/provenance.jsonl").read_bytes()
    assert "invariance" not in (file.parent / "plain/config.toml").read_text()


@pytest.mark.slow
def test_what_is_remembered_goes_from_step_to_step_and_into_the_log(file, whole):
    lines = [json.loads(line) for line in (file.parent / "dro/metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    assert len(lines) == whole["dro"]["steps"]
    weight = np.array([0.5, 0.5])
    for line in lines:
        np.testing.assert_allclose([line["weight_here"], line["weight_there"]], weight, rtol=1e-5)
        risks = np.array([line["risk_here"], line["risk_there"]])
        assert line["loss"] == pytest.approx(weight @ risks, rel=1e-5)
        weight = weight * np.exp(0.5 * risks) / (weight * np.exp(0.5 * risks)).sum()
    assert "irm" in json.loads((file.parent / "irm/metrics.jsonl").read_text().splitlines()[0])
    assert whole["dro"]["validation"]["accuracy_worst"] <= whole["dro"]["validation"]["accuracy"]
    assert "accuracy_worst" not in whole["dro"]["test"]  # it is one domain
    assert verify(file.parent / "dro", None, silent)["equal"]


def learn(file, tokenizer, *settings, steps=3):
    """The loss of every step."""
    experiment = bases.load(file, settings)
    data = load_data(experiment, tokenizer)
    setup, found = make_setup(experiment, data.vocabulary), []
    state, frozen = new_state(setup)
    for step in range(steps):
        state, metrics = setup.train_step(
            state, frozen, jax.device_put(data.batch(step), setup.shardings[2]), setup.key
        )
        found.append(float(metrics["loss"]))
    return found


@pytest.mark.slow
def test_two_devices_give_the_losses_of_one_with_and_without_shards(file, whole, tmp_path):
    learned = lambda *settings: learn(file, tmp_path / "tokenizer.model", *settings)
    for name, settings in (("dro", [DRO, "train.shards=2"]), ("irm", [IRM])):
        found = learned(*settings, "mesh.data=2")
        lines = map(json.loads, (file.parent / name / "metrics.jsonl").read_text().splitlines())
        np.testing.assert_allclose(found, [line["loss"] for line in lines if "loss" in line][:3], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), [("irm", IRM), ("dro", DRO)])
def test_a_stopped_run_goes_on_to_the_same_bits(name, settings, file, whole, monkeypatch):
    fit = runs.loop.fit

    def stop(*arguments):
        asked = iter([False, False, True, True])
        return fit(*arguments[:-1], arguments[-1]._replace(stopping=lambda: next(asked)))

    with monkeypatch.context() as patched:
        patched.setattr(runs.loop, "fit", stop)
        patched.setattr(runs, "_signals", lambda: contextlib.nullcontext([signal.SIGTERM]))
        with pytest.raises(runs.Stopped, match="step 3"):
            finish(file, file.parent / f"again-{name}", settings)
    found = finish(file, file.parent / f"again-{name}", settings, resume=True)
    assert found["parameter_hash"] == whole[name]["parameter_hash"]
