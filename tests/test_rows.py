"""Labelled texts as rows of ids: frames, cuts, tags, batches."""

import numpy as np
import pytest

from minillm.data.rows import (
    Frame,
    part,
    row_batch_at,
    row_evaluation_batches,
    shorten,
    text_rows,
    to_the_right,
    unit_rows,
)

FRAME = Frame(begin=2, end=3, pad=0)


def numbers(generator, most):
    return [list(generator.integers(10, 99, size=generator.integers(1, most))) for _ in range(30)]


def test_a_row_holds_its_texts_between_their_frame():
    generator = np.random.default_rng(0)
    firsts, seconds = numbers(generator, 9), numbers(generator, 9)
    dataset = text_rows(firsts, seconds, np.arange(30), 24, FRAME)
    for row, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        ids = dataset.tokens[row][dataset.mask[row]].tolist()
        assert ids == [2, *first, 3, *second, 3]
        assert dataset.token_types[row].sum() == len(second) + 1
        assert (dataset.tokens[row][~dataset.mask[row]] == 0).all()
    single = text_rows(firsts, None, np.arange(30), 24, FRAME)
    assert [row[mask].tolist() for row, mask in zip(single.tokens, single.mask, strict=True)] == [
        [2, *f, 3] for f in firsts
    ]
    assert not single.token_types.any()
    assert not single.cut.any()
    assert not dataset.cut.any()


@pytest.mark.parametrize("length", [5, 6, 9, 16])
def test_a_pair_fills_its_row_and_the_longer_text_is_cut_first(length):
    generator = np.random.default_rng(length)
    for _ in range(200):
        first, second = (list(range(generator.integers(1, 20))) for _ in range(2))
        a, b, cut = shorten(first, second, length)
        room = length - 3
        assert len(a) + len(b) == min(len(first) + len(second), room)
        assert cut == (len(first) + len(second) > room)
        assert a == first[: len(a)]
        assert b == second[: len(b)]
        if len(a) < len(first):
            assert len(a) >= len(b)  # the shorter one lost nothing that the longer one could have lost
        if len(b) < len(second):
            assert len(b) >= len(a) - 1


def test_the_first_token_of_a_unit_carries_its_tag():
    dataset = unit_rows([[[10], [11, 12], [13]], [[20, 21]]], [[1, 2, 3], [4]], 6, FRAME)
    assert dataset.tokens.tolist() == [[2, 10, 11, 12, 13, 3], [2, 20, 21, 3, 0, 0]]
    assert dataset.labels[dataset.tagged].tolist() == [1, 2, 3, 4]
    assert dataset.mask.sum(1).tolist() == [6, 4]


def test_long_rows_of_units_are_parted_at_marks_and_lose_nothing():
    assert part([1] * 9, [False, False, True, False, False, True, False, False, False], 5) == [(0, 3), (3, 6), (6, 9)]
    assert part([2, 2, 2, 2], [False] * 4, 5) == [(0, 2), (2, 4)]
    assert part([1, 7, 1], [False] * 3, 5) == [(0, 1), (1, 2), (2, 3)]
    generator = np.random.default_rng(0)
    for _ in range(200):
        count, room = generator.integers(1, 30), int(generator.integers(3, 12))
        sizes, ends = generator.integers(1, 4, count).tolist(), (generator.random(count) < 0.2).tolist()
        parts = part(sizes, ends, room)
        assert [place for first, after in parts for place in range(first, after)] == list(range(count))
        for first, after in parts:
            assert sum(sizes[first:after]) <= room
            if after < count and not ends[after - 1]:  # no mark inside: then nothing more would have fitted
                assert not any(ends[first:after])
                assert sum(sizes[first : after + 1]) > room


def test_an_epoch_reads_every_row_once_and_batches_depend_on_seed_and_step_alone():
    dataset = text_rows([[n] for n in range(10, 22)], None, np.arange(12), 4, FRAME)
    read = [row_batch_at(dataset, 7, step, 4)["labels"] for step in range(6)]
    assert sorted(np.concatenate(read[:3])) == sorted(np.concatenate(read[3:])) == list(range(12))
    assert not np.array_equal(np.concatenate(read[:3]), np.concatenate(read[3:]))
    assert np.array_equal(row_batch_at(dataset, 7, 4, 4)["labels"], read[4])
    assert not np.array_equal(row_batch_at(dataset, 8, 4, 4)["labels"], read[4])


def test_evaluation_scores_every_row_once():
    dataset = text_rows([[n] for n in range(10, 17)], None, np.arange(7), 4, FRAME)
    batches = list(row_evaluation_batches(dataset, 3))
    assert [len(batch["tokens"]) for batch in batches] == [3, 3, 3]
    labels, weights = (np.concatenate([batch[name] for batch in batches]) for name in ("labels", "weights"))
    assert labels[weights > 0].tolist() == list(range(7))


def test_padding_may_stand_before_a_row():
    dataset = text_rows([[10, 11], [12], [13, 14, 15, 16, 17]], None, np.arange(3), 6, FRAME)
    moved = to_the_right(dataset)
    assert moved.tokens.tolist() == [[0, 0, 2, 10, 11, 3], [0, 0, 0, 2, 12, 3], [2, 13, 14, 15, 16, 3]]
    assert (
        moved.segments.tolist() == moved.mask.astype(int).tolist() == [[0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [1] * 6]
    )
    assert moved.positions[0].tolist() == [0, 0, 0, 1, 2, 3]
    assert set(row_batch_at(moved, 0, 0, 2)) >= {"segments", "positions"}
