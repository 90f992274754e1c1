"""Batches as pure functions of (seed, step): any step's batch can be had without those before it."""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from minillm.data.packing import pack
from minillm.errors import UserError

ALL = slice(None)  # rows


class TokenDataset(NamedTuple):
    """Training text as one stream of ids, or as packed rows; `tokens` is [n] or [rows, length + 1]."""

    tokens: np.ndarray
    length: int
    segments: np.ndarray | None = None
    positions: np.ndarray | None = None


def make_dataset(documents: Sequence[np.ndarray], length: int, packing: str = "stream") -> TokenDataset:
    """Documents as bos ... eos -> a dataset of examples of `length` tokens.

    "stream" lays all documents end to end and cuts windows; "packed" puts whole documents side by side in rows, with
    segments, so that none sees another. Raises: UserError where the text is shorter than one example.
    """
    refuse_short_text(sum(map(len, documents)), length)
    if packing == "stream":
        return TokenDataset(np.concatenate(documents).astype(np.int32), length)
    rows = pack(documents, length + 1)
    return TokenDataset(rows.tokens, length, rows.segments, rows.positions)


def refuse_short_text(tokens: int, length: int) -> None:
    """Raises: UserError where there is not one example and its next token."""
    if tokens < length + 1:
        raise UserError(
            f"the training text has {tokens} tokens, one example needs {length + 1}",
            "data.length",
            "use a longer text, or a smaller data.length or model.context",
        )


@functools.lru_cache(maxsize=4)
def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch goes over `count` examples."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


def _phase(length: int, seed: int, epoch: int) -> int:
    return int(np.random.Generator(np.random.Philox(key=[seed, epoch], counter=1 << 64)).integers(length))


def _example(dataset: TokenDataset, seed: int, number: int) -> tuple[np.ndarray, ...]:
    """Example `number` of the endless sequence of epochs: ids [length + 1] and, if packed, segments and positions."""
    if dataset.segments is not None:
        epoch, place = divmod(number, len(dataset.tokens))
        row = epoch_order(len(dataset.tokens), seed, epoch)[place]
        return dataset.tokens[row], dataset.segments[row], dataset.positions[row]
    # the stream is a ring that every epoch cuts at another phase, so that windows differ and no token is left out for good
    windows = len(dataset.tokens) // dataset.length
    epoch, place = divmod(number, windows)
    start = _phase(dataset.length, seed, epoch) + int(epoch_order(windows, seed, epoch)[place]) * dataset.length
    return (dataset.tokens.take(np.arange(start, start + dataset.length + 1), mode="wrap"),)


def batch_at(dataset: TokenDataset, seed: int, step: int, batch_size: int, rows: slice = ALL) -> dict[str, np.ndarray]:
    """The batch of a step: tokens, targets [batch, length] int32, weights float32, index [batch] int32.

    Each epoch goes over the text once, in an order of its own, less a rest shorter than one example. Packed batches also
    have segments and positions, and weight 0 where the next token belongs to another document. `rows` are those that
    are wanted; the others are not read.
    """
    places = np.arange(batch_size, dtype=np.int32)[rows]
    rows = [_example(dataset, seed, step * batch_size + int(place)) for place in places]
    ids = np.stack([row[0] for row in rows])
    batch = {
        "tokens": ids[:, :-1],
        "targets": ids[:, 1:],
        "weights": np.ones((len(places), dataset.length), np.float32),
        "index": places,
    }
    if dataset.segments is not None:
        segments, positions = (np.stack([row[place] for row in rows]) for place in (1, 2))
        batch |= {"segments": segments[:, :-1], "positions": positions[:, :-1]}
        batch["weights"] = ((segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)).astype(np.float32)
    return {name: np.ascontiguousarray(leaf) for name, leaf in batch.items()}


def evaluation_batches(
    documents: Sequence[np.ndarray], length: int, batch_size: int, stride: int
) -> Iterator[dict[str, np.ndarray]]:
    """A fixed set that scores every token but each document's first (bos) exactly once.

    Windows of `length` move by `stride` within a document and score what the window before them did not, so that every
    scored token has all of its document's tokens before it as context, or at least length - stride of them. The last
    batch is filled up with rows of weight 0.
    """
    rows = [row for document in documents for row in _windows(document, length, stride)]
    while len(rows) % batch_size:
        rows.append((np.zeros(length + 1, np.int32), np.zeros(length, np.float32)))
    for start in range(0, len(rows), batch_size):
        ids = np.stack([row[0] for row in rows[start : start + batch_size]])
        yield {
            "tokens": np.ascontiguousarray(ids[:, :-1]),
            "targets": np.ascontiguousarray(ids[:, 1:]),
            "weights": np.stack([row[1] for row in rows[start : start + batch_size]]),
            "index": np.arange(batch_size, dtype=np.int32),
        }


def whole_windows(documents: Sequence[np.ndarray], length: int, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """All documents end to end, cut into windows side by side: tokens [batch, length] and lengths [batch], int32.

    The last window is shorter, and rows of length 0 fill the last batch.
    """
    stream = np.concatenate(documents).astype(np.int32)
    rows = -(-len(stream) // length)
    rows += -rows % batch_size
    tokens = np.zeros(rows * length, np.int32)
    tokens[: len(stream)] = stream
    lengths = np.clip(len(stream) - np.arange(rows) * length, 0, length).astype(np.int32)
    for start in range(0, rows, batch_size):
        part = slice(start, start + batch_size)
        yield {
            "tokens": tokens.reshape(rows, length)[part],
            "lengths": lengths[part],
            "index": np.arange(batch_size, dtype=np.int32),
        }


def _windows(document: np.ndarray, length: int, stride: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    scored, targets = 0, len(document) - 1  # targets scored so far; targets in all
    while scored < targets:
        start = 0 if scored == 0 else scored + stride - length
        end = min(start + length, targets)
        ids, weights = np.zeros(length + 1, np.int32), np.zeros(length, np.float32)
        ids[: end - start + 1] = document[start : end + 1]
        weights[scored - start : end - start] = 1.0
        scored = end
        yield ids, weights
