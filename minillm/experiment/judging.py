"""What a run on labels is judged by: the metrics of its task on a held-out split, with intervals, beside baselines.

A split is judged once, from one answer per document: probabilities of classes, numbers, or a tag per unit. Model and
baselines give the same kind of answer, and the same functions judge it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minillm.config import Experiment
from minillm.data.document import Document
from minillm.evaluation import classification, entities, intervals, tagging, textual
from minillm.experiment import folder as folders
from minillm.experiment import supervised
from minillm.experiment.job import Run
from minillm.experiment.setup import Setup, new_state

METRICS = {
    "classify": (classification.single_label, np.int64),
    "multi_label": (classification.multi_label, bool),
    "regression": (classification.regression, np.float64),
}  # objective -> its metrics, and the labels' type
Documents = Sequence[Document]


class Verdict(NamedTuple):
    """metrics: name -> value · intervals: name -> [low, high], 95 % · details: what a figure draws."""

    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    details: dict[str, Any]


def judge(experiment: Experiment, documents: Documents, answers: Any) -> Verdict:
    """Answers to documents, in order: [rows, classes] probabilities, [rows] numbers, or a tag per unit of each."""
    if experiment.objective.name == "tag":
        return judge_tags([list(document.label) for document in documents], answers)
    metric, kind = METRICS[experiment.objective.name]
    labels = supervised.label_array(experiment, documents).astype(kind)
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


def judge_tags(truth: list[list[str]], tags: list[list[str]]) -> Verdict:
    """Entities as seqeval counts them, over all kinds (entity_f1) and as a mean over kinds (macro_f1); tags' accuracy."""
    counted = entities.count_entities(truth, tags)
    hits = np.array([sum(a == b for a, b in zip(*pair, strict=True)) for pair in zip(truth, tags, strict=True)])
    sizes = np.array([len(row) for row in truth])

    def metric(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = entities.entity_scores(counted, weights)
        found = {name.replace("micro_", "entity_"): values for name, values in found.items()}
        return found | {"accuracy": (weights @ hits) / (weights @ sizes)}

    values, bounds = unpack(intervals.bootstrap(metric, len(truth)))
    by_type = (
        intervals.bootstrap(lambda weights: entities.type_f1(counted, weights), len(truth)) if counted.types else {}
    )
    return Verdict(values, bounds, {"classes": entities.describe_types(counted), "f1_intervals": unpack(by_type)[1]})


def judge_run(job: Run, weights: tuple, held_out: dict[str, float], base: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The model's and the baselines' verdicts on the test part, or on the validation part where there is none.

    weights = (trainable, frozen) of the model; base: what it began with, where its frozen features are a baseline too.
    All answers and details go into evaluation.json; what is returned goes into the summary.
    """
    split = "test" if job.data.documents["test"] else "validation"
    documents = job.data.documents[split]
    own = model_answers(job.setup, job.experiment, weights, job.data.evaluation(split), documents)
    answers = {"this model": own} | baseline_answers(job, split, base)
    verdicts = {name: judge(job.experiment, documents, found) for name, found in answers.items()}
    own = verdicts["this model"]
    folders.write_json(job.folder.evaluation, {
        "split": split, "labels": list(job.experiment.data.labels),
        **{name: verdict._asdict() for name, verdict in verdicts.items()},
    })  # fmt: skip
    rows = {name: verdict.metrics for name, verdict in verdicts.items() if name != "this model"}
    validation = held_out if split == "test" else held_out | own.metrics
    return {"judged": split, "validation": validation, split: validation if split == "validation" else own.metrics,
            "intervals": own.intervals, "baselines": rows}  # fmt: skip


def baseline_answers(job: Run, split: str, base: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What classical models, fitted on the training part alone, say of the documents of a split."""
    experiment, parts = job.experiment, job.data.documents
    if not experiment.baselines.text:
        return {}
    if experiment.objective.name == "tag":
        units, tags = ([list(getattr(d, key)) for d in parts["train"]] for key in ("units", "label"))
        asked = [list(document.units) for document in parts[split]]
        return {"most frequent tag": tagging.fit_most_frequent(units, tags)(asked),
                "conditional random field": tagging.fit_field(units, tags)(asked)}  # fmt: skip
    classes = None if experiment.objective.name == "regression" else len(experiment.data.labels)
    train, validation, asked = (_examples(experiment, parts[name]) for name in ("train", "validation", split))
    fitted = (textual.fit_majority(train, classes), textual.fit_tfidf(train, validation, classes))
    found = {baseline.name: baseline.predict(asked.texts, asked.pairs) for baseline in fitted}
    if base:
        state, frozen = new_state(job.setup, base)
        features = supervised.extractor(job.setup)
        rows = [features(state.trainable, frozen, job.data.evaluation(name)) for name in ("train", split)]
        found["frozen features + logistic regression"] = textual.logistic_head(rows[0], train.labels, rows[1], classes)
    return found


def _examples(experiment: Experiment, documents: Documents) -> textual.Examples:
    pairs = None if all(d.pair is None for d in documents) else [document.pair or "" for document in documents]
    return textual.Examples([d.text for d in documents], supervised.label_array(experiment, documents), pairs)


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
