"""What a person sees of many runs: the tables of a lab and of a sweep."""

import statistics
from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from minillm.experiment.display_classifiers import classifiers, half, seed_by_seed
from minillm.experiment.display_labels import labels
from minillm.report.columns import COLUMNS, main_metric


def methods(found: dict, root: Path) -> None:
    """Methods by tasks: each task's main metric, mean and half of the 95 % interval over seeds; then what each costs."""
    tasks = list(dict.fromkeys(row["task"] for row in found["rows"]))
    metric = {task: main_metric([row for row in found["rows"] if row["task"] == task]) for task in tasks}
    reached = Table(title=f"{found['name']}: mean ± half of the 95 % interval", box=box.SIMPLE)
    spent = Table(title="cost, a mean over tasks", box=box.SIMPLE)
    for drawn, titles in (
        (reached, [f"{task}\n{COLUMNS[metric[task]][0]}" for task in tasks]),
        (spent, ["numbers trained", "ms per step", "memory, MB", "checkpoint, MB"]),
    ):
        drawn.add_column("", overflow="fold")
        for title in titles:
            drawn.add_column(title, justify="right", no_wrap=True)
    costs = (("step_seconds", 1e3, ".0f"), ("peak_memory_bytes", 1e-6, ",.0f"), ("checkpoint_bytes", 1e-6, ",.1f"))
    for method in dict.fromkeys(row["method"] for row in found["rows"]):
        rows = {row["task"]: row for row in found["rows"] if row["method"] == method}
        reached.add_row(method, *(half(rows.get(task, {}).get(metric[task])) for task in tasks))
        trained = statistics.fmean(row["trainable_parameters"] for row in rows.values())
        spent.add_row(method, f"{trained:,.0f}", *(_cost(rows.values(), *cost) for cost in costs))
    for name in dict.fromkeys(name for baselines in found["baselines"].values() for name in baselines):
        values = (found["baselines"].get(task, {}).get(name, {}).get(metric[task]) for task in tasks)
        reached.add_row(name, *("" if value is None else f"{value:.3f}" for value in values), style="dim")
    worst = Table("", "accuracy in the worst held-out domain", box=box.SIMPLE)
    for name, value in found.get("worst_held_out", {}).items():
        worst.add_row(name, half(value))
    console = Console()
    console.print(reached, *([worst] if worst.row_count else []), spent)
    for row in found.get("differences", ()):
        console.print(seed_by_seed(row), highlight=False, markup=False, soft_wrap=True)
    console.print(f"Table: {root}/table.json   Figure: {root}/table.png", highlight=False, soft_wrap=True)


def _cost(rows: Iterable[dict], key: str, scale: float, form: str) -> str:
    """The mean over tasks; empty where no run was long enough to tell."""
    values = [row[key]["mean"] for row in rows if key in row]
    return format(scale * statistics.fmean(values), form) if values else ""


def lab(found: dict, root: Path) -> None:
    """Mean and deviation over seeds of every member, and the baselines below."""
    for row in found.get("diverged", ()):
        seeds = ", ".join(map(str, row["seeds"]))
        print(f"{row['member']} has diverged with seed {seeds}, and is left out")
    if any("labels" in row for row in found["rows"]):
        return labels(found, root)
    if any("method" in row for row in found["rows"]):
        return methods(found, root)
    if all(row["objective"] == "classify" for row in found["rows"]):
        return classifiers(found, root)
    columns = {"bits_per_character": ("bits/\nchar", 1.0), "accuracy": ("masked\n%", 100.0), "exact": ("exact\n%", 100.0),
               "recovered": ("recov-\nered %", 100.0), "squared_error": ("squared\nerror", 1.0),
               "bleu": ("BLEU", 1.0), "chrf": ("chrF", 1.0), "rougeL": ("ROUGE-L\n%", 100.0),
               "exact_match": ("exact\nmatch %", 100.0), "placeholders_kept": ("place-\nholders %", 100.0),
               "placeholders_kept_where_any": ("where\nany %", 100.0),
               "probe_trained": ("probe\n%", 100.0), "probe_untrained": ("un-\ntrained %", 100.0)}  # fmt: skip
    columns = {key: column for key, column in columns.items() if any(key in row for row in found["rows"])}
    budget = "" if found["compute"] is None else f"{found['compute']:.1e} FLOPs a run, "
    title = f"{found['name']}: {budget}mean ± deviation over seeds"
    drawn = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for title in ("", *(title for title, _ in columns.values())):
        drawn.add_column(title, justify="right" if title else "left", no_wrap=True)
    for row in found["rows"]:  # the accuracy of the next token is another thing than that of a masked one
        other = row["objective"] in ("causal", "span")
        cells = ("" if other and key == "accuracy" else _spread(row.get(key), s) for key, (_, s) in columns.items())
        drawn.add_row(row["member"], *cells)
    for baselines in found["baselines"].values():
        for name, values in baselines.items():
            rows = ({"mean": values[key]} if key in values else None for key in columns)
            drawn.add_row(name, *map(_spread, rows, (scale for _, scale in columns.values())))
    for name in ("counts", "majority"):
        if values := next((row[f"probe_{name}"] for row in found["rows"] if f"probe_{name}" in row), None):
            drawn.add_row(name, *(_spread(values, 100.0) if key == "probe_trained" else "" for key in columns))
    console = Console()
    console.print(drawn)
    if "probe_trained" in columns:
        console.print("probe: topics read off frozen features; untrained: off the model's before its first step;\n"
                      "counts: off token counts; majority: always the most frequent topic", highlight=False)  # fmt: skip
    console.print(f"Table: {root}/table.json   Figure: {root}/table.png", highlight=False, soft_wrap=True)


def sweep(found: dict, root: Path) -> None:
    """A row per point of the grid, and the baselines below."""
    first = found["rows"][0]
    keys = list(first["point"])
    metrics = [key for key in COLUMNS if any(key in row for row in found["rows"])][:3]
    spread = (
        f"mean ± half of the 95 % interval over {len(first['seeds'])} seeds" if len(first["seeds"]) > 1 else "one seed"
    )
    drawn = Table(title=f"{found['name']}: {spread}, {first['part']} part", box=box.SIMPLE)
    for title in (*(key.rpartition(".")[2] for key in keys or [""]), *(COLUMNS[key][0] for key in metrics)):
        drawn.add_column(title, justify="right")
    for row in found["rows"]:
        drawn.add_row(*(row["point"].values() or ["this model"]), *(half(row.get(key)) for key in metrics))
    for row in found["diverged"]:
        drawn.add_row(*(row["point"].values() or ["this model"]), "diverged", style="dim")
    for baselines in found["baselines"].values():
        for name, values in baselines.items():
            cells = (f"{values[key]:.3f}" if key in values else "" for key in metrics)
            drawn.add_row(name, *[""] * (len(keys) - 1), *cells)
    console = Console()
    console.print(drawn)
    figure = f"   Figure: {root}/sweep.png" if keys else ""
    console.print(f"Table: {root}/table.json{figure}", highlight=False, soft_wrap=True)


def _spread(value: dict | None, scale: float) -> str:
    if value is None:
        return ""
    deviation = f" ± {scale * value['deviation']:.{3 if scale == 1.0 else 1}f}" if value.get("deviation") else ""
    return f"{scale * value['mean']:.{3 if scale == 1.0 else 1}f}{deviation}"
