"""`minillm lab`: several models on one corpus at one budget, several seeds each, one table. It goes on where it stopped.

A lab's file has `shared` sections, which every member takes over and may change, and a budget of compute from which
each member's number of steps follows. Every run is an ordinary one, in a process and a folder of its own.
"""

import re
import signal
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from minillm import config as configs
from minillm.errors import UserError
from minillm.experiment import folder as folders
from minillm.experiment.data import split_documents
from minillm.experiment.describe import step_flops
from minillm.experiment.probing import label_names, probe
from minillm.report.lab import write_figure
from minillm.training.integrity import replace_file

METRICS = ("bits_per_character", "nll", "accuracy", "recovered", "removed_nll", "exact", "squared_error")


@dataclass(frozen=True)
class Lab:
    """The lab's file."""

    __pydantic_config__ = configs.STRICT

    name: str
    compute: float  # FLOPs of matrix products per run (`describe.product_flops`)
    members: dict[str, dict[str, Any]]  # name -> sections of a run's config, over the shared ones
    shared: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    probe: bool = False  # read the documents' labels off frozen features

    def __post_init__(self):
        for name in (self.name, *self.members):
            if not re.fullmatch(r"[\w-]+", name):
                raise ValueError(f"names name folders: letters, digits, _ and -, got {name!r}")
        if not self.members or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("at least one member and one seed, and no seed twice")
        if not self.compute > 0.0:
            raise ValueError(f"compute must be above 0, got {self.compute}")


class Job(NamedTuple):
    """One run of a lab."""

    member: str
    seed: int
    config: Path
    run: Path


def load(path: Path, overrides: tuple[str, ...] = ()) -> Lab:
    """Reads a lab's file. Raises: UserError."""
    raw = configs.read_toml(path, overrides)
    if "data" in raw and "members" not in raw:
        raise UserError("this is the config of a single run", str(path), "use `minillm run`")
    return configs.validate(Lab, raw, str(path))


def run_lab(
    lab: Lab, root: Path, only: tuple[str, ...], say: Callable[[str], None], environment=None
) -> dict[str, Any]:
    """Runs what has not run yet, of all members or the named ones; returns and writes the table.

    `environment` is that of the runs, where it is not this process's. Raises: UserError.
    """
    unknown = sorted(set(only) - set(lab.members))
    if unknown:
        raise UserError(f"no member {', '.join(unknown)}", "--only", f"known members: {', '.join(lab.members)}")
    everything = plan(lab, root, say)
    jobs = [job for job in everything if not only or job.member in only]
    for number, job in enumerate(jobs, start=1):
        if not (job.run / "summary.json").exists():
            say(f"Run {number} of {len(jobs)}: {job.member}, seed {job.seed}")
            _train(job, environment)
        if lab.probe and not (job.run / "probe.json").exists():
            say(f"Probe {number} of {len(jobs)}: {job.member}, seed {job.seed}")
            folders.write_json(job.run / "probe.json", probe(job.run))
    needed = ("summary.json", "probe.json") if lab.probe else ("summary.json",)
    table = collect(lab, [job for job in everything if all((job.run / name).exists() for name in needed)])
    folders.write_json(root / "table.json", table)
    write_figure(table, root / "table.png")
    return table


