"""A row of a lab's table: what the runs of one member have reached and cost, over their seeds."""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from minillm.evaluation.intervals import over_seeds
from minillm.experiment import folder as folders
from minillm.experiment.many.chains import own_test
from minillm.experiment.many.workers import Job
from minillm.report.columns import ATTACKS

METRICS = ("bits_per_character", "nll", "accuracy", "recovered", "removed_nll", "exact", "squared_error", "nearest",
           "bleu", "chrf", "rouge1", "rouge2", "rougeL", "placeholders_kept", "placeholders_kept_where_any",
           "answer_f1", "exact_match", "macro_f1", "micro_f1", "entity_f1", "log_loss", "calibration_error", "r2",
           "accuracy_worst",
           *ATTACKS)  # fmt: skip
COSTS = ("training_seconds", "step_seconds", "peak_memory_bytes", "checkpoint_bytes")


def make_row(member: str, runs: list[Job], summaries: list[dict], part: str) -> dict[str, Any]:
    """Mean and interval of every metric and cost that all summaries have."""
    manifest = folders.read_json(runs[0].run / "manifest.json")
    sections = tomllib.loads((runs[0].run / "config.toml").read_text(encoding="utf8"))
    row = {"member": member, "objective": sections["objective"]["name"], "seeds": [job.seed for job in runs],
           "parameters": summaries[0]["parameters"], "trainable_parameters": summaries[0]["trainable_parameters"],
           "steps": summaries[0]["steps"], "data_sha256": manifest["data_sha256"],
           "tokenizer_sha256": manifest["tokenizer_sha256"]}  # fmt: skip
    row |= {"own_test": own_test(sections)} if "tests" in sections else {}
    held_out = sections["data"].get("test_domains")
    row |= {"held_out": held_out} if held_out else {}
    for name in COSTS:
        values = [summary[name] for summary in summaries if summary.get(name) is not None]
        row |= {name: spread(values)} if values else {}
    row["part"] = part = summaries[0].get("judged", "validation") if part == "judged" else part
    judged = [summary[part] for summary in summaries]
    for name in METRICS:
        if all(name in found for found in judged):
            row[name] = spread([found[name] for found in judged])
    for kind, key in (("on", "tests"), ("task", "tasks")):
        for name in summaries[0].get(key, {}):
            found = [judged_part(summary[key][name]) for summary in summaries]
            if "accuracy" in found[0]:
                row[f"{kind}_{name}"] = spread([part["accuracy"] for part in found])
    return row


def judged_part(found: dict[str, Any]) -> dict[str, float]:
    """The metrics of a task of [tasks] or of a section of [tests], on the part that it is judged on."""
    return found.get(found.get("judged", "validation"), found)  # older runs have the metrics of [tests] as they are


def worst_held_out(
    rows: Sequence[Mapping[str, Any]], baselines: Mapping[str, Mapping], tasks: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Method, or baseline -> its accuracy in the worst of the domains that the tasks hold out, seed by seed.

    Nothing where tasks hold out none, or a method lacks one of them.
    """
    if not tasks or not all("held_out" in row and "accuracy" in row for row in rows):
        return {}
    found = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        values = [row["accuracy"]["values"] for row in rows if row["method"] == method]
        if len(values) == len(tasks) and len({len(part) for part in values}) == 1:
            found[method] = spread([min(part) for part in zip(*values, strict=True)])
    for name in dict.fromkeys(name for part in baselines.values() for name in part):
        values = [baselines[task][name]["accuracy"] for task in tasks if name in baselines.get(task, {})]
        found |= {name: spread([min(values)])} if len(values) == len(tasks) else {}
    return found


def spread(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation (0 for a single value), the values, and where there are several the 95 % interval by t."""
    found = over_seeds(values)
    interval = {} if found["low"] is None else {"low": found["low"], "high": found["high"]}
    return {"mean": found["mean"], "deviation": found["deviation"] or 0.0, "values": values} | interval
