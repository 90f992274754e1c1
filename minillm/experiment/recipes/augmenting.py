"""The [augment] section: where synonyms and paraphrases come from, and batches of reworded texts."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minillm.config import Experiment
from minillm.data import augment, rows
from minillm.data.document import Document
from minillm.errors import UserError
from minillm.experiment import exchange, supervised
from minillm.experiment.examples import Reading
from minillm.params import flatten


def read_thesaurus(
    name: str | None, experiment: Experiment, root: Path, pieces: Any, texts: Sequence[str]
) -> augment.Table:
    """A thesaurus by its name in a config; of `root`, the run's folder, the base is known. Raises: UserError."""
    if name is None:
        return {}
    if name == "cilin":
        return augment.cilin()
    if name != "base":
        return augment.read_thesaurus(Path(name))
    from minillm.experiment import base as bases  # it imports what reads the data, which comes here

    params = flatten(exchange.open_model(bases.begins_with(experiment, root)).params)
    ids = _single_ids(pieces, texts)
    if "embedding/table" not in params or len(ids) < 2:
        raise UserError("the base has no embeddings of whole words", "augment.thesaurus", "use 'cilin' or a file")
    return augment.neighbours(list(ids), params["embedding/table"][list(ids.values())])


def _single_ids(pieces: Any, texts: Sequence[str]) -> dict[str, int]:
    """Units of the texts that are one known token each, inside of a text or at a word's beginning, in order."""
    found: dict[str, int] = {}
    for unit in dict.fromkeys(unit for text in texts for unit in augment.parted(text)[0]):
        for ids in (pieces.encode(f" {unit}"), pieces.encode(unit)):
            if len(ids) == 1 and ids[0] != pieces.unk:
                found.setdefault(unit, ids[0])
    return found


def files_read(experiment: Experiment) -> dict[str, list[str]]:
    """{"augment": hashes of the files that rewordings come from}, or nothing: they are data of the run."""
    section = experiment.augment
    if section is None or section.idle:
        return {}
    used = (section.synonyms and section.thesaurus, section.paraphrase and section.paraphrases)
    paths = [Path(name) for name in used if name and name not in ("cilin", "base")]
    return {"augment": [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]} if paths else {}


def make_rewording(experiment: Experiment, root: Path, pieces: Any, texts: Sequence[str]) -> augment.Rewording:
    """The section's rates, with the thesaurus and the paraphrases that they need. Raises: UserError."""
    section = experiment.augment
    thesaurus = read_thesaurus(section.thesaurus, experiment, root, pieces, texts) if section.synonyms else {}
    paraphrases = augment.read_paraphrases(Path(section.paraphrases)) if section.paraphrase else {}
    return augment.Rewording(section.swap, section.delete, section.synonyms, section.paraphrase, thesaurus, paraphrases)


def augmented_reading(
    experiment: Experiment, root: Path, pieces: Any, documents: Sequence[Document], plain: Reading
) -> Reading:
    """The reading of `documents`, whose rows are reworded in training as [augment] says; `plain` where it says nothing.

    A row's rewording depends on seed, step and its place in the batch.
    """
    if experiment.augment is None or experiment.augment.idle:
        return plain
    train, share = experiment.train, experiment.augment.share
    rewording = make_rewording(experiment, root, pieces, [document.text for document in documents])

    def batch(step: int, wanted: slice = rows.ALL) -> dict:
        before = plain.batch(step) if wanted == rows.ALL else plain.rows(step, wanted)
        numbers, places = rows.row_numbers(len(documents), train.seed, step, train.batch_size, wanted)
        made = []
        for number, place in zip(numbers, places, strict=True):
            generator = augment.noise(train.seed, step, int(place))
            changed = generator.random() < share
            made.append(reworded(documents[number], rewording, generator) if changed else documents[number])
        dataset = supervised.make_rows(experiment, pieces, made)
        return before | next(rows.row_evaluation_batches(dataset, len(made))) | {"index": places}

    return plain._replace(batch=batch, rows=batch if plain.rows else None)


def reworded(document: Document, rewording: augment.Rewording, generator: np.random.Generator) -> Document:
    """The document with its text, and the second one of a pair, reworded."""
    pair = None if document.pair is None else augment.reword(document.pair, rewording, generator)
    return document._replace(text=augment.reword(document.text, rewording, generator), pair=pair)
