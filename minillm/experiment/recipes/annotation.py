"""The [annotation] section: the training part of which a part has labels, some of them wrong; and what they cost."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minillm.config import Experiment
from minillm.data import annotation
from minillm.data.document import Document
from minillm.data.labels import labels_found
from minillm.errors import UserError
from minillm.evaluation import noise, textual
from minillm.experiment.recipes import few
from minillm.sections.few import CHOSEN


class Annotated(NamedTuple):
    """labelled: what training may learn the labels of. unlabelled: the others, with the labels that it must not see."""

    labelled: list[Document]
    unlabelled: list[Document]
    report: dict[str, Any]


def annotate(experiment: Experiment, documents: Sequence[Document], validation: int = 0) -> Annotated:
    """The training part as its annotators left it. Raises: UserError for more labels than texts.

    validation: texts of the validation part, whose labels settings are chosen by: reported beside the price, not in it.
    """
    section = experiment.annotation
    if section is None:
        return Annotated(list(documents), [], {})
    seed = experiment.train.seed if section.seed is None else section.seed
    count = len(documents) if section.labels is None else section.labels
    chosen = annotation.choose(documents, count, seed)
    labelled = [document for document, own in zip(documents, chosen, strict=True) if own]
    unlabelled = [document for document, own in zip(documents, chosen, strict=True) if not own]
    if not unlabelled and (few.learns_pseudo(experiment) or few.reads_unlabelled(experiment)):
        message = f"all {count} training texts have a label, so that none is left to learn from without"
        raise UserError(message, "annotation.labels", "set it to fewer")
    names = list(experiment.data.labels)
    truth = np.array([names.index(document.label) for document in labelled])
    labels = annotation.flip(truth, len(names), section.noise, seed, section.noise_kind)
    wrong = labels != truth
    labelled = [document._replace(label=names[label]) for document, label in zip(labelled, labels, strict=True)]
    hours = count * section.seconds / 3600.0
    report = {"labels": count, "unlabelled": len(unlabelled), "wrong": int(wrong.sum()), "hours": hours,
              "price": hours * section.wage, "validation_labels": validation,
              "validation_price": validation * section.seconds / 3600.0 * section.wage}  # fmt: skip
    if section.drop_found:
        found = noise.find_wrong(labels, unseen_probabilities(labelled, labels, len(names)))
        report |= {"finding": noise.judge_finding(found, wrong), "wrong_left": int((wrong & ~found).sum())}
        labelled = [document for document, suspected in zip(labelled, found, strict=True) if not suspected]
    return Annotated(labelled, unlabelled, report | {"classes": labels_found(labelled)})


def describe(cleaning: dict[str, Any]) -> list[str]:
    """What was bought and what a teacher gave, a line each."""
    lines = []
    if found := cleaning.get("annotation"):
        paid = f"{found['hours']:.2f} hours of work, {found['price']:,.2f} in wages"
        lines.append(f"Labels: {found['labels']:,}, for {paid}; {found['unlabelled']:,} training texts have none")
        if found["wrong"]:
            lines[-1] += f"; {found['wrong']:,} labels are wrong"
        if more := found.get("validation_labels"):
            lines.append(f"Not in that price: {more:,} validation labels, {found['validation_price']:,.2f}; {CHOSEN}")
        if finding := found.get("finding"):
            right = f"{finding['precision']:.1%} of them rightly (at random {finding['chance']:.1%})"
            lines.append(
                f"Confident learning leaves out {finding['found']:,} labels, {right}; {found['wrong_left']} stay"
            )
    if found := cleaning.get("pseudo"):
        of = f"{found['kept']:,} of {found['asked']:,} texts without a label"
        counts = ", ".join(f"{name} {size:,}" for name, size in found["classes"].items())
        right = f"right on {found['accuracy_kept']:.1%} of those"
        lines.append(f"Pseudo-labels: the teacher is sure of {of} ({counts}), and {right}")
        if missing := [name for name, size in found["classes"].items() if not size]:
            lines.append(f"Warning: no pseudo-label says {', '.join(missing)}: the student will learn to say it less")
    return lines


def unseen_probabilities(documents: Sequence[Document], labels: np.ndarray, classes: int) -> np.ndarray:
    """[documents, classes] by TF-IDF (of both sentences of a pair) with logistic regression fitted on other documents.

    Its strength is chosen on each fifth of those.
    """
    texts = [document.text for document in documents]
    paired = bool(documents) and documents[0].pair is not None
    seconds = lambda rows: [documents[row].pair for row in rows] if paired else None

    def fit(places: np.ndarray, others: np.ndarray) -> np.ndarray:
        examples = lambda rows: textual.Examples([texts[row] for row in rows], labels[rows], seconds(rows))
        held_out = np.arange(len(places)) % 5 == 0
        baseline = textual.fit_tfidf(examples(places[~held_out]), examples(places[held_out]), classes)
        return baseline.predict([texts[row] for row in others], seconds(others))

    return noise.out_of_fold(fit, labels)
