"""Checks of lesson 11: they name the mistake, not only the failure."""

import functools
import math
from collections.abc import Callable

import numpy as np

from minillm.course.answers import parse
from minillm.course.contract import Mistake
from minillm.models.t5 import bucket_table


def _ids(what: str, value: object) -> list[int]:
    """The value as a list of whole numbers, or a Mistake."""
    array = parse(value, what)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise Mistake(
            f"{what} should be one list of ids, got {str(value)[:60]}: was a list appended and not its tokens?"
        )
    return array.tolist()


# corrupt

TEXT, SENTINEL, END = list(range(5, 25)), 99, 1
CUTS = [[(1, 2), (4, 1)], [(0, 3), (8, 2), (18, 2)], [(6, 4)]]  # in the middle; at both ends; one alone

SLIPS = {
    "numbers": "every span has the same sentinel: they count down, or the targets cannot say which is which",
    "up": "the sentinels count up: the second is sentinel - 1",
    "no end": "the end token is missing: without it generation would never stop",
    "no tail": "what follows the last span is lost",
    "one each": "every token that was cut leaves a sentinel: a whole span leaves one, that is why the source gets shorter",
    "everything": "the targets hold the whole text: T5 writes only what was cut out, that is why they are short",
    "no sentinels": "the targets lack the sentinels that say which gap each span belongs to",
    "kept": "the spans are still in the source: the model could copy them",
    "swapped": "source and targets are exchanged",
    "inclusive": "each span takes one token too many: it is (start, length), and start + length is behind it",
}


def _corrupt(text, spans, sentinel, end, slip=None):
    source, targets, place = [], [], 0
    for number, (start, length) in enumerate(spans):
        mark = sentinel + {"numbers": 0, "up": number}.get(slip, -number)
        stop = start + length + (slip == "inclusive")
        source += [*text[place:start], *[mark] * (length if slip == "one each" else 1)]
        source += text[start:stop] if slip == "kept" else []
        targets += [] if slip == "no sentinels" else [mark]
        targets += text[start:stop]
        place = stop
    source += [] if slip == "no tail" else text[place:]
    targets = list(text) if slip == "everything" else targets
    close = [] if slip == "no end" else [end]
    pair = [*source, *close], [*targets, *close]
    return pair[::-1] if slip == "swapped" else pair


def _end_once(text, spans, sentinel, end):
    source, targets = _corrupt(text, spans, sentinel, end)
    return source, targets[:-1]


def check_corrupt(function: Callable) -> None:
    """Spans in the middle, at both ends, one alone."""
    for spans in CUTS:
        text = TEXT.copy()
        result = function(text, list(spans), SENTINEL, END)
        if text != TEXT:
            raise Mistake("corrupt changed its argument: build new lists")
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise Mistake("corrupt should return two lists: source, targets")
        found = tuple(_ids(name, part) for name, part in zip(("the source", "the targets"), result, strict=True))
        right = _corrupt(TEXT, spans, SENTINEL, END)
        if found == right:
            continue
        for slip, message in SLIPS.items():
            if found == _corrupt(TEXT, spans, SENTINEL, END, slip):
                raise Mistake(message)
        which = 0 if found[0] != right[0] else 1
        name, expected = ("source", "targets")[which], right[which]
        if expected == [*found[which], END]:
            raise Mistake(f"the end token is missing from the {name}")
        raise Mistake(f"the {name} of {TEXT} with spans {spans} is {found[which]}, expected {expected}")


# restore

ATTEMPTS = [
    ([5, 99, 8, 98, 1], [99, 6, 7, 98, 9, 1]),
    ([99, 8, 9, 98, 12, 1], [98, 10, 11, 99, 5, 6, 7, 1]),  # in another order
    ([5, 99, 8, 98, 97, 1], [99, 6, 97, 9, 1]),  # one span is not explained
    ([5, 99, 8, 98, 1], [99, 6, 7, 98, 9]),  # no end
    ([5, 99, 8, 1], [99, 6, 1, 7, 98, 9]),  # chatter behind the end
]

RESTORED = {
    "by order": "spans are filled in by their order: match them by their sentinel, a model may write them in any order",
    "sentinels": "sentinels are left in the text",
    "end": "the end token is left in the text",
    "last": "the last token of the targets is dropped unseen: it need not be the end",
    "beyond": "what stands behind the end token is used: the answer is over there",
}


def _restore(source, targets, lowest, end, slip=None):
    body = targets[:-1] if slip == "last" else targets
    body = body if slip == "beyond" else body[: [*body, end].index(end)]
    spans, current = {}, []
    for token in body:
        if token >= lowest:
            current = spans.setdefault(token, [])
        elif token != end:
            current.append(token)
    queue, text = list(spans.values()), []
    for token in source:
        if token == end:
            text += [end] if slip == "end" else []
        elif token < lowest:
            text.append(token)
        elif slip == "by order":
            text += queue.pop(0) if queue else []
        else:
            text += [token] * (slip == "sentinels" or (slip == "unknown" and token not in spans)) + spans.get(token, [])
    return text


