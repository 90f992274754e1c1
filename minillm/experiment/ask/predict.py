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
from minillm.experiment import folder as folders
from minillm.experiment.ask import translate
from minillm.experiment.ask.reopen import Opened, as_task, open_run
from minillm.experiment.recipes.tasks import MAIN, active
from minillm.experiment.results import refuse_surrogates
from minillm.sections.data import has_answers
from minillm.sections.experiment import IMAGES, LABELLED

ROWS = 64  # of them per pass at most


def predict(
    root: Path,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    adapter: Path | None = None,
    task: str | None = None,
) -> list[dict[str, Any]]:
    """A row per text: its label with probabilities, its labels, its number, its entities, the answer to it that its pair
    has, or what is written for it; and whether it was cut.

    `adapter`: a saved one in place of the run's own (see `experiment/adapters.py`). `task`: whose head answers, of a run
    with [tasks]; None: its own.
    Raises: UserError where the run has not learned from labelled texts, or where there is nothing to read.
    """
    if task is not None and adapter is not None:
        raise UserError("a saved adapter answers for one task", "--task", "leave out --task or --adapter")
    whole, trainable, frozen = adapters.weights(open_run(root), adapter)
    opened = as_task(whole, task)
    experiment = opened.experiment
    if experiment.objective.name == "sequence_to_sequence" and pairs is None:
        return translate.describe(opened, trainable, frozen, texts)
    if experiment.objective.name not in LABELLED or experiment.data.source in IMAGES:
        message = f"a run of the objective {experiment.objective.name!r} on {experiment.data.source} labels no texts"
        mend = "name a run of classify, multi_label, regression, tag, span_qa or sequence_to_sequence"
        if task is not None:
            message, mend = (
                message.replace("a run", "a task", 1),
                f"name another of {', '.join([MAIN, *active(whole.experiment)])}",
            )
        raise UserError(message, f"--task {task}" if task else str(root), mend)
    documents = as_documents(opened, texts, pairs)
    data = supervised.make_rows(experiment, opened.tokenizer, documents)
    answers = answer(opened, trainable, frozen, documents, data)
    cut = [False] * len(documents) if experiment.objective.name == "tag" else data.cut  # tagged texts lose nothing
    if experiment.objective.name == "span_qa":  # nor do passages, but a question may
        cut = np.isin(np.arange(len(documents)), data.documents[data.cut])
    found = zip(documents, answers, cut, strict=True)
    return [describe(opened, document, said) | {"cut": bool(cut)} for document, said, cut in found]


def hand_over(rows: list[dict[str, Any]], sure: float) -> list[dict[str, Any]]:
    """The rows of a classifier without their labels where these have less probability than `sure`. Raises: UserError."""
    if sure > 0.0 and any("label" not in row for row in rows):
        raise UserError("this run gives no single class with a probability", "--sure", "leave it out")
    unsure = lambda row: sure > 0.0 and row["probabilities"][row["label"]] < sure
    return [row | {"label": None} if unsure(row) else row for row in rows]


def as_documents(opened: Opened, texts: Sequence[str], pairs: Sequence[str] | None) -> list[Document]:
    """Texts as the run's data would have them. Raises: UserError for an empty text or a list without any."""
    refuse_surrogates([*texts, *(pairs or ())])
    if not texts:
        raise UserError("there is no text", "--text, --file", "give at least one")
    section = opened.experiment.data
    learned_pairs = section.pair_key is not None or has_answers(section)
    if learned_pairs != (pairs is not None):
        what, mend = ("pairs", "give one for each text") if learned_pairs else ("single texts", "leave it out")
        raise UserError(f"the run learned from {what}", "--pair", mend)
    if pairs is not None and len(pairs) != len(texts):
        raise UserError(f"{len(pairs)} second texts for {len(texts)} first ones", "--pair", "give one for each")
    form = opened.experiment.data.normalization
    found = []
    for number, text in enumerate(texts, start=1):
        second = None if pairs is None else pairs[number - 1]
        for words, given in (("text", text), ("second text", second)):
            if given is not None and not given.strip():
                raise UserError(f"the {words} is empty", f"text {number}", "write something")
        text, second = normalise(text, form), None if second is None else normalise(second, form)
        units = None
        if opened.experiment.objective.name == "tag":
            units = tuple(text.split() if reads_words(opened) else text)
        found.append(Document(f"text {number}", text, None, second, units))
    return found


def reads_words(opened: Opened) -> bool:
    """Whether the run learned from tagged words, not characters."""
    about = folders.read_json(opened.folder.cleaning)
    return about.get("tasks", {}).get(opened.task, about).get("units") == "words"


def answer(opened: Opened, trainable, frozen, documents: Sequence[Document], data: rows.RowDataset) -> Any:
    """What the head says of documents, whose rows are `data`, as `judging.judge` reads it."""
    shards = opened.experiment.mesh.data
    batches = list(rows.row_evaluation_batches(data, -(-min(len(data.tokens), ROWS) // shards) * shards))
    return judging.model_answers(opened.setup, opened.experiment, (trainable, frozen), batches, documents)


def describe(opened: Opened, document: Document, found: Any) -> dict[str, Any]:
    """One answer as plain data."""
    row, name = {"text": document.text}, opened.experiment.objective.name
    row |= {} if document.pair is None else {"pair": document.pair}
    if name == "regression":
        return row | {"value": float(found)}
    if name == "tag":
        return row | {"entities": entities_in(document.units, found, " " if reads_words(opened) else "")}
    if name == "span_qa":
        end = found.start + len(found.text)
        return row | {
            "answer": found.text, "start": found.start, "end": end, "probability": round(found.probability, 6)
        }  # fmt: skip
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
