"""Labelled data from the files to the parts of a run: read, understood, cleaned, searched for leaks, split."""

from collections import Counter
from collections.abc import Sequence

from minillm.data import answers, clean_labelled, corpora, labels, stratify
from minillm.data.clean import Splits
from minillm.data.document import Document
from minillm.data.packages import PARTED
from minillm.errors import UserError
from minillm.sections.data import DataConfig, has_answers

PARTS = ("train", "validation", "test")


def split_labelled_documents(section: DataConfig) -> tuple[Splits, dict]:
    """The cleaned documents by use, and the report of what went. Raises: UserError for whatever is wrong with labels.

    A part with a file of its own is that file; the others are shares of `path`. The report is that of `path`, with those
    of the other files under their keys, `leaks`, and the labels of each part.
    """
    paths = {"train": section.path, "validation": section.validation_path, "test": section.test_path}
    paths = {name: path for name, path in paths.items() if name == "train" or path is not None}
    setting = "label_key" if section.answer_key is None else "answer_key"
    label_key, pair_key = getattr(section, setting), section.pair_key
    fields = corpora.Fields(
        section.text_key, label_key, pair_key, start=section.start_key, label_setting=setting, domain=section.domain_key
    )
    raw = {name: corpora.read_fields(section.source, path, fields) for name, path in paths.items()}
    wheres = {name: labels.place(section.source, path) for name, path in paths.items()}
    parts, reports = {}, {}
    for name, documents in raw.items():
        if has_answers(section):
            found = answers.resolve_answers(documents, wheres[name])
        else:
            found = labels.resolve(documents, section.labels, wheres[name], section.label_separator)
        if section.domains is not None:
            others = section.test_domains or () if name == "train" else ()
            found = of_domains(found, (*section.domains, *others), section, name == "train")
        if name == "train" and section.limit is not None:
            found = take(found, section.limit, section.split_seed)
        parts[name], report = clean_labelled.clean_labelled(found, section.normalization, section.drop_duplicates)
        reports[name] = report.to_dict()
    parts, leaks = without_leaks(parts, wheres, section.drop_leaks)
    splits = _split(parts, section)
    for name in ("validation", "test"):
        for missing, document in labels.unseen(splits.train, getattr(splits, name)):
            message = f"the class {missing!r} stands in the {name} part and not in training"
            mend = "add examples to the training part" if name in parts else "use more examples or another split_seed"
            raise UserError(message, wheres[name if name in parts else "train"](document), mend)
    labels.refuse_missing(parts["train"], section.labels, section.path or section.source)
    counts = {name: clean_labelled.count_labels(part) for name, part in splits._asdict().items()}
    held_out = {f"{name}_path": report for name, report in reports.items() if name != "train"}
    tagged = [document.units for document in splits.train if document.units is not None]
    units = {"units": "characters" if all(len(unit) == 1 for row in tagged for unit in row) else "words"}
    units = units if tagged else {}
    if section.domains is not None:
        units |= {"domains": {name: Counter(d.domain for d in part) for name, part in splits._asdict().items()}}
    return splits, reports["train"] | held_out | {"leaks": leaks, "labels": counts} | units


def of_domains(
    documents: Sequence[Document], wanted: Sequence[str], section: DataConfig, every: bool
) -> list[Document]:
    """The documents of the wanted domains, each with its own. Raises: UserError where `every` one is needed and one lacks."""
    rule = PARTED.get(section.source)
    known = [d._replace(domain=rule(d.text)) if rule else d for d in documents]
    there = Counter(document.domain for document in known)
    for name in (name for name in wanted if every and name not in there):
        names = ", ".join(sorted(filter(None, there))[:20])
        where = f"{section.path or section.source}: data.domains"
        raise UserError(f"no text is of the domain {name!r}", where, f"its domains are {names}")
    return [document for document in known if document.domain in wanted]


def _split(parts: dict[str, list[Document]], section: DataConfig) -> Splits:
    """The parts with files of their own as they are, the test part of domains too, the others cut from the first file."""
    if section.test_domains is not None:
        apart = [document for document in parts["train"] if document.domain in section.test_domains]
        parts = parts | {"train": [d for d in parts["train"] if d.domain not in section.test_domains], "test": apart}
    shares = {"validation": section.validation, "test": section.test}
    shares = {name: 0.0 if name in parts else share for name, share in shares.items()}
    cut = Splits(parts["train"], [], [])
    if any(shares.values()):
        cut = stratify.split_labelled(parts["train"], **shares, seed=section.split_seed)
    return cut._replace(**{name: part for name, part in parts.items() if name != "train"})


def without_leaks(
    parts: dict[str, list[Document]], wheres: dict, drop: bool, folding: clean_labelled.Key = clean_labelled.folded_key
) -> tuple[dict[str, list[Document]], dict]:
    """Parts that share no text, and what was dropped for it. Raises: UserError for leaks that nobody asked to drop."""
    leaks = clean_labelled.find_leaks(parts, folding)
    if leaks and not drop:
        first, exact = leaks[0], sum(leak.exact for leak in leaks)
        message = (
            f"{len(leaks)} texts stand in two parts ({exact} exactly, {len(leaks) - exact} but for case, width, blanks and "
            f"punctuation), first in {first.part} and {first.other}: {clean_labelled.describe(first.document)!r} is at "
            f"{wheres[first.other](first.twin)} too"
        )
        mend = "remove them, or set data.drop_leaks = true to take them from the part nearer to training"
        raise UserError(message, wheres[first.part](first.document), mend)
    gone = {id(leak.document) for leak in leaks}
    kept = {name: [document for document in part if id(document) not in gone] for name, part in parts.items()}
    for name, part in kept.items():
        if not part:
            raise UserError(f"the {name} part holds nothing but texts of later parts", "data", "use other data")
    report = {}
    for leak in leaks:
        pair = report.setdefault(f"{leak.part} in {leak.other}", {"exact": 0, "folded": 0, "examples": []})
        pair["exact" if leak.exact else "folded"] += 1
        if len(pair["examples"]) < clean_labelled.EXAMPLES:
            pair["examples"].append(f"{leak.document.name} = {clean_labelled.describe(leak.twin)}")
    return kept, report


def take(documents: Sequence[Document], characters: int, seed: int) -> list[Document]:
    """Whole documents up to `characters`, at least one: by their hashes, as a file may have its classes in order."""
    ordered = sorted(range(len(documents)), key=lambda place: stratify.order_key(seed, documents[place]))
    size, taken = 0, []
    for place in ordered:
        size += len(documents[place].text) + len(documents[place].pair or "")
        if taken and size > characters:
            break
        taken.append(place)
    return [documents[place] for place in sorted(taken)]
