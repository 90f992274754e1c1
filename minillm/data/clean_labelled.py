"""Cleaning of labelled documents: everything that goes is counted, and the first of each kind is named.

Two texts are the same exactly, or when `fold` makes them so: case, width, blanks and punctuation say nothing there.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from minillm.data.answers import normalise_answer
from minillm.data.clean import normalise
from minillm.data.document import Document
from minillm.data.labels import labels_found
from minillm.errors import UserError

EXAMPLES = 5  # of each kind in the report

Key = Callable[[Document], Hashable]


@dataclass(frozen=True)
class LabelledReport:
    """Counts of documents before and after; characters are Unicode code points."""

    documents_before: int
    documents_after: int
    characters_before: int
    characters_after: int
    documents_normalised: int  # their text changed under normalisation
    empty_documents: int  # no text, or no second sentence
    ambiguous_documents: int  # they stand with another label elsewhere: all copies go
    ambiguous_folded_documents: int  # the same for texts equal after `fold`
    duplicate_documents: int
    duplicate_folded_documents: int  # equal to an earlier one after `fold` only
    damaged_documents: int  # with U+FFFD, which a wrong decoding leaves; they stay
    labels_before: dict[str, int | float]
    labels_after: dict[str, int | float]
    examples: dict[str, list[str]]

    def to_dict(self) -> dict:
        """Plain data for JSON."""
        return asdict(self)


class Leak(NamedTuple):
    """A document of one part that another part holds too."""

    part: str  # from which it goes where leaks are dropped
    document: Document
    other: str
    twin: Document
    exact: bool  # equal as they stand, not only after `fold`


class _Kept(dict):
    """Character -> itself, or None for blanks, punctuation and controls: `str.translate` asks for each but once."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        kept = code if unicodedata.category(character)[0] not in "PZC" and not character.isspace() else None
        return self.setdefault(code, kept)


KEPT = _Kept()


def fold(text: str) -> str:
    """The text without case, width, blanks and punctuation; one that has nothing else without blanks."""
    wide = unicodedata.normalize("NFKC", text).casefold()
    return wide.translate(KEPT) or "".join(wide.split())


def exact_key(document: Document) -> tuple[str, str | None]:
    """What is equal for exact duplicates."""
    return document.text, document.pair


def folded_key(document: Document) -> tuple[str, str | None]:
    """What is equal for duplicates after `fold`."""
    return fold(document.text), None if document.pair is None else fold(document.pair)


def clean_labelled(
    documents: Sequence[Document], normalization: str = "none", drop_duplicates: bool = True
) -> tuple[list[Document], LabelledReport]:
    """Normalises; removes empty texts, all copies of texts with two labels, then duplicates but for the first.

    With drop_duplicates = false duplicates of one label stay (a split keeps them together); they are counted as 0 then.
    Raises: UserError where nothing is left.
    """
    normalised = [_normalise(document, normalization) for document in documents]
    changed = sum(exact_key(a) != exact_key(b) for a, b in zip(documents, normalised, strict=True))
    gone: dict[str, list[Document]] = {}
    full, gone["empty"] = _part(normalised, [not _empty(d) for d in normalised])
    folded, meanings = {id(d): folded_key(d) for d in full}, {id(d): _meaning(d) for d in full}
    clear, gone["ambiguous"] = _part(full, _clear(full, exact_key, meanings))
    clear = {id(d) for d in clear}
    kept, unclear = _part(full, _clear(full, lambda d: folded[id(d)], meanings))
    gone["ambiguous_folded"] = [d for d in unclear if id(d) in clear]
    gone["duplicate"] = gone["duplicate_folded"] = []
    if drop_duplicates:
        kept, gone["duplicate"] = _part(kept, _first([exact_key(d) for d in kept]))
        kept, gone["duplicate_folded"] = _part(kept, _first([folded[id(d)] for d in kept]))
    if not kept:
        raise UserError("no labelled text is left after cleaning", "data", "use more or other texts")
    for name, key in (("ambiguous", exact_key), ("ambiguous_folded", lambda d: folded[id(d)])):
        gone[name].sort(key=lambda d: repr(key(d)))  # copies side by side
    damaged = [d for d in kept if "\ufffd" in d.text + (d.pair or "")]
    examples = {name: [describe(d) for d in part[:EXAMPLES]] for name, part in (gone | {"damaged": damaged}).items()}
    return kept, LabelledReport(
        len(documents), len(kept), _size(documents), _size(kept), changed,
        **{f"{name}_documents": len(part) for name, part in (gone | {"damaged": damaged}).items()},
        labels_before=count_labels(documents), labels_after=count_labels(kept),
        examples={name: part for name, part in examples.items() if part},
    )  # fmt: skip


