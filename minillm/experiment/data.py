"""config -> text -> tokens -> batches. The one place where the data room and the config meet."""

import functools
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minillm.config import Experiment
from minillm.data import batches, clean, corpora, synthetic, tokenizer
from minillm.errors import UserError


class Data(NamedTuple):
    """What a run reads."""

    vocabulary: int
    tokenizer: Any  # None for the copy task
    batch: Callable[[int], dict]  # step -> batch
    evaluation: Callable[[str], list[dict]]  # split -> fixed batches
    texts: dict[str, list[str]]  # split -> documents; empty for the copy task
    tokens: dict[str, list[np.ndarray]]  # split -> documents as bos ... eos
    cleaning: dict
    sha256: str


def vocabulary_size(experiment: Experiment) -> int:
    """Known before any text is read."""
    if experiment.data.source == "copy":
        return synthetic.vocabulary_size(experiment.data.symbols)
    return experiment.tokenizer.vocabulary


def example_length(experiment: Experiment) -> int:
    """Tokens per example."""
    if experiment.data.source == "copy":
        return synthetic.example_length(experiment.data.copy_length)
    return experiment.data.length or experiment.model.get("context", 256)


def load_data(experiment: Experiment, tokenizer_file: Path) -> Data:
    """Reads, cleans, splits, tokenizes; trains the tokenizer where `tokenizer_file` does not exist yet."""
    return _copy_task(experiment) if experiment.data.source == "copy" else _text(experiment, tokenizer_file)


def read_splits(experiment: Experiment) -> tuple[dict[str, list[str]], dict]:
    """split -> documents, and the report of what cleaning removed."""
    section = experiment.data
    documents = corpora.read(section.source, section.path, section.text_key, section.separator)
    if section.limit is not None:
        documents = _limit(documents, section.limit)
    documents, report = clean.clean(
        documents, section.normalization, section.drop_repeated_lines, section.drop_duplicates
    )
    splits = clean.split(documents, section.validation, section.test, section.split_seed)
    texts = {name: [document.text for document in part] for name, part in splits._asdict().items()}
    return texts, report.to_dict() | {"split": {name: _size(part) for name, part in texts.items()}}


def _text(experiment: Experiment, tokenizer_file: Path) -> Data:
    section, train = experiment.data, experiment.train
    texts, cleaning = read_splits(experiment)
    if not tokenizer_file.exists():
        settings = experiment.tokenizer
        tokenizer.train(
            texts["train"], settings.vocabulary, settings.kind,
            byte_fallback=settings.byte_fallback, model_file=tokenizer_file,
        )  # fmt: skip
    pieces = tokenizer.load(tokenizer_file)
    tokens = {
        name: [np.array([pieces.bos, *ids, pieces.eos], np.int32) for ids in pieces.encode_many(part)]
        for name, part in texts.items()
    }
    _refuse_unknown(pieces, texts, tokens)
    length = example_length(experiment)
    dataset = batches.make_dataset(tokens["train"], length, section.packing)
    batch = functools.partial(batches.batch_at, dataset, train.seed, batch_size=train.batch_size)

    def evaluation(split: str) -> list[dict]:
        if not tokens[split]:
            raise UserError(f"the split {split!r} is empty", "data", f"set data.{split} above 0")
        return list(batches.evaluation_batches(tokens[split], length, train.batch_size, max(length // 2, 1)))

    return Data(pieces.vocabulary, pieces, batch, evaluation, texts, tokens, cleaning, _hash(texts))


def _refuse_unknown(pieces: tokenizer.Tokenizer, texts: dict, tokens: dict) -> None:
    """An <unk> hides what it stands for: scoring it would flatter the bits per character without limit."""
    for name, documents in tokens.items():
        for text, ids in zip(texts[name], documents, strict=True):
            if pieces.unk in ids:
                strange = pieces.unknown(text)
                raise UserError(f"the {name} part has characters that the tokenizer does not know: {strange}",
                                "tokenizer.byte_fallback", "set it to true")  # fmt: skip


def _copy_task(experiment: Experiment) -> Data:
    section, train = experiment.data, experiment.train
    make = functools.partial(
        synthetic.copy_batch, batch_size=train.batch_size, length=section.copy_length, symbols=section.symbols
    )

    def evaluation(split: str) -> list[dict]:
        if split != "validation":
            raise UserError(f"the copy task has no split {split!r}", "--split", "use validation")
        return [make(train.seed, step, split="validation") for step in range(8)]

    batch = lambda step: make(train.seed, step, split="train")
    digest = hashlib.sha256(f"copy {section.copy_length} {section.symbols}".encode()).hexdigest()
    return Data(vocabulary_size(experiment), None, batch, evaluation, {}, {}, {}, digest)


def _limit(documents: list, characters: int) -> list:
    """Whole documents up to `characters`; the last one is cut."""
    kept, room = [], characters
    for document in documents:
        if room <= 0:
            break
        kept.append(document._replace(text=document.text[:room]))
        room -= len(document.text)
    return kept


def _size(texts: list[str]) -> dict:
    return {"documents": len(texts), "characters": sum(map(len, texts))}


def _hash(texts: dict[str, list[str]]) -> str:
    digest = hashlib.sha256()
    for name, part in texts.items():
        for text in (name, *part):
            digest.update(len(text).to_bytes(8, "big") + text.encode("utf8", "surrogatepass"))
    return digest.hexdigest()


def bits(nats: float) -> float:
    """Nats -> bits."""
    return nats / math.log(2.0)
