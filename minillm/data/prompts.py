"""Prompts: a text in a template whose label is a word, with worked examples before it or without.

    template   "{text} 总之{label}。"
    question   屏幕很清楚 总之                                      left to right: what comes next?
               屏幕很清楚 总之[mask]。                               both ways: what stands at the mask?
    few-shot   键盘坏了 总之差。\n屏幕很清楚 总之[mask]。             one demonstration, then the question

Brown et al. 2020, section 2 (zero-, one- and few-shot); Schick and Schuetze 2021, section 3 (a pattern with a mask, and a
verbaliser: class -> word). Pieces of the template are encoded apart, so that a text cannot melt into the pattern; a blank
before {label} belongs to the word, as in running text. A text that is too long for its share of the row loses its end.
"""

import string
from collections.abc import Sequence
from typing import Any, NamedTuple

from minillm.data.rows import Frame, Ids
from minillm.errors import UserError

SLOTS = ("text", "label")
LEAST = 4  # tokens of its own that a text keeps, or else the row is too short for so many demonstrations
Demonstration = tuple[Ids, int]  # (text, class)


class Template(NamedTuple):
    """What stands before, between and after the slots, the slots in their order, and whether words begin with a blank."""

    parts: tuple[str, str, str]
    slots: tuple[str, str]
    blank: bool


class Pattern(NamedTuple):
    """A template and its words as ids. `mask`: the id at which a model that reads both ways answers, or None."""

    parts: tuple[Ids, Ids, Ids]
    slots: tuple[str, str]
    words: tuple[Ids, ...]  # in the order of the classes
    joint: Ids  # between examples
    frame: Frame
    mask: int | None


def parse(template: str) -> Template:
    """Raises: ValueError for anything but one {text} and one {label}; a label that is not named stands at the end."""
    try:
        found = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"template {template!r} cannot be read: {error}") from None
    parts, names = [""], []
    for text, name, form, conversion in found:
        parts[-1] += text
        if name is None:
            continue
        if name not in SLOTS or form or conversion:
            raise ValueError(
                f"template has {{text}} and {{label}} as they stand, got {template!r}; a brace is {{{{ or }}}}"
            )
        names.append(name)
        parts.append("")
    if names.count("text") != 1 or names.count("label") > 1:
        raise ValueError(f"template needs {{text}} once and {{label}} once at most, got {template!r}")
    if len(names) == 1:
        return parse(template + "{label}")
    place = names.index("label")
    blank = parts[place].endswith(" ")
    parts[place] = parts[place].removesuffix(" ")
    return Template(tuple(parts), tuple(names), blank)


def encode(template: Template, words: Sequence[str], separator: str, pieces: Any, mask: int | None) -> Pattern:
    """The pattern of a tokenizer's ids. Raises: UserError for words that the model cannot tell apart or say.

    A model that reads both ways fills in one mask, so each word must be one token; one that reads from left to right may
    take several, and must have read the text before the label.
    """
    if mask is None and template.slots[0] == "label":
        message = "a model that reads from left to right has not read {text} where {label} stands before it"
        raise UserError(message, "prompt.template", "put {label} behind {text}, or use a BERT")
    said = [f" {word}" if template.blank else word for word in words]
    ids = [tuple(found) for found in pieces.encode_many(said)]
    for word, found in zip(said, ids, strict=True):
        if not found or pieces.unk in found:
            raise UserError(f"the tokenizer does not know the word {word!r}", "prompt.words", "choose another")
    for place, found in enumerate(ids):
        if found in ids[:place]:
            message = f"the words {words[ids.index(found)]!r} and {words[place]!r} are the same tokens"
            raise UserError(message, "prompt.words", "choose different words")
    if mask is not None:
        single_tokens(ids, said)
    parts = tuple(tuple(found) for found in pieces.encode_many(list(template.parts)))
    frame = Frame(pieces.bos, pieces.eos, pieces.pad)
    joint = tuple(pieces.encode(separator)) if separator else ()
    return Pattern(parts, template.slots, tuple(ids), joint, frame, mask)


def single_tokens(ids: Sequence[Ids], words: Sequence[str]) -> list[int]:
    """The one token of each word. Raises: UserError for a word of several, which one place cannot hold."""
    for word, found in zip(words, ids, strict=True):
        if len(found) > 1:
            message = f"the word {word!r} is {len(found)} tokens, and there is one place to fill"
            raise UserError(message, "prompt.words", "choose words that are one token each")
    return [found[0] for found in ids]


def example(pattern: Pattern, text: Ids, word: Ids) -> list[int]:
    """The filled template."""
    slots = {"text": text, "label": word}
    before, between, after = pattern.parts
    return [*before, *slots[pattern.slots[0]], *between, *slots[pattern.slots[1]], *after]


def question(pattern: Pattern, text: Ids) -> tuple[list[int], int]:
    """(ids, place of the answer): with the mask in the label's place, or all that stands before the label.

    Left to right the place is that of the last token, whose hidden state predicts the word.
    """
    before, between, _ = pattern.parts
    if pattern.mask is None:
        ids = [*before, *text, *between]
        return ids, len(ids) - 1
    place = len(before) + (len(text) + len(between) if pattern.slots[1] == "label" else 0)
    return example(pattern, text, (pattern.mask,)), place


def room(pattern: Pattern, shots: int, length: int) -> int:
    """Tokens that each text may have where `shots` demonstrations and a question share a row of `length`.

    A word after the question needs room too. Raises: UserError where LEAST are not left.
    """
    longest = max(map(len, pattern.words))
    sides = sum(map(len, pattern.parts))
    frame = 1 + (longest - 1 if pattern.mask is None else 1)
    asked = sum(map(len, pattern.parts[:2])) if pattern.mask is None else sides + 1
    taken = frame + asked + shots * (sides + longest + len(pattern.joint))
    found = (length - taken) // (shots + 1)
    if found < LEAST:
        message = f"{shots} demonstrations and a question leave {max(found, 0)} tokens to each text in rows of {length}"
        raise UserError(message, "prompt.shots", f"use fewer or longer rows: a text keeps {LEAST} tokens at least")
    return found


def prompt(
    pattern: Pattern, demonstrations: Sequence[Demonstration], text: Ids, length: int
) -> tuple[list[int], int, bool]:
    """(the row's ids, the place of the answer, whether the text was cut); the demonstrations stand in the order given."""
    most, ids = room(pattern, len(demonstrations), length), [pattern.frame.begin]
    for shown, label in demonstrations:
        ids += [*example(pattern, shown[:most], pattern.words[label]), *pattern.joint]
    asked, place = question(pattern, text[:most])
    end = [] if pattern.mask is None else [pattern.frame.end]
    return [*ids, *asked, *end], len(ids) + place, len(text) > most
