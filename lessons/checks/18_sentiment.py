"""Checks of lesson 18: they name the mistake, not only the failure."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array
from minillm.course.contract import Mistake
from minillm.data import rows
from minillm.nn.linear import linear
from minillm.objectives.causal import token_losses

# parse_line

LINES = {
    "房间很干净:pos\n": ("房间很干净", "pos"),
    "太差了，再也不来：neg": ("太差了，再也不来", "neg"),
    "服务:好,价格:太高:neg\n": ("服务:好,价格:太高", "neg"),
    "优点：轻；缺点：屏幕小:neg": ("优点：轻；缺点：屏幕小", "neg"),
    "评分:5：pos": ("评分:5", "pos"),
    "  还可以 : pos \n": ("还可以", "pos"),
}
PARSES = {
    "first": "the line is cut at its first colon, and the text has colons of its own: look for the last one",
    "label stays": "the label is still in the text, where a model can read the answer: keep what stands before the colon",
    "text:": "the colon itself is still in the text: it ends one place earlier",
    "ascii": "only ASCII colons are seen: a full-width one (：) parts text and label too",
    "not the later": "where both kinds occur, the full-width colon wins: the later one of the two should",
    "blanks": "blanks or the line's end are still there: strip both parts",
    "exchanged": "text and label are exchanged: return (text, label)",
}


def _parse(line: str, slip: str | None = None) -> tuple[str, str]:
    """A right answer, or one with a slip."""
    places = [line.find(colon) if slip == "first" else line.rfind(colon) for colon in ":："]
    found = [place for place in places if place >= 0]
    cut = (min if slip == "first" else max)(found, default=-1)
    cut = places[0] if slip == "ascii" else cut
    cut = places[1] if slip == "not the later" and places[1] >= 0 else cut
    if cut < 0:
        raise ValueError("no colon")
    text = line if slip == "label stays" else line[: cut + (slip == "text:")]
    parts = text, line[cut + 1 :]
    parts = parts if slip == "blanks" else tuple(part.strip() for part in parts)
    return parts[::-1] if slip == "exchanged" else parts


def _no_error(line: str) -> tuple[str, str]:
    return _parse(line) if set(line) & set(":：") else (line.strip(), "")


def _split(line: str) -> tuple[str, str]:
    """Document 4, section 5.2.1."""
    return line.strip(), line.strip().split(":")[1]


def _answers(function: Callable, lines: list[str]) -> list:
    found = []
    for line in lines:
        try:
            found.append(function(line))
        except (ValueError, IndexError):
            found.append("no colon")
    return found


def check_parse_line(function: Callable) -> None:
    """Colons in the text, of both kinds, blanks, and a line without any."""
    answers = _answers(function, list(LINES))
    for answer in answers:
        if answer == "no colon":
            continue
        if not isinstance(answer, (tuple, list)) or [type(part) for part in answer] != [str, str]:
            raise Mistake(f"parse_line should return two strings, text and label, got {type(answer).__name__}")
    answers = [answer if isinstance(answer, str) else tuple(answer) for answer in answers]
    if answers != list(LINES.values()):
        for slip, message in PARSES.items():
            if answers == _answers(functools.partial(_parse, slip=slip), list(LINES)):
                raise Mistake(message)
        for (line, right), answer in zip(LINES.items(), answers, strict=True):
            if answer != right:
                if isinstance(answer, tuple) and right[1] in answer[0]:
                    raise Mistake(PARSES["label stays"])
                raise Mistake(f"of the line {line!r} comes {answer!r}, expected {right!r}")
    for line in ("没有标签", ""):
        if _answers(function, [line]) != ["no colon"]:
            raise Mistake(
                "a line without a colon is taken for a review: raise ValueError, so that somebody mends the file"
            )


# make_row

BEGIN, END, PAD = 2, 3, 0
TEXTS = ([7, 8, 9], [], [11, 12, 13, 14, 15, 16], [21, 22, 23, 24, 25, 26, 27, 28, 29, 30])
LENGTH = 8
ROWS = {
    "behind": "the padding stands behind the text, so the last place is padding: a model that reads from left to right is "
    "asked there, and padding has no answer. Pad in front",
    "end cut": "a text that is too long loses `end`: cut the ids first, to length - 2, then frame them",
    "from the front": "a text that is too long loses its first ids: keep the first ones",
    "no begin": "`begin` is missing: it opens every row",
    "no end": "`end` is missing: the classifier reads it",
    "short": "a text of length - 2 ids fits, and one id was cut: begin and end take two places, not three",
}
MASKS = {
    "inverted": "the mask is the wrong way round: True at what is no padding",
    "all": "the mask is True at the padding too",
    "text": "the mask leaves begin or end out: only padding is masked",
}


def _row(ids, length, begin, end, pad, slip=None, mask=None):
    room = length - 3 if slip == "short" else length - 2
    kept = ids[max(len(ids) - room, 0) :] if slip == "from the front" else ids[:room]
    framed = [begin] * (slip != "no begin") + list(kept) + [end] * (slip != "no end")
    framed = [begin, *ids, end][:length] if slip == "end cut" else framed
    padding = [pad] * (length - len(framed))
    tokens = framed + padding if slip == "behind" else padding + framed
    real = np.array([True] * len(framed) + [False] * len(padding))
    real = real if slip == "behind" else real[::-1]
    wrong = {"inverted": ~real, "all": np.ones_like(real), "text": real & ~np.isin(tokens, (begin, end))}
    return np.array(tokens, np.int32), wrong.get(mask, real)


def check_make_row(function: Callable) -> None:
    """A short text, none at all, one that just fits, one that is too long; equal to the library's rows."""
    found = []
    for ids in TEXTS:
        result = function(list(ids), LENGTH, BEGIN, END, PAD)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise Mistake("make_row should return two arrays: tokens and mask")
        found.append([as_array(part, None, name) for name, part in zip(("tokens", "the mask"), result, strict=True)])
        for name, part in zip(("the row", "the mask"), found[-1], strict=True):
            if part.shape != (LENGTH,):
                what = "is it cut to length - 2 ids?" if part.size > LENGTH else "is it padded?"
                raise Mistake(
                    f"{name} of {len(ids)} ids should have the shape [{LENGTH}], got {list(part.shape)}: {what}"
                )
    made = rows.to_the_right(rows.text_rows(TEXTS, None, np.zeros(len(TEXTS)), LENGTH, rows.Frame(BEGIN, END, PAD)))
    tokens, masks = (np.stack(part) for part in zip(*found, strict=True))
    if not np.array_equal(tokens, made.tokens):
        for slip, message in ROWS.items():
            if np.array_equal(tokens, [_row(ids, LENGTH, BEGIN, END, PAD, slip)[0] for ids in TEXTS]):
                raise Mistake(message)
        place = int(np.argwhere((tokens != made.tokens).any(1))[0, 0])
        expected, got = made.tokens[place].tolist(), tokens[place].astype(int).tolist()
        raise Mistake(f"the row of {TEXTS[place]} should be {expected}, got {got}")
    if not np.array_equal(masks, made.mask):
        for slip, message in MASKS.items():
            if np.array_equal(masks, [_row(ids, LENGTH, BEGIN, END, PAD, mask=slip)[1] for ids in TEXTS]):
                raise Mistake(message)
        raise Mistake("the mask is wrong: True at begin, text and end, False at the padding in front")


