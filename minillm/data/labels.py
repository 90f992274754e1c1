"""What a file's labels mean: one class, several, a number, or a tag per unit; and what is wrong with them.

Tags are BIO (Ramshaw and Marcus 1995): B-X begins an entity of kind X, I-X goes on with it, O is outside of all.
"""

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from minillm.data.document import Document, Label
from minillm.errors import UserError

Where = Callable[[Document], str]


def place(source: str, path: str | None) -> Where:
    """Document -> where it stands: "reviews.csv, record 7", "reviews.txt, line 7" or "reviews-zh, document pos:7"."""
    if path is None:
        return lambda document: f"{source}, document {document.name}"
    unit = "record" if source in ("csv", "tsv") else "line"
    return lambda document: f"{path}, {unit} {document.name.rpartition(':')[2]}"


def classes_of(label: Label | None) -> tuple[str, ...]:
    """The classes that a label names, none where it is a number."""
    return (label,) if isinstance(label, str) else label if isinstance(label, tuple) else ()


def entities_of(tags: Sequence[str]) -> tuple[str, ...]:
    """The kind of every entity that BIO tags begin."""
    return tuple(tag[2:] for tag in tags if tag.startswith("B-"))


def labels_found(documents: Iterable[Document]) -> dict[str, int]:
    """class -> how many documents have it (kind -> how many entities, for tags), the most frequent first."""
    counts: Counter[str] = Counter()
    for document in documents:
        if document.units is not None:
            counts.update(entities_of(document.label))
        elif document.start is not None:
            continue  # an answer is no class
        elif isinstance(document.label, float):
            counts.update([f"{document.label:g}"])
        else:
            counts.update(classes_of(document.label))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def name_counts(counts: dict[str, int], most: int = 12) -> str:
    """Counts in words: "pos (123), neg (45)"."""
    words = [f"{name} ({count})" for name, count in list(counts.items())[:most]]
    return ", ".join(words) + (f" and {len(counts) - most} more" if len(counts) > most else "") or "none"


def resolve(
    documents: Sequence[Document], labels: Sequence[str], where: Where, separator: str | None = None
) -> list[Document]:
    """Labels as the source has them -> what they mean, all checked.

    With units: tags, left as they are. Without `labels`: numbers. With a separator, or where the source has lists:
    several classes, in the order of `labels`. Else: one class. Raises: UserError for the first that is wrong.
    """
    if documents and documents[0].units is not None:
        _check_tags(documents, labels, where)
        return list(documents)
    if not labels:
        numbers = [document._replace(label=_number(document, documents, where)) for document in documents]
        if len({document.label for document in numbers}) == 1:
            message = f"every label is {numbers[0].label:g}, so that there is nothing to learn"
            raise UserError(message, where(numbers[0]), "use data with different labels")
        return numbers
    several = separator is not None or any(isinstance(document.label, tuple) for document in documents)
    if len(labels) < 2 and not several:
        raise UserError(f"{labels[0]!r} is the only class, so that there is nothing to tell apart", "data.labels",
                        f"name at least two; the data has {name_counts(labels_found(documents))}")  # fmt: skip
    _refuse_swapped(documents, labels, where)
    parted = [_part(document, separator, several) for document in documents]
    known = set(labels)
    for document in parted:
        classes = document.label or ()
        if not several and classes == ("",):
            raise UserError("the label is empty", where(document), f"write one of {', '.join(labels)}")
        if not known.issuperset(classes):
            raise _unknown(document, parted, labels, where)
    if several:
        return [d._replace(label=tuple(name for name in labels if name in d.label)) for d in parted]
    return [d._replace(label=d.label[0]) for d in parted]


def _part(document: Document, separator: str | None, several: bool) -> Document:
    """Its label as a tuple; an empty field is no class at all where there may be several."""
    label = document.label
    if label is None:
        label = ""
    if isinstance(label, str):
        parts = label.split(separator) if separator is not None else [label]
        label = tuple(part.strip() for part in parts) if label.strip() or not several else ()
    return document._replace(label=label)