def find_leaks(parts: dict[str, Sequence[Document]], folding: Key = folded_key) -> list[Leak]:
    """Documents that stand in a later part too, exactly or after `folding`; parts are given from training to test."""
    found, names = [], list(parts)
    exact = {name: _firsts(parts[name], exact_key) for name in names}
    folded = {name: _firsts(parts[name], folding) for name in names}
    for place, name in enumerate(names):
        for document in parts[name]:
            for other in names[place + 1 :]:
                twin = exact[other].get(exact_key(document))
                loose = twin or folded[other].get(folding(document))
                if loose is not None:
                    found.append(Leak(name, document, other, loose, twin is not None))
                    break
    return found


def count_labels(documents: Sequence[Document]) -> dict[str, int | float]:
    """Documents per class, entities per kind, or the least, mean and greatest number."""
    numbers = [document.label for document in documents if isinstance(document.label, float)]
    if numbers:
        return {"least": min(numbers), "mean": sum(numbers) / len(numbers), "greatest": max(numbers)}
    return labels_found(documents)


def describe(document: Document) -> str:
    """A document in one short line: its name, its label and the beginning of its text."""
    label = "" if document.units is not None or document.target is not None else f" [{document.label}]"
    return f"{document.name}{label} {' '.join(document.text.split())[:60]}".strip()


def _normalise(document: Document, form: str) -> Document:
    if document.start is not None:
        return normalise_answer(document, form)
    if document.units is None:
        pair = None if document.pair is None else normalise(document.pair, form)
        return document._replace(text=normalise(document.text, form), pair=pair)
    between = "" if "".join(document.units) == document.text else " "
    units = tuple(normalise(unit, form) for unit in document.units)  # each by itself: a tag stays with its unit
    return document._replace(text=between.join(units), units=units)


def _empty(document: Document) -> bool:
    return not document.text.strip() or (document.pair is not None and not document.pair.strip())


def _part(documents: Sequence[Document], kept: Iterable[bool]) -> tuple[list[Document], list[Document]]:
    """(kept, gone)."""
    parts: dict[bool, list[Document]] = {True: [], False: []}
    for document, keep in zip(documents, kept, strict=True):
        parts[keep].append(document)
    return parts[True], parts[False]


def _clear(documents: Sequence[Document], key: Key, meanings: dict[int, Hashable]) -> list[bool]:
    """Whether all documents with an equal key mean the same."""
    found = defaultdict(set)
    for document in documents:
        found[key(document)].add(meanings[id(document)])
    return [len(found[key(document)]) == 1 for document in documents]


def _meaning(document: Document) -> Hashable:
    """The label, of an answer with its place; of tags, those of units that are more than punctuation."""
    if document.units is None:
        return document.label if document.start is None else (document.label, document.start)
    return tuple(tag for unit, tag in zip(document.units, document.label, strict=True) if unit.translate(KEPT))


def _first(keys: Sequence[Hashable]) -> list[bool]:
    """Whether a key has not stood before."""
    seen: set[Hashable] = set()
    return [not (key in seen or seen.add(key)) for key in keys]


def _firsts(documents: Sequence[Document], key: Key) -> dict[Hashable, Document]:
    firsts: dict[Hashable, Document] = {}
    for document in documents:
        firsts.setdefault(key(document), document)
    return firsts


def _size(documents: Sequence[Document]) -> int:
    return sum(len(d.text) + len(d.pair or "") for d in documents)
