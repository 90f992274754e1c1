"""Penalties over domains, and features beside words."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm.data.document import Document
from minillm.evaluation import linear_rule, textual
from minillm.experiment import display_lab, judging
from minillm.experiment.many.lab_rows import worst_held_out
from minillm.experiment.many.labels_bought import from_first
from minillm.models.contract import Model, Output
from minillm.objectives import invariance
from minillm.objectives.contract import interacts
from minillm.objectives.supervised import classify
from minillm.report.lab import write_figure
from minillm.training.step import accumulate, make_gradient
from minillm.tuning import full

RANDOM = np.random.default_rng(0)
SCORES = jnp.asarray(RANDOM.normal(size=(30, 3)), jnp.float32)
LABELS, DOMAINS = (jnp.asarray(RANDOM.integers(0, 3, 30)) for _ in range(2))


def test_the_penalty_is_the_squared_slope_by_a_common_factor_of_the_scores():
    def risk(factor, domain):
        return invariance.domain_risks(factor * SCORES, LABELS, DOMAINS, 3)[domain]

    expected = sum(float(jax.grad(risk)(1.0, domain)) ** 2 for domain in range(3))
    assert float(invariance.irm_penalty(SCORES, LABELS, DOMAINS, 3)) == pytest.approx(expected, rel=1e-5)


def test_risks_are_means_within_domains_and_an_empty_one_has_none():
    losses = -np.log(np.exp(SCORES)[np.arange(30), LABELS] / np.exp(SCORES).sum(1))
    expected = [losses[np.array(DOMAINS) == domain].mean() for domain in range(3)]
    np.testing.assert_allclose(invariance.domain_risks(SCORES, LABELS, DOMAINS, 4), [*expected, 0.0], rtol=1e-5)


def test_the_worst_domain_gains_weight():
    found = jnp.exp(invariance.reweigh_domains(jnp.full(3, -np.log(3)), jnp.array([0.1, 1.0, 0.5]), 2.0))
    np.testing.assert_allclose(found, np.exp([0.2, 2.0, 1.0]) / np.exp([0.2, 2.0, 1.0]).sum(), rtol=1e-5)


def test_a_domain_that_was_easy_for_long_can_come_back():
    log_weights = jnp.full(2, -np.log(2.0))
    for risks, steps in (([0.0, 1.0], 300), ([1.0, 0.0], 310)):
        for _ in range(steps):
            log_weights = invariance.reweigh_domains(log_weights, jnp.array(risks), 0.5)
    assert float(jnp.exp(log_weights)[0]) > 0.99


def test_words_and_features_together_know_what_either_knows():
    """The word tells half of the texts, the feature the other half."""
    labels = np.arange(80) % 2
    texts = [f"{('good', 'bad')[y]} it" if n % 4 < 2 else "it is" for n, y in enumerate(labels)]
    features = np.where(np.arange(80) % 4 < 2, 0.0, 2.0 * labels - 1.0)[:, None]
    train, rest = slice(0, 40), slice(40, 80)
    examples = [textual.Examples(texts[part], labels[part]) for part in (train, rest)]
    joined = textual.fit_joined(examples[0], features[train], examples[1], features[rest], 2)
    right = lambda said: (said.argmax(1) == labels[rest]).mean()
    assert right(joined(texts[rest], features[rest])) == 1.0
    assert right(textual.fit_tfidf(*examples, 2).predict(texts[rest])) <= 0.75


def test_a_rule_of_several_domains_leans_less_on_what_only_goes_with_the_label_there():
    """Feature 0 tells the label in 80 % of all texts, the mark in 95 % of one domain and 75 % of the other."""
    random = np.random.default_rng(1)
    labels, domains = random.integers(0, 2, 2000), np.repeat([0, 1], 1000)
    agree = lambda rate: np.where((random.random(2000) < rate) == labels, 1.0, -1.0)
    features = np.stack([agree(0.8), agree(np.where(domains == 0, 0.95, 0.75))], axis=1)
    plain, worst, invariant = (linear_rule.fit_rule(features, labels, domains, m) for m in ("erm", "dro", "irm"))
    share = lambda weights: weights[1] / weights.sum()
    assert share(plain) > share(worst) > share(invariant)
    expected = textual.logistic_head(features, labels, features, 2)  # plain training is logistic regression
    assert ((features @ plain > 0) == expected.argmax(1)).all()
    with pytest.raises(ValueError, match="0 from 1"):
        linear_rule.fit_rule(features, labels + 1, domains)


def plain_model():
    """Scores are the features times a matrix."""
    head = lambda params, hidden, keys=None: hidden[:, 0] @ params["kernel"]
    apply = lambda params, batch, key=None, **_: Output(batch["features"][:, None])
    return Model(lambda params, batch: batch["features"], apply, None, {"classify": head})


MODEL = plain_model()
PARAMS = {"kernel": jnp.asarray(RANDOM.normal(size=(4, 3)), jnp.float32)}
ROWS = {"features": RANDOM.normal(size=(32, 4)), "labels": RANDOM.integers(0, 3, 32), "index": np.arange(32),
        "domains": RANDOM.integers(0, 2, 32), "weights": (np.arange(32) < 27) * 1.0}  # fmt: skip
BATCH = {name: jnp.asarray(leaf, jnp.float32 if leaf.dtype == float else jnp.int32) for name, leaf in ROWS.items()}
NAMES = ("here", "there")


def test_the_estimate_is_the_mean_over_pairs_and_right_on_average():
    own = invariance.own_rows(BATCH, NAMES)
    scores = BATCH["features"] @ PARAMS["kernel"]
    slopes, expected = np.asarray(invariance.scale_slopes(scores, BATCH["labels"])), 0.0
    for domain in range(2):
        rows = np.flatnonzero(np.asarray(own)[:, domain])
        expected += np.mean([slopes[a] * slopes[b] for a, b in itertools.permutations(rows, 2)])
    assert float(invariance.irm_estimate(scores, BATCH["labels"], own)) == pytest.approx(expected, rel=1e-4)
    alone = jnp.zeros((32, 2)).at[3, 1].set(1.0)
    assert float(invariance.irm_estimate(scores, BATCH["labels"], alone)) == 0.0
    # over all samples of two rows of a domain of four: the whole domain's pairs; the square of the mean is larger
    pairs = list(itertools.combinations(range(4), 2))
    part = [invariance.irm_estimate(scores, BATCH["labels"], jnp.zeros((32, 1)).at[list(p), 0].set(1.0)) for p in pairs]
    whole = invariance.irm_estimate(scores, BATCH["labels"], jnp.zeros((32, 1)).at[:4, 0].set(1.0))
    assert float(np.mean(part)) == pytest.approx(float(whole), rel=1e-4)
    squares = [slopes[list(p)].mean() ** 2 for p in pairs]
    assert np.mean(squares) > float(whole) + 1e-3


def test_irm_adds_its_penalty_and_counts_it_once_while_it_warms_up():
    irm = lambda count, **more: invariance.classify_irm(
        MODEL, PARAMS, BATCH, None, {invariance.MEMORY: jnp.asarray(count)}, domains=NAMES, **more
    )
    expected = classify(MODEL, PARAMS, BATCH)
    found = {count: irm(count, strength=50.0, warmup=5) for count in (4, 5)}
    penalty = float(found[4].metrics["irm"][0])
    assert float(found[4].sums["irm"]) == pytest.approx(penalty)
    assert float(found[5].sums["irm"]) == pytest.approx(penalty)  # all is divided by the strength that counts
    assert float(found[5].sums["loss"]) == pytest.approx(float(expected.sums["loss"]) / 50.0)
    assert float(irm(0, strength=0.5, warmup=5).sums["irm"]) == pytest.approx(0.5 * penalty)
    assert float(found[4].sums["loss"]) == float(expected.sums["loss"])
    assert interacts(functools.partial(invariance.classify_irm, domains=NAMES))
    with pytest.raises(ValueError, match="interact"):
        accumulate(make_gradient(functools.partial(invariance.classify_irm, domains=NAMES), MODEL, full(), {}), 2)


def test_group_dro_weighs_domains_by_what_it_remembers_in_any_parts():
    objective = functools.partial(invariance.classify_dro, domains=NAMES)
    q = jnp.asarray([0.25, 0.75])
    extra = {invariance.MEMORY: jnp.log(q)}
    gradient = make_gradient(objective, MODEL, full(), {})

    def loss(params):
        rows = slice(0, 27)
        risks = invariance.domain_risks(
            (BATCH["features"] @ params["kernel"])[rows], BATCH["labels"][rows], BATCH["domains"][rows], 2
        )
        return q @ risks, risks

    expected, risks = jax.grad(loss, has_aux=True)(PARAMS)
    for shards in (1, 4):
        found, sums = accumulate(gradient, shards)(PARAMS, {}, extra, BATCH, None)
        np.testing.assert_allclose(found["kernel"], expected["kernel"], rtol=1e-4, atol=1e-6)
        for name, risk, weight in zip(NAMES, risks, (0.25, 0.75), strict=True):
            means = {key: float(a / b) for key, (a, b) in sums.metrics.items()}
            assert means[f"risk_{name}"] == pytest.approx(float(risk), rel=1e-5)
            assert means[f"weight_{name}"] == pytest.approx(weight)
        assert means["nll"] == pytest.approx(float(classify(MODEL, PARAMS, BATCH).sums["loss"]) / 27, rel=1e-5)


def test_the_worst_domain_is_the_least_accuracy_and_only_where_there_are_several():
    documents = [Document(str(n), "x", domain="ab"[n % 2]) for n in range(6)]
    right = np.array([True, False, True, True, False, False])
    worst = judging.worst_domain(documents, right)
    np.testing.assert_allclose(worst(np.array([[1.0] * 6, [1, 1, 1, 9, 1, 1]]))["accuracy_worst"], [1 / 3, 2 / 3])
    assert worst(np.array([[1.0, 0, 1, 0, 1, 0]]))["accuracy_worst"] == [2 / 3]  # a bootstrap draw may miss a domain
    assert judging.worst_domain(documents[::2], right[::2])(np.ones((1, 3))) == {}


def test_the_worst_held_out_domain_is_found_seed_by_seed():
    row = lambda task, method, values: {
        "member": f"{task}-{method}", "task": task, "method": method, "held_out": [task],
        "accuracy": {"values": values}}  # fmt: skip
    rows = [row("a", "erm", [0.9, 0.5]), row("b", "erm", [0.7, 0.8]), row("a", "irm", [0.6, 0.6])]
    counts = {"a": {"counts": {"accuracy": 0.8}}, "b": {"counts": {"accuracy": 0.4}}}
    found = worst_held_out(rows, counts, ["a", "b"])
    assert found["erm"]["values"] == [0.7, 0.5]
    assert found["counts"]["values"] == [0.4]
    assert "irm" not in found  # it has not run on b
    assert worst_held_out(rows, counts, ["a", "b", "c"]) == {}  # nothing has run on c
    assert worst_held_out([{"member": "a", "accuracy": {"values": [1.0]}}], {}, []) == {}


def test_a_lab_over_held_out_domains_is_shown_with_the_worst_and_with_differences(tmp_path, capsys):
    def row(task, method, values):
        found = {"mean": np.mean(values), "low": min(values), "high": max(values), "values": values}
        about = {"member": f"{task}-{method}", "task": task, "method": method, "held_out": [task], "seeds": [0, 1]}
        return about | {"objective": "classify", "trainable_parameters": 9, "accuracy": found}

    rows = [row("a", "erm", [0.9, 0.5]), row("a", "irm", [0.8, 0.45]), row("b", "erm", [0.7, 0.8])]
    baselines = {task: {"counts": {"accuracy": 0.6}} for task in "ab"}
    table = {"name": "tiny", "rows": rows, "compute": None, "baselines": baselines, "differences": from_first(rows),
             "worst_held_out": worst_held_out(rows, baselines, ["a", "b"])}  # fmt: skip
    display_lab.lab(table, tmp_path)
    said = capsys.readouterr().out
    assert "a-irm - a-erm: accuracy -0.0750" in said
    assert "b-erm -" not in said
    assert re.search(r"erm +0\.600", said.partition("worst held-out")[2])
    write_figure(table, tmp_path / "table.png")
    assert (tmp_path / "table.png").stat().st_size > 5000


def test_members_that_hold_out_different_domains_are_not_subtracted():
    rows = [{"member": f"{domain}-{method}", "held_out": [domain], "seeds": [0, 1], "accuracy": {"values": values}}
            for domain, method, values in (("a", "erm", [0.9, 0.8]), ("a", "irm", [0.7, 0.7]), ("b", "erm", [0.5, 0.4]))]  # fmt: skip
    assert [(row["left"], row["right"]) for row in from_first(rows)] == [("a-erm", "a-irm")]
