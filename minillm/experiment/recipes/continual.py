"""One task after the other with one head, and what keeps the old ones from being forgotten.

    base = { run = "runs/books" }
    continual = { method = "ewc", strength = 1000.0 }

The run begins with its base's parameters, head included. "plain" just trains on; "ewc" holds weights (`tuning/elastic.py`),
"distill" holds answers (`objectives/distill.py`), "replay" mixes old texts into the batches, an exact share of their rows.
[tests] name other texts that the run is judged on at its end: a row of the matrix of `evaluation/transfer.py`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from minillm import config as configs
from minillm.config import Experiment
from minillm.data import mixing, rows, stratify
from minillm.data.clean_labelled import folded_key
from minillm.data.document import Document
from minillm.errors import UserError
from minillm.experiment import exchange, judging, supervised
from minillm.experiment import folder as folders
from minillm.experiment.data import Data, join_hashes, split_documents
from minillm.experiment.job import Run
from minillm.experiment.recipes.annotation import annotate
from minillm.experiment.setup import Setup
from minillm.objectives.supervised import head_scores
from minillm.params import flatten
from minillm.sections.data import DataConfig, is_labelled
from minillm.sections.experiment import LABELLED
from minillm.training import provenance
from minillm.tuning.elastic import FISHER, fisher_information


def with_replay(experiment: Experiment, data: Data) -> Data:
    """The data with old rows in every batch: floor(share * rows) of all rows up to any step, to the row.

    Old rows are read as they are: [augment] rewords the new ones alone.
    """
    section = experiment.continual
    if section is None or section.method != "replay" or section.share == 0.0:
        return data
    held_out = {folded_key(document) for name in ("validation", "test") for document in data.documents[name]}
    documents = [document for run in section.past for document in past_documents(experiment, run)
                 if folded_key(document) not in held_out]  # fmt: skip
    size, whole = experiment.train.batch_size, round(section.share * mixing.WHOLE)
    dataset = supervised.make_rows(experiment, data.tokenizer, documents)
    old_batch = functools.lru_cache(4)(
        functools.partial(rows.row_batch_at, dataset, experiment.train.seed, batch_size=size)
    )
    new_batch = functools.lru_cache(4)(data.batch)

    def batch(step: int) -> dict:
        first, after = mixing.row_span(whole, size, step)
        new = (step * size - first, (step + 1) * size - after)
        parts = [mixing.mixed_rows(new_batch, size, new, new[1] - new[0])] if new[1] > new[0] else []
        parts += [mixing.mixed_rows(old_batch, size, (first, after), after - first)] if after > first else []
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return joined | {"index": np.arange(size, dtype=np.int32)}

    past = provenance.hash_arrays({name: leaf for name, leaf in dataset._asdict().items() if leaf is not None})
    return data._replace(batch=batch, rows=None, sha256=join_hashes({"new": data.sha256, "past": past}))


def past_documents(experiment: Experiment, run: str) -> list[Document]:
    """`buffer` training documents of a past run, chosen by a hash of their text and the seed, labelled as it had them.

    Raises: UserError where its classes are others.
    """
    past = configs.load(folders.existing(Path(run)).config)
    if past.data.labels != experiment.data.labels:
        message = f"it has the classes {list(past.data.labels)}, this run {list(experiment.data.labels)}"
        raise UserError(message, run, "name runs of the same classes in continual.past")
    train = annotate(past, split_documents(past)[0].train).labelled
    ordered = sorted(train, key=lambda document: stratify.order_key(experiment.train.seed, document))
    return ordered[: experiment.continual.buffer]


def with_fisher(experiment: Experiment, setup: Setup, pieces: Any, base: Any, saved: Path | None = None) -> Any:
    """The base (`base.Base`) with the Fisher information of the past runs' texts beside its arrays, and its hash.

    `saved`: the folder of what is frozen, where a run that goes on finds it.
    """
    section = experiment.continual
    if section is None or section.method != "ewc" or section.strength == 0.0:
        return base
    if saved is not None:
        found = exchange.read_arrays(saved, 0, f"{FISHER}/")
        return _with_leaves(base, {f"{FISHER}/{path}": array for path, array in found.items()})
    state, frozen = jax.jit(setup.born)(setup.key, dict(base.arrays))
    model = setup.tuning.wrap(setup.model)

    def log_probabilities(trainable, row):
        batch = {name: leaf[None] for name, leaf in row.items()}
        scores = head_scores(model, setup.tuning.attach(trainable, frozen), batch, None, "classify")
        return jax.nn.log_softmax(scores[0])

    information = jax.jit(functools.partial(fisher_information, log_probabilities))
    total = None
    for run in section.past:
        dataset = supervised.make_rows(experiment, pieces, past_documents(experiment, run))
        (batch,) = rows.row_evaluation_batches(dataset, len(dataset.tokens))
        found = jax.tree.map(np.asarray, information(state.trainable, batch))
        total = found if total is None else jax.tree.map(np.add, total, found)
    return _with_leaves(base, flatten({FISHER: total}))


def _with_leaves(base: Any, leaves: dict[str, np.ndarray]) -> Any:
    about = base.about | {"fisher_sha256": provenance.hash_arrays(leaves)}
    return base._replace(arrays=base.arrays | leaves, about=about)


def judge_tests(job: Run, weights: tuple) -> dict[str, Any]:
    """{"tests": name -> what the run is judged by on the texts of that section of [tests], beside its own baselines}.

    The part is "test", or "validation" where there is none; texts that the run or one of its past runs has trained on are
    left out. The baselines learn from the run's training part, as for its own texts.
    """
    if not job.experiment.tests:
        return {}
    asked = read_tests(job)
    together = [document for _, documents in asked.values() for document in documents]
    data = job.data._replace(documents=job.data.documents | {"test": together})
    baselines, start = judging.baseline_answers(job._replace(data=data), "test", {}), 0  # fitted once for all
    score, found = supervised.scorer(job.setup, job.experiment), {}
    for name, (part, documents) in asked.items():
        dataset = supervised.make_rows(job.experiment, job.data.tokenizer, documents)
        batches = list(rows.row_evaluation_batches(dataset, job.experiment.train.batch_size))
        answers = {judging.OWN: judging.make_answers(job.experiment, batches, score(*weights, batches), documents)}
        answers |= {who: said[start : start + len(documents)] for who, said in baselines.items()}
        values = {who: judging.values_of(job.experiment, documents, said) for who, said in answers.items()}
        found[name] = {"judged": part, part: values.pop(judging.OWN), "texts": len(documents), "baselines": values}
        start += len(documents)
    return {"tests": found}


def read_tests(job: Run) -> dict[str, tuple[str, list[Document]]]:
    """Name of [tests] -> `judged_documents` of its section. Raises: UserError; before training, so that none is lost."""
    past = job.experiment.continual.past if job.experiment.continual else ()
    trained = [*job.data.documents.get("train", ()), *(d for run in past for d in past_documents(job.experiment, run))]
    found = {}
    for name, section in (job.experiment.tests or {}).items():
        try:
            found[name] = judged_documents(job.experiment, section, trained, "")
        except UserError as error:
            raise UserError(error.what, f"tests.{name}: {error.where}".removesuffix(": "), error.mend) from None
    return found


def judged_documents(
    experiment: Experiment, section: DataConfig, trained: Sequence[Document] = (), where: str = "tests"
) -> tuple[str, list[Document]]:
    """("test", that part of a section of data), or its "validation" where there is none, without texts that were trained on.

    Raises: UserError where nothing is left.
    """
    known = {folded_key(document) for document in trained}
    parts = split_documents(dataclasses.replace(experiment, data=section))[0]
    name = "test" if parts.test else "validation"
    documents = [document for document in getattr(parts, name) if folded_key(document) not in known]
    if not documents:
        raise UserError("the run has trained on all of its texts", where, "name other texts, or the same split_seed")
    return name, documents


def resolve(experiment: Experiment, raw_base: dict[str, Any] | None, where: str) -> Experiment:
    """The experiment with its past and its tests written out. `raw_base`: the base's config. Raises: UserError."""
    if experiment.tests:
        tests = {name: _test(experiment, name, where) for name in experiment.tests}
        experiment = dataclasses.replace(experiment, tests=tests)
    section = experiment.continual
    if section is None:
        return experiment
    _refuse(experiment, raw_base, where)
    named = [configs.absolute(run) for run in section.past]
    before = [*raw_base.get("continual", {}).get("past", ()), experiment.base.run]
    return dataclasses.replace(experiment, continual=dataclasses.replace(section, past=tuple(named or before)))


