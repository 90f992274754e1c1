"""`minillm lab`: several runs that differ in what they say, several seeds each, one table. It goes on where it stopped.

A lab's file has `shared` sections, which every member takes over and may change. Members are named one by one, or they
are every method with every task. `bases` are runs that come first, one each, with which members begin:
base = { run = "@NAME" }. With a budget of compute each member's number of steps follows from it; without one the
config says it. Every run is an ordinary one, in a process and a folder of its own.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from minillm import config as configs
from minillm.bits import replace_file
from minillm.errors import UserError
from minillm.evaluation import transfer
from minillm.experiment import base as bases
from minillm.experiment import folder as folders
from minillm.experiment.data import split_documents, vocabulary_size
from minillm.experiment.many import chains, draws, sequences
from minillm.experiment.many.lab_rows import make_row, spread, worst_held_out
from minillm.experiment.many.labels_bought import bought, from_first
from minillm.experiment.many.workers import ONE, Job, Workers, diverged, shares, train_all
from minillm.experiment.paper.describe import step_flops
from minillm.experiment.probing import label_names, probe
from minillm.experiment.setup import make_setup
from minillm.report.lab import write_curves, write_figure
from minillm.report.transfer import write_matrices

FITTED = {"orders": [1], "xz": False, "text": False}  # [baselines] where another run fits them on the same text
MEND_DIVERGED = "lower optimizer.learning_rate or set optimizer.clip_norm, with another --out"


@dataclass(frozen=True)
class Lab:
    """The lab's file."""

    __pydantic_config__ = configs.STRICT

    name: str
    members: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> sections, over the shared ones
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)  # with `methods`: a member TASK-METHOD for each pair
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    bases: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> a whole config
    compute: float | None = None  # FLOPs of matrix products per run (`describe.product_flops`); None: train.steps
    shared: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    sequences: dict[str, tuple[str, ...]] = field(default_factory=dict)  # name -> members in order: see `transfer`
    apart: tuple[str, ...] = ()  # sequences of which each task keeps a model, or an adapter, of its own
    untrained: str | None = None  # the member that has learned no task: forward transfer is measured from it
    probe: bool = False  # read the documents' labels off frozen features
    curves: bool = False  # draw the losses of training and of validation, a mean over seeds per member
    draws: dict[str, Any] = field(default_factory=dict)  # of a random search, whose points the members are

    def __post_init__(self):
        for name in (self.name, *self.members, *self.tasks, *self.methods, *self.bases):
            if not re.fullmatch(r"[\w-]+", name):
                raise ValueError(f"names name folders: letters, digits, _ and -, got {name!r}")
        if bool(self.tasks) != bool(self.methods) or bool(self.members) == bool(self.tasks):
            raise ValueError("either members, or tasks and methods")
        if self.tasks and len(self.sections()) < len(self.tasks) * len(self.methods):
            raise ValueError("two pairs of a task and a method have the same name, TASK-METHOD: rename one")
        named = [member for order in self.sequences.values() for member in order]
        named += [self.untrained] if self.untrained else []
        if unknown := [name for name in named if name not in self.sections()]:
            raise ValueError(f"sequences and untrained name members, and {unknown[0]} is none")
        if unknown := sorted(set(self.apart) - set(self.sequences)):
            raise ValueError(f"apart names sequences, and {unknown[0]} is none")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("at least one seed, and no seed twice")
        if self.compute is not None and not self.compute > 0.0:
            raise ValueError(f"compute must be above 0, got {self.compute}")

    def sections(self) -> dict[str, dict[str, Any]]:
        """Member -> the sections of its config."""
        pairs = {f"{task}-{method}": merge(self.tasks[task], self.methods[method])
                 for task in self.tasks for method in self.methods}  # fmt: skip
        return {name: merge(self.shared, own) for name, own in (self.members or pairs).items()}


