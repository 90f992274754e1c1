"""config -> text -> tokens -> batches. The one place where the data room and the config meet."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minillm.config import Experiment
from minillm.data import clean, corpora, images, pairs, tokenizer
from minillm.data.document import Document
from minillm.errors import UserError
from minillm.experiment import examples, paired, supervised, textless
from minillm.experiment.folder import RunFolder
from minillm.experiment.labelled import split_labelled_documents
from minillm.experiment.recipes import augmenting, domains, few, teacher
from minillm.experiment.recipes.annotation import annotate
from minillm.experiment.vocabulary import vocabulary_size
from minillm.sections.data import DataConfig, is_labelled, is_paired
from minillm.sections.experiment import IMAGES, LABELLED, SYNTHETIC
from minillm.training.provenance import hash_arrays


class Data(NamedTuple):
    """What a run reads."""

    vocabulary: int  # ids of the model: the tokenizer's and the objective's
    tokenizer: Any  # None where there is no text
    batch: Callable[[int], dict]  # step -> batch
    evaluation: Callable[[str], list[dict]]  # split -> fixed batches
    texts: dict[str, list[str]]  # split -> documents; empty where there is no text
    tokens: dict[str, list[np.ndarray]]  # split -> documents as bos ... eos
    cleaning: dict
    sha256: str
    documents: Mapping[str, Sequence[Document]] = {}  # split -> labelled documents; never written
    rows: Callable[[int, slice], dict] | None = None  # see `Reading`
    examples: int | None = None  # see `Reading`
    tasks: Mapping[str, Any] = {}  # the same of the tasks beside the run's own, by name; never written

    def batch_rows(self, step: int, rows: slice) -> dict:
        """Some rows of a batch. Where a row's noise depends on the others' texts (structural) the whole is made, then cut."""
        if self.rows is not None:
            return self.rows(step, rows)
        return {name: leaf[rows] for name, leaf in self.batch(step).items()}


def load_data(experiment: Experiment, tokenizer_file: Path, pieces: Any = None) -> Data:
    """Reads, cleans, splits, tokenizes with `pieces`, or with what `tokenizer_file` holds, trained where it is missing."""
    if experiment.data.source in IMAGES:
        return _images(experiment)
    if experiment.data.source in SYNTHETIC:
        return _synthetic(experiment)
    splits, cleaning = split_documents(experiment)
    texts = {name: _texts(experiment, part) for name, part in splits._asdict().items()}
    written = {name: tokenizer_texts(experiment, part) for name, part in splits._asdict().items()}
    pieces = pieces or make_tokenizer(experiment, written["train"], tokenizer_file)
    if experiment.objective.name in LABELLED:
        return _labelled(experiment, pieces, splits._asdict(), texts, cleaning, tokenizer_file.parent)
    if experiment.objective.name == "sequence_to_sequence":
        return _paired(experiment, pieces, splits._asdict(), texts, cleaning)
    texts = written
    return _text(experiment, pieces, texts, cleaning)


def tokenizer_texts(experiment: Experiment, documents: Sequence[Document]) -> list[str]:
    """What a tokenizer learns from."""
    return [*_texts(experiment, documents), *_passages(documents)]


def _passages(documents: Sequence[Document]) -> list[str]:
    """What questions are asked of, each once: text too, for a tokenizer and for pretraining."""
    return list(dict.fromkeys(document.pair for document in documents if document.start is not None))


def split_documents(experiment: Experiment) -> tuple[clean.Splits, dict]:
    """The cleaned documents by use, and the report of what cleaning removed, with the sizes of the parts."""
    section = experiment.data
    if is_paired(section):
        splits, report = paired.split_paired_documents(experiment)
    else:
        splits, report = split_labelled_documents(section) if is_labelled(section) else _split(section)
    return splits, report | {"split": {name: _size(part) for name, part in splits._asdict().items()}}


def _texts(experiment: Experiment, documents: Sequence[Document]) -> list[str]:
    """The texts, of pairs both sides."""
    if is_paired(experiment.data):
        return [text for pair in paired.sides(experiment, documents) for text in pair]
    return [document.text for document in documents]


def _split(section: DataConfig) -> tuple[clean.Splits, dict]:
    documents = corpora.read(section.source, section.path, section.text_key, section.separator)
    if section.limit is not None:
        documents = _limit(documents, section.limit)
    documents, report = clean.clean(
        documents, section.normalization, section.drop_repeated_lines, section.drop_duplicates
    )
    return clean.split(documents, section.validation, section.test, section.split_seed), report.to_dict()


def make_tokenizer(experiment: Experiment, texts: list[str], tokenizer_file: Path) -> tokenizer.Tokenizer:
    """What the file holds; where it is missing, trained on these texts."""
    if not tokenizer_file.exists():
        settings = experiment.tokenizer
        tokenizer.train(
            texts, settings.vocabulary, settings.kind, byte_fallback=settings.byte_fallback,
            symbols=paired.own_symbols(experiment), model_file=tokenizer_file,
        )  # fmt: skip
    return tokenizer.load(tokenizer_file)


def _labelled(experiment: Experiment, pieces: Any, documents: dict, texts: dict, cleaning: dict, root: Path) -> Data:
    for part in documents.values():
        supervised.refuse_unlabelled(part)
    annotated = annotate(experiment, documents["train"], len(documents["validation"]))
    documents = documents | {"train": annotated.labelled}
    parts = {name: supervised.make_rows(experiment, pieces, part) for name, part in documents.items() if part}
    parts["train"] = domains.marked(experiment, parts["train"], documents["train"])
    more, learned, reports = _unlabelled(experiment, pieces, annotated.unlabelled, root)
    reading = supervised.labelled_reading(experiment, parts | more, supervised.frame_ids(pieces))
    reading = augmenting.augmented_reading(experiment, root, pieces, documents["train"], reading)
    cleaning = cleaning | {"cut": {name: int(part.cut.sum()) for name, part in parts.items()}}
    cleaning |= ({"annotation": annotated.report} if annotated.report else {}) | reports
    known = [(d.label, d.pair, *(more for more in (d.start, d.domain) if more is not None))
             for part in documents.values() for d in part]  # fmt: skip
    digest = _hash(texts | {"labels": [*map(repr, known)]} | learned | augmenting.files_read(experiment))
    vocabulary = vocabulary_size(experiment, pieces.vocabulary)
    evaluation = _refusing_empty(texts, reading.evaluation)
    return Data(vocabulary, pieces, reading.batch, evaluation, texts, {}, cleaning, digest, documents, reading.rows)


def _unlabelled(
    experiment: Experiment, pieces: Any, documents: Sequence[Document], root: Path
) -> tuple[dict, dict[str, list[str]], dict]:
    """Rows of training texts without labels, by use; what the run's hash must know of them; what is reported."""
    parts, learned, reports = {}, {}, {}
    blank = [document._replace(label=None) for document in documents]
    if few.reads_unlabelled(experiment):
        parts["unlabelled"] = supervised.make_rows(experiment, pieces, blank)
    if few.learns_pseudo(experiment):
        answers, digest = teacher.read(experiment, RunFolder(root), blank)
        sure, labels, report = teacher.choose(experiment, answers, [document.label for document in documents])
        chosen = [document for document, own in zip(blank, sure, strict=True) if own]
        parts["pseudo"] = supervised.make_rows(experiment, pieces, chosen)._replace(labels=labels)
        learned, reports = {"pseudo": [digest]}, {"pseudo": report}
    return parts, learned, reports


