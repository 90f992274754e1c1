"""What all data is read into."""

from typing import NamedTuple

Label = str | tuple[str, ...] | float


class Document(NamedTuple):
    """One unit of text that is never split across train and held-out parts.

    label: one class, several classes, or a number; with `units` one BIO tag per unit. pair: a second sentence.
    With `start` the text is a question, the pair a passage and the label its answer, which begins there in the passage.
    target: what is to be written for the text. group: documents of one group stay together in a split. domain: what kind of
    text it is, or where it comes from.
    """

    name: str
    text: str
    label: Label | None = None
    pair: str | None = None
    units: tuple[str, ...] | None = None  # what is tagged: characters or words
    start: int | None = None  # a character of the pair
    target: str | None = None
    group: str | None = None
    domain: str | None = None