def _refuse(experiment: Experiment, raw_base: dict[str, Any] | None, where: str) -> None:
    section, place = experiment.continual, f"{where}: continual"
    if raw_base is None or experiment.pretrain:
        raise UserError("there is nothing that could be forgotten", place, "name a run in [base], without [pretrain]")
    if experiment.adversarial and section.method == "distill":
        raise UserError("[adversarial] and distill do not go together", place, "leave one of them out")
    beside = experiment.pseudo or (experiment.consistency and experiment.consistency.method == "uda")
    if beside and section.method == "replay":
        message = "old rows are mixed into a batch, and here other rows are read beside it"
        raise UserError(message, place, "leave out [pseudo] and [consistency], or use another method")
    if experiment.objective.name != "classify":
        raise UserError(f"{experiment.objective.name} is not learned task by task", place, "use classify")
    for key, now, then in (
        ("objective.name", "classify", raw_base.get("objective", {}).get("name")),
        ("data.labels", list(experiment.data.labels), list(raw_base.get("data", {}).get("labels", ()))),
    ):
        if now != then:
            if then in (None, []):
                message = "the base has no head of these classes that it could forget"
                raise UserError(message, f"{where}: base.run", "name a run of classify on the same data.labels")
            raise UserError(f"the base has {then!r}, got {now!r}", f"{where}: {key}", "tasks share one head")


def _test(experiment: Experiment, name: str, where: str) -> DataConfig:
    data, place = experiment.tests[name], f"{where}: tests.{name}"
    if experiment.objective.name not in LABELLED or not is_labelled(data) or data.labels != experiment.data.labels:
        message = f"tests are of the run's own classes, {list(experiment.data.labels)}, got {list(data.labels)}"
        raise UserError(message, place, "name the same labels, or leave it out")
    return configs.located_data(data)
