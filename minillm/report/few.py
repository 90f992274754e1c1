"""Figures of labs with few labels: a learning curve over what labels cost, or ways of learning from as many labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, NullFormatter

from minillm.report.columns import COLUMNS, main_metric
from minillm.report.plot import COLOURS, new_figure, save_figure

Rows = Sequence[Mapping[str, Any]]


def write_labels(table: Mapping[str, Any], path: Path) -> None:
    """A curve per way of learning where members differ in their labels; else a dot per seed, and differences beside it."""
    rows = [row for row in table["rows"] if "labels" in row]
    counts = {row["labels"] for row in rows}
    (_curve if len(counts) > 1 else _ways)(table, rows, path)


def _curve(table: Mapping[str, Any], rows: Rows, path: Path) -> None:
    figure, (axis,) = new_figure(1, [9], 4.2)
    metric, lines = main_metric(rows), {}
    for row in rows:
        lines.setdefault(row.get("method", "this model"), []).append((row["labels"], row[metric]))
        for name, found in row.get("own_baselines", {}).items():
            if metric in found and "frequent" not in name:
                lines.setdefault(name, []).append((row["labels"], found[metric]))
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        points = sorted(points, key=lambda point: point[0])
        counts, means = [count for count, _ in points], [found["mean"] for _, found in points]
        ends = [[found["mean"] - (found.get("low") or found["mean"]) for _, found in points],
                [(found.get("high") or found["mean"]) - found["mean"] for _, found in points]]  # fmt: skip
        axis.errorbar(counts, means, yerr=ends, fmt="o-", capsize=3, color=colour, label=name, markersize=4)
        for count, found in points:
            axis.plot([count] * len(found["values"]), found["values"], ".", color=colour, alpha=0.35)
    axis.set_xscale("log")
    ticks = sorted({row["labels"] for row in rows})
    axis.set_xticks(ticks, [f"{count:,}" for count in ticks])
    axis.xaxis.set_minor_formatter(NullFormatter())
    rate = max((row["price"] / row["labels"] for row in rows), default=0.0)
    if rate > 0.0:
        above = axis.secondary_xaxis("top", functions=(lambda count: count * rate, lambda price: price / rate))
        above.set_xticks([rate * count for count in ticks])
        above.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2f}"))
        above.xaxis.set_minor_formatter(NullFormatter())
        above.tick_params(labelsize=8)
        apart = rows[0].get("validation_labels")
        without = f", without the {apart:,} of the validation part" if apart else ""
        above.set_xlabel(f"what the labels cost (annotation.seconds and wage){without}", fontsize=8)
    _finish(axis, metric, "labelled training texts")
    axis.legend(fontsize=8, frameon=False)
    save_figure(figure, path)


def _ways(table: Mapping[str, Any], rows: Rows, path: Path) -> None:
    figure, (left, right) = new_figure(2, [6, 6], 4.0)
    metric = main_metric(rows)
    for place, row in enumerate(rows):
        found, colour = row[metric], COLOURS[place % len(COLOURS)]
        left.plot([place] * len(found["values"]), found["values"], "o", color=colour, alpha=0.6)
        left.plot([place - 0.25, place + 0.25], [found["mean"]] * 2, color=colour, linewidth=2)
    _baselines(left, rows, metric)
    left.set_xticks(range(len(rows)), [row["member"] for row in rows], rotation=30, ha="right", fontsize=8)
    _finish(left, metric, f"{rows[0]['labels']:,} labels, a dot per seed")
    shown = [row for row in table.get("differences", ()) if row["metric"] == metric]
    for place, row in enumerate(shown):
        reach = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
        right.errorbar(
            [row["value"]], [place], xerr=reach, fmt="o", capsize=3, color=COLOURS[(1 + place) % len(COLOURS)]
        )
    right.axvline(0.0, color="#555555", linewidth=1)
    right.set_yticks(range(len(shown)), [row["right"] for row in shown], fontsize=8)
    right.invert_yaxis()
    if shown:
        right.set_title(f"difference to {shown[0]['left']}, paired by seed, 95 % interval", fontsize=9)
    right.grid(axis="x", alpha=0.25)
    right.tick_params(labelsize=8)
    right.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _baselines(axis, rows: Rows, metric: str) -> None:
    """A line through all members, or where their labels differ one in each member's place."""
    own = [place for place, row in enumerate(rows) if row.get("own_baselines")]
    for place in own:
        low, high = (-0.4, len(rows) - 0.6) if len(own) == 1 else (place - 0.4, place + 0.4)
        for name, found in rows[place]["own_baselines"].items():
            if metric in found and "frequent" not in name:
                label = name if place == own[0] else None
                axis.plot([low, high], [found[metric]["mean"]] * 2, "--", color="#555555", linewidth=1, label=label)
    if own:
        axis.legend(fontsize=7, frameon=False)


def _finish(axis, metric: str, label: str) -> None:
    axis.set_ylabel(COLUMNS[metric][0], fontsize=8)
    axis.set_xlabel(label, fontsize=8)
    axis.grid(alpha=0.25)
    axis.tick_params(labelsize=8)
    axis.spines[["right"]].set_visible(False)
