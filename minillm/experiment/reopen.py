"""What can be asked of a finished (or stopped) run: sample, evaluate, compare, verify."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from minillm import config as configs
from minillm.errors import UserError
from minillm.experiment import folder as folders
from minillm.experiment import results
from minillm.experiment.data import Data, load_data
from minillm.experiment.folder import RunFolder
from minillm.experiment.run import restore
from minillm.experiment.setup import Setup, make_setup, new_state
from minillm.training import checkpoint, provenance


def _open(root: Path) -> tuple[RunFolder, Data, Setup]:
    folder = folders.existing(root)
    experiment = configs.load(folder.config)
    if experiment.data.source != "copy" and not folder.tokenizer.exists():
        raise UserError("the run has no tokenizer yet", str(root), "finish it with `minillm run ... --resume`")
    data = load_data(experiment, folder.tokenizer)
    recorded = folders.read_json(folder.manifest)
    if data.sha256 != recorded["data_sha256"]:
        raise UserError(
            "the text differs from the run's", experiment.data.path or experiment.data.source, "put it back"
        )
    if data.tokenizer is not None and data.tokenizer.sha256 != recorded["tokenizer_sha256"]:
        raise UserError("this is not the run's tokenizer", str(folder.tokenizer), "put the run's own file back")
    return folder, data, make_setup(experiment, data.vocabulary)


def _newest(folder: RunFolder) -> int:
    step = checkpoint.latest(folder.checkpoints)
    if step is None:
        raise UserError("the run has no complete checkpoint yet", str(folder.root), "go on with --resume")
    return step


def sample(root: Path, settings: configs.SampleConfig) -> list[dict[str, str]]:
    """Continuations of prompts. Raises: UserError where the prompt does not fit or the run has no tokenizer."""
    folder, data, setup = _open(root)
    if data.tokenizer is None:
        raise UserError("the copy task has no text to sample", str(root), "use `minillm eval`")
    state, frozen, _ = restore(folder, setup, _newest(folder))
    longest = max(len(results.encode_prompt(data.tokenizer, prompt)) for prompt in settings.prompts)
    if longest + settings.tokens > setup.config.context:
        raise UserError(
            f"prompt of {longest} tokens + {settings.tokens} new ones do not fit into the context of {setup.config.context}",
            "--prompt, --tokens",
            f"use a shorter prompt or at most {max(setup.config.context - longest, 0)} tokens",
        )
    params = setup.tuning.attach(state.trainable, frozen)
    return results.draw_samples(setup, params, data.tokenizer, settings.prompts, settings)


def evaluate(root: Path, split: str) -> dict[str, Any]:
    """Metrics of the newest checkpoint on a split."""
    folder, data, setup = _open(root)
    if split not in ("validation", "test"):
        raise UserError(f"unknown split {split!r}", "--split", "use validation or test")
    step = _newest(folder)
    state, frozen, _ = restore(folder, setup, step)
    found = results.evaluate(setup, state.trainable, frozen, data.evaluation(split))
    likelihood = results.describe_likelihood(found["nll"], found["tokens"], data, split)
    return {"step": step, "split": split} | likelihood | {"accuracy": found["accuracy"], "tokens": found["tokens"]}


def compare(roots: list[Path]) -> list[dict[str, Any]]:
    """One row per finished run; the curves go into compare.png beside the first."""
    from minillm.report.plot import compare_curves

    rows, curves = [], {}
    for root in roots:
        folder = folders.existing(root)
        summary = folders.read_json(folder.summary)
        held_out = summary["validation"]
        rows.append({"run": str(root), "parameters": summary["parameters"], "steps": summary["steps"],
                     "loss": held_out["loss"], "perplexity": held_out["perplexity"],
                     "bits_per_character": held_out.get("bits_per_character"),
                     "seconds": summary["training_seconds"]})  # fmt: skip
        curves[str(root)] = folders.read_lines(folder.metrics)
    compare_curves(curves, roots[0] / "compare.png")
    return rows


def verify(root: Path, steps: int | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Checks all checkpoints and the log's chain, then trains again from step 0 and compares line by line."""
    folder, data, setup = _open(root)
    for step in checkpoint.steps(folder.checkpoints):
        checkpoint.verify(folder.checkpoints / f"step_{step:08d}")
    recorded = provenance.read(folder.provenance)[:steps]
    if not recorded:
        raise UserError("no step is recorded", str(folder.provenance), "run the experiment first")
    state, frozen = new_state(setup)
    key_hash = provenance.hash_arrays({"key": jax.random.key_data(setup.key)})
    chain = provenance.START
    for line in recorded:
        step = line["step"]
        batch = data.batch(step - 1)
        state, metrics = setup.train_step(state, frozen, jax.device_put(batch, setup.shardings[2]), setup.key)
        hashes = checkpoint.leaf_hashes(state.trainable) if "parameters" in line else None
        new = provenance.record(chain, step, provenance.hash_arrays(batch), key_hash, float(metrics["loss"]), hashes)
        chain, difference = new["chain"], provenance.first_difference([line], [new])
        if difference is not None:
            leaf = f" ({difference.leaf})" if difference.leaf else ""
            verdict = f"step {difference.step} differs in its {difference.field}{leaf}"
            return {"equal": False, "steps": step, "verdict": verdict, **difference._asdict()}
        if step % 100 == 0:
            say(f"{step} of {len(recorded)} steps replayed, all equal so far")
    return {"equal": True, "steps": len(recorded), "verdict": f"all {len(recorded)} replayed steps are equal"}
