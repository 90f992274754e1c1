"""Packing: several documents in one row, with segments, so that no compute is spent on padding."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class PackedRows(NamedTuple):
    """tokens, segments, positions int32 [rows, length]: segments count documents from 1, 0 is padding; positions
    restart with every document."""

    tokens: np.ndarray
    segments: np.ndarray
    positions: np.ndarray


def pack(documents: Sequence[np.ndarray], length: int) -> PackedRows:
    """First fit, longest first (Krell et al. 2021, section 3.1); documents longer than a row are cut into pieces.

    Two pieces of one document are two segments: nothing is carried from row to row.
    """
    pieces = [doc[start : start + length] for doc in documents for start in range(0, len(doc), length)]
    pieces.sort(key=len, reverse=True)
    rows: list[list[np.ndarray]] = []
    room: list[int] = []
    for piece in pieces:
        place = next((i for i, free in enumerate(room) if free >= len(piece)), None)
        if place is None:
            rows.append([])
            room.append(length)
            place = len(rows) - 1
        rows[place].append(piece)
        room[place] -= len(piece)
    packed = PackedRows(*(np.zeros((len(rows), length), np.int32) for _ in range(3)))
    for row, parts in enumerate(rows):
        start = 0
        for segment, piece in enumerate(parts, start=1):
            span = slice(start, start + len(piece))
            packed.tokens[row, span] = piece
            packed.segments[row, span] = segment
            packed.positions[row, span] = np.arange(len(piece))
            start += len(piece)
    return packed
