"""Runs on questions: documents -> rows, a head's scores -> answers in their passages, metrics and baselines."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minillm.config import Experiment
from minillm.data import rows
from minillm.data.document import Document
from minillm.data.windows import Passage, question_rows
from minillm.evaluation import answers, finding, intervals
from minillm.evaluation.answers import Answer
from minillm.inference.spans import best_span

LONGEST = 30  # tokens of an answer, as in the code of Devlin et al. 2019
Documents = Sequence[Document]


def make_rows(pieces: Any, documents: Documents, length: int, frame: rows.Frame) -> rows.RowDataset:
    """One row or more of each; documents whose answer is not known get none as a target."""
    passages = []
    for document in documents:
        ids, places = pieces.encode_places(document.pair)
        known = document.start is not None
        span = (document.start, document.start + len(document.label)) if known else (0, 0)
        passages.append(Passage(ids, places, span))
    return question_rows(pieces.encode_many([document.text for document in documents]), passages, length, frame)


def find_answers(experiment: Experiment, batches: list[dict], scores: np.ndarray, documents: Documents) -> list[Answer]:
    """Scores [rows, length, 2] of the rows with weight -> the best answer to each document, over all of its rows."""
    real = np.concatenate([batch["weights"] for batch in batches]) > 0.0
    fields = {
        name: np.concatenate([batch[name] for batch in batches])[real] for name in ("answerable", "places", "documents")
    }
    longest, found = experiment.objective.answer_length or LONGEST, []
    ends = np.searchsorted(fields["documents"], np.arange(len(documents) + 1))  # the rows of a document are neighbours
    for number, document in enumerate(documents):
        mine = slice(ends[number], ends[number + 1])
        span = best_span(scores[mine], fields["answerable"][mine], longest)
        if span is None:  # a passage without a token
            found.append(Answer("", 0, 0.0))
            continue
        places = fields["places"][mine][span.row]
        start, after = int(places[span.first, 0]), int(places[span.last, 1])
        found.append(Answer(document.pair[start:after], start, span.probability))
    return found


def measure(documents: Documents, found: Sequence[Answer]) -> intervals.Metric:
    """Exact match and F1, as a function of how often each question counts."""
    table = answers.score([answer.text for answer in found], [[document.label] for document in documents])

    def metric(weights: np.ndarray) -> dict[str, np.ndarray]:
        exact, f1 = (weights @ table / weights.sum(-1, keepdims=True)).T
        return {"exact_match": exact, "answer_f1": f1, "undefined": np.zeros(len(weights))}

    return metric


def baselines(train: Documents, asked: Documents) -> dict[str, list[Answer]]:
    """Answers by shared words, and the most frequent name."""
    questions, passages = [d.text for d in asked], [d.pair for d in asked]
    overlap = finding.fit_overlap([d.text for d in train], [d.label for d in train])
    return {
        "shared words": overlap(questions, passages),
        "most frequent name": finding.most_frequent_name(questions, passages),
    }
