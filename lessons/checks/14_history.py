"""Checks of lesson 14: each wrong answer is compared with those that others have given before, and named."""

from collections.abc import Callable

import numpy as np

from minillm.course.answers import as_array
from minillm.course.contract import Mistake

ZERO = "is something divided by zero?"

# bits_per_character

TEXTS = ["a b", "预训练模型", "to be or not to be"]
LOSSES = np.array([[2.0, 3.5, 1.0, 9.0, 9.0, 9.0], [4.0, 2.5, 3.0, 2.0, 0.5, 9.0], [3.0, 2.0, 1.5, 2.5, 1.0, 0.25]])
WEIGHTS = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]], np.float32)

BITS_SLIPS = {
    "nats": "these are nats per character: a bit is ln 2 = 0.693 nats, so divide by it",
    "times": "multiplied by ln 2: a nat is more than a bit, so there are more bits than nats; divide",
    "per token": "these are bits per token: divide by the characters of the texts, not by the targets",
    "mean": "the mean loss per token, divided by the characters: multiply by the number of tokens first, or take the sum",
    "padding": "padding is paid for: behind a text's end the losses mean nothing, use the weights",
    "bytes": "divided by bytes of UTF-8: a Chinese character has three of them; count characters, as `len` does",
    "mean of texts": "a mean over texts of each one's bits per character: add up all bits and all characters first",
    "words": "divided by words: blanks are characters as well, and Chinese text has none",
    "rows": "divided by the number of texts: count the characters in them",
}


def _bits(losses, weights, texts, slip=None):
    weights = np.ones_like(weights) if slip == "padding" else weights
    bits, targets = (losses * weights).sum(1) / np.log(2.0), weights.sum(1)
    characters = np.array([len(text.encode() if slip == "bytes" else text) for text in texts])
    if slip == "words":
        characters = np.array([len(text.split()) for text in texts])
    if slip == "mean of texts":
        return float((bits / characters).mean())
    below = {"per token": targets.sum(), "mean": targets.sum() * characters.sum(), "rows": len(texts)}
    found = bits.sum() / below.get(slip, characters.sum())
    return float(found * {"nats": np.log(2.0), "times": np.log(2.0) ** 2}.get(slip, 1.0))


def check_bits_per_character(function: Callable) -> None:
    """All texts, one alone in each language, and two together."""
    for rows in (slice(0, 3), slice(2, 3), slice(1, 2), slice(0, 2)):
        losses, weights, texts = LOSSES[rows], WEIGHTS[rows], TEXTS[rows]
        call = f"bits_per_character(...) of {texts}"
        kept = losses.copy(), weights.copy()
        found = float(as_array(function(losses, weights, list(texts)), (), call, ZERO))
        if not (np.array_equal(losses, kept[0]) and np.array_equal(weights, kept[1])):
            raise Mistake("bits_per_character changed its argument: build new arrays instead")
        expected = _bits(losses, weights, texts)
        if np.isclose(found, expected, rtol=1e-4):
            continue
        for slip, reason in BITS_SLIPS.items():
            if np.isclose(found, _bits(losses, weights, texts, slip), rtol=1e-4):
                raise Mistake(f"{call} is {found:.4f}: {reason}")
        raise Mistake(f"{call} is {found:.4f}, expected {expected:.4f}: sum of the targets' nats / ln 2 / characters")


# steps_for_budget

SMALL = {"vocabulary": 10, "layers": 1, "width": 4, "hidden": 16}
CASES = [
    (1e6, SMALL, 2, 8),  # 35.2
    (1.02e6, SMALL, 2, 8),  # 35.9
    (4e12, {"vocabulary": 1024, "layers": 3, "width": 128, "hidden": 512}, 16, 128),
    (9e10, {"vocabulary": 300, "layers": 2, "width": 64, "hidden": 100}, 8, 32),
    (5e3, SMALL, 2, 8),  # less than half a step
]

STEP_SLIPS = {
    "forward": "only the forward pass is paid for: the backward pass costs twice as much again, 6 N D in all",
    "backward": "only the backward pass is paid for: with the forward pass it is 6 N D, and 12 for attention",
    "no attention": "attention's own products are left out: scores and weighted sums, 12 layers width keys D",
    "one product": "attention has two products, the scores and the weighted sum of the values: 12, not 6",
    "per row": "this is the cost of one row: a step has batch * length tokens",
    "per token": "this is the cost of one token: a step has batch * length of them",
    "no head": "the head is left out: its product with the whole vocabulary is a large part of a small model",
    "table twice": "the vocabulary counts twice: looking an embedding up multiplies nothing, only the head does",
    "one layer": "the layers are counted once: N and attention grow with their number",
    "hidden once": "the feed-forward network has two kernels, one up and one down",
    "one kernel": "attention has four kernels: query, key, value and output",
    "floor": "rounded down: the question is for the number of steps whose cost is nearest to the budget",
    "ceiling": "rounded up: the question is for the number of steps whose cost is nearest to the budget",
    "zero": "no step at all: a run has at least one",
}


