"""The figure of a sweep: a metric against the key that varies, mean and 95 % interval over seeds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minillm.report.columns import COLUMNS, HIGHER
from minillm.report.plot import COLOURS, new_figure, save_figure


def write_figure(table: Mapping[str, Any], path: Path) -> None:
    """One line per value of the other keys; numbers on a logarithmic axis where they span more than a decade."""
    rows = table["rows"]
    metric = next((key for key in COLUMNS if all(key in row for row in rows)), None)
    if metric is None or not rows:
        return
    first = next(iter(rows[0]["point"]))
    lines: dict[str, list[Mapping]] = {}
    for row in rows:
        others = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in row["point"].items() if key != first)
        lines.setdefault(others, []).append(row)
    figure, (axis,) = new_figure(1, [7])
    places = _places([row["point"][first] for row in rows], axis)
    for number, (name, members) in enumerate(lines.items()):
        colour, x = COLOURS[number % len(COLOURS)], [places[row["point"][first]] for row in members]
        means = [row[metric]["mean"] for row in members]
        below = [row[metric]["mean"] - row[metric].get("low", row[metric]["mean"]) for row in members]
        axis.errorbar(x, means, yerr=[below, below], fmt="o-", capsize=3, color=colour, label=name or None)
        for place, row in zip(x, members, strict=True):
            axis.plot([place] * len(row[metric]["values"]), row[metric]["values"], ".", color=colour, alpha=0.5)
    for number, (name, found) in enumerate(_baselines(table, metric).items()):
        axis.axhline(found, color=COLOURS[1 + number % 5], linestyle="--", linewidth=1, label=name)
    better = "higher" if metric in HIGHER else "lower"
    axis.set_xlabel(first)
    axis.set_ylabel(f"{COLUMNS[metric][0]}, validation part ({better} is better)")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, frameon=False)
    save_figure(figure, path)


def _places(values: list[str], axis) -> dict[str, float]:
    """Where each value stands on the x axis."""
    try:
        numbers = {value: float(value) for value in values}
    except ValueError:
        different = list(dict.fromkeys(values))
        axis.set_xticks(range(len(different)), different)
        return {value: float(place) for place, value in enumerate(different)}
    if min(numbers.values()) > 0.0 and max(numbers.values()) / min(numbers.values()) > 10.0:
        axis.set_xscale("log")
    return numbers


def _baselines(table: Mapping[str, Any], metric: str) -> dict[str, float]:
    return {name: values[metric] for found in table["baselines"].values()
            for name, values in found.items() if metric in values}  # fmt: skip
