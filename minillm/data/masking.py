"""Corruptions that a model learns to undo: masked words and shuffled trigrams, as pure functions of (seed, step).

A corruption takes a batch and returns it with other `tokens`; what was there stands in `targets`, and a weight says
where. A row is corrupted anew whenever it comes up (dynamic masking: Liu et al. 2019, section 4.1).

    targets        [batch, length]  the original token where something is to be predicted, else 0
    weights        [batch, length]  1 where the masked LM predicts
    order_weights  [batch, length]  1 where a shuffled token is to be put back (StructBERT)

`gather_targets` shortens them to the few positions that predict, and `restore` undoes everything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# each kind of noise has a stream of its own
STREAMS = {"mask": 1, "shuffle": 2, "pairs": 3, "shift": 4, "pixels": 5, "patches": 6, "views": 23}
SHUFFLES = np.array([[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])  # all orders of three but the right one
WEIGHTS = ("weights", "order_weights")


@dataclass(frozen=True)
class Masking:
    """How tokens are masked. `special` are the ids that are never masked nor drawn (padding, class, separator, mask)."""

    vocabulary: int
    mask: int  # the id of the mask token
    special: tuple[int, ...]
    rate: float = 0.15  # share of a row's ordinary tokens to predict
    masked: float = 0.8  # of these: replaced by the mask token
    random: float = 0.1  # of these: replaced by a random token; the rest stays

    def __post_init__(self):
        if self.mask not in self.special:
            raise ValueError(f"the mask token {self.mask} must be among the special ids {self.special}")
        if not 0 <= min(self.special) <= max(self.special) < self.vocabulary or len(self.ordinary) == 0:
            raise ValueError(f"special ids {self.special} must lie in a vocabulary of {self.vocabulary} and leave some")
        if not 0.0 < self.rate <= 1.0 or min(self.masked, self.random) < 0.0 or self.masked + self.random > 1.0:
            raise ValueError("rate must be in (0, 1], masked and random not negative and at most 1 together")

    @property
    def ordinary(self) -> np.ndarray:
        """The ids that may be drawn."""
        return np.setdiff1d(np.arange(self.vocabulary, dtype=np.int32), self.special)


def noise(seed: int, step: int, stream: str) -> np.random.Generator:
    """The random numbers of one kind of noise in one step; batches draw from other counters of the same key."""
    return np.random.Generator(np.random.Philox(key=[seed, step], counter=STREAMS[stream] << 128))


class Part(NamedTuple):
    """Rows of a batch of `size`. Noise is drawn for all rows and then cut, so that it is the same whoever reads which."""

    size: int
    rows: slice


def budget(tokens: int | np.ndarray, rate: float):
    """How many of `tokens` to corrupt at `rate`: the nearest whole number, but at least one."""
    return np.maximum(np.round(rate * np.asarray(tokens)).astype(int), 1)


def mask_tokens(
    batch: Mapping, seed: int, step: int, masking: Masking, starts: np.ndarray | None = None, part: Part | None = None
) -> dict:
    """Masks `rate` of each row's ordinary tokens: 80 % become the mask token, 10 % a random one, 10 % stay.

    Devlin et al. 2019, section 3.1. Words are taken in random order, each unless it would exceed the row's budget, so
    that the number of predictions of a row is fixed. `starts` [batch, length], True where a word begins, masks whole
    words; without it every token is a word. `part`: what `batch` is of a whole one; None: all. Returns the batch with new
    tokens, targets and weights.
    """
    tokens, generator = batch["tokens"], noise(seed, step, "mask")
    size, rows = part or Part(len(tokens), slice(None))
    shape = (size, tokens.shape[1])
    ordinary = ~np.isin(tokens, masking.special)
    order = generator.random(shape).argsort(1)[rows]
    chosen = _choose_words(_words(ordinary, starts), budget(ordinary.sum(1), masking.rate), order)
    draw = generator.random(shape)[rows]
    drawn = generator.choice(masking.ordinary, shape)[rows]
    corrupted = np.where(draw < masking.masked, masking.mask, tokens)
    corrupted = np.where((draw >= masking.masked) & (draw < masking.masked + masking.random), drawn, corrupted)
    return {
        **batch,
        "tokens": np.where(chosen, corrupted, tokens).astype(np.int32),
        "targets": np.where(chosen, tokens, 0).astype(np.int32),
        "weights": chosen.astype(np.float32),
    }


def shuffle_trigrams(batch: Mapping, seed: int, step: int, special: tuple[int, ...], rate: float = 0.05) -> dict:
    """Shuffles `rate` of each row's trigrams of unmasked ordinary tokens, into any order but the right one.

    The word structural objective of StructBERT: Wang et al. 2019, section 2.3 (trigrams, 5 %: section 2.4). The chosen trigrams do
    not overlap; a row with one has at least one shuffled. Call it after `mask_tokens`: it adds to the targets, and
    returns the batch with order_weights too.
    """
    tokens, generator = batch["tokens"], noise(seed, step, "shuffle")
    free = ~np.isin(tokens, special) & (batch["weights"] == 0.0)
    begins = np.zeros(tokens.shape, bool)
    begins[:, :-2] = free[:, :-2] & free[:, 1:-1] & free[:, 2:]
    rows, places = np.nonzero(_choose_apart(begins, budget(begins.sum(1), rate), generator))
    trigrams = rows[:, None], places[:, None] + np.arange(3)
    sources = places[:, None] + SHUFFLES[generator.integers(len(SHUFFLES), size=len(rows))]
    shuffled, targets, weights = tokens.copy(), batch["targets"].copy(), np.zeros(tokens.shape, np.float32)
    shuffled[trigrams] = tokens[trigrams[0], sources]
    targets[trigrams] = tokens[trigrams]
    weights[trigrams] = 1.0
    return {**batch, "tokens": shuffled, "targets": targets, "order_weights": weights}


def gather_targets(batch: Mapping, count: int) -> dict:
    """Shortens targets and weights to [batch, count], and adds target_positions [batch, count] int32.

    Scores over the vocabulary are then computed where something is predicted, not everywhere. Free places point at
    positions with weight 0. Raises: ValueError where a row has more targets than `count`.
    """
    scored = _scored(batch)
    most = int(scored.sum(1).max(initial=0))
    if not most <= count <= scored.shape[1]:
        raise ValueError(f"count must be between the {most} targets of a row and its length {scored.shape[1]}: {count}")
    positions = np.argsort(~scored, axis=1, kind="stable")[:, :count].astype(np.int32)
    short = {name: np.take_along_axis(batch[name], positions, 1) for name in ("targets", *WEIGHTS) if name in batch}
    return {**batch, **short, "target_positions": positions}


def restore(batch: Mapping) -> np.ndarray:
    """The original tokens [batch, length]: every corruption undone, also after `gather_targets`."""
    tokens, (rows, places) = batch["tokens"].copy(), np.nonzero(_scored(batch))
    positions = batch["target_positions"][rows, places] if "target_positions" in batch else places
    tokens[rows, positions] = batch["targets"][rows, places]
    return tokens


def _scored(batch: Mapping) -> np.ndarray:
    return np.any([batch[name] > 0.0 for name in WEIGHTS if name in batch], axis=0)


def _words(ordinary: np.ndarray, starts: np.ndarray | None) -> np.ndarray:
    """Each token's word, counted from 0 in its row; -1 for special ones, after which a word always begins."""
    begins = np.ones_like(ordinary) if starts is None else starts.astype(bool)
    before = np.concatenate([np.zeros_like(ordinary[:, :1]), ordinary[:, :-1]], axis=1)
    return np.where(ordinary, (ordinary & (begins | ~before)).cumsum(1) - 1, -1)


def _choose_words(words: np.ndarray, room: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Words in a random `order` [batch, length], each taken if it fits into the row's remaining room -> chosen tokens [batch, length]."""
    rows, length = words.shape
    place = (np.arange(rows)[:, None] * length + words)[words >= 0]
    sizes = np.bincount(place, minlength=rows * length).reshape(rows, length)
    taken, room = np.zeros((rows, length), bool), room.copy()
    for word in order.T:
        size = sizes[np.arange(rows), word]
        taken[np.arange(rows), word] = size <= room
        room -= np.where(size <= room, size, 0)
    return (words >= 0) & np.take_along_axis(taken, np.maximum(words, 0), 1)


def _choose_apart(begins: np.ndarray, room: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Places in random order, each taken if no earlier choice is nearer than three and the row has room left."""
    rows, length = begins.shape
    taken, room = np.zeros((rows, length + 4), bool), room.copy()  # two free places on either side
    for place in generator.random((rows, length)).argsort(1).T:
        near = np.take_along_axis(taken, place[:, None] + np.arange(5), 1).any(1)
        take = begins[np.arange(rows), place] & ~near & (room > 0)
        taken[np.arange(rows), place + 2] = take
        room -= take
    return taken[:, 2:-2]