def _paired(experiment: Experiment, pieces: Any, documents: dict, texts: dict, cleaning: dict) -> Data:
    parts = {name: paired.make_rows(experiment, pieces, part) for name, part in documents.items() if part}
    paired.refuse_nothing(experiment, parts["train"])
    reading = paired.paired_reading(experiment, parts)
    cleaning = cleaning | {"cut": {name: int(part.cut.sum()) for name, part in parts.items()}}
    vocabulary = vocabulary_size(experiment, pieces.vocabulary)
    evaluation = _refusing_empty(texts, reading.evaluation)
    digest = _hash({name: [side for d in part for side in (d.text, d.target)] for name, part in documents.items()})
    return Data(vocabulary, pieces, reading.batch, evaluation, texts, {}, cleaning, digest, documents, reading.rows)


def _refusing_empty(parts: dict[str, list], evaluation: Callable[[str], list[dict]]) -> Callable[[str], list[dict]]:
    def evaluate(split: str) -> list[dict]:
        if not parts[split]:
            raise UserError(f"the split {split!r} is empty", "data", f"set data.{split} above 0")
        return evaluation(split)

    return evaluate


def _text(experiment: Experiment, pieces: Any, texts: dict[str, list[str]], cleaning: dict) -> Data:
    vocabulary = vocabulary_size(experiment, pieces.vocabulary)
    tokens = {
        name: [np.array([pieces.bos, *ids, pieces.eos], np.int32) for ids in pieces.encode_many(part)]
        for name, part in texts.items()
    }
    _refuse_unknown(pieces, texts, tokens)
    sentences = {name: _sentences(experiment, pieces, part) for name, part in texts.items()}
    parts = {name: examples.Text(tokens[name], sentences[name]) for name in texts}
    reading = examples.make_reading(experiment, parts, examples.text_ids(experiment, vocabulary, pieces))
    evaluation = _refusing_empty(tokens, reading.evaluation)
    beside = {"rows": reading.rows, "examples": reading.examples}
    return Data(vocabulary, pieces, reading.batch, evaluation, texts, tokens, cleaning, _hash(texts), **beside)


