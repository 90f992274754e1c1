"""Labelled documents -> rows and batches, and what a trained head says of them.

How a document's label becomes numbers depends on the objective: a class's place in data.labels, a 0 or 1 per class, the
number itself, or a tag per unit (O, then B- and I- of each entity type). Questions have rows of their own (`answering.py`).
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from minillm.config import Experiment
from minillm.data import rows
from minillm.data.document import Document
from minillm.data.tokenizer import BOS, EOS, PAD, UNK
from minillm.data.windows import Passage, question_rows
from minillm.errors import UserError
from minillm.experiment import answering
from minillm.experiment.examples import Reading, example_length
from minillm.experiment.recipes import domains, few, patterns
from minillm.experiment.setup import Setup
from minillm.nn.pooling import mean_of
from minillm.objectives.pattern import word_scores
from minillm.objectives.supervised import head_scores
from minillm.sections.experiment import LEFT_TO_RIGHT, NEEDS

MARKS = frozenset("。！？；，、：.!?;,:")  # where a long text is parted
Documents = Sequence[Document]


def tag_names(types: Sequence[str]) -> list[str]:
    """Entity types -> tags: O, B-PER, I-PER, ... (Ramshaw and Marcus 1995)."""
    return ["O", *(f"{place}-{kind}" for kind in types for place in "BI")]


def label_array(experiment: Experiment, documents: Documents) -> np.ndarray:
    """[rows] int32 classes, [rows, classes] float32 zeros and ones, or [rows] float32 numbers."""
    name, classes = experiment.objective.name, list(experiment.data.labels)
    if name == "regression":
        return np.array([document.label for document in documents], np.float32)
    if name == "multi_label":
        return np.array([[kind in document.label for kind in classes] for document in documents], np.float32)
    return np.array([classes.index(document.label) for document in documents], np.int32)


def make_rows(experiment: Experiment, pieces: Any, documents: Documents, length: int | None = None) -> rows.RowDataset:
    """Documents -> rows of ids with labels; documents without a label get class 0, for prediction.

    A row per document, or several for a long one with tags or with a long passage.
    """
    frame, length = rows.Frame(pieces.bos, pieces.eos, pieces.pad), length or example_length(experiment)
    if experiment.objective.name == "span_qa":
        return answering.make_rows(pieces, documents, length, frame)
    if experiment.objective.name == "tag":
        return _tagged_rows(experiment, pieces, documents, length, frame)
    texts = pieces.encode_many([document.text for document in documents])
    known = all(document.label is not None for document in documents)
    labels = label_array(experiment, documents) if known else np.zeros(_shape(experiment, len(documents)), np.int32)
    if experiment.objective.name == "pattern":
        return patterns.pattern_rows(experiment, patterns.make_pattern(experiment, pieces), texts, labels, length)
    pairs = None
    if any(document.pair is not None for document in documents):
        pairs = pieces.encode_many([document.pair or "" for document in documents])
    made = rows.text_rows(texts, pairs, labels, length, frame)
    if experiment.objective.markers:
        made = _marked(experiment.objective.markers, pieces, documents, made)
    return rows.to_the_right(made) if experiment.model.get("kind", "gpt") in LEFT_TO_RIGHT else made


def _marked(markers: Sequence[str], pieces: Any, documents: Documents, made: rows.RowDataset) -> rows.RowDataset:
    """The rows with the token at which each marker first begins. Raises: UserError where a text has not all of them."""
    places = np.zeros((len(documents), len(markers)), np.int32)
    kept = (made.mask & (made.token_types == 0)).sum(1) - 2  # tokens of the text, without its frame
    words = [re.compile(rf"(?<![0-9A-Za-z_]){re.escape(marker)}(?![0-9A-Za-z_])") for marker in markers]
    for row, document in enumerate(documents):
        _, spans = pieces.encode_places(document.text)
        for number, (marker, word) in enumerate(zip(markers, words, strict=True)):
            first = found.start() if (found := word.search(document.text)) else -1
            token = next((place for place, (_, after) in enumerate(spans) if after > first >= 0), kept[row])
            if token >= kept[row]:
                message = f"no {marker!r} in the text, or not among its first {kept[row]} tokens"
                raise UserError(
                    message, document.name, "mark every text with all of objective.markers, or raise data.length"
                )
            places[row, number] = 1 + token
    return made._replace(target_positions=places)


def _tagged_rows(experiment: Experiment, pieces: Any, documents: Documents, length: int, frame: rows.Frame):
    """Long documents go on in another row; a unit that alone is longer keeps its first tokens.

    A unit without a piece of its own (a control character, say) takes its place too.
    """
    names, room = {name: number for number, name in enumerate(tag_names(experiment.data.labels))}, length - 2
    units, tags = [], []
    for document in documents:
        ids = [(found or [pieces.unk])[:room] for found in pieces.encode_many(document.units)]
        numbers = [names[tag] for tag in document.label or ["O"] * len(ids)]
        for first, after in rows.part([*map(len, ids)], [unit in MARKS for unit in document.units], room):
            units.append(ids[first:after])
            tags.append(numbers[first:after])
    return rows.unit_rows(units, tags, length, frame)


def text_batches(experiment: Experiment, pieces: Any, documents: Documents) -> list[dict]:
    """Documents as batches of rows, in order, whatever the objective."""
    frame, length = rows.Frame(pieces.bos, pieces.eos, pieces.pad), example_length(experiment)
    texts = pieces.encode_many([document.text for document in documents])
    dataset = rows.text_rows(texts, None, np.zeros(len(texts), np.int32), length, frame)
    return list(rows.row_evaluation_batches(dataset, experiment.train.batch_size))


def frame_ids(pieces: Any) -> tuple[int, ...]:
    """The ids that hold rows together."""
    return pieces.bos, pieces.eos, pieces.pad


def labelled_reading(
    experiment: Experiment, parts: Mapping[str, rows.RowDataset], special: Sequence[int] = (BOS, EOS, PAD)
) -> Reading:
    """The batches of labelled rows, by split; where there are "pseudo" or "unlabelled" rows, those stand beside them."""
    train = experiment.train

    batch = functools.partial(rows.row_batch_at, parts["train"], train.seed, batch_size=train.batch_size)

    def evaluation(split: str) -> list[dict]:
        return list(rows.row_evaluation_batches(parts[split], train.batch_size))

    if not {"pseudo", "unlabelled"} & set(parts):
        return Reading(batch, evaluation, lambda step, rows: batch(step, rows=rows))
    beside = few.rows_beside(experiment, parts, special)
    whole = lambda step: batch(step) | beside(step)
    return Reading(whole, evaluation, lambda step, some: few.cut_rows(whole(step), some, train.batch_size))


def made_up_rows(experiment: Experiment) -> dict:
    """A batch of the right shapes that says nothing."""
    length, count = example_length(experiment), experiment.train.batch_size
    frame, ids = rows.Frame(BOS, EOS, PAD), [UNK] * (length - 2)
    if experiment.objective.name == "tag":
        dataset = rows.unit_rows([[[UNK]] * (length - 2)] * count, [[0] * (length - 2)] * count, length, frame)
    elif experiment.objective.name == "span_qa":
        dataset = question_rows([ids[: length // 4]] * count, [Passage([UNK], [(0, 1)])] * count, length, frame)
    elif experiment.objective.name == "pattern":
        pattern, labels = patterns.made_up_pattern(experiment), np.zeros(count, np.int32)
        dataset = patterns.pattern_rows(experiment, pattern, [ids] * count, labels, length)
    else:
        kind = np.int32 if experiment.objective.name == "classify" else np.float32
        dataset = rows.text_rows([ids] * count, None, np.zeros(_shape(experiment, count), kind), length, frame)
        dataset = rows.to_the_right(dataset) if experiment.model.get("kind", "gpt") in LEFT_TO_RIGHT else dataset
        if marks := len(experiment.objective.markers):
            dataset = dataset._replace(target_positions=np.ones((count, marks), np.int32))
    dataset = domains.marked(experiment, dataset)
    more = {"unlabelled": dataset} if few.reads_unlabelled(experiment) else {}
    if few.learns_pseudo(experiment):
        shape = (count, len(experiment.data.labels))
        more["pseudo"] = dataset._replace(labels=np.zeros(shape, np.float32)) if experiment.pseudo.soft else dataset
    return labelled_reading(experiment, {"train": dataset} | more).batch(0)


def _shape(experiment: Experiment, count: int) -> tuple[int, ...]:
    return (count, len(experiment.data.labels)) if experiment.objective.name == "multi_label" else (count,)


def scorer(setup: Setup, experiment: Experiment) -> Callable[[Any, Any, list[dict]], np.ndarray]:
    """(trainable, frozen, batches) -> the head's scores of every row with weight, in order, as float64.

    [rows, labels], [rows, length, labels] for tags, or [rows, length, 2] for answers. Compiled once.
    """
    if experiment.objective.name == "pattern":
        return reader(setup, word_scores)
    head = NEEDS[experiment.objective.name].tasks[0]
    return reader(setup, lambda model, params, batch: head_scores(model, params, batch, None, head))


def extractor(setup: Setup, pooling: str = "mean") -> Callable[[Any, Any, list[dict]], np.ndarray]:
    """The same for features: [rows, model], the mean of the hidden states of each row's own tokens, or its first one."""

    def pooled(model, params, batch):
        hidden = model.apply(params, batch).hidden
        return hidden[:, 0].astype(jnp.float32) if pooling == "first" else mean_of(hidden, batch["mask"])

    return reader(setup, pooled)


