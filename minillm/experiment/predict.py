"""`minillm predict`: what a run that learned from labels says of new texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minillm.data import rows
from minillm.data.clean import normalise
from minillm.data.document import Document
from minillm.errors import UserError
from minillm.evaluation.entities import find_entities
from minillm.experiment import adapters, judging, supervised
from minillm.experiment.reopen import Opened, open_run
from minillm.experiment.results import refuse_surrogates
from minillm.sections import IMAGES, LABELLED

ROWS = 64  # texts per pass at most


def predict(
    root: Path, texts: Sequence[str], pairs: Sequence[str] | None = None, adapter: Path | None = None
) -> list[dict[str, Any]]:
    """A row per text: its label with probabilities, its labels, its number, or its entities.

    `adapter`: a saved one in place of the run's own (see `experiment/adapters.py`).
    Raises: UserError where the run has not learned from labelled texts, or where there is nothing to read.
    """
    opened, trainable, frozen = adapters.weights(open_run(root), adapter)
    experiment = opened.experiment
    if experiment.objective.name not in LABELLED or experiment.data.source in IMAGES:
        message = f"a run of the objective {experiment.objective.name!r} on {experiment.data.source} labels no texts"
        raise UserError(message, str(root), "name a run of classify, multi_label, regression or tag")
    documents = as_documents(opened, texts, pairs)
    answers = answer(opened, trainable, frozen, documents)
    return [describe(opened, document, found) for document, found in zip(documents, answers, strict=True)]


def as_documents(opened: Opened, texts: Sequence[str], pairs: Sequence[str] | None) -> list[Document]:
    """Texts as the run's data would have them. Raises: UserError for an empty text or a list without any."""
    refuse_surrogates([*texts, *(pairs or ())])
    if not texts:
        raise UserError("there is no text", "--text, --file", "give at least one")
    if pairs is not None and len(pairs) != len(texts):
        raise UserError(f"{len(pairs)} second texts for {len(texts)} first ones", "--pair", "give one for each")
    form = opened.experiment.data.normalization
    found = []
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise UserError("the text is empty", f"text {number}", "write something")
        text, second = normalise(text, form), None if pairs is None else normalise(pairs[number - 1], form)
        units = None
        if opened.experiment.objective.name == "tag":
            units = tuple(text if opened.experiment.tokenizer.kind == "char" else text.split())
        found.append(Document(f"text {number}", text, None, second, units))
    return found


def answer(opened: Opened, trainable, frozen, documents: Sequence[Document]) -> Any:
    """What the head says, as `judging.judge` reads it."""
    data = supervised.make_rows(opened.experiment, opened.tokenizer, documents)
    shards = opened.experiment.mesh.data
    batches = list(rows.row_evaluation_batches(data, -(-min(len(documents), ROWS) // shards) * shards))
    return judging.model_answers(opened.setup, opened.experiment, (trainable, frozen), batches, documents)


def describe(opened: Opened, document: Document, found: Any) -> dict[str, Any]:
    """One answer as plain data."""
    row, name = {"text": document.text}, opened.experiment.objective.name
    row |= {} if document.pair is None else {"pair": document.pair}
    if name == "regression":
        return row | {"value": float(found)}
    if name == "tag":
        return row | {
            "entities": entities_in(document.units, found, "" if opened.experiment.tokenizer.kind == "char" else " ")
        }
    classes = opened.experiment.data.labels
    said = {kind: round(float(p), 6) for kind, p in zip(classes, found, strict=True)}
    if name == "multi_label":
        return row | {"labels": [kind for kind in classes if said[kind] >= 0.5], "probabilities": said}
    return row | {"label": classes[int(np.argmax(found))], "probabilities": said}


def entities_in(units: Sequence[str], tags: Sequence[str], glue: str) -> list[dict[str, Any]]:
    """Tags of units -> entities with their kind, text and place [first, after the last) in units."""
    found = find_entities(tags)
    return [{"kind": kind, "text": glue.join(units[first : last + 1]), "start": first, "end": last + 1}
            for kind, first, last in found]  # fmt: skip