# classifier_loss

RANDOM = np.random.default_rng(18)
HIDDEN = RANDOM.normal(size=(6, 5, 4)).astype(np.float32) * 2.0
KERNEL = RANDOM.normal(size=(4, 3)).astype(np.float32)
BIAS = np.array([0.5, -1.0, 0.25], np.float32)
LABELS = np.array([2, 0, 1, 2, 0, 0], np.int32)
WEIGHTS = np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0], np.float32)

LOSSES = {
    "sign": "the loss is negative: it is minus the mean of the log-probabilities",
    "first token": "the first token is read, which has seen nothing but itself: in a model that reads from left to right "
    "only the last one has seen the whole text",
    "mean": "the mean over all tokens is read: take the last token's vector, hidden[:, -1]",
    "sigmoid": "a sigmoid on each score: the classes exclude each other, so take one softmax over all of them",
    "sigmoid on softmax": "a sigmoid is stacked on the probabilities, which squeezes them into 0.5 to 0.73: take the log of "
    "the softmax itself",
    "bias": "the bias is missing",
    "sum": "this is the sum: divide it by the sum of the weights",
    "rows": "the sum is right but divided by all rows: those of weight 0 only fill the batch up",
    "unweighted": "the rows that only fill the batch up count: multiply by the weights",
    "probability": "the mean of -p is taken, without the logarithm",
    "label times": "the label's number multiplies the logarithm (4.4.2 is for one-hot labels): pick the label's probability",
}


