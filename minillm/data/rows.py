"""Labelled texts -> rows of ids and batches, as pure functions of (seed, step).

    [class] A [separator]                        one text          Devlin et al. 2019, section 4
    [class] A [separator] B [separator]          a pair
    [class] u_1 u_2 ... [separator]              tagged units (characters or words), each maybe several tokens long

A row that is too long is cut: the longer text of a pair loses its tokens first. Tagged units lose nothing: what does not
fit goes on in another row, from a punctuation mark on where there is one. Padding stands behind a
row, or before it where the model reads from left to right, so that the last token has seen all of it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from minillm.data.batches import ALL, epoch_order

Ids = Sequence[int]


class Frame(NamedTuple):
    """The ids that hold a row together."""

    begin: int  # the class token
    end: int  # the separator
    pad: int


class RowDataset(NamedTuple):
    """All rows of a split.

    tokens, token_types [rows, length] int32 · mask [rows, length] bool, False at padding · labels: [rows] int32 classes
    or float32 numbers, [rows, classes] float32, or [rows, length] int32 tags · tagged [rows, length] bool, True where a
    token carries a tag; None without tags · cut [rows] bool, True where tokens were lost · segments, positions [rows, length] int32,
    where padding stands before the rows: 0 at padding, 1 at the row; places within the row

    Of questions (`windows.py`): labels [rows, 2] int32, answerable [rows, length] bool, True at the class token and at tokens
    of the passage; places [rows, length, 2] int32, a token's characters in the passage; documents [rows] int32, whose row it is

    domains [rows] int32: the place of each one's domain in data.domains, where objectives ask

    target_positions [rows, targets] int32, the tokens that a head reads, where it does not read all: of prompts [rows, 1],
    where each asks for a word, and words [rows, labels] int32, those of all classes
    """

    tokens: np.ndarray
    token_types: np.ndarray
    mask: np.ndarray
    labels: np.ndarray
    cut: np.ndarray
    tagged: np.ndarray | None = None
    segments: np.ndarray | None = None
    positions: np.ndarray | None = None
    answerable: np.ndarray | None = None
    places: np.ndarray | None = None
    documents: np.ndarray | None = None
    target_positions: np.ndarray | None = None
    words: np.ndarray | None = None
    domains: np.ndarray | None = None


def pattern_rows(
    rows: Sequence[Ids],
    places: Sequence[int],
    cut: Sequence[bool],
    labels: np.ndarray,
    words: Ids,
    length: int,
    frame: Frame,
) -> RowDataset:
    """Prompts as ids with their frame, the place of each answer, and a token per class -> rows."""
    tokens, token_types, mask = blank_rows(len(rows), length, frame)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)], mask[row, : len(ids)] = ids, True
    positions = np.array(places, np.int32).reshape(-1, 1)
    words = np.tile(np.array(words, np.int32), (len(rows), 1))
    return RowDataset(tokens, token_types, mask, labels, np.array(cut, bool), target_positions=positions, words=words)


def text_rows(
    texts: Sequence[Ids], pairs: Sequence[Ids] | None, labels: np.ndarray, length: int, frame: Frame
) -> RowDataset:
    """Texts (and, in order, what is paired with them) as ids, without special ones -> rows."""
    tokens, token_types, mask = blank_rows(len(texts), length, frame)
    cut = np.zeros(len(texts), bool)
    for row, first in enumerate(texts):
        second = None if pairs is None else pairs[row]
        first, second, cut[row] = shorten(first, second, length)
        ids = [frame.begin, *first, frame.end]
        token_types[row, len(ids) :] = second is not None
        ids += [] if second is None else [*second, frame.end]
        tokens[row, : len(ids)], mask[row, : len(ids)] = ids, True
    return RowDataset(tokens, np.where(mask, token_types, 0).astype(np.int32), mask, labels, cut)


def shorten(first: Ids, second: Ids | None, length: int) -> tuple[Ids, Ids | None, bool]:
    """What fits into a row of `length` with its frame, and whether something was cut."""
    if second is None:
        return first[: length - 2], None, len(first) > length - 2
    room = length - 3
    most_first = max(room - len(second), -(-room // 2))  # each keeps half of the room, more where the other needs less
    most_second = room - min(len(first), most_first)
    return first[:most_first], second[:most_second], len(first) + len(second) > room


def part(sizes: Sequence[int], ends: Sequence[bool], room: int) -> list[tuple[int, int]]:
    """Units of so many tokens each -> parts (first unit, after the last) that fit into `room` tokens.

    A part is as long as it can be, and ends with a unit where `ends` is True if it has one. A unit larger than `room` is a
    part of its own.
    """
    parts, first = [], 0
    while first < len(sizes):
        after, taken = first + 1, sizes[first]
        while after < len(sizes) and taken + sizes[after] <= room:
            taken, after = taken + sizes[after], after + 1
        if after < len(sizes):
            after = next((place + 1 for place in range(after - 1, first - 1, -1) if ends[place]), after)
        parts.append((first, after))
        first = after
    return parts


def unit_rows(units: Sequence[Sequence[Ids]], tags: Sequence[Sequence[int]], length: int, frame: Frame) -> RowDataset:
    """Units as ids (one or more each) with a tag each -> rows; a unit's first token carries its tag (section 5.3).

    A row must fit: see `part`.
    """
    tokens, token_types, mask = blank_rows(len(units), length, frame)
    labels, tagged = np.zeros_like(tokens), np.zeros_like(mask)
    for row, (pieces, row_tags) in enumerate(zip(units, tags, strict=True)):
        place = 1
        for ids, tag in zip(pieces, row_tags, strict=True):
            tokens[row, place : place + len(ids)] = ids
            labels[row, place], tagged[row, place] = tag, True
            place += len(ids)
        tokens[row, 0], tokens[row, place], mask[row, : place + 1] = frame.begin, frame.end, True
    return RowDataset(tokens, token_types, mask, labels, np.zeros(len(units), bool), tagged)


def to_the_right(dataset: RowDataset) -> RowDataset:
    """The same rows with their padding before them."""
    length = dataset.tokens.shape[1]
    places = np.arange(length) - (length - dataset.mask.sum(1, keepdims=True))
    move = lambda array: np.take_along_axis(array, places % length, axis=1)
    answers = dataset.target_positions
    if answers is not None:
        answers = (answers + length - dataset.mask.sum(1, keepdims=True)).astype(np.int32)
    return dataset._replace(
        target_positions=answers,
        tokens=move(dataset.tokens), token_types=move(dataset.token_types), mask=move(dataset.mask),
        segments=(places >= 0).astype(np.int32), positions=np.maximum(places, 0).astype(np.int32),
    )  # fmt: skip


def row_batch_at(
    dataset: RowDataset, seed: int, step: int, batch_size: int, rows: slice = ALL
) -> dict[str, np.ndarray]:
    """The batch of a step: the rows' fields, weights float32 and index int32.

    Each epoch goes over the rows once, in an order of its own; an epoch's last batch goes on into the next. `rows` are
    those of the batch that are wanted; the others are not read.
    """
    found, places = row_numbers(len(dataset.tokens), seed, step, batch_size, rows)
    return _batch(dataset, found, np.ones(len(found), bool)) | {"index": places}


def row_numbers(count: int, seed: int, step: int, batch_size: int, rows: slice = ALL) -> tuple[np.ndarray, np.ndarray]:
    """(which of `count` rows a step's batch has, their places in the batch), of the wanted places."""
    places = np.arange(batch_size, dtype=np.int32)[rows]
    numbers = [divmod(step * batch_size + int(place), count) for place in places]
    return np.array([epoch_order(count, seed, epoch)[place] for epoch, place in numbers]), places


def row_evaluation_batches(dataset: RowDataset, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Every row once, in order; the last batch is filled up with copies of row 0, of weight 0."""
    count = len(dataset.tokens)
    for start in range(0, count, batch_size):
        rows = np.arange(start, start + batch_size)
        yield _batch(dataset, np.where(rows < count, rows, 0), rows < count)


def blank_rows(rows: int, length: int, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tokens, token_types and mask of rows that are all padding."""
    shape = (rows, length)
    return np.full(shape, frame.pad, np.int32), np.zeros(shape, np.int32), np.zeros(shape, bool)


def _batch(dataset: RowDataset, rows: np.ndarray, real: np.ndarray) -> dict[str, np.ndarray]:
    weights = real if dataset.tagged is None else dataset.tagged[rows] & real[:, None]
    names = ("segments", "positions", "answerable", "places", "documents", "target_positions", "words", "domains")
    sides = {name: getattr(dataset, name)[rows] for name in names if getattr(dataset, name) is not None}
    return sides | {
        "tokens": dataset.tokens[rows],
        "token_types": dataset.token_types[rows],
        "mask": dataset.mask[rows],
        "labels": dataset.labels[rows],
        "weights": weights.astype(np.float32),
        "index": np.arange(len(rows), dtype=np.int32),
    }