def reader(setup: Setup, read: Callable) -> Callable[[Any, Any, list[dict]], np.ndarray]:
    """`read(model, params, batch)` over batches, without the rows that only fill the last one."""
    model = setup.tuning.wrap(setup.model)
    compiled = jax.jit(lambda trainable, frozen, batch: read(model, setup.tuning.attach(trainable, frozen), batch))

    def run(trainable, frozen, batches: list[dict]) -> np.ndarray:
        found = []
        for batch in batches:
            real = batch["weights"].reshape(len(batch["weights"]), -1).any(1)
            said = compiled(trainable, frozen, jax.device_put(batch, setup.shardings[2]))
            found.append(np.asarray(said, np.float64)[real])
        return np.concatenate(found)

    return run


def probabilities(experiment: Experiment, scores: np.ndarray) -> np.ndarray:
    """Scores -> softmax over classes, a sigmoid per class for several labels, or the numbers themselves."""
    name = experiment.objective.name
    if name == "regression":
        return scores
    if name == "multi_label":
        return 1.0 / (1.0 + np.exp(-scores))
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def refuse_unlabelled(documents: Documents) -> None:
    """Raises: UserError where a document has no label."""
    for document in documents:
        if document.label is None:
            raise UserError(f"{document.name} has no label", "data", "use a labelled source, or set data.label_key")
