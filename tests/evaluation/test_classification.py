"""Metrics of classes and numbers against scikit-learn and scipy, and what holds of every metric."""

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from minillm.errors import UserError
from minillm.evaluation import classification as ours

NAMES = ("precision", "recall", "f1")


def problem(seed: int, classes: int, examples: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities that know something of them; with 9 classes some are never predicted or never there."""
    random = np.random.default_rng(seed)
    skew = random.dirichlet(np.ones(classes) / 2)
    labels = random.choice(classes, examples, p=skew)
    scores = random.normal(size=(examples, classes)) + 1.5 * np.eye(classes)[labels]
    return labels, np.exp(scores) / np.exp(scores).sum(1, keepdims=True)


def reference_averages(actual, decided, **settings) -> dict[str, float]:
    found = {}
    for average in ("macro", "micro"):
        values = reference.precision_recall_fscore_support(
            actual, decided, average=average, zero_division=0, **settings
        )
        found |= {f"{average}_{name}": value for name, value in zip(NAMES, values, strict=False)}
    return found


def equal(found, expected) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("classes", [2, 3, 9])
@pytest.mark.parametrize("seed", range(5))
def test_one_class_each_equals_scikit_learn(seed, classes):
    labels, probabilities = problem(seed, classes)
    decided, every = probabilities.argmax(1), list(range(classes))
    expected = reference_averages(labels, decided, labels=every) | {
        "accuracy": reference.accuracy_score(labels, decided),
        "log_loss": reference.log_loss(labels, probabilities, labels=every),
    }
    equal(ours.single_label(labels, probabilities), expected)
    rows = ours.describe_classes(labels, probabilities, [str(i) for i in every])
    columns = reference.precision_recall_fscore_support(labels, decided, labels=every, zero_division=0)
    for name, column in zip((*NAMES, "actual"), columns, strict=True):
        np.testing.assert_allclose([row[name] for row in rows], column, rtol=1e-12)
    matrix = reference.confusion_matrix(labels, decided, labels=every)
    np.testing.assert_array_equal(ours.confusion(labels, decided, classes), matrix)


@pytest.mark.parametrize("seed", range(5))
def test_several_classes_each_equal_scikit_learn(seed):
    random = np.random.default_rng(seed)
    labels = random.random((50, 5)) < [0.5, 0.3, 0.1, 0.02, 0.0]
    probabilities = np.clip(0.3 * labels + random.random((50, 5)) * [0.7, 0.7, 0.6, 0.4, 0.4], 0.0, 1.0)
    decided = probabilities >= 0.5
    losses = [reference.log_loss(labels[:, i], probabilities[:, i], labels=[False, True]) for i in range(5)]
    expected = reference_averages(labels, decided) | {
        "subset_accuracy": reference.accuracy_score(labels, decided), "log_loss": np.mean(losses),
    }  # fmt: skip
    equal(ours.multi_label(labels, probabilities), expected)
    f1 = reference.f1_score(labels, decided, average=None, zero_division=0)
    np.testing.assert_allclose(list(ours.class_f1(labels, probabilities, "abcde").values()), f1, rtol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_regression_equals_scikit_learn_and_scipy(seed, ties):
    random = np.random.default_rng(seed)
    targets = 1e3 + random.normal(size=40)
    predictions = targets + random.normal(size=40)
    if ties:
        targets, predictions = targets.round(), predictions.round()
    expected = {
        "squared_error": reference.mean_squared_error(targets, predictions),
        "r2": reference.r2_score(targets, predictions),
        "pearson": stats.pearsonr(targets, predictions).statistic,
        "spearman": stats.spearmanr(targets, predictions).statistic,
    }
    found = ours.regression(targets, predictions)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, err_msg=name)
    assert found["undefined"] == 0.0


def test_a_case_counted_by_hand():
    """Three examples of class 0 (two found), one of class 1 (found), none of class 2 (predicted once)."""
    labels, probabilities = np.array([0, 0, 0, 1]), np.eye(3)[[0, 0, 2, 1]]
    found = ours.single_label(labels, probabilities)
    assert found["accuracy"] == found["micro_f1"] == found["micro_precision"] == 3 / 4
    assert found["macro_precision"] == pytest.approx((1 + 1 + 0) / 3)
    assert found["macro_recall"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["macro_f1"] == pytest.approx((4 / 5 + 1 + 0) / 3)
    assert found["undefined"] == 1  # the recall of class 2
    assert found["log_loss"] == pytest.approx(-np.log(np.finfo(np.float64).eps) / 4)  # a certain mistake


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_repeated_examples(seed):
    """A weight of 3 is the example three times, for every metric, many draws at once."""
    random = np.random.default_rng(seed)
    draws = random.integers(0, 4, (4, 30)).astype(float)
    labels, probabilities = problem(seed, 4, 30)
    several = random.random((30, 4)) < 0.4
    targets, predictions = random.normal(size=(2, 30)).round(1)
    cases = ((ours.single_label, labels, probabilities), (ours.multi_label, several, probabilities),
             (ours.regression, targets, predictions))  # fmt: skip
    for metric, left, right in cases:
        found = metric(left, right, draws)
        for place, draw in enumerate(draws.astype(int)):
            repeated = metric(np.repeat(left, draw, axis=0), np.repeat(right, draw, axis=0))
            assert found.keys() == repeated.keys()
            for name, value in repeated.items():
                np.testing.assert_allclose(found[name][place], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_the_calibration_error_of_a_calibrated_and_of_an_overconfident_classifier():
    random = np.random.default_rng(0)
    sure = random.uniform(0.5, 1.0, 40_000)
    hits = random.random(40_000) < sure
    probabilities = np.stack([1.0 - sure, sure], 1)
    assert ours.calibration_error(hits.astype(int), probabilities) < 0.01
    always = np.tile([0.05, 0.95], (1000, 1))
    labels = (np.arange(1000) < 700).astype(int)
    assert ours.calibration_error(labels, always) == pytest.approx(0.25)  # 95 % sure, 70 % right


@pytest.mark.parametrize("seed", range(3))
def test_reliability_equals_scikit_learn(seed):
    labels, probabilities = problem(seed, 3, 400)
    hits = probabilities.argmax(1) == labels
    accuracy, confidence = calibration_curve(hits, probabilities.max(1), n_bins=ours.BINS)
    rows = ours.reliability(labels, probabilities)
    np.testing.assert_allclose([row["accuracy"] for row in rows], accuracy)
    np.testing.assert_allclose([row["confidence"] for row in rows], confidence)
    gaps = sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / 400
    assert ours.calibration_error(labels, probabilities) == pytest.approx(gaps)


def test_a_confidence_on_the_edge_belongs_to_the_bin_below():
    rows = ours.reliability(np.array([0, 0, 1]), np.array([[1.0, 0.0], [0.6, 0.4], [0.5, 0.5]]))
    assert [(row["low"] * 15, row["high"] * 15) for row in rows] == [(7, 8), (8, 9), (14, 15)]  # 0.6 = 9 / 15


def test_constant_numbers_are_zero_and_counted():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = np.full(7, 0.1 + 0.2)
        found = ours.regression(same, np.arange(7.0))
        assert (found["r2"], found["pearson"], found["spearman"], found["undefined"]) == (0.0, 0.0, 0.0, 3.0)
        found = ours.regression(np.arange(7.0), same)
        assert (found["pearson"], found["spearman"], found["undefined"]) == (0.0, 0.0, 2.0)
        assert found["r2"] < 0.0


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [[0.5, 0.5]], "expected"),
        ([], np.zeros((0, 2)), "n > 0"),
        ([0, 2], [[0.5, 0.5]] * 2, "labels 0 to 2, expected 0 to 1"),
        ([0, -1], [[0.5, 0.5]] * 2, "labels -1 to 0"),
        ([0, 1], [[0.5, 0.5], [0.9, 0.4]], "example 1 sum to 1.3000"),
        ([0, 1], [[0.5, 0.5], [np.nan, 0.4]], "outside of 0 to 1"),
        ([0, 1], [[2.0, -1.0], [0.5, 0.5]], "outside of 0 to 1"),
    ],
)
def test_mistakes_are_named(labels, probabilities, message):
    with pytest.raises(UserError, match=message):
        ours.single_label(np.array(labels), np.array(probabilities))


def test_mistakes_in_the_other_tasks_are_named():
    with pytest.raises(UserError, match="must have one shape"):
        ours.multi_label(np.ones((2, 3), bool), np.ones((2, 2)))
    with pytest.raises(UserError, match="must be finite"):
        ours.regression(np.array([1.0, np.nan]), np.ones(2))
    with pytest.raises(UserError, match="weights"):
        ours.regression(np.ones(2), np.ones(2), np.ones((5, 3)))
