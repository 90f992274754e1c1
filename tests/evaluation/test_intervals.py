"""Intervals: against scipy, and by how often they hold the truth."""

import time

import numpy as np
import pytest
from scipy import stats

from minillm.errors import UserError
from minillm.evaluation.classification import regression, single_label
from minillm.evaluation.intervals import bootstrap, draw_weights, over_seeds, paired_bootstrap, paired_seeds, welch


def mean_of(values):
    return lambda weights: {"mean": weights @ values / weights.sum(-1)}


@pytest.mark.parametrize("seed", range(3))
def test_equals_scipys_percentile_bootstrap(seed):
    """Other random numbers, the same distribution: bounds agree to a few per cent of the interval's width."""
    random = np.random.default_rng(seed)
    targets = random.normal(size=80)
    predictions = targets + random.normal(size=80)
    found = bootstrap(lambda weights: regression(targets, predictions, weights), 80, resamples=8000)["pearson"]
    options = dict(paired=True, vectorized=False, n_resamples=8000, method="percentile", rng=random)
    correlation = lambda x, y: np.corrcoef(x, y)[0, 1]
    expected = stats.bootstrap((targets, predictions), correlation, **options).confidence_interval
    width = expected.high - expected.low
    assert abs(found["low"] - expected.low) < 0.05 * width
    assert abs(found["high"] - expected.high) < 0.05 * width


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """300 samples of 120 from a known accuracy of 0.8: 95 % intervals hold it in about 95 % of the samples."""
    random = np.random.default_rng(1)
    held = {0.95: 0, 0.8: 0}
    for _ in range(300):
        metric = mean_of((random.random(120) < 0.8).astype(float))
        for level in held:
            found = bootstrap(metric, 120, level=level, resamples=200)["mean"]
            held[level] += found["low"] <= 0.8 <= found["high"]
    assert (
        0.90 <= held[0.95] / 300 <= 0.98
    )  # three deviations of 300 coins are 0.04; percentile intervals are a bit narrow
    assert 0.73 <= held[0.8] / 300 <= 0.87


def test_t_intervals_over_seeds_hold_the_truth_as_often_as_they_say():
    random = np.random.default_rng(2)
    found = [over_seeds(row) for row in random.normal(3.0, 2.0, (2000, 3))]
    assert 0.935 <= np.mean([row["low"] <= 3.0 <= row["high"] for row in found]) <= 0.965
    row = random.normal(size=5)
    low, high = stats.t.interval(0.95, 4, loc=row.mean(), scale=stats.sem(row))
    assert (over_seeds(row)["low"], over_seeds(row)["high"]) == pytest.approx((low, high))
    assert over_seeds([0.7]) == {"mean": 0.7, "deviation": None, "low": None, "high": None, "values": [0.7]}


def test_a_true_difference_is_found_and_none_is_not_invented():
    """Under equal systems p is below 0.05 in about 5 % of the samples; a system that is better is found."""
    random = np.random.default_rng(3)
    small = 0
    for _ in range(200):
        left, right = (random.random((2, 150)) < 0.7).astype(float)
        small += paired_bootstrap(mean_of(left), mean_of(right), 150, resamples=200)["mean"]["p"] < 0.05
    assert small / 200 <= 0.10
    right = (random.random(400) < 0.7).astype(float)
    left = np.maximum(right, random.random(400) < 0.2)  # whatever the other finds, and more
    found = paired_bootstrap(mean_of(left), mean_of(right), 400)["mean"]
    assert found["p"] == pytest.approx(2 / 1001)
    assert 0 < found["low"] < found["value"] < found["high"]
    other = paired_bootstrap(mean_of(right), mean_of(left), 400)["mean"]
    assert (other["value"], other["low"], other["p"]) == pytest.approx((-found["value"], -found["high"], found["p"]))


def test_pairing_narrows_the_interval_of_a_difference():
    random = np.random.default_rng(4)
    right = (random.random(300) < 0.6).astype(float)
    left = np.where(random.random(300) < 0.1, 1.0 - right, right)  # they agree on nine in ten
    paired = paired_bootstrap(mean_of(left), mean_of(right), 300)["mean"]
    single = bootstrap(mean_of(left), 300)["mean"]
    assert paired["high"] - paired["low"] < 0.8 * (single["high"] - single["low"])


def test_equal_systems_have_a_p_of_one():
    metric = mean_of(np.arange(5.0))
    found = paired_bootstrap(metric, metric, 5, resamples=50)["mean"]
    assert found == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_the_seed_decides_and_blocks_do_not(monkeypatch):
    whole = np.concatenate(list(draw_weights(30, 50, seed=7)))
    assert whole.shape == (50, 30)
    assert (whole.sum(1) == 30).all()
    monkeypatch.setattr("minillm.evaluation.intervals.ROOM", 100)
    np.testing.assert_array_equal(np.concatenate(list(draw_weights(30, 50, seed=7))), whole)
    assert (np.concatenate(list(draw_weights(30, 50, seed=8))) != whole).any()


def test_a_thousand_resamples_of_three_thousand_examples_take_no_time():
    random = np.random.default_rng(5)
    labels, probabilities = random.integers(0, 5, 3000), random.dirichlet(np.ones(5), 3000)
    start = time.process_time()
    found = bootstrap(lambda weights: single_label(labels, probabilities, weights), 3000)
    assert time.process_time() - start < 2.0  # 0.1 s of one core, where it was written
    assert found["accuracy"]["low"] < found["accuracy"]["value"] < found["accuracy"]["high"]


def test_mistakes_are_named():
    with pytest.raises(UserError, match="0 examples"):
        bootstrap(mean_of(np.zeros(0)), 0)
    with pytest.raises(UserError, match="no values"):
        over_seeds([])


@pytest.mark.parametrize("seed", range(3))
def test_differences_between_seeds_are_scipys(seed):
    random = np.random.default_rng(seed)
    left, right = random.normal(0.7, 0.05, 3), random.normal(0.8, 0.01, 5)
    for found, expected in ((welch(left, right), stats.ttest_ind(right, left, equal_var=False)),
                            (paired_seeds(left, right[:3]), stats.ttest_rel(right[:3], left))):  # fmt: skip
        interval = expected.confidence_interval(0.95)
        assert (found["low"], found["high"], found["p"]) == pytest.approx((*interval, expected.pvalue))
    assert welch(left, right)["value"] == pytest.approx(right.mean() - left.mean())


def test_pairs_find_what_varies_with_the_seed_alone_and_a_single_seed_is_no_evidence():
    seeds = np.array([0.5, 0.6, 0.9])
    better = seeds + np.array([0.010, 0.011, 0.012])
    assert paired_seeds(seeds, better)["p"] < 0.01 < welch(seeds, better)["p"]
    assert paired_seeds(seeds, seeds) == {"value": 0.0, "low": 0.0, "high": 0.0, "p": None}
    for test in (welch, paired_seeds):
        with pytest.raises(UserError, match="two"):
            test([0.5], [0.6])
