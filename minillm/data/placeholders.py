"""What a translation must copy to the letter: %s, %(name)s, {0}, {name}, tags, entities, line breaks.

A subword model would spell "%(verbose_name)s" piece by piece and now and then misspell it. So before tokenizing each
different placeholder of a source becomes a sign of its own, numbered in the order in which they first stand there, in the
source and in its target alike; the signs are private-use characters, which the tokenizer keeps whole. What the model
writes gets the source's own placeholders back. The model still has to copy the right signs: `kept` counts whether it did,
and `count_signs` says what a decoder may be held to (`inference/constrained.py`).
"""

import re
from collections import Counter

MOST = 12  # different placeholders in one text
SIGNS = tuple(chr(0xE000 + number) for number in range(MOST))
PATTERN = re.compile(
    r"</?[a-zA-Z][^<>]*>"  # a tag
    r"|\{\{.*?\}\}|\{%.*?%\}|\{[\w.!:\[\]-]*\}"  # of templates, of str.format
    r"|%(?:\(\w+\)|\d+\$)?[-+#0]*\d*(?:\.\d+)?[sdifrxegu](?![a-zA-Z])|%%|%\d"  # of printf, of Qt
    r"|&(?:\w+|#\d+);"  # an entity
    r"|\s*\n\s*"  # a line break, with its indentation
    "|[\ue000-\uf8ff]"  # private use: one that stands in a text must not pass for a sign
)


def find(text: str) -> list[str]:
    """The placeholders of a text, in order."""
    return PATTERN.findall(text)


def hide(text: str, known: list[str] | None = None) -> tuple[str, list[str]]:
    """(text with signs, the placeholders that they stand for). `known`: those of the source, where this is a target.

    A target's placeholder that its source has not, and all beyond MOST, stay as they are.
    """
    names = list(dict.fromkeys(find(text)))[:MOST] if known is None else known
    number = {name: SIGNS[place] for place, name in enumerate(names)}
    return PATTERN.sub(lambda found: number.get(found[0], found[0]), text), names


def show(text: str, names: list[str]) -> str:
    """A text with signs -> with placeholders; a sign that stands for none vanishes."""
    meant = dict(zip(SIGNS, names, strict=False))
    return re.sub(f"[{SIGNS[0]}-{SIGNS[-1]}]", lambda sign: meant.get(sign[0], ""), text)


def count_signs(text: str) -> list[int]:
    """How often each of SIGNS stands in the text once its placeholders are hidden."""
    hidden = hide(text)[0]
    return [hidden.count(sign) for sign in SIGNS]


def kept(source: str, written: str) -> bool:
    """Whether both have exactly the same placeholders, each as often."""
    return Counter(find(source)) == Counter(find(written))
