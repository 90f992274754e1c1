"""Pairs of texts as rows of ids for an encoder-decoder, and their batches as pure functions of (seed, step).

source: x_1 ... x_n end        targets: y_1 ... y_m end        tokens: begin y_1 ... y_m
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from minillm.data.batches import ALL, epoch_order
from minillm.data.rows import Frame

GROUP = 16  # batches whose pairs are sorted by length: fewer leave more padding, more make batches less random
COLUMNS = 8  # and each width is compiled once


class PairRows(NamedTuple):
    """source, source_mask [rows, length]; tokens, targets, weights [rows, target length]; cut [rows]: did not fit."""

    source: np.ndarray
    source_mask: np.ndarray
    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    cut: np.ndarray


def pair_rows(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], lengths: tuple[int, int], frame: Frame
) -> PairRows:
    """Ids without special ones -> rows of `lengths`. A source that is too long is cut before its end token; of a target
    that is too long the first tokens are learned, and no end."""
    counts, (length, room) = len(sources), lengths
    source, written = (np.full((counts, size), frame.pad, np.int32) for size in lengths)
    read, tokens, weights = np.zeros((counts, length), bool), written.copy(), np.zeros((counts, room), np.float32)
    cut = np.zeros(counts, bool)
    for row, (asked, answer) in enumerate(zip(sources, targets, strict=True)):
        given, said = [*asked[: length - 1], frame.end], [*answer, frame.end][:room]
        source[row, : len(given)], read[row, : len(given)] = given, True
        written[row, : len(said)], weights[row, : len(said)] = said, 1.0
        tokens[row, : len(said)] = [frame.begin, *said[:-1]]
        cut[row] = len(asked) + 1 > length or len(answer) + 1 > room
    return PairRows(source, read, tokens, written, weights, cut)


def pair_rows_batch_at(
    dataset: PairRows, seed: int, step: int, batch_size: int, rows: slice = ALL
) -> dict[str, np.ndarray]:
    """The batch of a step, or some of its `rows`."""
    return pair_batch(dataset, group_batches(dataset, seed, step // GROUP, batch_size)[step % GROUP], rows)


def group_batches(dataset: PairRows, seed: int, group: int, batch_size: int) -> Int[np.ndarray, "batches batch"]:
    """Which pairs the GROUP batches of a group have.

    Each epoch goes over all pairs once, in an order of its own. Of every GROUP batches the pairs are sorted by length and
    the batches shuffled.
    """
    numbers = group * GROUP * batch_size + np.arange(GROUP * batch_size)
    count = len(dataset.source)
    orders = {epoch: epoch_order(count, seed, epoch) for epoch in range(numbers[0] // count, numbers[-1] // count + 1)}
    found = np.array([orders[number // count][number % count] for number in numbers.tolist()])
    sizes = np.maximum(dataset.source_mask.sum(1), dataset.weights.astype(bool).sum(1))[found]
    found = found[np.argsort(sizes, kind="stable")].reshape(GROUP, batch_size)
    return found[np.random.Generator(np.random.Philox(key=[seed, group])).permutation(GROUP)]


def pair_batch(dataset: PairRows, chosen: Int[np.ndarray, "batch"], rows: slice = ALL) -> dict[str, np.ndarray]:
    """These pairs as a batch, or some of its `rows`; its columns end where its longest pair does, at a multiple of COLUMNS."""
    longest = max(int(leaf[chosen].sum(1).max()) for leaf in (dataset.source_mask, dataset.weights))
    width = -(-longest // COLUMNS) * COLUMNS
    index = np.arange(len(chosen), dtype=np.int32)[rows]
    batch = _batch(dataset, chosen[rows], np.ones(len(index), bool))
    return {name: np.ascontiguousarray(leaf[:, :width]) for name, leaf in batch.items()} | {"index": index}


def pair_rows_evaluation(dataset: PairRows, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Every pair once, in order; the last batch is filled up with copies of row 0, of weight 0."""
    count = len(dataset.source)
    for start in range(0, count, batch_size):
        rows = np.arange(start, start + batch_size)
        index = np.arange(batch_size, dtype=np.int32)
        yield _batch(dataset, np.where(rows < count, rows, 0), rows < count) | {"index": index}


def _batch(dataset: PairRows, rows: np.ndarray, real: np.ndarray) -> dict[str, np.ndarray]:
    leaves = {name: leaf[rows] for name, leaf in dataset._asdict().items() if name != "cut"}
    return leaves | {"weights": leaves["weights"] * real[:, None].astype(np.float32)}
