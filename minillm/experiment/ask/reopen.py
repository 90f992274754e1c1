"""What can be asked of a finished (or stopped) run: sample, evaluate, compare."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax

from minillm import config as configs
from minillm.data import tokenizer
from minillm.errors import UserError
from minillm.experiment import exchange, judging, results, writing
from minillm.experiment import folder as folders
from minillm.experiment.ask import fill
from minillm.experiment.data import Data, vocabulary_size
from minillm.experiment.folder import RunFolder
from minillm.experiment.many import seeds
from minillm.experiment.recipes import attack, mixture
from minillm.experiment.recipes.tasks import MAIN
from minillm.experiment.saved import judged_step, restore
from minillm.experiment.setup import Setup, make_setup, with_own_kernel
from minillm.sections.experiment import IMAGES, LABELLED, NEEDS, SYNTHETIC


class Opened(NamedTuple):
    """A run that exists: its folder, config, tokenizer (None where there is no text) and setup, but not its text."""

    folder: RunFolder
    experiment: configs.Experiment
    tokenizer: tokenizer.Tokenizer | None
    setup: Setup
    task: str = MAIN  # the one of [tasks] that experiment and setup are of


def open_run(root: Path) -> Opened:
    """Raises: UserError where it is no run, or where its tokenizer is missing, damaged or another's."""
    folder = folders.existing(root)
    exchange.refuse_silent(folder)
    experiment = _on_this_machine(configs.load(folder.config))
    if experiment.data.source in SYNTHETIC + IMAGES:
        return Opened(folder, experiment, None, make_setup(experiment, vocabulary_size(experiment)))
    pieces = exchange.load_tokenizer(folder)
    return Opened(folder, experiment, pieces, make_setup(experiment, vocabulary_size(experiment, pieces.vocabulary)))


def _on_this_machine(experiment: configs.Experiment) -> configs.Experiment:
    """With one device, where this process has fewer than the run had: to read what was trained needs no more."""
    experiment, mesh = with_own_kernel(experiment), experiment.mesh
    if mesh.data * mesh.model <= jax.local_device_count():
        return experiment
    return dataclasses.replace(experiment, mesh=configs.MeshConfig())


def read_data(opened: Opened) -> Data:
    """The run's text once more. Raises: UserError where it is not the text that the run was trained on."""
    data = mixture.load(opened.experiment, opened.folder.tokenizer, opened.tokenizer)
    if data.sha256 != folders.read_json(opened.folder.manifest)["data_sha256"]:
        source = opened.experiment.data.path or opened.experiment.data.source
        raise UserError("the text differs from the run's", source, "put it back, or use the Python of the run")
    return data


def as_task(opened: Opened, task: str | None) -> Opened:
    """The run as one of its [tasks] sees it; None: as it is. Raises: UserError where it has no such task."""
    if task is None:
        return opened
    experiment, setup = mixture.as_task(opened.setup, opened.experiment, task)
    return opened._replace(experiment=experiment, setup=setup, task=task)


def sample(root: Path, settings: configs.SampleConfig) -> list[dict[str, str]]:
    """Continuations of prompts, or prompts with their gaps filled in.

    Raises: UserError where the prompt does not fit or the run has no tokenizer.
    """
    folder, experiment, pieces, setup, _ = open_run(root)
    if pieces is None:
        raise UserError(f"{experiment.data.source} has no text to sample", str(root), "use `minillm eval`")
    if experiment.objective.name in LABELLED:
        raise UserError("this run has learned to label texts, not to write them", str(root), "use `minillm predict`")
    if experiment.objective.name == "simcse":
        raise UserError("this run has learned to compare texts, not to write them", str(root), "use `minillm eval`")
    state, frozen, _ = restore(folder, setup, judged_step(folder))
    params = setup.tuning.attach(state.trainable, frozen)
    if experiment.objective.name == "sequence_to_sequence":
        if not all(settings.prompts):
            raise UserError("there is nothing to write from", "--prompt", "give a text")
        written = writing.write(setup, experiment, params, pieces, settings.prompts)
        return [{"prompt": p, "text": f"\n→ {text}"} for p, text in zip(settings.prompts, written, strict=True)]
    if experiment.objective.name != "causal":
        prompts = settings.prompts if any(settings.prompts) else experiment.sample.prompts
        return fill.fill(experiment, setup, params, pieces, prompts)
    return results.draw_samples(setup, params, pieces, settings)


