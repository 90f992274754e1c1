"""Documents of ids -> batches: one way of reading per objective, each a pure function of (seed, step).

Masked and span objectives need ids that no text has: they stand behind the tokenizer's own, a mask token or sentinels.
A BERT row is framed by <s> as class token and </s> as separator.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minillm.config import Experiment
from minillm.data import batches, continued, masking, pairs, rows, spans, synthetic
from minillm.data.tokenizer import BOS, EOS, PAD, UNK
from minillm.errors import UserError
from minillm.experiment.textless import EVALUATION as EVALUATION
from minillm.experiment.textless import Reading as Reading
from minillm.experiment.textless import image_reading, synthetic_reading
from minillm.sections.data import is_paired
from minillm.sections.experiment import IMAGES, LABELLED, LEFT_TO_RIGHT, SYNTHETIC

LEAST = {"masked": 3, "simcse": 3, "masked_next_sentence": 5, "structural": 5, "span": 2, "sequence_to_sequence": 2,
         **dict.fromkeys(LABELLED, 4), "span_qa": 8}  # tokens  # fmt: skip


class Text(NamedTuple):
    """A split of the text as ids."""

    documents: Sequence[np.ndarray]  # each bos ... eos
    sentences: Sequence[Sequence[np.ndarray]]  # each document's, without bos and eos; empty where no objective asks


def extra_ids(experiment: Experiment) -> int:
    """How many ids the objective puts behind the tokenizer's: one mask token, or as many sentinels as a row has spans.

    Who learns from labels and reads both ways keeps the mask token, so that the table is that of the pretraining before.
    """
    name = experiment.objective.name
    if name == "span":
        return span_settings(experiment, 10**9).sentinels
    learns = name in LABELLED and experiment.model.get("kind", "gpt") not in LEFT_TO_RIGHT
    return 1 if learns or name in ("masked", "masked_next_sentence", "structural", "simcse") else 0


def example_length(experiment: Experiment) -> int:
    """Tokens of text per example."""
    section = experiment.data
    if section.source in IMAGES:
        return 1
    if section.source in SYNTHETIC:
        whole = experiment.objective.name == "causal"
        return synthetic.example_length(section.copy_length) if whole else section.copy_length + 1
    return section.length or experiment.model.get("context", 256)


def row_lengths(experiment: Experiment) -> tuple[int, int]:
    """(tokens of text per example, the longest row that the model reads). Raises: UserError where nothing is left."""
    length, name = example_length(experiment), experiment.objective.name
    least = 1 if experiment.data.source in IMAGES else LEAST.get(name, 1)
    if length < least:
        message = f"{name} needs examples of at least {least} tokens, got {length}"
        raise UserError(message, "data.length", "make data.length or model.context larger")
    if name == "span":
        return length, max(spans.span_lengths(length, span_settings(experiment, 10**9)))
    return (length, max(pair_lengths(experiment))) if is_paired(experiment.data) else (length, length)


def pair_lengths(experiment: Experiment) -> tuple[int, int]:
    """Tokens of a source and of a target, each with its end."""
    length = example_length(experiment)
    return length, experiment.data.target_length or length


class Ids(NamedTuple):
    """The ids of a text: how many, the special ones, and which begin a word (needed for whole words only)."""

    vocabulary: int  # `extra_ids` included
    pad: int
    unk: int | None
    bos: int  # BERT's class token
    eos: int  # and its separator
    mask: int
    starts: np.ndarray | None = None  # [vocabulary] bool


def text_ids(experiment: Experiment, vocabulary: int, pieces: Any = None) -> Ids:
    """The ids of a tokenizer, ours (None: of any) or an imported one, which may have a mask token of its own."""
    if pieces is None:
        return Ids(vocabulary, PAD, UNK, BOS, EOS, vocabulary - 1, np.ones(vocabulary, bool))
    own, starts = getattr(pieces, "mask", None), None
    if experiment.objective.whole_words:
        if not hasattr(pieces, "word_starts"):
            raise UserError(
                "an imported tokenizer does not say where words begin", "objective.whole_words", "set it to false"
            )
        starts = np.zeros(vocabulary, bool)
        starts[: pieces.vocabulary] = pieces.word_starts()
    mask = vocabulary - 1 if own is None else own
    return Ids(vocabulary, pieces.pad, pieces.unk, pieces.bos, pieces.eos, mask, starts)


def make_reading(experiment: Experiment, texts: dict[str, Text], ids: Ids) -> Reading:
    """The batches of a source of text."""
    name = experiment.objective.name
    if name == "causal":
        return _continued(experiment, texts) if experiment.data.packing == "continued" else _causal(experiment, texts)
    if name == "span":
        return _spans(experiment, texts, span_settings(experiment, ids.vocabulary))
    if name == "simcse":
        return _single_texts(experiment, texts, rows.Frame(ids.bos, ids.eos, ids.pad))
    corrupt = functools.partial(_corrupt, experiment, ids)
    return (_masked if name == "masked" else _pairs)(experiment, texts, ids, corrupt)


def masking_settings(experiment: Experiment, ids: Ids) -> masking.Masking:
    """What is masked, by which id."""
    special = tuple(id for id in (ids.pad, ids.unk, ids.bos, ids.eos, ids.mask) if id is not None)
    return masking.Masking(ids.vocabulary, ids.mask, special, experiment.objective.mask_rate)


def span_settings(experiment: Experiment, vocabulary: int) -> spans.Spans:
    """Sentinels are the last ids, counted down from the end."""
    section = experiment.objective
    settings = {"end": EOS, "begin": PAD, "density": section.span_density, "mean_length": section.span_length}
    count = spans.span_counts(example_length(experiment), spans.Spans(10**9, sentinels=1, **settings))[1]
    return spans.Spans(vocabulary - 1, sentinels=max(count, 1), **settings)


def _causal(experiment: Experiment, texts: dict[str, Text]) -> Reading:
    train, length = experiment.train, example_length(experiment)
    dataset = batches.make_dataset(texts["train"].documents, length, experiment.data.packing)

    def evaluation(split: str) -> list[dict]:
        documents = texts[split].documents
        return list(batches.evaluation_batches(documents, length, train.batch_size, max(length // 2, 1)))

    batch = functools.partial(batches.batch_at, dataset, train.seed, batch_size=train.batch_size)
    return Reading(batch, evaluation, lambda step, rows: batch(step, rows=rows))


def _continued(experiment: Experiment, texts: dict[str, Text]) -> Reading:
    train, length = experiment.train, example_length(experiment)
    ring = continued.make_ring(texts["train"].documents, length, train.seed)
    evaluation = lambda split: continued.continued_evaluation(texts[split].documents, length, train.batch_size)
    batch = functools.partial(continued.continued_batch_at, ring, batch_size=train.batch_size)
    return Reading(batch, evaluation, lambda step, rows: batch(step, rows=rows))


def _spans(experiment: Experiment, texts: dict[str, Text], settings: spans.Spans) -> Reading:
    train, length = experiment.train, example_length(experiment)
    dataset = batches.make_dataset(_without_bos(texts["train"]), length)

    def batch(step: int, rows: slice = batches.ALL) -> dict:
        windows = batches.batch_at(dataset, train.seed, step, train.batch_size, rows)
        return spans.corrupt_spans(windows, train.seed, step, settings, masking.Part(train.batch_size, rows))

    def evaluation(split: str) -> list[dict]:
        found = []
        for step, whole in enumerate(batches.whole_windows(_without_bos(texts[split]), length, train.batch_size)):
            made = spans.corrupt_spans(whole, EVALUATION, step, settings)
            found.append(made | {name: _only_real(made[name], whole["lengths"]) for name in ("weights", "removed")})
        return found

    return Reading(batch, evaluation, batch)


def _single_texts(experiment: Experiment, texts: dict[str, Text], frame: rows.Frame) -> Reading:
    """A row per document, for objectives that compare texts."""
    train, length = experiment.train, example_length(experiment)

    @functools.cache
    def made(split: str) -> rows.RowDataset:
        ids = [document[1:-1] for document in texts[split].documents]
        return rows.text_rows(ids, None, np.zeros(len(ids), np.int32), length, frame)

    def batch(step: int, some: slice = batches.ALL) -> dict:
        return rows.row_batch_at(made("train"), train.seed, step, train.batch_size, some)

    evaluation = lambda split: list(rows.row_evaluation_batches(made(split), train.batch_size))
    return Reading(batch, evaluation, batch, len(texts["train"].documents))


def _masked(experiment: Experiment, texts: dict[str, Text], ids: Ids, corrupt: Callable) -> Reading:
    """Rows as in RoBERTa's FULL-SENTENCES (Liu et al. 2019, section 4.2): text that may go on into the next document."""
    train, room = experiment.train, example_length(experiment) - 2
    dataset = batches.make_dataset(_without_bos(texts["train"]), room)

    def batch(step: int, rows: slice = batches.ALL) -> dict:
        framed = _framed(batches.batch_at(dataset, train.seed, step, train.batch_size, rows), ids)
        return corrupt(framed, train.seed, step, masking.Part(train.batch_size, rows))

    def evaluation(split: str) -> list[dict]:
        windows = batches.whole_windows(_without_bos(texts[split]), room, train.batch_size)
        return [corrupt(_framed(whole, ids), EVALUATION, step) for step, whole in enumerate(windows)]

    return Reading(batch, evaluation, batch)


