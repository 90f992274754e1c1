"""What a run on labels is judged by: the metrics of its task on a held-out split, with intervals, beside baselines.

A split is judged once, from one answer per document: probabilities of classes, numbers, a tag per unit, or a span. Model and
baselines give the same kind of answer, and the same functions judge it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minillm.config import Experiment
from minillm.data.document import Document
from minillm.evaluation import classification, coverage, entities, intervals, tagging, textual
from minillm.experiment import answering, supervised
from minillm.experiment import folder as folders
from minillm.experiment.job import Run
from minillm.experiment.recipes import attack, prompting
from minillm.experiment.setup import Setup
from minillm.params import flatten, init_params, unflatten
from minillm.report.columns import main_metric
from minillm.tuning.freeze import full

METRICS = {
    "classify": (classification.single_label, np.int64),
    "pattern": (classification.single_label, np.int64),
    "multi_label": (classification.multi_label, bool),
    "regression": (classification.regression, np.float64),
}  # objective -> its metrics, and the labels' type
OWN = "this model"
ZEROS = "scores_undefined_and_counted_as_0"  # such as the precision of a class that nothing is predicted as
Documents = Sequence[Document]


class Verdict(NamedTuple):
    """metrics: name -> value · intervals: name -> [low, high], 95 % · details: what a figure draws."""

    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    details: dict[str, Any]


def judge(experiment: Experiment, documents: Documents, answers: Any) -> Verdict:
    """Answers to documents, in order: [rows, classes] probabilities, [rows] numbers, a tag per unit of each, or spans."""
    found = intervals.bootstrap(measure(experiment, documents, answers), len(documents))
    zeros = found.pop("undefined")["value"]
    values, bounds = unpack(found)
    values |= {ZEROS: zeros} if zeros else {}
    name, classes = experiment.objective.name, list(experiment.data.labels)
    details: dict[str, Any] = {}
    if name == "tag":
        details = describe_tags(tags_in(documents), answers)
    elif name not in ("regression", "span_qa"):
        labels = _truth(experiment, documents)
        details["classes"] = classification.describe_classes(labels, answers, classes)
        by_class = lambda weights: classification.class_f1(labels, answers, classes, weights)
        details["f1_intervals"] = unpack(intervals.bootstrap(by_class, len(documents)))[1]
    if name in ("classify", "pattern"):
        details["confusion"] = classification.confusion(labels, answers.argmax(1), answers.shape[1]).tolist()
        details["reliability"] = classification.reliability(labels, answers)
        details["coverage"] = coverage.accuracy_at(labels, answers)
    return Verdict(values, bounds, details)


def measure(experiment: Experiment, documents: Documents, answers: Any) -> intervals.Metric:
    """The metrics of answers to documents, as a function of how often each document counts."""
    if experiment.objective.name == "tag":
        return measure_tags(tags_in(documents), answers)
    if experiment.objective.name == "span_qa":
        return answering.measure(documents, answers)
    labels, metric = _truth(experiment, documents), METRICS[experiment.objective.name][0]
    if experiment.objective.name == "classify" and experiment.data.domains:
        worst = worst_domain(documents, answers.argmax(1) == labels)
        return lambda weights: metric(labels, answers, weights) | worst(weights)
    return lambda weights: metric(labels, answers, weights)


def values_of(experiment: Experiment, documents: Documents, answers: Any) -> dict[str, float]:
    """The metrics where each document counts once."""
    found = measure(experiment, documents, answers)(np.ones((1, len(documents))))
    return {name: float(value[0]) for name, value in found.items() if name != "undefined"}


def worst_domain(documents: Documents, right: np.ndarray) -> intervals.Metric:
    """The accuracy in that domain where it is least; nothing where all documents are of one."""
    domains = np.array([document.domain or "" for document in documents])
    parts = [domains == name for name in np.unique(domains)]
    counted = lambda weights, own: weights[:, own].sum(1)
    rate = lambda weights, own: (weights[:, own] @ right[own]) / np.maximum(counted(weights, own), 1e-9)
    here = lambda weights, own: np.where(counted(weights, own) > 0, rate(weights, own), 1.0)  # a draw may miss a domain
    least = lambda weights: np.min([here(weights, own) for own in parts], axis=0)
    return lambda weights: {"accuracy_worst": least(weights)} if len(parts) > 1 else {}


def _truth(experiment: Experiment, documents: Documents) -> np.ndarray:
    """`supervised.label_array` in the type that the task's metrics want."""
    return supervised.label_array(experiment, documents).astype(METRICS[experiment.objective.name][1])


