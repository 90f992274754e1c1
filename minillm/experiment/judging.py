"""What a run on labels is judged by: the metrics of its task on a held-out split, with intervals, beside baselines.

A split is judged once, from one answer per document: probabilities of classes, numbers, or a tag per unit. Model and
baselines give the same kind of answer, and the same functions judge it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minillm.config import Experiment
from minillm.data.document import Document
from minillm.evaluation import classification, intervals
from minillm.experiment import folder as folders
from minillm.experiment import supervised
from minillm.experiment.job import Run
from minillm.experiment.setup import Setup

METRICS = {"classify": classification.single_label, "multi_label": classification.multi_label,
           "regression": classification.regression}  # fmt: skip
EVALUATION = "evaluation.json"
Documents = Sequence[Document]


class Verdict(NamedTuple):
    """metrics: name -> value · intervals: name -> [low, high], 95 % · details: what a figure draws."""

    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    details: dict[str, Any]


def judge(experiment: Experiment, documents: Documents, answers: Any) -> Verdict:
    """Answers to documents, in order: [rows, classes] probabilities, [rows] numbers, or a tag per unit of each."""
    if experiment.objective.name == "tag":
        return judge_tags([list(document.label) for document in documents], answers, experiment.data.labels)
    labels = supervised.label_array(experiment, documents)
    labels = labels.astype(
        {"classify": np.int64, "multi_label": bool, "regression": np.float64}[experiment.objective.name]
    )
    metric = METRICS[experiment.objective.name]
    found = intervals.bootstrap(lambda weights: metric(labels, answers, weights), len(documents))
    values, bounds = unpack(found)
    details: dict[str, Any] = {}
    if experiment.objective.name != "regression":
        names = list(experiment.data.labels)
        details["classes"] = classification.describe_classes(labels, answers, names)
        by_class = lambda weights: classification.class_f1(labels, answers, names, weights)
        details["f1_intervals"] = unpack(intervals.bootstrap(by_class, len(documents)))[1]
    if experiment.objective.name == "classify":
        details["confusion"] = classification.confusion(labels, answers.argmax(1), answers.shape[1]).tolist()
        details["reliability"] = classification.reliability(labels, answers)
    return Verdict(values, bounds, details)


def judge_tags(truth: list[list[str]], tags: list[list[str]], types: Sequence[str]) -> Verdict:
    """Entities as seqeval counts them, and the share of right tags; intervals over documents."""

    from minillm.evaluation import entities

    metric = entities.metric(truth, tags, types)
    values, bounds = unpack(intervals.bootstrap(metric, len(truth)))
    return Verdict(values, bounds, {"classes": entities.describe_types(truth, tags, types)})


def judge_run(job: Run, trainable, frozen, held_out: dict[str, float]) -> dict[str, Any]:
    """The model's and the baselines' verdicts on the test part, or on the validation part where there is none.

    All answers and details go into evaluation.json; what is returned goes into the summary.
    """
    split = "test" if job.data.documents["test"] else "validation"
    documents = job.data.documents[split]
    own = model_answers(job.setup, job.experiment, (trainable, frozen), job.data.evaluation(split), documents)
    answers = {"this model": own} | baseline_answers(job)
    verdicts = {name: judge(job.experiment, documents, found) for name, found in answers.items()}
    own = verdicts["this model"]
    folders.write_json(job.folder.root / EVALUATION, {
        "split": split, "labels": list(job.experiment.data.labels),
        **{name: verdict._asdict() for name, verdict in verdicts.items()},
    })  # fmt: skip
    rows = {name: verdict.metrics for name, verdict in verdicts.items() if name != "this model"}
    validation = held_out if split == "test" else held_out | own.metrics
    return {"judged": split, "validation": validation, split: validation if split == "validation" else own.metrics,
            "intervals": own.intervals, "baselines": rows}  # fmt: skip


def baseline_answers(job: Run) -> dict[str, Any]:
    """What classical models, fitted on the training part, say of the same documents."""
    return {}


def model_answers(
    setup: Setup, experiment: Experiment, weights: tuple, batches: list[dict], documents: Documents
) -> Any:
    """What the model says of documents; weights = (trainable, frozen)."""
    scores = supervised.scorer(setup, experiment)(*weights, batches)
    return make_answers(experiment, batches, scores, documents)


def make_answers(experiment: Experiment, batches: list[dict], scores: np.ndarray, documents: Documents) -> Any:
    """A head's scores -> answers as `judge` reads them."""
    if experiment.objective.name == "tag":
        return tags_of(experiment, batches, scores, documents)
    found = supervised.probabilities(experiment, scores)
    return found[:, 0] if experiment.objective.name == "regression" and found.ndim == 2 else found


def unpack(found: Mapping[str, Mapping[str, float]]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """What `intervals.bootstrap` returns -> (name -> value, name -> [low, high])."""
    values = {name: row["value"] for name, row in found.items()}
    return values, {name: [row["low"], row["high"]] for name, row in found.items() if name != "undefined"}


def tags_of(experiment: Experiment, batches: list[dict], scores: np.ndarray, documents: Documents) -> list[list[str]]:
    """Scores [rows, length, tags] -> the best tag of each unit; units that were cut off are O."""
    names = supervised.tag_names(experiment.data.labels)
    carried = np.concatenate([batch["weights"] for batch in batches]) > 0.0
    carried = carried[carried.any(1)]
    rows = zip(scores.argmax(-1), carried, documents, strict=True)
    found = [[names[place] for place in best[where]] for best, where, _ in rows]
    return [tags + ["O"] * (len(d.units) - len(tags)) for tags, d in zip(found, documents, strict=True)]
