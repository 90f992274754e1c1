"""What a person sees of a lab whose members are classifiers."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from minillm.report.columns import COLUMNS


def classifiers(found: dict, root: Path) -> None:
    """A row per member, mean and half of the 95 % interval over seeds, and the baselines below."""
    keys = [key for key in COLUMNS if key != "nll" and any(key in row for row in found["rows"])]
    drawn = Table(title=f"{found['name']}: mean ± half of the 95 % interval", box=box.SIMPLE, padding=(0, 1, 0, 0))
    drawn.add_column("", overflow="fold", min_width=min(16, max(len(row["member"]) for row in found["rows"])))
    for key in keys:
        drawn.add_column(COLUMNS[key][0].replace(" ", "\n"), justify="right", no_wrap=True)
    for row in found["rows"]:
        drawn.add_row(row["member"], *(half(row.get(key)) for key in keys))
    for name, values in (pair for baselines in found["baselines"].values() for pair in baselines.items()):
        drawn.add_row(name, *(f"{values[key]:.3f}" if key in values else "" for key in keys), style="dim")
    console = Console()
    console.print(drawn)
    if found.get("sequences"):
        console.print(sequences(found["sequences"]))
    for name, row in found.get("sequences", {}).items():
        if rows := row.get("kept"):
            same, size = sum(adapter["same"] for adapter in rows), max(adapter["bytes"] for adapter in rows) / 1e6
            words = f"{same} of {len(rows)} stored adapters ({size:.2f} MB) give the same bits beside the last task's"
            console.print(f"{name}: {words}", highlight=False, soft_wrap=True)
    console.print(f"Table: {root}/table.json   Figure: {root}/table.png", highlight=False, soft_wrap=True)


def sequences(found: dict) -> Table:
    """A row per sequence of tasks: means over tasks, with half of the 95 % interval over seeds."""
    measures = {
        "average_accuracy": "average\naccuracy",
        "forgetting": "forgetting",
        "backward_transfer": "backward\ntransfer",
        "forward_transfer": "forward\ntransfer",
    }
    measures = {key: title for key, title in measures.items() if any(key in row for row in found.values())}
    drawn = Table(title="sequences of tasks", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for title in ("", *measures.values(), "trained\nper task"):
        drawn.add_column(title, justify="right" if title else "left", no_wrap=True)
    for name, row in found.items():
        trained = " ".join(f"{count:,}" for count in dict.fromkeys(row["trainable_parameters"]))
        drawn.add_row(name, *(half(row.get(key)) for key in measures), trained)
    return drawn


def seed_by_seed(row: dict) -> str:
    """How far two members are apart, in words."""
    sure = "nothing varies" if row["p"] is None else f"p = {row['p']:.3f}"
    apart = f"{row['right']} - {row['left']}: {row['metric']} {row['value']:+.4f}"
    return f"{apart} [{row['low']:+.4f}, {row['high']:+.4f}] {sure} (paired by seed)"


def half(value: dict | None) -> str:
    """Mean, and half of the 95 % interval where there is one."""
    if value is None:
        return ""
    return f"{value['mean']:.3f}" + (
        f" ± {(value['high'] - value['low']) / 2:.3f}" if value.get("low") is not None else ""
    )