def tags_in(documents: Documents) -> list[list[str]]:
    """The true tags of each document."""
    return [list(document.label) for document in documents]


def measure_tags(truth: list[list[str]], tags: list[list[str]]) -> intervals.Metric:
    """Entities as seqeval counts them, over all kinds (entity_f1) and as a mean over kinds (macro_f1); tags' accuracy."""
    counted = entities.count_entities(truth, tags)
    hits = np.array([sum(a == b for a, b in zip(*pair, strict=True)) for pair in zip(truth, tags, strict=True)])
    sizes = np.array([len(row) for row in truth])

    def metric(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = entities.entity_scores(counted, weights)
        found = {name.replace("micro_", "entity_"): values for name, values in found.items()}
        return found | {"accuracy": (weights @ hits) / (weights @ sizes)}

    return metric


def describe_tags(truth: list[list[str]], tags: list[list[str]]) -> dict[str, Any]:
    """A row per kind of entity, and the interval of its F1."""
    counted = entities.count_entities(truth, tags)
    by_type = (
        intervals.bootstrap(lambda weights: entities.type_f1(counted, weights), len(truth)) if counted.types else {}
    )
    return {"classes": entities.describe_types(counted), "f1_intervals": unpack(by_type)[1]}


def judge_run(job: Run, weights: tuple, held_out: dict[str, float], base: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The model's and the baselines' verdicts on the test part, or on the validation part where there is none.

    weights = (trainable, frozen) of the model; base: what it began with, where its frozen features are a baseline too.
    Where there is a test part the model has the same metrics on validation, by which settings may be chosen. All answers
    and details go into evaluation.json; what is returned goes into the summary.
    """
    split = "test" if job.data.documents["test"] else "validation"
    documents = job.data.documents[split]
    score = supervised.scorer(job.setup, job.experiment)  # once, for both parts: it compiles

    def asked(part: str) -> Any:
        batches = job.data.evaluation(part)
        return make_answers(job.experiment, batches, score(*weights, batches), job.data.documents[part])

    answers = {OWN: asked(split)} | baseline_answers(job, split, base) | prompting.shot_answers(job, split, base)
    verdicts = {name: judge(job.experiment, documents, found) for name, found in answers.items()}
    if job.experiment.attack is not None:
        verdicts = attacked(job, weights, documents, verdicts)
    own = verdicts[OWN]
    folders.write_json(job.folder.evaluation, {
        "split": split, "labels": list(job.experiment.data.labels),
        **{name: verdict._asdict() for name, verdict in verdicts.items()},
    })  # fmt: skip
    rows = {name: verdict.metrics for name, verdict in verdicts.items() if name != OWN}
    chosen_by = own.metrics
    if split == "test":
        part = job.data.documents["validation"]
        chosen_by = values_of(job.experiment, part, asked("validation"))
    validation = held_out | chosen_by
    return {"judged": split, "validation": validation, split: validation if split == "validation" else own.metrics,
            "intervals": own.intervals, "baselines": rows,
            "differences": differences(job.experiment, documents, answers, main_metric([own.metrics]))}  # fmt: skip


def differences(experiment: Experiment, documents: Documents, answers: dict[str, Any], metric: str) -> dict[str, Any]:
    """Baseline -> {metric: {"value", "low", "high", "p"}} of the model less the baseline, both drawn on the same documents."""
    measured = {name: measure(experiment, documents, found) for name, found in answers.items()}
    own, found = measured.pop(OWN), {}
    for name, other in measured.items():
        paired = intervals.paired_bootstrap(own, other, len(documents))
        found[name] = {metric: paired[metric]}
    return found


def baseline_answers(job: Run, split: str, base: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What classical models, fitted on the training part alone, say of the documents of a split."""
    experiment, parts = job.experiment, job.data.documents
    if not experiment.baselines.text:
        return {}
    if experiment.objective.name == "span_qa":
        return answering.baselines(parts["train"], parts[split])
    if experiment.objective.name == "tag":
        units, tags = ([list(getattr(d, key)) for d in parts["train"]] for key in ("units", "label"))
        asked = [list(document.units) for document in parts[split]]
        return {"most frequent tag": tagging.fit_most_frequent(units, tags)(asked),
                "conditional random field": tagging.fit_field(units, tags)(asked)}  # fmt: skip
    found = text_baselines(experiment, parts["train"], parts["validation"], parts[split])
    if base and experiment.baselines.features:
        features = supervised.extractor(job.setup._replace(tuning=full()))  # the base alone, without what a method adds
        weights = unflatten(flatten(init_params(job.setup.specs, job.setup.key)) | dict(base))
        rows = {name: features(weights, {}, job.data.evaluation(name)) for name in {"train", "validation", split}}
        train, validation, asked = (_examples(experiment, parts[name]) for name in ("train", "validation", split))
        classes = _classes(experiment)
        head = textual.logistic_head(rows["train"], train.labels, rows[split], classes)
        found["frozen features + logistic regression"] = head
        if train.pairs is None:
            joined = textual.fit_joined(train, rows["train"], validation, rows["validation"], classes)
            found["TF-IDF and frozen features"] = joined(asked.texts, rows[split])
    return found


def text_baselines(
    experiment: Experiment, train: Documents, validation: Documents, asked: Documents
) -> dict[str, np.ndarray]:
    """What says the same of every text, and a linear model on TF-IDF."""
    examples = _examples(experiment, asked)
    fitted = fit_texts(experiment, train, validation)
    return {name: predict(examples.texts, examples.pairs) for name, predict in fitted.items()}


def fit_texts(experiment: Experiment, train: Documents, validation: Documents) -> dict[str, textual.Predict]:
    """What these are once fitted, by name: (texts, pairs) -> answers."""
    parts, classes = [_examples(experiment, part) for part in (train, validation)], _classes(experiment)
    fitted = (textual.fit_majority(parts[0], classes), textual.fit_tfidf(*parts, classes))
    return {baseline.name: baseline.predict for baseline in fitted}


def attacked(job: Run, weights: tuple, documents: Documents, verdicts: dict[str, Verdict]) -> dict[str, Verdict]:
    """The verdicts, with the accuracy that is left under each attack of [attack]."""
    parts = job.data.documents
    fitted = fit_texts(job.experiment, parts["train"], parts["validation"]) if job.experiment.baselines.text else {}
    victim = attack.Victim(job.setup, job.experiment, job.data.tokenizer, weights, job.folder.root)
    for method, rows in attack.measure(victim, documents, job.data.texts["train"], fitted).items():
        for who, row in rows.items():
            verdict, name = verdicts[who or OWN], f"accuracy_{method}"
            verdict.metrics[name], verdict.intervals[name] = row["value"], [row["low"], row["high"]]
    return verdicts


def _classes(experiment: Experiment) -> int | None:
    return None if experiment.objective.name == "regression" else len(experiment.data.labels)


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
    if experiment.objective.name == "span_qa":
        return answering.find_answers(experiment, batches, scores, documents)
    found = supervised.probabilities(experiment, scores)
    return found[:, 0] if experiment.objective.name == "regression" and found.ndim == 2 else found


def unpack(found: Mapping[str, Mapping[str, float]]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """What `intervals.bootstrap` returns -> (name -> value, name -> [low, high])."""
    values = {name: row["value"] for name, row in found.items()}
    return values, {name: [row["low"], row["high"]] for name, row in found.items()}


def tags_of(experiment: Experiment, batches: list[dict], scores: np.ndarray, documents: Documents) -> list[list[str]]:
    """Scores [rows, length, tags] -> the best tag of each unit of each document, which may be several rows."""
    names = supervised.tag_names(experiment.data.labels)
    carried = np.concatenate([batch["weights"] for batch in batches]) > 0.0
    if carried.sum() != sum(len(document.units) for document in documents):
        raise ValueError("the rows carry another number of tags than the documents have units")
    best = iter(scores.argmax(-1)[carried[carried.any(1)]])
    return [[names[next(best)] for _ in document.units] for document in documents]
