"""Cleaning and splitting of pairs of texts: everything that goes is counted, and the first of each kind is named.

Sources are the same exactly, or when case, width, blanks, punctuation and the names of placeholders are left out. Of a
source with several targets the most frequent target stays (the first of those that are equally frequent): two
translations of a word are no error, but a source in training and in a held-out part would be one.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from minillm.data.clean import Splits, normalise
from minillm.data.clean_labelled import EXAMPLES, fold
from minillm.data.document import Document
from minillm.data.placeholders import PATTERN, SIGNS, find
from minillm.errors import UserError


@dataclass(frozen=True)
class PairReport:
    """Counts of pairs before and after; characters are those of sources and targets."""

    documents_before: int
    documents_after: int
    characters_before: int
    characters_after: int
    documents_normalised: int  # their text or target changed under normalisation
    empty_documents: int  # no source or no target
    long_documents: int  # source or target has more characters than are asked for
    equal_documents: int  # the target is the source: nobody has written it anew
    placeholders_documents: int  # the target has other placeholders than its source
    duplicate_documents: int  # source and target stand before
    duplicate_folded_documents: int  # the same after folding only
    other_target_documents: int  # the source stands with another target too, which is more frequent or earlier
    damaged_documents: int  # with U+FFFD, which a wrong decoding leaves; they stay
    examples: dict[str, list[str]]

    def to_dict(self) -> dict:
        """Plain data for JSON."""
        return asdict(self)


def source_key(document: Document) -> str:
    """What is equal for sources that must not stand in two parts."""
    return fold(PATTERN.sub("¤", document.text)) or document.text  # a currency sign is not folded away


def clean_pairs(
    documents: Sequence[Document],
    normalization: str = "none",
    *,
    drop_duplicates: bool = True,
    placeholders: bool = False,
    longest: int | None = None,
) -> tuple[list[Document], PairReport]:
    """Normalises; removes pairs that are empty, too long, equal or (where they matter) differ in placeholders; one per source.

    With drop_duplicates = false pairs of one source stay, and a split keeps them together. Raises: UserError where
    nothing is left.
    """
    kept = [d._replace(text=normalise(d.text, normalization), target=normalise(d.target or "", normalization))
            for d in documents]  # fmt: skip
    changed = sum((a.text, a.target) != (b.text, b.target) for a, b in zip(documents, kept, strict=True))
    gone: dict[str, list[Document]] = defaultdict(list)
    kept, gone["empty"] = _part(kept, [bool(d.text.strip() and d.target.strip()) for d in kept])
    kept, gone["long"] = _part(kept, [longest is None or max(len(d.text), len(d.target)) <= longest for d in kept])
    kept, gone["equal"] = _part(kept, [fold(d.text) != fold(d.target) for d in kept])
    same = [not placeholders or _same_placeholders(d) for d in kept]
    kept, gone["placeholders"] = _part(kept, same)
    if drop_duplicates:
        kept = _one_per_source(kept, gone)
    if not kept:
        raise UserError("no pair of texts is left after cleaning", "data", "use more or other texts")
    gone["damaged"] = [d for d in kept if "\ufffd" in d.text + d.target]
    names = ("empty", "long", "equal", "placeholders", "duplicate", "duplicate_folded", "other_target", "damaged")
    examples = {name: [describe_pair(d) for d in gone[name][:EXAMPLES]] for name in names if gone[name]}
    counts = {f"{name}_documents": len(gone[name]) for name in names}
    before, after = (sum(len(d.text) + len(d.target or "") for d in part) for part in (documents, kept))
    return kept, PairReport(len(documents), len(kept), before, after, changed, **counts, examples=examples)


def split_pairs(documents: Sequence[Document], validation: float, test: float, seed: int) -> Splits:
    """Shares of the pairs, in the order of a hash of (seed, source): equal sources, after folding too, stay together.

    Raises: UserError where a part that was asked for stays empty.
    """
    digest = lambda key: hashlib.sha256(f"{seed}\0{key}".encode("utf8", "surrogatepass")).digest()
    groups: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        groups[source_key(document)].append(document)
    parts: dict[str, list[Document]] = {"test": [], "validation": [], "train": []}
    order = iter(sorted(groups, key=digest))
    for name, share in (("test", test), ("validation", validation)):
        while len(parts[name]) < share * len(documents):
            key = next(order, None)
            if key is None:
                break
            parts[name] += groups[key]
    parts["train"] = [document for key in order for document in groups[key]]
    if not parts["train"] or (validation > 0.0 and not parts["validation"]):
        raise UserError(f"{len(documents)} pairs are too few to split", "data.validation", "use more pairs")
    place = {id(document): number for number, document in enumerate(documents)}
    ordered = {name: sorted(part, key=lambda d: place[id(d)]) for name, part in parts.items()}
    return Splits(ordered["train"], ordered["validation"], ordered["test"])


def describe_pair(document: Document) -> str:
    """A pair in one short line."""
    start = lambda text: " ".join(text.split())[:40]
    return f"{document.name} {start(document.text)} → {start(document.target or '')}"


def _same_placeholders(document: Document) -> bool:
    found = Counter(find(document.text))
    return len(found) <= len(SIGNS) and found == Counter(find(document.target))


def _one_per_source(documents: Sequence[Document], gone: dict[str, list[Document]]) -> list[Document]:
    """One pair per source, what goes into `gone`."""
    groups: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        groups[source_key(document)].append(document)
    kept = []
    for group in groups.values():
        counts = Counter(document.target for document in group)
        best = max(group, key=lambda document: counts[document.target])  # the first of the most frequent
        kept.append(best)
        for other in group:
            if other is not best:
                exact = (other.text, other.target) == (best.text, best.target)
                folded = fold(other.target) == fold(best.target)
                name = "duplicate" if exact else "duplicate_folded" if folded else "other_target"
                gone[name].append(other)
    return kept


def _part(documents: Sequence[Document], kept: Sequence[bool]) -> tuple[list[Document], list[Document]]:
    pairs = list(zip(documents, kept, strict=True))
    return [document for document, stays in pairs if stays], [document for document, stays in pairs if not stays]
