"""Rows that go on from step to step, with the model's state carried along."""

import numpy as np
import pytest

from minillm.data.continued import continued_batch_at, continued_evaluation, make_ring
from minillm.errors import UserError

LENGTH, ROWS = 7, 3


def documents(seed=0, count=9):
    generator = np.random.default_rng(seed)
    numbers = np.arange(10, 10_000)  # every token is another one: places can be told
    sizes = generator.integers(3, 40, count)
    cuts = np.split(numbers[: sizes.sum()], np.cumsum(sizes)[:-1])
    return [np.array([2, *cut, 3], np.int32) for cut in cuts]


def test_rows_go_on_where_they_stopped_and_go_round():
    ring = make_ring(documents(), LENGTH, seed=4)
    steps = len(ring.tokens) // LENGTH + 3
    rows = np.concatenate([continued_batch_at(ring, step, ROWS)["tokens"] for step in range(steps)], axis=1)
    targets = np.concatenate([continued_batch_at(ring, step, ROWS)["targets"] for step in range(steps)], axis=1)
    np.testing.assert_array_equal(rows[:, 1:], targets[:, :-1])
    for row in rows:
        assert set(row.tolist()) == set(ring.tokens.tolist())  # each row sees the whole text in the end
    assert len({tuple(row[:LENGTH]) for row in rows}) == ROWS


def test_documents_begin_with_a_reset_and_are_not_foretold():
    ring = make_ring(documents(), LENGTH, seed=4)
    for step in range(20):
        batch = continued_batch_at(ring, step, ROWS)
        np.testing.assert_array_equal(batch["reset"], batch["tokens"] == 2)
        np.testing.assert_array_equal(batch["weights"], (batch["targets"] != 2).astype(np.float32))


def test_the_order_of_documents_depends_on_the_seed_alone():
    orders = [make_ring(documents(), LENGTH, seed).tokens.tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


@pytest.mark.parametrize("count", [1, 2, 9])
def test_evaluation_scores_every_token_but_the_first_ones_once_and_in_order(count):
    text = documents(count=count)
    batches = continued_evaluation(text, LENGTH, ROWS)
    scored = [batch["targets"][batch["weights"] > 0] for batch in batches]
    wanted = np.concatenate([document[1:] for document in text])
    np.testing.assert_array_equal(np.sort(np.concatenate(scored)), np.sort(wanted))
    rows = [np.concatenate([b["targets"][r][b["weights"][r] > 0] for b in batches]) for r in range(ROWS)]
    np.testing.assert_array_equal(np.concatenate(rows), wanted)


def test_a_text_shorter_than_a_segment_is_refused():
    with pytest.raises(UserError, match="one example needs"):
        make_ring([np.array([2, 5, 3])], LENGTH, 0)
