"""The texts of several tasks as one batch per step, and what each task has learned at the end."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from minillm import sharding
from minillm.config import Experiment
from minillm.data import mixing, tokenizer
from minillm.errors import UserError
from minillm.experiment import judging, results
from minillm.experiment.data import Data, join_hashes, load_data, make_tokenizer, split_documents, tokenizer_texts
from minillm.experiment.examples import example_length
from minillm.experiment.folder import RunFolder
from minillm.experiment.job import Run
from minillm.experiment.recipes.continual import with_replay
from minillm.experiment.recipes.tasks import MAIN, active, mixes, part
from minillm.experiment.setup import Setup
from minillm.objectives import OBJECTIVES
from minillm.objectives.joint import with_own_rows
from minillm.sections.experiment import LABELLED
from minillm.training.step import make_eval_step


def load(experiment: Experiment, tokenizer_file: Path, pieces: Any = None) -> Data:
    """What a run reads, of all its tasks: the data of its own, whose batches are {task: batch}.

    A new tokenizer learns from the training parts of all.
    """
    names = [MAIN, *active(experiment)]
    if len(names) == 1:
        return with_replay(experiment, load_data(experiment, tokenizer_file, pieces))
    if pieces is None and not tokenizer_file.exists():
        parts = [part(experiment, name) for name in names]
        texts = [text for found in parts for text in tokenizer_texts(found, split_documents(found)[0].train)]
        make_tokenizer(experiment, texts, tokenizer_file)
    pieces = pieces or tokenizer.load(tokenizer_file)
    parts = {name: load_data(part(experiment, name), tokenizer_file, pieces) for name in names}
    rows, about = _plan(experiment, parts)
    main, others = parts[MAIN], {name: parts[name] for name in names[1:]}
    cleaning = main.cleaning | {"tasks": {name: data.cleaning for name, data in others.items()}, "mixing": about}
    digest = join_hashes({name: data.sha256 for name, data in parts.items()})
    batch = lambda step: {name: read(step) for name, read in rows.items()}
    return main._replace(batch=batch, rows=None, cleaning=cleaning, sha256=digest, tasks=others)


def shares(data: Data) -> dict[str, float] | None:
    """p_k of every task where they mix, as the data tells them."""
    about = data.cleaning.get("mixing", {})
    return {name: row["share"] for name, row in about.items() if "share" in row} or None


def _plan(experiment: Experiment, parts: Mapping[str, Data]) -> tuple[dict[str, Callable[[int], dict]], dict]:
    """(task -> its batches by step, task -> what the report says of its rows)."""
    size, readers, about = experiment.train.batch_size, {}, {}
    if not mixes(experiment):
        for name, data in parts.items():
            rows = size if name == MAIN else experiment.tasks[name].rows
            _refuse_uneven(experiment, name, rows)
            readers[name] = _reader(data, size, lambda step, rows=rows: (rows * step, rows * (step + 1)), rows)
            about[name] = {"rows": rows}
        return readers, about
    settings, counts = experiment.mixing, {name: _examples(experiment, name, data) for name, data in parts.items()}
    arguments = (settings.temperature, settings.limit) if settings else ()
    wanted = mixing.proportions(list(counts.values()), *arguments)
    for name, share, whole in zip(parts, wanted, mixing.whole_parts(wanted), strict=True):
        if share * size < 1.0:
            message = f"{name} has {counts[name]} of {sum(counts.values())} examples: less than a row of {size} a step"
            raise UserError(message, "mixing", "raise train.batch_size or mixing.temperature, or set mixing.limit")
        rows = mixing.most_rows(whole, size, experiment.train.shards)
        _refuse_uneven(experiment, name, rows)
        readers[name] = _reader(parts[name], size, functools.partial(mixing.row_span, whole, size), rows)
        about[name] = {"examples": counts[name], "share": float(share), "rows": rows}
    return readers, about


def _reader(data: Data, size: int, span: Callable[[int], tuple[int, int]], rows: int) -> Callable[[int], dict]:
    batch_at = functools.lru_cache(maxsize=4)(data.batch)
    return lambda step: mixing.mixed_rows(batch_at, size, span(step), rows)


def _refuse_uneven(experiment: Experiment, name: str, rows: int) -> None:
    train, devices = experiment.train, experiment.mesh.data
    if rows % train.shards or (train.shards == 1 and rows % devices):
        parts = f"train.shards = {train.shards}" if rows % train.shards else f"mesh.data = {devices} devices"
        where = "train.batch_size" if name == MAIN or mixes(experiment) else f"tasks.{name}.rows"
        mend = (
            "choose a multiple" if not mixes(experiment) else f"set train.shards to {devices}: rows are then filled up"
        )
        raise UserError(f"the {rows} rows of {name} cannot be split over {parts}", where, mend)


def _examples(experiment: Experiment, name: str, data: Data) -> int:
    """Training examples: labelled texts, texts or pairs of sentences that are compared, or windows of a text."""
    if data.documents:
        return len(data.documents["train"])
    if data.examples is not None:
        return data.examples
    return max(sum(map(len, data.tokens["train"])) // example_length(part(experiment, name)), 1)


def part_setup(setup: Setup, experiment: Experiment, name: str) -> Setup:
    """The setup as one task sees it: what evaluates reads through the task's own head."""
    model, train = with_own_rows(setup.model, name), experiment.train
    objective = OBJECTIVES[experiment.tasks[name].objective.name]
    places, batch = setup.shardings[:2], setup.shardings[2]
    eval_step = jax.jit(
        make_eval_step(objective, model, setup.tuning, train.shards, setup.mesh),
        in_shardings=(places[0].trainable, places[1], batch, batch),
        out_shardings=(sharding.replicated(setup.mesh), batch),
    )
    return setup._replace(model=model, eval_step=eval_step)


def as_task(setup: Setup, experiment: Experiment, name: str) -> tuple[Experiment, Setup]:
    """(experiment, setup) of one task of a run, "main" its own. Raises: UserError where the run has no such task."""
    names = [MAIN, *active(experiment)]
    if name not in names:
        mend = f"its tasks are {', '.join(names)}" if len(names) > 1 else "it has learned a single task: leave it out"
        raise UserError(f"the run has no task {name!r}", "--task", mend)
    return (experiment, setup) if name == MAIN else (part(experiment, name), part_setup(setup, experiment, name))


def judge_tasks(job: Run, weights: tuple) -> dict[str, Any]:
    """{"tasks": task -> what it is judged by, beside its baselines} of every task but the run's own.

    Details of labelled tasks go into tasks/NAME/evaluation.json.
    """
    found = {}
    for name, data in job.data.tasks.items():
        experiment, setup = part(job.experiment, name), part_setup(job.setup, job.experiment, name)
        batches = data.evaluation("validation")
        said = results.evaluate(setup, experiment, *weights, batches)
        held_out = results.held_out(said, experiment, data, "validation")
        if experiment.objective.name in LABELLED:
            folder = RunFolder(job.folder.root / "tasks" / name)
            folder.root.mkdir(parents=True, exist_ok=True)
            own = job._replace(experiment=experiment, folder=folder, data=data, setup=setup)
            found[name] = judging.judge_run(own, weights, held_out, {})
        else:
            baselines = results.baselines(experiment, data, "validation")
            found[name] = {"validation": held_out, "baselines": baselines}
    return {"tasks": found} if found else {}