def load(path: Path, overrides: tuple[str, ...] = ()) -> Lab:
    """Reads a lab's file. Raises: UserError."""
    raw = configs.read_toml(path, overrides)
    if "data" in raw and not {"members", "tasks"} & set(raw):
        raise UserError("this is the config of a single run", str(path), "use `minillm run`")
    return configs.validate(Lab, raw, str(path))


def run_lab(
    lab: Lab,
    root: Path,
    only: tuple[str, ...],
    say: Callable[[str], None],
    workers: Workers = ONE,
    part: str = "judged",
) -> dict[str, Any]:
    """Runs what has not run yet, of all members or the named ones; returns and writes the table.

    `part`: the metrics of the rows are those on the "validation" part, or on the one that the runs are "judged" on.
    Raises: UserError.
    """
    shares(workers.parallel)
    members = lab.sections()
    chosen = [member for member in members if not only or any(fnmatch.fnmatchcase(member, name) for name in only)]
    for name in only:
        if not fnmatch.filter(members, name):
            raise UserError(f"no member {name}", "--only", f"known members: {', '.join(members)}")
    _refuse_early(lab)
    if root.is_file() or (root / "config.toml").is_file():
        what = "a file" if root.is_file() else "the folder of a run"
        raise UserError(f"this is {what}, a folder for many runs was expected", str(root), "choose another --out")
    if lab.draws:
        draws.remember(root / "draws.json", lab.draws)
    _train_bases(lab, root, say, workers)
    everything: list[Job] = []
    judged: set[tuple] = set()
    for stage in _stages(members):
        everything += plan(lab, root, say, stage, judged)
        pending = [job for job in everything if job.member in set(chosen) & set(stage)]
        train_all([job for job in pending if not _ended(job)], workers, say)
    jobs = [job for job in everything if job.member in chosen]
    lost = [job for job in everything if diverged(job)]
    for number, job in enumerate(jobs, start=1):
        if lab.probe and job not in lost and not (job.run / "probe.json").exists():
            say(f"Probe {number} of {len(jobs)}: {job.member}, seed {job.seed}")
            folders.write_json(job.run / "probe.json", probe(job.run))
    needed = ("summary.json", "probe.json") if lab.probe else ("summary.json",)
    table = collect(lab, [job for job in everything if all((job.run / name).exists() for name in needed)], part, lost)
    for name in set(lab.apart) & set(table.get("sequences", {})):
        runs = [[root / "runs" / f"{member}-{seed}" for member in lab.sequences[name]] for seed in lab.seeds]
        table["sequences"][name] |= sequences.kept(runs, root / "adapters", say)
    folders.write_json(root / "table.json", table)
    if lost and not table["rows"]:
        raise UserError("every run has diverged", str(root), MEND_DIVERGED)
    write_figure(table, root / "table.png")
    if "sequences" in table:
        write_matrices(table["sequences"], root / "matrix.png")
    if lab.curves:
        ended = [job for job in everything if job not in lost and (job.run / "summary.json").exists()]
        logs = {name: [folders.read_lines(job.run / "metrics.jsonl") for job in ended if job.member == name]
                for name in dict.fromkeys(job.member for job in ended)}  # fmt: skip
        write_curves(logs, root / "curves.png")
    return table


def _ended(job: Job) -> bool:
    return diverged(job) or (job.run / "summary.json").exists()


def _train_bases(lab: Lab, root: Path, say: Callable[[str], None], workers: Workers) -> None:
    before = {name: {chains.begins_with(own)} & set(lab.bases) for name, own in lab.bases.items()}
    for stage in chains.stages(before, "bases"):
        texts = {}
        for name in stage:
            text = {"name": name} | _locate(lab.bases[name], root, 0)
            bases.check(text, f"bases.{name}")
            texts[Job(name, 0, root / "configs" / f"{name}.toml", root / "bases" / name)] = tomli_w.dumps(text)
        _write_configs(texts)
        jobs = [job for job in texts if not (job.run / "summary.json").exists()]
        train_all(jobs, workers, lambda text: say(text.replace("Run", "Base", 1)))
        for job in filter(diverged, jobs):
            raise UserError("training diverged, and members begin with this run", str(job.run), MEND_DIVERGED)