def plan(lab: Lab, root: Path, say: Callable[[str], None]) -> list[Job]:
    """Writes every run's config, its steps from the budget. Raises: UserError where another lab lies in `root`."""
    jobs, texts, judged = [], [], set()
    for member, own in lab.members.items():
        sections = merge(lab.shared, own)
        experiment = configs.check(merge(sections, {"train": _pace(10**6)}), f"members.{member}")
        flops = step_flops(experiment)
        if lab.compute < flops:
            message = f"{lab.compute:.1e} FLOPs are less than one step of {member}, which takes {flops:.1e}"
            raise UserError(message, "compute", "make it larger")
        steps = round(lab.compute / flops)
        say(f"{member}: {steps} steps")
        for seed in lab.seeds:
            jobs.append(
                Job(member, seed, root / "configs" / f"{member}-{seed}.toml", root / "runs" / f"{member}-{seed}")
            )
            made = merge(sections, {"name": f"{member}-{seed}", "train": _pace(steps) | {"seed": seed}})
            if experiment.objective.name in judged and "baselines" not in sections:
                made["baselines"] = {"orders": [1], "xz": False}  # the text is the same: its n-grams are counted once
            judged.add(experiment.objective.name)
            configs.check(made, f"members.{member}")
            texts.append(tomli_w.dumps(made))
    if lab.probe:
        label_names(split_documents(experiment)[0])
    for job, text in zip(jobs, texts, strict=True):
        if job.config.exists() and job.config.read_text(encoding="utf8") != text:
            raise UserError("another lab's run has this name", str(job.config), "choose another --out")
    for job, text in zip(jobs, texts, strict=True):
        job.config.parent.mkdir(parents=True, exist_ok=True)
        replace_file(job.config, text.encode())
    return jobs


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Nested sections, those of `above` where both have a key."""
    both = {key: merge(below[key], value) for key, value in above.items()
            if isinstance(value, dict) and isinstance(below.get(key), dict)}  # fmt: skip
    return below | above | both


def collect(lab: Lab, jobs: list[Job]) -> dict[str, Any]:
    """The table: a row per member with mean and standard deviation over seeds, the baselines, and the budget."""
    rows, baselines = [], {}
    for member in dict.fromkeys(job.member for job in jobs):
        runs = [job for job in jobs if job.member == member]
        summaries = [folders.read_json(job.run / "summary.json") for job in runs]
        manifest = folders.read_json(runs[0].run / "manifest.json")
        objective = tomllib.loads((runs[0].run / "config.toml").read_text(encoding="utf8"))["objective"]["name"]
        row = {"member": member, "objective": objective, "seeds": [job.seed for job in runs],
               "parameters": summaries[0]["parameters"], "steps": summaries[0]["steps"],
               "training_seconds": spread([s["training_seconds"] for s in summaries]),
               "data_sha256": manifest["data_sha256"], "tokenizer_sha256": manifest["tokenizer_sha256"]}  # fmt: skip
        for name in METRICS:
            if all(name in summary["validation"] for summary in summaries):
                row[name] = spread([summary["validation"][name] for summary in summaries])
        if lab.probe:
            probes = [folders.read_json(job.run / "probe.json") for job in runs]
            row |= {f"probe_{name}": spread([found[name] for found in probes]) for name in probes[0]}
        for name, found in summaries[0]["baselines"].items():
            baselines.setdefault(objective, {}).setdefault(name, found)
        rows.append(row)
    for key in ("data_sha256", "tokenizer_sha256"):
        if len({row[key] for row in rows}) > 1:
            raise UserError(f"the members differ in their {key}", lab.name, "share data and tokenizer")
    return {"name": lab.name, "compute": lab.compute, "rows": rows, "baselines": baselines}


def spread(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation (0 for a single value) and the values themselves."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "deviation": deviation, "values": values}


def _pace(steps: int) -> dict[str, int]:
    return {"steps": steps, "evaluate_every": max(steps // 2, 1), "log_every": max(steps // 50, 1)}


def _train(job: Job, environment: dict[str, str] | None) -> None:
    """One run in a process of its own. What stops the lab stops the run, which saves and is waited for."""
    command = [sys.executable, "-m", "minillm.cli", "run", str(job.config), "--out", str(job.run), "--resume"]
    with subprocess.Popen(command, env=environment) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.terminate()  # a terminal's Ctrl-C has reached it already, a signal to the lab alone has not
            process.wait()
            raise
    if code in (130, 143, -signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt
    if code:
        mend = "mend what it says above, then give the same command again"
        raise UserError(f"the run of {job.member}, seed {job.seed}, ended with code {code}", str(job.run), mend)
