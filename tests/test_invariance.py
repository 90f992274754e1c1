"""Penalties over domains, and features beside words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillm.evaluation import linear_rule, textual
from minillm.objectives import invariance

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
    found = invariance.reweigh_domains(jnp.full(3, 1 / 3), jnp.array([0.1, 1.0, 0.5]), 2.0)
    np.testing.assert_allclose(found, np.exp([0.2, 2.0, 1.0]) / np.exp([0.2, 2.0, 1.0]).sum(), rtol=1e-5)


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
    plain, worst, invariant = (linear_rule.fit_rule(features, labels, domains, m) for m in ("erm", "group_dro", "irm"))
    share = lambda weights: weights[1] / weights.sum()
    assert share(plain) > share(worst) > share(invariant)
    expected = textual.logistic_head(features, labels, features, 2)  # plain training is logistic regression
    assert ((features @ plain > 0) == expected.argmax(1)).all()
    with pytest.raises(ValueError, match="0 from 1"):
        linear_rule.fit_rule(features, labels + 1, domains)