def _loss(hidden, kernel, bias, labels, weights, slip=None):
    read = {"first token": hidden[:, 0], "mean": hidden.mean(1)}.get(slip, hidden[:, -1]).astype(np.float64)
    scores = read @ kernel + (0.0 if slip == "bias" else bias)
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    said = raised / raised.sum(-1, keepdims=True)
    said = 1.0 / (1.0 + np.exp(-scores)) if slip == "sigmoid" else said
    said = 1.0 / (1.0 + np.exp(-said)) if slip == "sigmoid on softmax" else said
    with np.errstate(divide="ignore"):
        losses = -np.log(said[np.arange(len(said)), labels])
        losses = -(labels * np.log(said.max(-1))) if slip == "label times" else losses
    losses = -np.exp(-losses) if slip == "probability" else losses
    if slip == "unweighted":
        return losses.mean()
    count = {"sum": 1.0, "rows": len(weights)}.get(slip, weights.sum())
    return (losses * weights).sum() / count * (-1.0 if slip == "sign" else 1.0)


def _overflows(hidden, kernel, bias, labels, weights):
    with np.errstate(all="ignore"):
        raised = np.exp((hidden[:, -1] @ kernel + bias).astype(np.float32))
        said = (raised / raised.sum(-1, keepdims=True))[np.arange(len(labels)), labels]
        return -(np.log(said) * weights).sum() / weights.sum()


def check_classifier_loss(function: Callable) -> None:
    """Four texts and two rows that fill up; then scores that overflow."""
    for factor in (1.0, 100.0):
        hidden = HIDDEN * np.float32(factor)
        inputs = hidden.copy(), KERNEL.copy(), BIAS.copy(), LABELS.copy(), WEIGHTS.copy()
        infinite = "take off the maximum of the scores before np.exp"
        loss = float(as_array(function(*inputs), (), "the loss", infinite))
        head = {"kernel": jnp.asarray(KERNEL), "bias": jnp.asarray(BIAS)}
        losses, _ = token_losses(linear(head, jnp.asarray(hidden[:, -1])), jnp.asarray(LABELS))
        expected = float((losses * WEIGHTS).sum() / WEIGHTS.sum())
        if np.isclose(loss, expected, rtol=1e-4):
            continue
        for slip, message in LOSSES.items():
            with np.errstate(all="ignore"):
                wrong = _loss(hidden, KERNEL, BIAS, LABELS, WEIGHTS, slip)
            if np.isclose(loss, wrong, rtol=1e-4):
                raise Mistake(message)
        raise Mistake(f"the loss is {loss:.4f}, expected {expected:.4f}: print -log p of each text, then average")


CHECKS = {"parse_line": check_parse_line, "make_row": check_make_row, "classifier_loss": check_classifier_loss}

HINTS = {
    "parse_line": (
        "text.rfind(c) is the place of the last c, or -1: ask for both kinds of colon and take the larger place.",
        "line[:cut].strip() and line[cut + 1:].strip(); raise ValueError where cut is -1.",
    ),
    "make_row": (
        "framed = [begin, *ids[: length - 2], end]; how many places are left?",
        "[pad] * empty + framed, and np.arange(length) >= empty.",
    ),
    "classifier_loss": (
        "scores = hidden[:, -1] @ kernel + bias, [rows, classes]; log softmax(s) = s - log(sum(exp(s))).",
        "logs[np.arange(len(logs)), labels] picks one per row; multiply by the weights, divide by their sum.",
    ),
}

MISTAKES = {
    "parse_line": [
        *((functools.partial(_parse, slip=slip), message) for slip, message in PARSES.items()),
        (_split, "the label is still in the text"),
        (_no_error, "without a colon"),
    ],
    "make_row": [
        *((functools.partial(_row, slip=slip), message) for slip, message in ROWS.items()),
        *((functools.partial(_row, mask=slip), message) for slip, message in MASKS.items()),
    ],
    "classifier_loss": [
        *((functools.partial(_loss, slip=slip), message) for slip, message in LOSSES.items()),
        (_overflows, "take off the maximum"),
    ],
}
