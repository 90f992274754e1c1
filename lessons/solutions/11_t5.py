"""Solutions of lesson 11."""

import math


def corrupt(text: list[int], spans: list[tuple[int, int]], sentinel: int, end: int) -> tuple[list[int], list[int]]:
    """One walk: keep up to the span, cut the span, go on behind it."""
    source, targets, place = [], [], 0
    for number, (start, length) in enumerate(spans):
        source += [*text[place:start], sentinel - number]
        targets += [sentinel - number, *text[start : start + length]]
        place = start + length
    return [*source, *text[place:], end], [*targets, end]


def restore(source: list[int], targets: list[int], lowest: int, end: int) -> list[int]:
    """Spans by their sentinel; what stands before the first sentinel belongs to none."""
    spans, current = {}, []
    for token in targets:
        if token == end:
            break
        if token >= lowest:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    text = []
    for token in source:
        text += spans.get(token, []) if token >= lowest else [token] if token != end else []
    return text


def bucket(offset: int, size: int, furthest: int) -> int:
    """Exact up to half of the buckets, logarithmic beyond."""
    distance, half = max(-offset, 0), size // 2
    if distance < half:
        return distance
    grown = math.log(distance / half) / math.log(furthest / half) * (size - half)
    return min(half + int(grown), size - 1)
