"""What a sequence forgets, and whether texts still look like those of training: by hand and against other libraries."""

import numpy as np
import pytest

from minillm.errors import UserError
from minillm.evaluation import drift, transfer


def test_measures_of_a_matrix_by_hand():
    matrix = np.array([[0.9, 0.5, 0.4], [0.7, 0.8, 0.6], [0.6, 0.9, 0.7]])
    found = transfer.summarise(matrix, before=[0.5, 0.5, 0.5])
    assert found["average_accuracy"] == pytest.approx((0.6 + 0.9 + 0.7) / 3)
    assert found["backward_transfer"] == pytest.approx((-0.3 + 0.1) / 2)
    assert found["forgetting"] == pytest.approx((0.3 - 0.1) / 2)
    assert found["forward_transfer"] == pytest.approx((0.0 + 0.1) / 2)
    assert transfer.separate(matrix).tolist() == [[0.9, 0.5, 0.4], [0.9, 0.8, 0.6], [0.9, 0.8, 0.7]]
    assert transfer.summarise(transfer.separate(matrix))["forgetting"] == 0.0
    before = np.array([[0.9, 0.85, 0.4], [0.9, 0.8, 0.6], [0.9, 0.8, 0.7]])
    assert transfer.summarise(before)["forgetting"] == pytest.approx(0.05 / 2), "it knew the second task before it came"
    with pytest.raises(UserError, match="one row and one column per task"):
        transfer.summarise(np.zeros((2, 3)))


def test_a_labs_rows_become_a_matrix_per_seed():
    rows = [{"member": "a", "own_test": "x", "on_y": {"values": [0.5, 0.5]}, "on_x": {"values": [0.9, 0.8]}},
            {"member": "b", "own_test": "y", "on_y": {"values": [0.7, 0.9]}, "on_x": {"values": [0.6, 0.8]}},
            {"member": "c", "own_test": None}, {"member": "d", "own_test": "x"},
            {"member": "new", "own_test": "x", "on_x": {"values": [0.4, 0.6]}, "on_y": {"values": [0.6, 0.4]}}]  # fmt: skip
    found = transfer.of_rows(["a", "b"], rows)
    assert found["tasks"] == ["x", "y"]  # by their own data, whatever the order of the tests
    np.testing.assert_allclose(found["matrix"], [[0.85, 0.5], [0.7, 0.8]])
    np.testing.assert_allclose(found["forgetting"]["values"], [0.3, 0.0], atol=1e-12)
    assert "forward_transfer" not in found
    found = transfer.of_rows(["a", "b"], rows, untrained="new")
    np.testing.assert_allclose(found["forward_transfer"]["values"], [-0.1, 0.1], atol=1e-12)
    assert transfer.of_rows(["a", "b"], rows, apart=True)["forgetting"]["values"] == [0.0, 0.0]
    assert transfer.of_rows(["a", "z"], rows) is None
    assert transfer.of_rows(["a", "b"], rows, untrained="z") is None
    for wrong, words in (
        (["a"], "1 members"),
        (["a", "c"], "data of c"),
        (["a", "d"], "2 members in the sequence and 1"),
    ):
        with pytest.raises(UserError, match=words):
            transfer.of_rows(wrong, rows)


def test_statistics_equal_their_references_and_are_nothing_where_nothing_has_changed():
    from scipy.stats import ks_2samp
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(0)
    left, right = random.normal(size=80).round(1), random.normal(0.4, 1.2, size=61).round(1)
    assert drift.distance(left, right) == pytest.approx(ks_2samp(left, right).statistic)
    sides = np.repeat([0, 1], [80, 61])
    assert drift.area(left, right) == pytest.approx(roc_auc_score(sides, np.concatenate([left, right])))
    assert drift.stability_index(left, left) == 0.0
    assert drift.stability_index(left, right) > 0.0
    counts = [[3, 0, 1], [1, 0, 3]]  # edges at 0 and 0.4, by hand
    before, now = ((np.array(row) + 0.5) / 5.5 for row in counts)
    expected = float(((now - before) * np.log(now / before)).sum())
    assert drift.stability_index([0, 0, 0, 1], [0, 1, 1, 1], bins=5) == pytest.approx(expected)
    assert drift.unknown_rate([[0, 5], [0, 0, 7]], 0) == 0.6


def test_an_alarm_keeps_its_rate_of_false_alarms():
    random = np.random.default_rng(1)
    false = [random.normal() > drift.alarm_threshold(random.normal(size=39), 0.05) for _ in range(4000)]
    assert np.mean(false) == pytest.approx(0.05, abs=0.011)  # three standard errors
    assert drift.alarm_threshold(range(19), 0.05) == 18.0
    with pytest.raises(UserError, match="use 19 windows or more"):
        drift.alarm_threshold(range(18), 0.05)
    assert drift.first_alarm([0.1, 0.4, 0.3], 0.3) == 1
    assert drift.first_alarm([0.1], 0.3) is None
    with pytest.raises(UserError, match="finite numbers"):
        drift.distance([0.0], [np.nan])


def test_a_classifier_tells_texts_apart_only_where_they_differ():
    random = np.random.default_rng(2)
    text = lambda letters: "".join(random.choice(list(letters), 12))
    same = drift.classifier_area([text("abcd") for _ in range(60)], [text("abcd") for _ in range(30)])
    other = drift.classifier_area([text("abcd") for _ in range(60)], [text("cdef") for _ in range(30)])
    assert other > 0.95
    assert 0.3 < same < 0.7
