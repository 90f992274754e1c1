"""Span corruption: pieces of the text are cut out, and the model writes them down. A pure function of (seed, step).

    text     Thank you for inviting me to your party last week end
    source   Thank you <0> me to your party <1> end                         Raffel et al. 2020, section 3.1.4, figure 2
    targets  <0> for inviting <1> last week end

The text always begins with something kept and ends with a span, as in the released code; so the targets need no last
sentinel to mark the end (as in figure 2), the end token does that. Counts depend on a row's length alone: shapes are
static, and only rows that are shorter than the others are padded.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minillm.data.masking import Part

STREAM = 4 << 128  # counter of the random numbers; other corruptions draw from other counters of the same key


@dataclass(frozen=True)
class Spans:
    """How spans are cut. Sentinels count down from the id `sentinel`, as T5's <extra_id_0>, <extra_id_1>, ... do."""

    sentinel: int  # id of the first sentinel
    end: int  # id of the end token
    begin: int = 0  # what the decoder reads first; T5 takes the padding token
    sentinels: int = 100  # how many ids there are
    density: float = 0.15  # share of the tokens to cut out
    mean_length: float = 3.0  # of a span, in tokens

    def __post_init__(self):
        if not 1 <= self.sentinels <= self.sentinel + 1:
            raise ValueError(f"{self.sentinels} sentinels do not fit below the id {self.sentinel}")
        if any(self.sentinel - self.sentinels < special <= self.sentinel for special in (self.begin, self.end)):
            raise ValueError(f"begin {self.begin} and end {self.end} must not be sentinels")
        if not 0.0 < self.density < 1.0 or not self.mean_length >= 1.0:
            raise ValueError(
                f"density must be in (0, 1) and mean_length at least 1: {self.density}, {self.mean_length}"
            )


def span_counts(tokens: int, spans: Spans) -> tuple[int, int]:
    """(tokens to cut out, spans) of a text of so many tokens; a text of less than two stays whole."""
    cut = min(max(round(tokens * spans.density), 1), max(tokens - 1, 0))
    return cut, min(max(round(cut / spans.mean_length), 1), cut, tokens - cut)


def span_lengths(tokens: int, spans: Spans) -> tuple[int, int]:
    """(length of the source, length of the targets) that a text of so many tokens becomes, end tokens included."""
    cut, count = span_counts(tokens, spans)
    return tokens - cut + count + 1, cut + count + 1


def corrupt_spans(
    batch: Mapping, seed: int, step: int, spans: Spans, part: Part | None = None
) -> dict[str, np.ndarray]:
    """tokens [batch, length], and lengths [batch] where rows are padded -> a batch for an encoder-decoder.

    `part`: what `batch` is of a whole one, all of whose rows are full; None: all.

    source, source_mask [batch, source length]; tokens, targets, weights [batch, target length]; "removed", 1 where the
    target is a token of the text, not a sentinel or the end; index. Raises: ValueError for a text with a sentinel,
    more spans than sentinels, or packed rows.
    """
    tokens = np.asarray(batch["tokens"])
    rows, length = tokens.shape
    if "segments" in batch:
        raise ValueError("span corruption takes one text per row: packed batches (segments) are not supported")
    if span_counts(length, spans)[1] > spans.sentinels:
        raise ValueError(f"{length} tokens need {span_counts(length, spans)[1]} sentinels, there are {spans.sentinels}")
    if is_sentinel(tokens, spans).any():
        raise ValueError(f"the text has ids of sentinels: {spans.sentinel - spans.sentinels + 1} ... {spans.sentinel}")
    generator = np.random.Generator(np.random.Philox(key=[seed, step], counter=STREAM))
    size, part_rows = part or Part(rows, slice(None))
    for _ in range(part_rows.start or 0):  # the rows before draw first
        _divide(length, spans, generator)
    source_length, target_length = span_lengths(length, spans)
    source, source_mask = np.zeros((rows, source_length), np.int32), np.zeros((rows, source_length), bool)
    targets, weights = np.zeros((rows, target_length), np.int32), np.zeros((rows, target_length), np.float32)
    removed = np.zeros_like(weights)
    for row, real in enumerate(batch.get("lengths", [length] * rows)):
        kept, cut = _cut(tokens[row, :real], spans, generator)
        source[row, : len(kept)], source_mask[row, : len(kept)] = kept, True
        targets[row, : len(cut)], weights[row, : len(cut)] = cut, 1.0
        removed[row, : len(cut) - 1] = ~is_sentinel(cut[:-1], spans)
    begin = np.full((rows, 1), spans.begin, np.int32)
    return {
        "source": source,
        "source_mask": source_mask,
        "tokens": np.concatenate([begin, targets[:, :-1]], axis=1),
        "targets": targets,
        "weights": weights,
        "removed": removed,
        "index": np.arange(size, dtype=np.int32)[part_rows],
    }


def restore_spans(batch: Mapping, spans: Spans) -> list[np.ndarray]:
    """The texts [length of the row], rebuilt from source and targets: the corruption undone."""
    texts = []
    for row, source in enumerate(batch["source"]):
        target = batch["targets"][row][batch["weights"][row] > 0.0][:-1]
        pieces = np.split(target, np.flatnonzero(is_sentinel(target, spans)))
        cut = {int(piece[0]): piece[1:] for piece in pieces[1:]}
        kept = source[batch["source_mask"][row]][:-1]
        texts.append(np.concatenate([kept[:0], *(cut.get(int(token), [token]) for token in kept)]).astype(np.int32))
    return texts


def is_sentinel(tokens: np.ndarray, spans: Spans) -> np.ndarray:
    """Where a token is a sentinel."""
    return (tokens > spans.sentinel - spans.sentinels) & (tokens <= spans.sentinel)


def _cut(text: np.ndarray, spans: Spans, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One text -> (source, targets), each with its end token."""
    source, targets, start = [], [], 0
    for number, (keep, lose) in enumerate(_divide(len(text), spans, generator)):
        sentinel = [spans.sentinel - number]
        source += [text[start : start + keep], sentinel]
        targets += [sentinel, text[start + keep : start + keep + lose]]
        start += keep + lose
    return np.concatenate([*source, text[start:], [spans.end]]), np.concatenate([*targets, [spans.end]])


def _divide(tokens: int, spans: Spans, generator: np.random.Generator) -> list[tuple[int, int]]:
    """(tokens kept, tokens cut out), in turn."""
    cut, count = span_counts(tokens, spans)
    return list(zip(_partition(tokens - cut, count, generator), _partition(cut, count, generator), strict=True))


def _partition(items: int, parts: int, generator: np.random.Generator) -> np.ndarray:
    """`items` into `parts` positive sizes, each such division equally likely."""
    if parts == 0:
        return np.zeros(0, int)
    cuts = np.sort(generator.permutation(items - 1)[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [items]]).astype(int))