def evaluate(
    root: Path,
    split: str,
    attacked: configs.AttackConfig | None = None,
    task: str | None = None,
    only: str | None = None,
) -> dict[str, Any]:
    """Metrics of the newest checkpoint on a split; the accuracy that is left under attacks, beside the baselines'.

    Of a run with [tasks] these are the metrics of its own task, or of `task`. only: the one attack that is asked for; None: all.
    """
    if split not in ("validation", "test"):
        raise UserError(f"unknown split {split!r}", "--split", "use validation or test")
    opened = open_run(root)
    folder, experiment, _, setup, _ = as_task(opened, task)
    data = read_data(opened)
    data = data if task in (None, MAIN) else data.tasks[task]
    step = judged_step(folder)
    state, frozen, _ = restore(folder, opened.setup, step)
    found = results.evaluate(setup, experiment, state.trainable, frozen, data.evaluation(split))
    held_out = results.held_out(found, experiment, data, split)
    if data.documents:
        documents, weights = data.documents[split], (state.trainable, frozen)
    if data.documents and experiment.objective.name == "sequence_to_sequence":
        texts = [document.text for document in documents]
        written = writing.write(setup, experiment, setup.tuning.attach(*weights), data.tokenizer, texts)
        held_out |= writing.judge(experiment, documents, written).metrics
    elif data.documents:
        answers = judging.model_answers(setup, experiment, weights, data.evaluation(split), documents)
        held_out |= judging.judge(experiment, documents, answers).metrics
    if attacked is not None:
        if experiment.objective.markers:
            message = "reworded texts may lose the words of objective.markers"
            raise UserError(message, "--attack", "attack a run without markers")
        reads = "text" if data.documents else experiment.data.source
        attacked.refuse_mismatch(
            experiment.objective.name, reads, bool(experiment.base.run or experiment.pretrain), str(root)
        )
        experiment = dataclasses.replace(experiment, attack=attacked)
        victim = attack.Victim(setup, experiment, data.tokenizer, weights, root)
        fitted = judging.fit_texts(experiment, data.documents["train"], data.documents["validation"])
        for method, rows in attack.measure(victim, documents, data.texts["train"], fitted, only).items():
            held_out |= {f"accuracy_{method}{' of ' * bool(who)}{who}": row["value"] for who, row in rows.items()}
    return {"step": step, "split": split} | held_out | {NEEDS[experiment.objective.name].unit: found["scored"]}


def compare(roots: list[Path]) -> dict[str, Any]:
    """{"runs": a row per finished run, "groups", "differences"}: labs and sweeps count as groups, see `seeds.py`.

    The curves of the runs go into compare.png beside the first, those of branches from their forks on.
    """
    rows = _rows([root for root in roots if not seeds.is_lab(root)])
    groups = seeds.group(roots)
    return {"runs": rows, "groups": groups, "differences": seeds.differences(groups)}


def _rows(roots: list[Path]) -> list[dict[str, Any]]:
    from minillm.report.plot import compare_curves

    rows, curves, forks = [], {}, {}
    for root in roots:
        folder = folders.existing(root)
        summary = folders.read_json(folder.summary)
        if not {"parameters", "steps", "validation", "training_seconds"} <= set(summary):
            raise UserError("this is not a run's summary", str(folder.summary), "finish the run with --resume")
        held_out = summary["validation"]
        rows.append({"run": str(root), "parameters": summary["parameters"], "steps": summary["steps"],
                     "loss": held_out["loss"], "perplexity": held_out.get("perplexity"),
                     "bits_per_character": held_out.get("bits_per_character"),
                     "seconds": summary["training_seconds"]})  # fmt: skip
        curves[str(root)] = folders.read_lines(folder.metrics)
        fork = folders.read_json(folder.manifest).get("fork")
        if fork and Path(fork["run"]) in [other.absolute() for other in roots]:
            forks[str(root)] = fork["step"]
    if rows:
        compare_curves(curves, roots[0] / "compare.png", forks)
    return rows
