"""Pseudo-labels: a teacher's answers to the texts without labels, computed once and kept in the student's folder.

They are part of the student's data: their hash goes into the hash of its data, so that a resumed run and `minillm verify`
read the same ones or refuse. The true labels of these texts, which are known here, serve to say how good a teacher is.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from minillm.config import Experiment
from minillm.data import annotation
from minillm.data.document import Document
from minillm.errors import UserError
from minillm.experiment import folder as folders
from minillm.experiment.folder import RunFolder
from minillm.experiment.recipes.few import learns_pseudo
from minillm.training.provenance import hash_arrays

MEND = "remove the run's folder and start it anew"


def teach(experiment: Experiment, folder: RunFolder, say: Callable[[str], None]) -> None:
    """Asks the teacher, unless its answers lie in the folder already. Raises: UserError where it is no teacher of this run."""
    from minillm.experiment import adapters, supervised
    from minillm.experiment.ask import predict
    from minillm.experiment.ask.reopen import open_run

    if not learns_pseudo(experiment) or folder.pseudo.exists():
        return
    root = Path(experiment.pseudo.run)
    refuse_teacher(experiment)
    documents = unlabelled(experiment)
    opened, trainable, frozen = adapters.weights(open_run(root), None)
    data = supervised.make_rows(opened.experiment, opened.tokenizer, documents)
    answers = np.asarray(predict.answer(opened, trainable, frozen, documents, data), np.float64)
    summary = folders.read_json(folders.existing(root).summary)
    folders.write_json(folder.pseudo, {
        "teacher": str(root), "parameter_hash": summary["parameter_hash"], "texts_sha256": _texts_hash(documents),
        "answers_hash": hash_arrays({"answers": answers}), "probabilities": answers.tolist(),
    })  # fmt: skip
    say(f"Teacher: {root} has labelled {len(documents):,} texts.")


def refuse_teacher(experiment: Experiment) -> None:
    """Raises: UserError where the teacher is no finished run, or has seen labels or held-out texts that the student must not."""
    from minillm import config as configs

    if not learns_pseudo(experiment):
        return
    if jax.process_count() > 1 or experiment.mesh.distributed:
        mend = "begin without mesh.distributed; the run may go on with it"
        raise UserError("pseudo-labels are made by one process", "pseudo, mesh.distributed", mend)
    folder = folders.existing(Path(experiment.pseudo.run))
    if not folder.summary.exists():
        raise UserError("the teacher's run has not ended", str(folder.root), "go on with it, by --resume")
    teacher = configs.load(folder.config)
    same_length = dataclasses.replace(teacher.data, length=experiment.data.length)
    if teacher.objective.name != "classify" or same_length != experiment.data:
        message = "the teacher has learned from other data, maybe from texts that this run is judged by"
        raise UserError(message, "pseudo.run", "teach with a run of classify whose [data] is the same")
    if _bought(teacher) != _bought(experiment):
        message = "the teacher has learned from other labels than this run has"
        raise UserError(message, "pseudo.run", "give both the same [annotation], and the same train.seed")


def _bought(experiment: Experiment) -> tuple:
    """What decides who has a label, and which one."""
    section = experiment.annotation
    if section is None:
        return ()
    seed = experiment.train.seed if section.seed is None else section.seed
    return section.labels, seed, section.noise, section.noise_kind, section.drop_found


def unlabelled(experiment: Experiment) -> list[Document]:
    """The texts to ask about, without their labels."""
    from minillm.experiment.data import split_documents
    from minillm.experiment.recipes.annotation import annotate

    found = annotate(experiment, split_documents(experiment)[0].train).unlabelled
    return [document._replace(label=None) for document in found]


def read(experiment: Experiment, folder: RunFolder, documents: Sequence[Document]) -> tuple[np.ndarray, str]:
    """(answers [documents, classes] float64, their hash) as the folder keeps them. Raises: UserError where they were changed."""
    found = folders.read_json(folder.pseudo)
    answers = np.array(found["probabilities"], np.float64).reshape(-1, len(experiment.data.labels))
    if hash_arrays({"answers": answers}) != found["answers_hash"]:
        raise UserError("the pseudo-labels do not fit their hash", str(folder.pseudo), MEND)
    if _texts_hash(documents) != found["texts_sha256"] or len(answers) != len(documents):
        raise UserError("the pseudo-labels are those of other texts", str(folder.pseudo), MEND)
    return answers, found["answers_hash"]


def choose(
    experiment: Experiment, answers: np.ndarray, truth: Sequence[str | None]
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """(which texts count, their labels: classes int32 or probabilities float32, the report of how good they are).

    Raises: UserError where the teacher is sure of none.
    """
    section, names = experiment.pseudo, list(experiment.data.labels)
    best, shared = answers.argmax(1), section.share is not None
    sure = annotation.surest(answers, section.share) if shared else answers.max(1) >= section.threshold
    if not sure.any():
        message = f"the teacher's surest answer has {answers.max():.3f}, so that no text is pseudo-labelled"
        where, mend = ("pseudo.share", "set it higher") if shared else ("pseudo.threshold", "set it lower")
        raise UserError(message, where, f"{mend}, or use a better teacher")
    labels = answers[sure].astype(np.float32) if section.soft else best[sure].astype(np.int32)
    right = np.array([names[label] for label in best]) == np.array(truth, object)
    counts = {name: int((best[sure] == place).sum()) for place, name in enumerate(names)}
    report = {"asked": len(answers), "kept": int(sure.sum()), "accuracy": float(right.mean()),
              "accuracy_kept": float(right[sure].mean()), "classes": counts}  # fmt: skip
    return sure, labels, report


def _texts_hash(documents: Sequence[Document]) -> str:
    digest = hashlib.sha256()
    for document in documents:
        digest.update(len(document.text).to_bytes(8, "big") + document.text.encode("utf8", "surrogatepass"))
    return digest.hexdigest()
