"""Batches whose rows go on where they stopped a step before, for models that carry a state from segment to segment.

    step 0:  row 0 = a b c d    row 1 = m n o p
    step 1:  row 0 = e f g h    row 1 = q r s t        truncated back-propagation through time: Mikolov et al. 2010

Still a pure function of the step: the text is a ring, and row r at step n begins at place r / batch of the ring plus
n * length. `reset` is true where a document begins: nothing is remembered across it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minillm.data.batches import ALL, refuse_short_text


class Ring(NamedTuple):
    """Documents as bos ... eos, end to end; `starts` says where one begins. Both are [tokens]."""

    tokens: np.ndarray
    starts: np.ndarray
    length: int  # of a segment


def make_ring(documents: Sequence[np.ndarray], length: int, seed: int) -> Ring:
    """The documents in a random order, the same in every epoch. Raises: UserError where the text is too short."""
    refuse_short_text(sum(map(len, documents)), length)
    order = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(len(documents))
    return Ring(*_join([documents[number] for number in order]), length)


def continued_batch_at(ring: Ring, step: int, batch_size: int, rows: slice = ALL) -> dict[str, np.ndarray]:
    """The batch of a step: tokens, targets [batch, length] int32, weights float32, reset bool, index [batch] int32.

    Weight 0 stands where the next token begins another document, which the text before does not foretell. `rows` are
    those that are wanted; the others are not read.
    """
    count, numbers = len(ring.tokens), np.arange(batch_size)[rows]
    begins = numbers * count // batch_size + step * ring.length
    places = begins[:, None] + np.arange(ring.length + 1)
    batch = _batch(ring.tokens.take(places, mode="wrap"), ring.starts.take(places, mode="wrap"))
    return batch | {"index": numbers.astype(np.int32)}


def continued_evaluation(documents: Sequence[np.ndarray], length: int, batch_size: int) -> list[dict[str, np.ndarray]]:
    """All documents in order, cut into `batch_size` rows that go on from batch to batch.

    Every token but each document's first is scored exactly once; the rows' ends are padding of weight 0.
    """
    tokens, starts = _join(documents)
    width = -(-(len(tokens) - 1) // batch_size)  # predictions per row
    steps = -(-width // length)
    places = np.arange(batch_size)[:, None] * width + np.arange(steps * length + 1)
    real = (np.arange(steps * length + 1) <= width) & (places < len(tokens))
    ids, begins = np.where(real, tokens.take(places, mode="clip"), 0), real & starts.take(places, mode="clip")
    cuts = [slice(step * length, (step + 1) * length + 1) for step in range(steps)]
    batches = [_batch(ids[:, cut], begins[:, cut]) for cut in cuts]
    for batch, cut in zip(batches, cuts, strict=True):
        batch["weights"] *= real[:, cut][:, 1:]
    return batches


def _join(documents: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.concatenate(documents).astype(np.int32)
    starts = np.zeros(len(tokens), bool)
    starts[np.cumsum([0, *map(len, documents[:-1])])] = True
    return tokens, starts


def _batch(ids: np.ndarray, starts: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "tokens": np.ascontiguousarray(ids[:, :-1]).astype(np.int32),
        "targets": np.ascontiguousarray(ids[:, 1:]).astype(np.int32),
        "weights": (~starts[:, 1:]).astype(np.float32),
        "reset": np.ascontiguousarray(starts[:, :-1]),
        "index": np.arange(len(ids), dtype=np.int32),
    }