def _pairs(experiment: Experiment, texts: dict[str, Text], ids: Ids, corrupt: Callable) -> Reading:
    train, section = experiment.train, experiment.objective
    kind = "structural" if section.name == "structural" else section.pairs

    length = example_length(experiment)

    @functools.cache
    def made(split: str) -> pairs.PairDataset:
        where = f"the {split} part of the text"
        return pairs.make_pair_dataset(texts[split].sentences, length, kind, ids.bos, ids.eos, where)

    for split in ("train", "validation"):  # what cannot be read is said before training
        made(split) if split in texts else None

    def batch(step: int, rows: slice = batches.ALL) -> dict:
        framed = pairs.pair_batch_at(made("train"), train.seed, step, train.batch_size, rows)
        return corrupt(framed, train.seed, step, masking.Part(train.batch_size, rows))

    def evaluation(split: str) -> list[dict]:
        count, found = len(made(split).firsts), []
        for step in range(-(-count // train.batch_size)):
            batch = corrupt(pairs.pair_batch_at(made(split), EVALUATION, step, train.batch_size), EVALUATION, step)
            new = np.arange(train.batch_size) < count - step * train.batch_size  # the others are the next epoch's
            weights = {name: leaf for name, leaf in batch.items() if name.endswith("weights")}
            found.append(batch | {name: _only_real(leaf, new) for name, leaf in weights.items()})
        return found

    # how many trigrams the rows before shuffle, and so how often they draw, is known from their texts alone
    return Reading(batch, evaluation, None if kind == "structural" else batch, len(made("train").firsts))


def _corrupt(
    experiment: Experiment, ids: Ids, batch: dict, seed: int, step: int, part: masking.Part | None = None
) -> dict:
    """Masks, shuffles for the structural objective, and keeps the few places that predict."""
    section, length, settings = experiment.objective, batch["tokens"].shape[1], masking_settings(experiment, ids)
    words = ids.starts[batch["tokens"]] if section.whole_words else None
    most = int(masking.budget(length, settings.rate))
    batch = masking.mask_tokens(batch, seed, step, settings, words, part)
    if section.name == "structural":
        batch = masking.shuffle_trigrams(batch, seed, step, settings.special, section.shuffle_rate)
        most += 3 * int(masking.budget(length, section.shuffle_rate))
    return masking.gather_targets(batch, min(most, length))


def _framed(batch: dict, ids: Ids) -> dict:
    """tokens [batch, room], and lengths [batch] where rows are padded -> [class] text [separator], and its mask.

    A row without text keeps its frame, so that no query is left without a key.
    """
    rows, room = batch["tokens"].shape
    lengths = batch.get("lengths", np.full(rows, room))
    tokens = np.full((rows, room + 2), ids.pad, np.int32)
    tokens[:, 0], tokens[:, 1:-1] = ids.bos, batch["tokens"]
    tokens[np.arange(rows), lengths + 1] = ids.eos
    mask = np.arange(room + 2) < lengths[:, None] + 2
    return {"tokens": np.where(mask, tokens, ids.pad).astype(np.int32), "mask": mask, "index": batch["index"]}


def _without_bos(text: Text) -> list[np.ndarray]:
    return [document[1:] for document in text.documents]


def _only_real(weights: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Weights [batch, ...] without those of rows whose length is 0."""
    return weights * (lengths > 0).astype(weights.dtype).reshape(-1, *(1,) * (weights.ndim - 1))


def made_up(experiment: Experiment, vocabulary: int) -> dict[str, Any]:
    """A batch of the right shapes, from a text that says nothing: for `describe`, which reads none. Images are read."""
    if experiment.data.source in IMAGES:
        return image_reading(experiment).batch(0)
    if experiment.data.source in SYNTHETIC:
        return synthetic_reading(experiment).batch(0)
    length = example_length(experiment)
    ids = np.full(4 * length + 2, UNK, np.int32)
    text = Text([np.concatenate([[BOS], ids, [EOS]])] * 2, [[ids, ids]] * 2)
    return make_reading(experiment, {"train": text}, text_ids(experiment, vocabulary)).batch(0)