def _sentences(experiment: Experiment, pieces: tokenizer.Tokenizer, texts: list[str]) -> list[list[np.ndarray]]:
    """Each document's sentences as ids, for objectives over pairs of them."""
    if experiment.objective.name not in ("masked_next_sentence", "structural"):
        return []
    cut = [pieces.encode_many(pairs.split_sentences(text)) for text in texts]
    return [[np.array(ids, np.int32) for ids in sentences] for sentences in cut]


def _refuse_unknown(pieces: tokenizer.Tokenizer, texts: dict, tokens: dict) -> None:
    """An <unk> hides what it stands for: scoring it would flatter the bits per character without limit."""
    for name, documents in tokens.items():
        for text, ids in zip(texts[name], documents, strict=True):
            if pieces.unk in ids:
                strange = pieces.unknown(text)
                raise UserError(f"the {name} part has characters that the tokenizer does not know: {strange}",
                                "tokenizer.byte_fallback", "set it to true")  # fmt: skip


def _synthetic(experiment: Experiment) -> Data:
    section, reading = experiment.data, textless.synthetic_reading(experiment)
    digest = hashlib.sha256(f"{section.source} {section.copy_length} {section.symbols}".encode()).hexdigest()
    return Data(vocabulary_size(experiment), None, reading.batch, reading.evaluation, {}, {}, {}, digest)


def _images(experiment: Experiment) -> Data:
    whole, reading = images.digits(), textless.image_reading(experiment)
    return Data(0, None, reading.batch, reading.evaluation, {}, {}, {}, hash_arrays(whole._asdict()))


def _limit(documents: list, characters: int) -> list:
    """Whole documents up to `characters`; the last one is cut."""
    kept, room = [], characters
    for document in documents:
        if room <= 0:
            break
        kept.append(document._replace(text=document.text[:room]))
        room -= len(document.text)
    return kept


def _size(documents: Sequence[Document]) -> dict:
    return {"documents": len(documents), "characters": sum(len(document.text) for document in documents)}


def _hash(texts: dict[str, list[str]]) -> str:
    digest = hashlib.sha256()
    for name, part in texts.items():
        for text in (name, *part):
            digest.update(len(text).to_bytes(8, "big") + text.encode("utf8", "surrogatepass"))
    return digest.hexdigest()


def join_hashes(digests: Mapping[str, str]) -> str:
    """One hash over those of several texts by name."""
    return hashlib.sha256("".join(f"{name}={digest};" for name, digest in digests.items()).encode()).hexdigest()


def bits(nats: float) -> float:
    """Nats -> bits."""
    return nats / math.log(2.0)
