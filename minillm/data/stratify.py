"""Splits in which every part has its share of every class; equal texts are never parted.

Documents with an equal text (after `fold`; for pairs, with any text in common) are one group. Groups fall into strata:
a class, a set of classes, a bin of numbers; pairs, tagged sentences and documents with groups are one stratum. Within a stratum their order is
that of a hash of (seed, text), so that the order in which documents come does not matter.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from minillm.data.clean import Splits
from minillm.data.clean_labelled import fold
from minillm.data.document import Document
from minillm.data.labels import classes_of, name_counts
from minillm.errors import UserError

BINS = 10  # of numbers, at most
RARE = 10  # documents: a set of classes with fewer joins the others that are rare
PARTS = ("test", "validation", "train")

Group = list[int]  # places of documents


def split_labelled(documents: Sequence[Document], validation: float, test: float, seed: int) -> Splits:
    """Shares of documents: each class within one document of its share (groups of several documents may move that).

    A class of few examples still has one in each part asked for, at the cost of the largest. Raises: UserError for
    fewer examples of a class than parts, or too few groups.
    """
    shares = {"test": test, "validation": validation, "train": 1.0 - validation - test}
    shares = {name: share for name, share in shares.items() if share > 0.0}
    groups = _sort(_groups(documents), documents, seed)
    strata = _strata(documents, groups, len(shares))
    places: dict[str, list[int]] = {name: [] for name in PARTS}
    owed = dict.fromkeys(shares, 0.0)  # how many documents a part is behind, over all strata
    for name in sorted(strata, key=repr):
        _share_out(strata[name], shares, owed, places)
    for name in shares:
        if not places[name]:
            largest = max(map(len, groups))
            message = (
                f"{len(documents)} documents in {len(groups)} groups leave the {name} part empty: equal texts, and"
            )
            message += " pairs that share a text, stay together"
            message += f" (the largest group has {largest})" if largest > 1 else ""
            raise UserError(message, "data.validation", "use more documents, or other shares")
    parts = {name: [documents[place] for place in sorted(places[name])] for name in PARTS}
    return Splits(parts["train"], parts["validation"], parts["test"])


def order_key(seed: int, document: Document) -> bytes:
    """A hash of (seed, texts), by which documents are put in order."""
    text = f"{seed}\0{document.text}\0{document.pair or ''}"
    return hashlib.sha256(text.encode("utf8", "surrogatepass")).digest()


def _groups(documents: Sequence[Document]) -> list[Group]:
    """Documents joined by an equal text, by union of sets (Tarjan 1975)."""
    parents: dict[Hashable, Hashable] = {}

    def root(key: Hashable) -> Hashable:
        while parents.setdefault(key, key) != key:
            parents[key] = key = parents[parents[key]]
        return key

    texts = [(d.text, d.pair) if d.start is None else (d.pair,) for d in documents]  # one question may be asked of many
    keys = [[fold(text) for text in row if text is not None] for row in texts]
    for document, (first, *others) in zip(documents, keys, strict=True):
        for other in others + ([] if document.group is None else [("group", document.group)]):
            parents[root(other)] = root(first)
    found = defaultdict(list)
    for place, (first, *_) in enumerate(keys):
        found[root(first)].append(place)
    return list(found.values())


def _sort(groups: list[Group], documents: Sequence[Document], seed: int) -> list[Group]:
    """In the order of their least hashes; the first documents of each class, in that order, come last: training is
    served last, and must have seen each class."""
    hashes = [order_key(seed, document) for document in documents]
    ordered = sorted(groups, key=lambda group: min(hashes[place] for place in group))
    seen: set[str] = set()
    reserved, others = [], []
    for group in ordered:
        classes = {name for place in group for name in _classes(documents[place])}
        (reserved if classes - seen else others).append(group)
        seen |= classes
    return others + reserved


def _classes(document: Document) -> tuple[str, ...]:
    if document.units is not None:
        return tuple(tag[2:] for tag in document.label if tag != "O")
    return classes_of(document.label) if document.start is None else ()


def _strata(documents: Sequence[Document], groups: list[Group], parts: int) -> dict[Hashable, list[Group]]:
    """Stratum -> its groups in order. Raises: UserError for a class that cannot have one document in each part."""
    first = documents[0]
    if first.units is not None or first.pair is not None or first.group is not None:
        return {"all": groups}
    if isinstance(first.label, float):
        kinds = _bins(np.array([d.label for d in documents]), parts)
    elif isinstance(first.label, tuple):
        counts = Counter(d.label for d in documents)
        kinds = [d.label if counts[d.label] >= max(RARE, parts) else "rare" for d in documents]
    else:
        kinds = [d.label for d in documents]
    strata = defaultdict(list)
    for group in groups:
        strata[kinds[group[0]]].append(group)
    if isinstance(first.label, str):
        few = {name: len(found) for name, found in strata.items() if len(found) < parts}
        if few:
            message = f"a class in each of {parts} parts needs {parts} different texts: {name_counts(few)}"
            raise UserError(message, "data.labels", "add examples, join it with another class, or leave its texts out")
    return strata


def _bins(values: np.ndarray, parts: int) -> list[int]:
    """The quantile bin of each number; equal numbers have equal bins."""
    count = max(1, min(BINS, len(values) // (2 * parts)))
    edges = np.quantile(values, np.arange(1, count) / count)
    return np.searchsorted(edges, values, side="right").tolist()


def _share_out(groups: list[Group], shares: dict[str, float], owed: dict[str, float], places: dict) -> None:
    """Gives a stratum's groups to the parts: the first that fit, training what is left."""
    counts = _counts(sum(map(len, groups)), shares, owed)
    rest = list(groups)
    for name in ("test", "validation"):
        size, later = 0, []
        for group in rest:
            if size + len(group) <= counts.get(name, 0):
                places[name] += group
                size += len(group)
            else:
                later.append(group)
        rest = later
    places["train"] += [place for group in rest for place in group]


def _counts(total: int, shares: dict[str, float], owed: dict[str, float]) -> dict[str, int]:
    """How many of `total` documents each part gets: its share rounded down or up, and at least one where there are
    enough. What rounding takes is `owed` to the part, and other strata give it back."""
    quotas = {name: share * total for name, share in shares.items()}
    counts = {name: int(quota + 1e-9) for name, quota in quotas.items()}
    broken = [name for name in shares if quotas[name] - counts[name] > 1e-9]
    broken.sort(key=lambda name: (counts[name] > 0, counts[name] - quotas[name] - owed[name]))
    for name in broken[: total - sum(counts.values())]:
        counts[name] += 1
    for name in shares:
        if counts[name] == 0 and total >= len(shares):
            counts[max(counts, key=counts.get)] -= 1
            counts[name] = 1
    for name in shares:
        owed[name] += quotas[name] - counts[name]
    return counts