def _stages(members: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Members come after those whose runs they begin with or learn from."""
    return chains.stages(chains.members_before(members), "members")


def plan(
    lab: Lab,
    root: Path,
    say: Callable[[str], None],
    stage: Sequence[str] | None = None,
    judged: set[tuple] | None = None,
) -> list[Job]:
    """Writes the config of every run, or of those of the named members, steps from the budget.

    `judged`: the questions to baselines that other runs of the lab answer; grows. Raises: UserError where another lab
    lies in `root`.
    """
    texts, members = {}, lab.sections()
    judged, before = set() if judged is None else judged, chains.members_before(members)
    for member, sections in members.items():
        first = [root / "runs" / f"{name}-{seed}" for name in before[member] for seed in lab.seeds]
        ready = all((run / "summary.json").exists() for run in first)
        if (stage is not None and member not in stage) or not ready:
            continue
        located = [_locate(sections, root, seed, members) for seed in lab.seeds]
        paced = merge(located[0], {"train": _pace(10**6)} if lab.compute else {})
        experiment = bases.check(paced, f"members.{member}")
        steps = experiment.train.steps if lab.compute is None else _steps(lab.compute, experiment, member)
        say(f"{member}: {steps} steps")
        for seed, sections in zip(lab.seeds, located, strict=True):
            name = f"{member}-{seed}"
            made = merge(sections, {"name": name, "train": (_pace(steps) if lab.compute else {}) | {"seed": seed}})
            if (question := _question(experiment, seed)) in judged and "baselines" not in sections:
                made["baselines"] = FITTED
            judged.add(question)
            bases.check(made, f"members.{member}")
            texts[Job(member, seed, root / "configs" / f"{name}.toml", root / "runs" / name)] = tomli_w.dumps(made)
    if lab.probe:
        label_names(split_documents(experiment)[0])
    _write_configs(texts)
    return list(texts)


def _refuse_early(lab: Lab) -> None:
    """Checks all members before anything is trained, those on a base of the lab on its model and tokenizer.

    Raises: UserError.
    """
    members = lab.sections()
    _stages(members)
    for place, table in (("bases", lab.bases), ("members", members)):
        for name, sections in table.items():
            first = chains.begins_with(sections)
            first = first and first.replace("{seed}", str(lab.seeds[0]))
            if first and first not in lab.bases and not chains.member_before(sections, members):
                mend = f"the lab's bases are {', '.join(lab.bases) or 'none'}"
                raise UserError(f"no base is called {first!r}", f"{place}.{name}: base.run", mend)
    own = {}
    for member, sections in members.items():
        where, alone = f"members.{member}", (sections, members, lab.bases, lab.seeds[0])
        found = merge(chains.standing_alone(*alone), {"train": _pace(10**6)} if lab.compute else {})
        experiment = bases.check(found, where, chains.below(*alone))
        experiment, own[member] = dataclasses.replace(experiment, mesh=configs.MeshConfig()), configs.plain(experiment)
        for stage in (bases.pretraining(experiment, where), experiment):
            make_setup(stage, vocabulary_size(stage)) if stage else None
    tests = {member: chains.own_test(sections) for member, sections in own.items()}
    for order in lab.sequences.values():
        transfer.tests_of(order, tests)


def _locate(sections: dict[str, Any], root: Path, seed: int, members: chains.Sections | None = None) -> dict[str, Any]:
    """The sections with the name of a base, "@NAME" or "@NAME-{seed}", of a member before, "@MEMBER-{seed}", and of a teacher,
    "@MEMBER", as the folders of their runs. A student and its teacher have the same seed.
    """
    name, teacher = sections.get("base", {}).get("run", ""), chains.teacher_of(sections)
    if name.startswith("@"):
        place = "runs" if chains.member_before(sections, members or {}) else "bases"
        sections = merge(sections, {"base": {"run": str(root / place / name[1:].replace("{seed}", str(seed)))}})
    return merge(sections, {"pseudo": {"run": str(root / "runs" / f"{teacher}-{seed}")}}) if teacher else sections


def _question(experiment: configs.Experiment, seed: int) -> tuple:
    """What a baseline answers: the same for all members with the same objective on the same data and labels."""
    bought = experiment.annotation and (experiment.annotation, seed if experiment.annotation.seed is None else None)
    return experiment.objective.name, experiment.data, experiment.pairs, bought


def _write_configs(texts: dict[Job, str]) -> None:
    """Raises: UserError, having written nothing, where one differs from what lies there: its run would be another's."""
    for job, text in texts.items():
        if job.config.exists() and job.config.read_text(encoding="utf8") != text:
            raise UserError("another lab's run has this name", str(job.config), "choose another --out")
    for job, text in texts.items():
        job.config.parent.mkdir(parents=True, exist_ok=True)
        replace_file(job.config, text.encode())


def _steps(compute: float, experiment: configs.Experiment, member: str) -> int:
    flops = step_flops(experiment)
    if compute < flops:
        message = f"{compute:.1e} FLOPs are less than one step of {member}, which takes {flops:.1e}"
        raise UserError(message, "compute", "make it larger")
    return round(compute / flops)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Nested sections, those of `above` where both have a key."""
    both = {key: merge(below[key], value) for key, value in above.items()
            if isinstance(value, dict) and isinstance(below.get(key), dict)}  # fmt: skip
    return below | above | both


def collect(lab: Lab, jobs: list[Job], part: str = "judged", lost: Sequence[Job] = ()) -> dict[str, Any]:
    """The table: a row per member with mean and deviation over seeds, the baselines by question, and the budget.

    A member of which a seed is `lost`, for it diverged, stands apart: a mean over the other seeds would flatter it.
    """
    rows, baselines, apart = [], {}, {}
    for job in lost:
        apart.setdefault(job.member, []).append(job.seed)
    for member in dict.fromkeys(job.member for job in jobs):
        runs = [job for job in jobs if job.member == member]
        summaries = [folders.read_json(job.run / "summary.json") for job in runs]
        row = make_row(member, runs, summaries, part)
        if lab.tasks:
            row["task"] = next(task for task in lab.tasks for method in lab.methods if member == f"{task}-{method}")
            row["method"] = member.removeprefix(f"{row['task']}-")
        if lab.probe:
            probes = [folders.read_json(job.run / "probe.json") for job in runs]
            row |= {f"probe_{name}": spread([found[name] for found in probes]) for name in probes[0]}
        judged = summaries[0].get("judged", "validation")
        for name, found in summaries[0]["baselines"].items() if part in ("judged", judged) else ():
            baselines.setdefault(row.get("task", row["objective"]), {}).setdefault(name, found)
        row |= bought(summaries)
        rows += [row] if member not in apart else []
    for key in ("data_sha256", "tokenizer_sha256") if lab.compute is not None else ():
        if len({row[key] for row in rows}) > 1:
            raise UserError(f"the members differ in their {key}", lab.name, "share data and tokenizer")
    diverged_rows = [{"member": member, "seeds": seeds} for member, seeds in apart.items()]
    found = {"name": lab.name, "compute": lab.compute, "rows": rows, "diverged": diverged_rows, "baselines": baselines}
    matrices = {
        name: matrix
        for name, order in lab.sequences.items()
        if (matrix := sequences.describe(order, rows, name in lab.apart, lab.untrained))
    }
    worst = worst_held_out(rows, baselines, list(lab.tasks))
    found |= {"differences": from_first(rows)} | ({"worst_held_out": worst} if worst else {})
    return found | ({"sequences": matrices} if matrices else {})


def _pace(steps: int) -> dict[str, int]:
    return {"steps": steps, "evaluate_every": max(steps // 2, 1), "log_every": max(steps // 50, 1)}
