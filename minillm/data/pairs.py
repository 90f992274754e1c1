"""Pairs of sentences and how they stand to each other, as pure functions of (seed, step).

    row: [class] A [separator] B [separator] padding         "sentence": any span of text, Devlin et al. 2019, section 3

Two neighbouring pieces of a document make a pair. What may be told from A alone, from B alone or from lengths would be a
short cut, so a random B is the same side of another pair, and pieces are cut before the label is drawn.
"""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minillm.data.batches import ALL, epoch_order
from minillm.data.masking import noise
from minillm.data.tokenizer import PAD
from minillm.errors import UserError

RELATIONS = {  # kind -> what its labels 0, 1, 2 say: B follows A, B precedes A, B is from another document
    "next_sentence": ("next", "random"),  # Devlin et al. 2019, section 3.1
    "sentence_order": ("next", "previous"),  # ALBERT: Lan et al. 2020, section 3.1
    "structural": ("next", "previous", "random"),  # StructBERT: Wang et al. 2019, section 2.3
}
BOUNDARY = re.compile(r"[.!?][\"'”’)\]]*\s+|[。！？][”’）」』]*\s*|\n\s*")


class PairDataset(NamedTuple):
    """Pieces of all documents in order; pair n is the pieces `firsts[n]` and `firsts[n] + 1`.

    `begins[n]`, `ends[n]`: the pairs of the same document as pair n are begins[n] ... ends[n] - 1.
    """

    kind: str
    length: int  # of a row, in tokens
    frame: tuple[int, int]  # the class token and the separator
    pieces: tuple[np.ndarray, ...]
    firsts: np.ndarray
    begins: np.ndarray
    ends: np.ndarray


def split_sentences(text: str) -> list[str]:
    """Text -> its sentences, cut after end marks and line breaks; joined they are the text again."""
    cuts = [0, *(found.end() for found in BOUNDARY.finditer(text)), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(cuts) if start < end]


def make_pair_dataset(
    documents: Sequence[Sequence[np.ndarray]],
    length: int,
    kind: str,
    class_token: int,
    separator: int,
    where: str = "data",
) -> PairDataset:
    """Documents as sentences as ids (no special ones) -> pairs that fit into rows of `length`; an error names `where`.

    Raises: UserError where no document has two pieces, or fewer than two have and the kind needs a random sentence.
    """
    if kind not in RELATIONS:
        raise UserError(f"unknown kind of pairs {kind!r}", "data", f"known kinds: {', '.join(RELATIONS)}")
    room = (length - 3) // 2
    if room < 1:
        raise UserError(f"a row of {length} tokens has no room for two sentences", "data.length", "use at least 5")
    cut = [pieces for pieces in (_cut(document, room) for document in documents) if len(pieces) > 1]
    if len(cut) < (2 if "random" in RELATIONS[kind] else 1):
        raise UserError(
            f"{len(cut)} of {len(documents)} documents have two sentences or more; pairs of kind {kind!r} need more",
            where,
            "use more or longer documents, or split them differently",
        )
    counts = np.array([len(pieces) - 1 for pieces in cut])  # pairs per document
    ends = np.cumsum(counts)
    firsts = np.arange(ends[-1]) + np.repeat(np.arange(len(cut)), counts)  # a document has one piece more than pairs
    return PairDataset(
        kind, length, (class_token, separator), tuple(piece for pieces in cut for piece in pieces), firsts,
        np.repeat(ends - counts, counts), np.repeat(ends, counts),
    )  # fmt: skip


def pair_batch_at(
    dataset: PairDataset, seed: int, step: int, batch_size: int, rows: slice = ALL
) -> dict[str, np.ndarray]:
    """The batch of a step, or some of its rows: tokens, token_types [batch, length] int32, mask bool, sentence_labels [batch] int32 with
    sentence_weights float32, and index int32.

    Each epoch goes over all pairs once, in an order of its own; all labels are equally likely (see RELATIONS).
    """
    relations, generator = RELATIONS[dataset.kind], noise(seed, step, "pairs")
    count = len(dataset.firsts)
    numbers = step * batch_size + np.arange(batch_size)
    pairs = np.array([epoch_order(count, seed, int(n) // count)[n % count] for n in numbers])
    labels = generator.integers(len(relations), size=batch_size)
    names = np.array(relations)[labels]
    turned = names == "previous"
    if "previous" in relations:  # a random B may be either side; else it is the second, as a next one is
        turned |= (names == "random") & (generator.random(batch_size) < 0.5)
    others = np.where(names == "random", _elsewhere(dataset, pairs, generator), pairs)
    sides = zip((dataset.firsts[pairs] + turned)[rows], (dataset.firsts[others] + ~turned)[rows], strict=True)
    made = [_row(dataset, dataset.pieces[a], dataset.pieces[b]) for a, b in sides]
    tokens, token_types, mask = (np.stack(column) for column in zip(*made, strict=True))
    return {
        "tokens": tokens,
        "token_types": token_types,
        "mask": mask,
        "sentence_labels": labels[rows].astype(np.int32),
        "sentence_weights": np.ones(len(made), np.float32),
        "index": np.arange(batch_size, dtype=np.int32)[rows],
    }


def _cut(sentences: Sequence[np.ndarray], room: int) -> list[np.ndarray]:
    """Sentences -> pieces of one or more whole sentences, up to `room` tokens, or half of a short document.

    A sentence longer than `room` is cut.
    """
    parts = [part[start : start + room] for part in sentences for start in range(0, len(part), room)]
    target = min(room, -(-sum(map(len, parts)) // 2))
    groups: list[list[np.ndarray]] = []
    for part in parts:
        if groups and sum(map(len, groups[-1])) + len(part) <= target:
            groups[-1].append(part)
        else:
            groups.append([part])
    return [np.concatenate(group).astype(np.int32) for group in groups]


def _elsewhere(dataset: PairDataset, pairs: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """For each pair one of another document, all equally likely (the pair itself where there is no other document)."""
    begins, ends = dataset.begins[pairs], dataset.ends[pairs]
    drawn = (generator.random(len(pairs)) * (len(dataset.firsts) - (ends - begins))).astype(int)
    return np.minimum(drawn + np.where(drawn >= begins, ends - begins, 0), len(dataset.firsts) - 1)


def _row(dataset: PairDataset, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[class] A [separator] B [separator] -> tokens, token types, mask."""
    class_token, separator = dataset.frame
    head, used = len(first) + 2, len(first) + len(second) + 3
    tokens, token_types = np.full(dataset.length, PAD, np.int32), np.zeros(dataset.length, np.int32)
    tokens[:used] = [class_token, *first, separator, *second, separator]
    token_types[head:used] = 1
    return tokens, token_types, np.arange(dataset.length) < used