def _strict(source, targets, lowest, end):
    spans, current = {}, None
    for token in targets[: [*targets, end].index(end)]:
        if token >= lowest:
            current = spans[token] = []
        else:
            current.append(token)
    return [part for token in source if token != end for part in (spans[token] if token >= lowest else [token])]


def check_restore(function: Callable) -> None:
    """Another order, a sentinel without a span, no end, chatter behind the end."""
    for source, targets in ATTEMPTS:
        try:
            found = function(list(source), list(targets), 90, 1)
        except KeyError as error:
            message = (
                f"restore fails with KeyError({error}): a sentinel that the targets do not explain stands for nothing"
            )
            raise Mistake(message) from None
        found = _ids(f"restore({source}, {targets}, 90, 1)", found)
        if found == _restore(source, targets, 90, 1):
            continue
        for slip, message in RESTORED.items():
            if found == _restore(source, targets, 90, 1, slip):
                raise Mistake(message)
        right = _restore(source, targets, 90, 1)
        raise Mistake(f"restore({source}, {targets}, 90, 1) is {found}, expected {right}")


# bucket

DISTANCES = [-300, *range(-40, 4)]
SETTINGS = [(8, 16), (32, 128)]

BUCKETS = {
    "sign": "the sign is the wrong way round: offset is key minus query, so a key behind has a negative one",
    "ahead": "keys ahead get buckets of their own: in a decoder they are hidden and count as distance 0",
    "clip": "distances are clipped at size - 1: beyond half of the buckets they should grow by the logarithm",
    "no last": "far distances go beyond the last bucket, size - 1",
    "round": "the logarithm is rounded: take the floor",
    "base": "the logarithm does not start at size // 2: divide the distance by it",
}


def _bucket(offset, size, furthest, slip=None):
    away = abs(offset) if slip == "ahead" else max(offset if slip == "sign" else -offset, 0)
    half = size // 2
    if slip == "clip":
        return min(away, size - 1)
    if away < half:
        return away
    grown = math.log(away / (1 if slip == "base" else half)) / math.log(furthest / half) * (size - half)
    found = half + (round(grown) if slip == "round" else int(grown))
    return found if slip == "no last" else min(found, size - 1)


def check_bucket(function: Callable) -> None:
    """All near distances, a far one, keys ahead; two tables."""
    found, right = [], []
    for size, furthest in SETTINGS:
        table = bucket_table(size, furthest)
        for offset in DISTANCES:
            value = function(offset, size, furthest)
            if value is None:
                raise Mistake("bucket returned None: does the function end with `return`?")
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
                raise Mistake(f"bucket({offset}, {size}, {furthest}) should be a whole number, got {str(value)[:40]}")
            found.append(int(value))
            right.append(int(table[min(max(-offset, 0), furthest)]))
    if found == right:
        return
    for slip, message in BUCKETS.items():
        if found == [_bucket(offset, *setting, slip) for setting in SETTINGS for offset in DISTANCES]:
            raise Mistake(message)
    place = int(np.not_equal(found, right).argmax())
    (size, furthest), offset = SETTINGS[place // len(DISTANCES)], DISTANCES[place % len(DISTANCES)]
    raise Mistake(f"bucket({offset}, {size}, {furthest}) is {found[place]}, expected {right[place]}")


CHECKS = {"corrupt": check_corrupt, "restore": check_restore, "bucket": check_bucket}

HINTS = {
    "corrupt": (
        "Keep one number: the place in the text up to which all is done. For every span: text[place:start] is kept.",
        "source += [*text[place:start], mark]; targets += [mark, *text[start : start + length]]; place = start + length.",
    ),
    "restore": (
        "Walk along the targets: a sentinel opens a list, other tokens go into the list that is open, the end stops.",
        "Then walk along the source: spans.get(token, []) for a sentinel, the token itself otherwise, nothing for the end.",
    ),
    "bucket": (
        "n = max(-offset, 0) first; then two cases, n < size // 2 and the rest.",
        "int(...) floors what is not negative; math.log(n / h) is 0 at n = h, so that distance falls into bucket h.",
    ),
}

MISTAKES = {
    "corrupt": [
        *((functools.partial(_corrupt, slip=slip), message) for slip, message in SLIPS.items()),
        (_end_once, "missing from the targets"),
    ],
    "restore": [
        *((functools.partial(_restore, slip=slip), message) for slip, message in RESTORED.items()),
        (_strict, "stands for nothing"),
    ],
    "bucket": [(functools.partial(_bucket, slip=slip), message) for slip, message in BUCKETS.items()],
}
