"""The end of a run: evaluate, compare, sample or judge, draw, and write the summary last."""

import dataclasses
import resource
import statistics
import sys
from typing import Any

import jax

from minillm import config as configs
from minillm.experiment import folder as folders
from minillm.experiment import judging, results, similarity, write, writing
from minillm.experiment.ask import fill
from minillm.experiment.job import Run
from minillm.experiment.recipes import continual, mixture
from minillm.experiment.saved import judged_step, restore, tree_hash
from minillm.params import count
from minillm.training import loop
from minillm.training.state import State
from minillm.training.watch import Mended


def finish(job: Run, state: State, frozen, progress: loop.Progress, base: dict) -> dict:
    """Evaluates, compares, samples, draws, and writes the summary last: it says that the run is complete."""
    if progress.finished:
        state, _, _ = restore(job.folder, job.setup, judged_step(job.folder))
    batches = job.data.evaluation("validation")
    found = results.evaluate(job.setup, job.experiment, state.trainable, frozen, batches)
    held_out = results.held_out(found, job.experiment, job.data, "validation")
    job.say("Fitting the baselines on the same data ...")
    summary = {
        "steps": int(state.step),
        "parameters": count(job.setup.specs),
        "trainable_parameters": count(job.setup.tuning.specs(job.setup.specs)),
        "validation": held_out,
        "training_seconds": progress.seconds,
        "best_step": progress.best_step,
        "parameter_hash": tree_hash(state.trainable),
        **({"bad_steps": [Mended(*bad)._asdict() for bad in progress.mended]} if progress.mended else {}),
        **{name: job.data.cleaning[name] for name in ("annotation", "pseudo") if name in job.data.cleaning},
        **costs(job, state),
    }
    found, samples = _judge(job, (state.trainable, frozen), held_out, base)
    summary |= found
    summary |= mixture.judge_tasks(job, (state.trainable, frozen))
    summary |= continual.judge_tests(job, (state.trainable, frozen))
    write.write_results(job.folder, job.experiment, job.setup, samples, summary)
    return summary


def _judge(job: Run, weights: tuple, held_out: dict[str, float], base: dict) -> tuple[dict[str, Any], list[dict]]:
    """(what the summary says of the model and its baselines, samples); weights = (trainable, frozen)."""
    if job.data.documents and job.experiment.objective.name == "sequence_to_sequence":
        return writing.judge_run(job, job.setup.tuning.attach(*weights), held_out)
    if job.data.documents:
        return judging.judge_run(job, weights, held_out, base), []
    if job.experiment.objective.name == "simcse":
        found, baselines = similarity.judge_similarity(job, weights, base)
        return {"validation": held_out | found, "baselines": baselines}, []
    found = {"baselines": results.baselines(job.experiment, job.data, "validation")}
    samples = [] if job.data.tokenizer is None else _samples(job, job.setup.tuning.attach(*weights))
    return found, samples


def costs(job: Run, state: State) -> dict[str, Any]:
    """Seconds of a step (the median, compilation left out), bytes of what a checkpoint holds, and of memory at the most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    lines = [line for line in folders.read_lines(job.folder.metrics) if "step_seconds" in line]
    return {
        "step_seconds": statistics.median(line["step_seconds"] for line in lines) if lines else None,
        "checkpoint_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
        "peak_memory_bytes": peak,
    }


def check_prompts(job: Run) -> None:
    """What cannot be sampled is said before training. Raises: UserError."""
    if job.data.tokenizer is None or job.data.documents or job.experiment.objective.name == "simcse":
        return
    prompts, context = job.experiment.sample.prompts, job.setup.config.context
    if job.experiment.objective.name == "causal":
        results.encode_prompts(job.data.tokenizer, prompts, context)
    elif any(prompts):
        fill.encode_gaps(job.experiment, job.setup, job.data.tokenizer, prompts)


def _samples(job: Run, params) -> list[dict[str, str]]:
    """Continuations, or prompts with their gaps filled in; where there is no prompt, held-out text gets gaps."""
    if job.experiment.objective.name == "causal":
        return results.draw_samples(job.setup, params, job.data.tokenizer, sample_settings(job))
    prompts = job.experiment.sample.prompts
    if not any(prompts):
        prompts = fill.gaps(job.experiment, job.setup, job.data.tokenizer, job.data.texts["validation"])
    return fill.fill(job.experiment, job.setup, params, job.data.tokenizer, prompts)


def sample_settings(job: Run) -> configs.SampleConfig:
    """The [sample] section, with as many new tokens as the context leaves room for."""
    settings, context = job.experiment.sample, job.setup.config.context
    longest = max(map(len, results.encode_prompts(job.data.tokenizer, settings.prompts, context)), default=1)
    return dataclasses.replace(settings, tokens=min(settings.tokens, context - longest))