def _unknown(document: Document, documents: Sequence[Document], labels: Sequence[str], where: Where) -> UserError:
    name = next(name for name in document.label if name not in labels)
    strange = Counter(other for d in documents for other in d.label if other not in labels)
    message = "an empty class" if not name else f"unknown class {name[:60]!r}"
    if strange.total() > 1:
        message += f", one of {strange.total()} labels that data.labels does not name"
    folded = {label.casefold(): label for label in labels}
    close = difflib.get_close_matches(name.casefold(), folded, 1)
    mend = f"did you mean {folded[close[0]]!r}? " if close else ""
    mend += f"known classes: {', '.join(labels)}; mend the label, or data.labels"
    if "," in name or ";" in name or "|" in name:
        mend += "; for several classes in one field set data.label_separator"
    return UserError(message, where(document), mend)


def _refuse_swapped(documents: Sequence[Document], labels: Sequence[str], where: Where) -> None:
    """Texts that are class names, in most documents, are labels in the wrong place."""
    known = set(labels)
    swapped = [d for d in documents if d.text.strip() in known and not known.issuperset(classes_of(d.label))]
    if 2 * len(swapped) > len(documents):
        message = f"a class stands where a text should be: {swapped[0].text.strip()!r}, in {len(swapped)} documents"
        raise UserError(message, where(swapped[0]), "write text:label, or swap data.text_key and data.label_key")
    if documents and all(d.text.strip() in known for d in documents):
        raise UserError("every text is the name of a class", where(documents[0]), "set data.text_key to the texts")


def _number(document: Document, documents: Sequence[Document], where: Where) -> float:
    """Without `labels`, labels are numbers."""
    label = document.label
    try:
        value = float(label)
    except (TypeError, ValueError):
        value = math.nan
    if math.isfinite(value):
        return value
    message = "the label is empty" if not label else f"the label {str(label)[:60]!r} is not a number"
    counts = labels_found(documents)
    mend = "write a number"
    if len(counts) <= 100:
        mend += f", or set data.labels to the classes; the data has {name_counts(counts)}"
    raise UserError(message, where(document), mend)


def _check_tags(documents: Sequence[Document], kinds: Sequence[str], where: Where) -> None:
    if not kinds:
        found = name_counts(labels_found(documents))
        raise UserError("the kinds of entities are not named", "data.labels", f"set it; the data has {found}")
    known = {f"{letter}-{kind}" for letter in "BI" for kind in kinds}
    for document in documents:
        for number, (before, tag) in enumerate(zip(("O", *document.label), document.label, strict=False)):
            if tag == "O" or (tag in known and (tag[0] == "B" or before[2:] == tag[2:])):
                continue
            raise _wrong_tag(document, number, kinds, where)


def _wrong_tag(document: Document, number: int, kinds: Sequence[str], where: Where) -> UserError:
    tag, name = document.label[number], document.name
    head, colon, line = name.rpartition(":")
    if colon and line.isdigit():  # a sentence is named by its first line
        name = f"{head}:{int(line) + number}"
    place = where(document._replace(name=name))
    letter, dash, kind = tag.partition("-")
    if letter in ("B", "I") and kind in kinds:
        message = f"the tag {tag!r} goes on with an entity that does not stand before it"
        return UserError(message, place, f"begin an entity with B-{kind}")
    close = difflib.get_close_matches(kind, kinds, 1) if dash else []
    mend = f"did you mean {letter}-{close[0]}? " if close and letter in ("B", "I") else ""
    return UserError(f"unknown tag {tag[:60]!r}", place, f"{mend}known tags: O, and B- or I- with {', '.join(kinds)}")


def refuse_missing(documents: Sequence[Document], labels: Sequence[str], where: str) -> None:
    """Raises: UserError for a class without an example."""
    found = labels_found(documents)
    if missing := [name for name in labels if name not in found]:
        message = f"no example of the class {missing[0]!r}"
        if len(missing) > 1:
            message = f"no example of the classes {', '.join(map(repr, missing))}"
        mend = f"leave it out of data.labels, or add examples; the data have {name_counts(found)}"
        raise UserError(message, where, mend)


def unseen(train: Sequence[Document], held_out: Sequence[Document]) -> Iterator[tuple[str, Document]]:
    """(class, document) of every class that held-out documents have and training documents do not."""
    known = set(labels_found(train))
    for document in held_out:
        for name in labels_found([document]):
            if name not in known and not isinstance(document.label, float):
                known.add(name)
                yield name, document
