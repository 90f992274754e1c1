"""Pairs of texts from the source to the batches of sequence_to_sequence: read, cleaned, split, cut into rows."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minillm.config import Experiment
from minillm.data import corpora, labels, targets
from minillm.data.batches import ALL
from minillm.data.clean import Splits
from minillm.data.clean_pairs import clean_pairs, source_key, split_pairs
from minillm.data.document import Document
from minillm.data.placeholders import SIGNS, hide
from minillm.data.rows import Frame
from minillm.data.tokenizer import BOS, EOS, PAD, UNK
from minillm.errors import UserError
from minillm.experiment.examples import Reading, pair_lengths
from minillm.experiment.labelled import take, without_leaks
from minillm.sections.pairs import PairsConfig

USUAL = PairsConfig()
CAPITAL = re.compile(r"\b[A-ZÀ-ÖØ-Þ](?=[a-zà-öø-ÿ]+\b)")  # of a word that has one, at its beginning


def pairs_of(experiment: Experiment) -> PairsConfig:
    """The [pairs] section, or its defaults."""
    return experiment.pairs or USUAL


def split_paired_documents(experiment: Experiment) -> tuple[Splits, dict]:
    """The cleaned pairs by use, and the report of what went. Raises: UserError.

    A part with a file of its own is that file; the others are shares of `path`.
    """
    section, own = experiment.data, pairs_of(experiment)
    paths = {"train": section.path, "validation": section.validation_path, "test": section.test_path}
    paths = {name: path for name, path in paths.items() if name == "train" or path is not None}
    fields = corpora.Fields(section.text_key, target=section.target_key)
    parts, reports = {}, {}
    for name, path in paths.items():
        found = corpora.read_fields(section.source, path, fields)
        if name == "train" and section.limit is not None:
            found = take(found, section.limit, section.split_seed)
        parts[name], report = clean_pairs(
            found, section.normalization, drop_duplicates=section.drop_duplicates,
            placeholders=own.placeholders, longest=own.longest,
        )  # fmt: skip
        reports[name] = report.to_dict()
    wheres = {name: labels.place(section.source, path) for name, path in paths.items()}
    parts, leaks = without_leaks(parts, wheres, section.drop_leaks, source_key)
    shares = {name: 0.0 if name in parts else getattr(section, name) for name in ("validation", "test")}
    splits = split_pairs(parts["train"], **shares, seed=section.split_seed)
    splits = splits._replace(**{name: part for name, part in parts.items() if name != "train"})
    held_out = {f"{name}_path": report for name, report in reports.items() if name != "train"}
    return splits, reports["train"] | held_out | {"leaks": leaks}


def sides(experiment: Experiment, documents: Sequence[Document]) -> list[tuple[str, str]]:
    """(source, target) of each pair as the model gets them: with signs for placeholders where the run has them."""
    hiding, found = pairs_of(experiment).placeholders, []
    for document in documents:
        names = hide(document.text)[1] if hiding else []
        found.append((as_read(experiment, document.text), hide(document.target, names)[0]))
    return found


def as_read(experiment: Experiment, text: str) -> str:
    """A source as the model gets it."""
    section = pairs_of(experiment)
    text = hide(text)[0] if section.placeholders else text
    return CAPITAL.sub(lambda word: word[0].lower(), text) if section.capitals == "fold" else text


def own_symbols(experiment: Experiment) -> tuple[str, ...]:
    """What the tokenizer must keep whole."""
    return SIGNS if pairs_of(experiment).placeholders else ()


def make_rows(experiment: Experiment, pieces: Any, documents: Sequence[Document]) -> targets.PairRows:
    """Pairs -> rows of ids."""
    sources, written = zip(*sides(experiment, documents), strict=True)
    frame = Frame(pieces.bos, pieces.eos, pieces.pad)
    ids = pieces.encode_many(sources), pieces.encode_many(written)
    return targets.pair_rows(*ids, pair_lengths(experiment), frame)


def encode_sources(experiment: Experiment, pieces: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, whole and without an end."""
    return pieces.encode_many([as_read(experiment, text) for text in texts])


def cut_sources(experiment: Experiment, pieces: Any, texts: Sequence[str]) -> list[bool]:
    """Whether each text is too long and loses its end."""
    length, _ = pair_lengths(experiment)
    return [len(ids) + 1 > length for ids in encode_sources(experiment, pieces, texts)]


def paired_reading(experiment: Experiment, parts: Mapping[str, targets.PairRows]) -> Reading:
    """The batches of pairs, by split; what does not fit is left out of training where the config says so."""
    train = experiment.train
    rows = fitting(parts["train"]) if pairs_of(experiment).longer == "drop" else parts["train"]

    @functools.lru_cache(2)
    def batches(group: int) -> np.ndarray:
        return targets.group_batches(rows, train.seed, group, train.batch_size)

    def batch(step: int, some: slice = ALL) -> dict[str, np.ndarray]:
        group, place = divmod(step, targets.GROUP)
        return targets.pair_batch(rows, batches(group)[place], some)

    evaluation = lambda split: list(targets.pair_rows_evaluation(parts[split], train.batch_size))
    return Reading(batch, evaluation, batch)


def refuse_nothing(experiment: Experiment, rows: targets.PairRows) -> None:
    """Raises: UserError where no training pair is left."""
    if pairs_of(experiment).longer == "drop" and rows.cut.all():
        message = f"none of {len(rows.cut)} training pairs fits into {pair_lengths(experiment)} tokens"
        raise UserError(message, "data.length, data.target_length", "make them larger, or set pairs.longer to 'cut'")


def fitting(rows: targets.PairRows) -> targets.PairRows:
    """Those of the rows that are not cut."""
    return targets.PairRows(*(leaf[~rows.cut] for leaf in rows))


def made_up_pairs(experiment: Experiment) -> dict[str, np.ndarray]:
    """A batch of the right shapes that says nothing."""
    lengths, count = pair_lengths(experiment), experiment.train.batch_size
    ids = [[UNK] * (length - 1) for length in lengths]
    rows = targets.pair_rows([ids[0]] * count, [ids[1]] * count, lengths, Frame(BOS, EOS, PAD))
    return targets.pair_rows_batch_at(rows, 0, 0, count)
