"""Questions and passages -> rows: [class] question [separator] window of the passage [separator].

Devlin et al. 2019, section 4.2, and their code for passages that are longer than a row: windows that overlap, each a row of
its own. Where a window has not got the whole answer, the class token is its target.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minillm.data.rows import Frame, RowDataset, blank_rows

OVERLAP = 2  # a window begins where half of the one before has been read


class Passage(NamedTuple):
    """A passage as ids, the characters [first, after the last) that each stands for, and those of the answer."""

    ids: Sequence[int]
    places: Sequence[tuple[int, int]]
    answer: tuple[int, int] = (0, 0)  # (0, 0): not known


def windows(count: int, room: int) -> list[tuple[int, int]]:
    """[first, after the last) token of each window over a passage of `count` tokens; one where all fit.

    The last one ends with the passage and is as full as the others.
    """
    step, found = max(room // OVERLAP, 1), [(0, min(count, room))]
    while found[-1][1] < count:
        after = min(found[-1][0] + step + room, count)
        found.append((after - room, after))
    return found


def question_rows(
    questions: Sequence[Sequence[int]], passages: Sequence[Passage], length: int, frame: Frame
) -> RowDataset:
    """labels [rows, 2]: the row's first and last token of the answer, 0 and 0 where it is not in the window.

    A question keeps half of a row at the most; `cut` says where it lost tokens.
    """
    rows = []
    for document, (question, passage) in enumerate(zip(questions, passages, strict=True)):
        kept = question[: (length - 3) // 2]
        for window in windows(len(passage.ids), length - 3 - len(kept)):
            rows.append((document, kept, len(kept) < len(question), passage, window))
    tokens, token_types, mask = blank_rows(len(rows), length, frame)
    labels, places = np.zeros((len(rows), 2), np.int32), np.zeros((*tokens.shape, 2), np.int32)
    answerable = np.zeros_like(mask)
    answerable[:, 0] = True
    for row, (_, question, _, passage, (first, after)) in enumerate(rows):
        begin, size = len(question) + 2, after - first
        ids = [frame.begin, *question, frame.end, *passage.ids[first:after], frame.end]
        tokens[row, : len(ids)], mask[row, : len(ids)], token_types[row, begin : len(ids)] = ids, True, 1
        answerable[row, begin : begin + size] = True
        places[row, begin : begin + size] = np.reshape(passage.places[first:after], (size, 2))
        labels[row] = _target(passage, first, after, begin)
    cut = np.array([lost for _, _, lost, _, _ in rows], bool)
    documents = np.array([document for document, *_ in rows], np.int32)
    return RowDataset(tokens, token_types, mask, labels, cut, answerable=answerable, places=places, documents=documents)


def _target(passage: Passage, first: int, after: int, begin: int) -> tuple[int, int]:
    """Places in the row of the tokens that the answer begins and ends in, where both are in the window."""
    start, stop = passage.answer
    inside = [i for i, (low, high) in enumerate(passage.places) if low < stop and high > start]
    if not inside or inside[0] < first or inside[-1] >= after:
        return 0, 0
    return inside[0] - first + begin, inside[-1] - first + begin
