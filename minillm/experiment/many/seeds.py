"""Is a difference more than luck? Runs that differ in nothing but their seed are a group; groups are compared.

A folder of `minillm lab` or `minillm sweep` has a group per member; other runs are grouped by their configs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minillm import config as configs
from minillm.evaluation.intervals import over_seeds, paired_seeds, welch
from minillm.experiment import folder as folders
from minillm.experiment.folder import RunFolder
from minillm.report.columns import COLUMNS

# may differ within a group: what a model does not learn from
SAME = ("name", "train.seed", "train.log_every", "sample.", "baselines.", "tracking.", "fork.run")


def is_lab(root: Path) -> bool:
    """Whether a folder is one of many runs."""
    return (root / "table.json").is_file() and (root / "runs").is_dir()


def group(roots: Sequence[Path]) -> list[dict[str, Any]]:
    """{"name", "member", "seeds", "metrics": name -> mean, interval and values} of every group; labs first.

    Raises: UserError where one is no run, or has not ended.
    """
    labs, found = [root for root in dict.fromkeys(roots) if is_lab(root)], []
    for root in labs:
        for row in folders.read_json(root / "table.json")["rows"]:
            metrics = {key: value for key, value in row.items() if isinstance(value, dict) and "values" in value}
            name = f"{root.name}/{row['member']}" if len(labs) > 1 else row["member"]
            found.append({"name": name, "member": row["member"], "seeds": row["seeds"], "metrics": metrics})
    singles: list[dict[Path, configs.Experiment]] = []
    for root in (root for root in dict.fromkeys(roots) if not is_lab(root)):
        experiment = configs.load(folders.existing(root).config)
        alike = (runs for runs in singles if all(_same(other, experiment) for other in runs.values()))
        members = next(alike, None)
        if members is None:
            singles.append(members := {})
        members[root] = experiment
    for runs in singles:
        name, seeds = str(next(iter(runs))), [experiment.train.seed for experiment in runs.values()]
        found.append({"name": name, "member": name, "seeds": seeds, "metrics": _metrics(list(runs))})
    return found


def differences(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The others against the first, or where two labs have members of one name those two; groups of one seed say nothing.

    {"left", "right", "metric", "welch", "paired": over the seeds that both have, None where they share fewer than two}.
    """
    groups = [found for found in groups if len(found["seeds"]) > 1]
    metric = next((key for key in (*COLUMNS, "loss") if all(key in found["metrics"] for found in groups)), None)
    if len(groups) < 2 or metric is None:
        return []
    same = [
        (left, right)
        for place, left in enumerate(groups)
        for right in groups[place + 1 :]
        if left["member"] == right["member"]
    ]
    rows = []
    for left, right in same or [(groups[0], other) for other in groups[1:]]:
        values = [dict(zip(side["seeds"], side["metrics"][metric]["values"], strict=True)) for side in (left, right)]
        shared = [seed for seed in values[0] if seed in values[1]]
        pairs = [[side[seed] for seed in shared] for side in values]
        rows.append({"left": left["name"], "right": right["name"], "metric": metric,
                     "welch": welch(*(list(side.values()) for side in values)),
                     "paired": paired_seeds(*pairs) if len(shared) > 1 else None})  # fmt: skip
    return rows


def _same(left: configs.Experiment, right: configs.Experiment) -> bool:
    return (
        all(key.startswith(SAME) for key in configs.changed_keys(left, right)) and left.train.seed != right.train.seed
    )


def _metrics(runs: Sequence[Path]) -> dict[str, Any]:
    """Metrics over runs, on the part that they are judged on."""
    summaries = [folders.read_json(RunFolder(run).summary) for run in runs]
    judged = [summary[summary.get("judged", "validation")] for summary in summaries]
    names = [name for name in judged[0] if all(isinstance(found.get(name), int | float) for found in judged)]
    return {name: over_seeds([found[name] for found in judged]) for name in names}