def _steps(budget, size, batch, length, slip=None):
    width, layers = size["width"], 1 if slip == "one layer" else size["layers"]
    kernels, ways = 1 if slip == "one kernel" else 4, 1 if slip == "hidden once" else 2
    heads = {"no head": 0, "table twice": 2}.get(slip, 1)
    weights = layers * (kernels * width**2 + ways * width * size["hidden"]) + heads * width * size["vocabulary"]
    attention = layers * width * length * {"no attention": 0, "one product": 6}.get(slip, 12)
    tokens = {"per row": length, "per token": 1}.get(slip, batch * length)
    share = {"forward": 1 / 3, "backward": 2 / 3}.get(slip, 1.0)
    steps = budget / ((6 * weights + attention) * tokens * share)
    whole = {"floor": np.floor, "ceiling": np.ceil}.get(slip, np.round)(steps)
    return int(whole if slip == "zero" else max(whole, 1))


def check_steps_for_budget(function: Callable) -> None:
    """Fractions on both sides of a half, a real model, several layers, and a budget that is too small."""
    for case in CASES:
        budget, size, batch, length = case
        call, argument = f"steps_for_budget({budget:g}, {size}, {batch}, {length})", dict(size)
        found = float(as_array(function(budget, argument, batch, length), (), call, ZERO))
        if argument != size:
            raise Mistake("steps_for_budget changed its argument: read `size`, do not write to it")
        if found != round(found):
            raise Mistake(f"{call} is {found}: half a step cannot be taken, return a whole number")
        if found == (expected := _steps(*case)):
            continue
        for slip, reason in STEP_SLIPS.items():
            if found == _steps(*case, slip):
                raise Mistake(f"{call} is {found:.0f}: {reason}")
        raise Mistake(f"{call} is {found:.0f}, expected {expected}: what are N, D, and the cost of one step?")


CHECKS = {"bits_per_character": check_bits_per_character, "steps_for_budget": check_steps_for_budget}

HINTS = {
    "bits_per_character": (
        "(losses * weights).sum() is what all the texts cost in nats; one bit is np.log(2) nats.",
        "Divide once, at the end: bits of all targets over sum(len(text) for text in texts).",
    ),
    "steps_for_budget": (
        "N = layers * (4 * width**2 + 2 * width * hidden) + width * vocabulary, and D = batch * length.",
        "max(round(budget / cost), 1) with cost = (6 * N + 12 * layers * width * length) * D.",
    ),
}


def _wrong_bits(slip):
    return lambda losses, weights, texts: _bits(losses, weights, texts, slip)


def _wrong_steps(slip):
    return lambda budget, size, batch, length: _steps(budget, size, batch, length, slip)


def _fraction(budget, size, batch, length):
    weights = size["layers"] * (4 * size["width"] ** 2 + 2 * size["width"] * size["hidden"])
    weights += size["width"] * size["vocabulary"]
    return budget / (6 * weights + 12 * size["layers"] * size["width"] * length) / batch / length


MISTAKES = {
    "bits_per_character": [
        (_wrong_bits("nats"), "nats per character"),
        (_wrong_bits("times"), "more bits than nats"),
        (_wrong_bits("per token"), "bits per token"),
        (_wrong_bits("mean"), "take the sum"),
        (_wrong_bits("padding"), "padding is paid for"),
        (_wrong_bits("bytes"), "three of them"),
        (_wrong_bits("mean of texts"), "all characters first"),
        (_wrong_bits("words"), "blanks are characters"),
    ],
    "steps_for_budget": [
        (_wrong_steps("forward"), "only the forward pass"),
        (_wrong_steps("no attention"), "left out: scores"),
        (_wrong_steps("one product"), "two products"),
        (_wrong_steps("per row"), "one row"),
        (_wrong_steps("per token"), "one token"),
        (_wrong_steps("no head"), "the head is left out"),
        (_wrong_steps("table twice"), "counts twice"),
        (_wrong_steps("one layer"), "counted once"),
        (_wrong_steps("floor"), "rounded down"),
        (_wrong_steps("zero"), "at least one"),
        (_fraction, "whole number"),
    ],
}
