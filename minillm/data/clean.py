"""Cleaning that reports what it removed, and splits by document."""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from minillm.data.corpora import Document
from minillm.errors import UserError


@dataclass(frozen=True)
class CleanReport:
    """Counts before and after; characters are Unicode code points."""

    documents_before: int
    documents_after: int
    characters_before: int
    characters_after: int
    documents_normalised: int  # their text changed under normalisation
    duplicate_documents: int
    repeated_lines: int
    empty_documents: int

    def to_dict(self) -> dict:
        """Plain data for JSON."""
        return asdict(self)


class Splits(NamedTuple):
    """Documents by use."""

    train: list[Document]
    validation: list[Document]
    test: list[Document]


def clean(
    documents: Sequence[Document],
    normalization: str = "none",
    drop_repeated_lines: bool = False,
    drop_duplicates: bool = True,
) -> tuple[list[Document], CleanReport]:
    """Normalises Unicode and line ends, then removes exact duplicates and, if asked, lines seen before anywhere.

    Blank lines stay, but for those that only parted the lines that went. The first occurrence is kept, in the order given.
    Raises: UserError where nothing is left.
    """
    normalised = [d._replace(text=normalise(d.text, normalization)) for d in documents]
    changed = sum(a.text != b.text for a, b in zip(documents, normalised, strict=True))
    kept, seen, duplicates = [], set(), 0
    for document in normalised:
        if drop_duplicates and document.text in seen:
            duplicates += 1
            continue
        seen.add(document.text)
        kept.append(document)
    lines = 0
    if drop_repeated_lines:
        kept, lines = _drop_repeated_lines(kept)
    full = [d for d in kept if d.text.strip()]
    if not full:
        raise UserError("no text is left after cleaning", "data", "use a longer text or fewer cleaning rules")
    before, after = (sum(len(d.text) for d in part) for part in (documents, full))
    return full, CleanReport(
        len(documents), len(full), before, after, changed, duplicates, lines, len(kept) - len(full)
    )


def normalise(text: str, form: str) -> str:
    """Unified line ends, and a Unicode form: "none", "NFC" or "NFKC"."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if form == "none" else unicodedata.normalize(form, text)


def _drop_repeated_lines(documents: list[Document]) -> tuple[list[Document], int]:
    seen: set[str] = set()
    kept, dropped = [], 0
    for document in documents:
        lines, gap = [], False
        for line in document.text.split("\n"):
            if line.strip() and line in seen:
                dropped, gap = dropped + 1, True
            elif line.strip():
                seen.add(line)
                lines.append(line)
                gap = False
            elif not (gap and (not lines or not lines[-1].strip())):  # after a line that went, one blank is enough
                lines.append(line)
        kept.append(document._replace(text="\n".join(lines)))
    return kept, dropped


def split(documents: Sequence[Document], validation: float, test: float, seed: int) -> Splits:
    """Whole documents in the order of a hash of (seed, text): test first, then validation, by their shares of characters.

    The order in which the documents come does not matter. Documents with equal text have equal hashes and never fall
    across parts. Each part asked for gets at least one document. One single document is cut by position instead: train
    first, then validation, then test. Raises: UserError for too few documents.
    """
    if len(documents) == 1:
        return _cut(documents[0], validation, test)
    order = sorted(
        documents, key=lambda d: hashlib.sha256(f"{seed}\0{d.text}".encode("utf8", "surrogatepass")).digest()
    )
    total = sum(len(d.text) for d in documents)
    parts: dict[str, list[Document]] = {"test": [], "validation": [], "train": []}
    for name, share in (("test", test), ("validation", validation)):
        size = 0
        while share > 0.0 and order and (size < share * total or not parts[name]):
            text = order[0].text
            while order and order[0].text == text:
                parts[name].append(order.pop(0))
                size += len(text)
    parts["train"] = order
    if not order:
        raise UserError(f"{len(documents)} documents are too few to split", "data.validation", "use more documents")
    place = {id(d): i for i, d in enumerate(documents)}
    ordered = {name: sorted(part, key=lambda d: place[id(d)]) for name, part in parts.items()}
    return Splits(ordered["train"], ordered["validation"], ordered["test"])


def _cut(document: Document, validation: float, test: float) -> Splits:
    size = len(document.text)
    first, second = round(size * (1.0 - validation - test)), round(size * (1.0 - test))
    pieces = (document.text[:first], document.text[first:second], document.text[second:])
    if not pieces[0] or not pieces[1]:
        raise UserError(f"{size} characters are too few to split", "data.validation", "use a longer text")
    names = (f"{document.name} ({part})" for part in ("train", "validation", "test"))
    return Splits(*([Document(name, piece)] if piece else [] for name, piece in zip(names, pieces, strict=True)))
