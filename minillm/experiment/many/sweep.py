"""`minillm sweep`: one config at every point of a grid, at random points (`draws.py`) or as it is, several seeds each.

A sweep is a lab whose members are the points. What no point changes is done once: where the config pretrains first, each
seed's pretraining is shared.
"""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from minillm import config as configs
from minillm.errors import UserError
from minillm.experiment import base as bases
from minillm.experiment import folder as folders
from minillm.experiment.many import draws
from minillm.experiment.many import lab as labs
from minillm.experiment.many.workers import DIVERGED, ONE, Workers
from minillm.report.columns import HIGHER
from minillm.report.sweep import choose_metric, write_figure

BEFORE = ("pretrain", "data", "tokenizer", "model", "base")  # sections that pretraining depends on


class Sweep(NamedTuple):
    """A lab, and member -> the values of the keys that make it."""

    lab: labs.Lab
    points: dict[str, dict[str, Any]]


def parse_grid(grid: list[str]) -> dict[str, list[str]]:
    """["optimizer.learning_rate=1e-4,3e-4"] -> key -> values as typed. Raises: UserError."""
    found = {}
    for part in grid:
        key, _, values = part.partition("=")
        found[key.strip()] = [value.strip() for value in values.split(",") if value.strip()]
        if not key.strip() or not found[key.strip()]:
            raise UserError(f"expected section.key=value,value, got {part!r}", "--grid",
                            "for example --grid optimizer.learning_rate=1e-4,3e-4")  # fmt: skip
    if "train.seed" in found:
        raise UserError("every point has the same seeds", "--grid train.seed", "name them with --seeds")
    return found


def plan(
    path: Path, overrides: list[str], grid: list[str], seeds: tuple[int, ...], search: draws.Search | None = None
) -> Sweep:
    """Every point's sections; without a grid the config alone is the point. Raises: UserError where one is no right config."""
    values, members, points = parse_grid(grid), {}, {}
    raw = configs.read_toml(path, overrides)
    experiment, shared = bases.check(raw, str(path)), {}
    if experiment.pretrain and not any(key.split(".")[0] in BEFORE for key in values):
        shared = {f"pretrain-{seed}": _before(raw, path, seed) for seed in seeds}
    model = configs.plain(experiment)["model"]  # whole: the base's may be what [pretrain] changes for itself
    for settings in _settings(values, search):
        name = "-".join(f"{key.rpartition('.')[2]}-{value}" for key, value in settings.items()) or experiment.name
        sections = configs.read_toml(path, [*overrides, *(f"{key}={value}" for key, value in settings.items())])
        if shared:
            sections = {key: value for key, value in sections.items() if key not in ("pretrain", "tokenizer")}
            sections["base"] = {"run": "@pretrain-{seed}"}
            sections["model"] = {key: value for key, value in model.items() if key not in bases.OWN}
        member = re.sub(r"[^\w-]", "_", name)
        if member in members:
            raise UserError(f"two points are called {member}", "--grid", "name each value once")
        members[member], points[member] = sections, settings
    name = f"{experiment.name}-{'search' if search else 'sweep'}"
    raw = {"name": name, "members": members, "bases": shared, "seeds": list(seeds)}
    if search is not None:
        raw["draws"] = {"grid": values, "seed": search.seed, "points": list(points.values())}
    return Sweep(configs.validate(labs.Lab, raw, "--grid, --seeds"), points)


def _settings(values: dict[str, list[str]], search: draws.Search | None) -> list[dict[str, str]]:
    """key -> value of every point. Raises: UserError."""
    if search is not None:
        if not values:
            raise UserError(
                "no key varies", "--random", "say what varies: --grid optimizer.learning_rate=1e-4..1e-2:log"
            )
        return draws.draw_points(values, search)
    for key, found in values.items():
        if ranges := [value for value in found if isinstance(draws.parse(value), draws.Range)]:
            mend = "draw points from it with --random NUMBER, or name values"
            raise UserError(f"{ranges[0]} is a range", f"--grid {key}", mend)
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def seeds_there(sweep: Sweep, root: Path) -> tuple[int, ...]:
    """The sweep's seeds and those of which every point has ended in `root`: a table without these would hide them.

    First the one whose run has fitted the baselines for all, as its config there says.
    """
    ended = lambda run: any((run / name).exists() for name in ("summary.json", DIVERGED))
    runs, first = [root / "runs" / member for member in sweep.points], next(iter(sweep.points))
    names = (path.name.removeprefix(f"{first}-") for path in (root / "runs").glob(f"{first}-*"))
    found = sorted({int(name) for name in names if name.isdecimal()} - set(sweep.lab.seeds))
    found = [seed for seed in found if all(ended(run.with_name(f"{run.name}-{seed}")) for run in runs)]
    config = lambda seed: root / "configs" / f"{first}-{seed}.toml"
    fits = lambda seed: config(seed).exists() and "[baselines]" not in config(seed).read_text(encoding="utf8")
    return tuple(sorted([*sweep.lab.seeds, *found], key=lambda seed: not fits(seed)))


def run_sweep(sweep: Sweep, root: Path, say: Callable[[str], None], workers: Workers = ONE) -> dict[str, Any]:
    """Runs what has not run yet; the table has each row's point, judged on the validation part. Raises: UserError.

    A test part stays out: who chooses a point by it has no part left that says how good the choice is. A single point
    chooses nothing, and is judged on the test part where there is one, beside the baselines.
    """
    part = "judged" if len(sweep.points) == 1 else "validation"
    table = labs.run_lab(sweep.lab, root, (), say, workers, part)
    for row in (*table["rows"], *table["diverged"]):
        row["point"] = sweep.points[row["member"]]
    table["random"] = bool(sweep.lab.draws)
    if table["random"] and (metric := choose_metric(table["rows"])):  # best first
        table["rows"].sort(key=lambda row: row[metric]["mean"] * (-1.0 if metric in HIGHER else 1.0))
    folders.write_json(root / "table.json", table)
    write_figure(table, root / "sweep.png")
    return table


def _before(raw: dict[str, Any], path: Path, seed: int) -> dict[str, Any]:
    """The stage before as a config of its own; on a base, which brings tokenizer and [model], with what it changes alone."""
    seeded = labs.merge(raw, {"train": {"seed": seed}})
    stage = configs.plain(bases.pretraining(bases.check(seeded, str(path))))
    if "base" not in raw:
        return stage
    model = labs.merge(raw.get("model", {}), raw["pretrain"].get("model", {}))
    model = {key: value for key, value in model.items() if key not in bases.OWN}
    return {key: value for key, value in stage.items() if key != "tokenizer"} | {"base": raw["base"], "model": model}
