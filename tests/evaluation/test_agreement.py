"""Agreement of tokenizers and hidden states, against the equations written out and what must not matter."""

import numpy as np
import pytest

from minillm.errors import UserError
from minillm.evaluation import agreement


def hsic(left, right):
    """Kornblith et al. 2019, equation 3, with H as a matrix."""
    n = len(left)
    centre = np.eye(n) - np.ones((n, n)) / n
    return np.trace(left @ left.T @ centre @ right @ right.T @ centre) / (n - 1) ** 2


def test_cka_equals_its_equation_and_the_form_for_features():
    random = np.random.default_rng(0)
    left, right = random.normal(size=(12, 5)), random.normal(size=(12, 7)) + 3.0
    found = agreement.linear_cka(left, right)["cka"]
    assert found == pytest.approx(hsic(left, right) / np.sqrt(hsic(left, left) * hsic(right, right)))
    a, b = left - left.mean(0), right - right.mean(0)
    norm = lambda x: np.linalg.norm(x) ** 2
    assert found == pytest.approx(norm(b.T @ a) / np.sqrt(norm(a.T @ a) * norm(b.T @ b)))


def test_cka_ignores_rotation_scale_and_shift_and_knows_chance():
    random = np.random.default_rng(1)
    left = random.normal(size=(30, 6))
    turn = np.linalg.qr(random.normal(size=(6, 6)))[0]
    same = agreement.linear_cka(left, 3.0 * left @ turn + 2.0)
    assert same["cka"] == pytest.approx(1.0)
    assert same["shuffled"] < 0.5
    wide = agreement.linear_cka(random.normal(size=(30, 300)), random.normal(size=(30, 300)))
    assert wide["cka"] > 0.8  # by chance, where there are more features than texts
    assert abs(wide["cka"] - wide["shuffled"]) < 0.05


def test_cosines_are_seen_beside_those_of_other_texts():
    random = np.random.default_rng(2)
    cone = random.normal(size=50)  # all vectors point into one direction, and differ a little
    left = 10.0 * cone + random.normal(size=(20, 50))
    assert agreement.pooled_cosine(left, left)["centred"] == pytest.approx(1.0)
    other = agreement.pooled_cosine(left, 10.0 * cone + random.normal(size=(20, 50)))
    assert other["same"] > 0.98
    assert abs(other["centred"]) < 0.2


def test_pieces():
    left, right = ["<pad>", "a", "b", "c"], ["<pad>", "b", "a", "c", "d"]
    found = agreement.piece_overlap(left, right)
    assert found == {"left": 4, "right": 5, "shared": 4, "jaccard": 4 / 5, "same_id": 2 / 4}
    ids = agreement.shared_ids(left, right)
    assert [left[i] for i in ids[0]] == [right[i] for i in ids[1]] == left
    assert [len(part) for part in agreement.shared_ids(["x"], ["y"])] == [0, 0]


def test_one_text_is_too_few():
    with pytest.raises(UserError, match="two of them at least"):
        agreement.linear_cka(np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(UserError, match="3 and 2 vectors"):
        agreement.pooled_cosine(np.ones((3, 2)), np.ones((2, 2)))
