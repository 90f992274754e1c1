"""The figure of a lab: what each model reaches, a dot per seed, beside the baselines."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import NullFormatter

from minillm.report.columns import ATTACKS, COLUMNS, main_metric
from minillm.report.few import write_labels
from minillm.report.plot import COLOURS, new_figure, save_figure

MASKED = ("masked", "masked_next_sentence", "structural")
PANELS = (  # (key of a row, title, objectives whose rows and baselines it shows; None: all rows, beside counts)
    ("bits_per_character", "bits per character\n(lower is better)", ("causal",)),
    ("accuracy", "masked tokens\nfound (%)", MASKED),
    ("recovered", "removed tokens\nrecovered (%)", ("span",)),
    ("exact", "strings right\nto the end (%)", ("sequence_to_sequence",)),
    ("accuracy", "named rightly (%)", ("classify",)),
    ("squared_error", "squared error\nper pixel", ("denoising",)),
    ("squared_error", "squared error\nper pixel", ("masked_patches",)),
    *((name, f"{COLUMNS[name][0]} (%)".replace(", ", ",\n"), ("classify",)) for name in ATTACKS),
    ("probe_trained", "probe: topic from\nfrozen features (%)", None),
)


def write_figure(table: Mapping[str, Any], path: Path) -> None:
    """One panel per kind of number that the rows have, or per task; no figure where they have none."""
    if any("labels" in row for row in table["rows"]):
        return write_labels(table, path)
    if any("method" in row for row in table["rows"]):
        return write_methods(table, path)
    panels = [(panel, rows) for panel in PANELS if (rows := _members(table["rows"], panel))]
    if not panels:
        return
    figure, axes = new_figure(len(panels), [2 + len(rows) for _, rows in panels])
    for ((key, title, objectives), rows), axis in zip(panels, axes, strict=True):
        scale = 1.0 if key in ("bits_per_character", "squared_error") else 100.0
        _dots(axis, rows, key, scale)
        found = (baselines for name, baselines in table["baselines"].items() if name in (objectives or ()))
        lines = {name: values[key] for baselines in found for name, values in baselines.items() if key in values}
        lines |= _probe_lines(rows) if objectives is None else {}
        _label(axis, {name: scale * value for name, value in lines.items()}, len(rows) - 0.45)
        axis.set_title(title, fontsize=9)
    save_figure(figure, path)


def write_methods(table: Mapping[str, Any], path: Path) -> None:
    """A panel per task: each method's main metric against how many parameters it trains, with 95 % intervals.

    Where that is one number for all, they stand side by side.
    """
    sizes = {row["trainable_parameters"] for row in table["rows"]}
    tasks = list(dict.fromkeys(row["task"] for row in table["rows"]))
    figure, axes = new_figure(len(tasks), [5] * len(tasks))
    for task, axis in zip(tasks, axes, strict=True):
        rows = [row for row in table["rows"] if row["task"] == task]
        metric = main_metric(rows)
        for place, row in enumerate(rows):
            found, colour = row[metric], COLOURS[place % len(COLOURS)]
            reach = [
                [found["mean"] - found.get("low", found["mean"])],
                [found.get("high", found["mean"]) - found["mean"]],
            ]
            x, marker = row["trainable_parameters"] if len(sizes) > 1 else place, "os^Dvp"[place // len(COLOURS)]
            axis.errorbar([x], [found["mean"]], yerr=reach, fmt=marker, capsize=3, color=colour, label=row["method"])
            axis.plot([x] * len(found["values"]), found["values"], ".", color=colour, alpha=0.4)
        for name, values in table["baselines"].get(task, {}).items():
            if metric in values and "frequent" not in name:
                axis.axhline(values[metric], color="#555555", linestyle="--", linewidth=1)
                axis.annotate(name, (0.01, values[metric]), xycoords=("axes fraction", "data"), fontsize=7, va="bottom")
        if len(sizes) > 1:
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_xlabel("parameters that train", fontsize=8)
        else:
            axis.set_xticks(range(len(rows)), [row["method"] for row in rows])
            axis.set_xlim(-0.6, len(rows) - 0.4)
        axis.set_title(f"{task}: {COLUMNS[metric][0]}", fontsize=9)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path)


def write_curves(logs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], path: Path) -> None:
    """Member -> the lines of each seed's log: a panel of training losses, smoothed over ten lines, and one of validation.

    A mean over the seeds that came so far; the number of a member's seeds may fall where runs stop early.
    """
    figure, axes = new_figure(2, [6, 6])
    for place, (member, seeds) in enumerate(logs.items()):
        style = {"color": COLOURS[place % len(COLOURS)], "linestyle": ("-", "--", ":")[place // len(COLOURS)]}
        for axis, key in zip(axes, ("nll", "validation_nll"), strict=True):
            lines = [{line["step"]: line[key] for line in log if key in line} for log in seeds]
            steps = sorted(set().union(*lines))
            means = [statistics.fmean(line[step] for line in lines if step in line) for step in steps]
            if key == "nll":
                means = [statistics.fmean(means[max(end - 10, 0) : end]) for end in range(1, len(means) + 1)]
            axis.plot(steps, means, label=member, **style)
    for axis, title in zip(axes, ("training, as it is trained (nats)", "validation (nats)"), strict=True):
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path)


def _members(rows: Sequence[Mapping[str, Any]], panel: tuple) -> list[Mapping[str, Any]]:
    key, _, objectives = panel
    return [row for row in rows if key in row and (objectives is None or row["objective"] in objectives)]


def _label(axis, lines: Mapping[str, float], place: float) -> None:
    """A dashed line per baseline; names that would overlap stand above each other."""
    low, high = axis.get_ylim()
    low, high = min([low, *lines.values()]), max([high, *lines.values()])
    axis.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    last = -float("inf")
    for number, (name, value) in enumerate(sorted(lines.items(), key=lambda item: item[1])):
        colour = COLOURS[1 + number % 5]
        axis.plot([-0.6, place], [value, value], color=colour, linestyle="--", linewidth=1)
        last = max(value, last + 0.05 * (high - low))
        axis.text(place + 0.05, last, name, va="center", fontsize=8, color=colour)


def _dots(axis, members: Sequence[Mapping[str, Any]], key: str, scale: float) -> None:
    for place, row in enumerate(members):
        values = [scale * value for value in row[key]["values"]]
        axis.plot([place] * len(values), values, "o", color=COLOURS[0], alpha=0.6, markersize=5)
        axis.plot([place - 0.25, place + 0.25], [scale * row[key]["mean"]] * 2, color=COLOURS[0], linewidth=2)
    axis.set_xticks(range(len(members)), [row["member"] for row in members], rotation=40, ha="right", fontsize=8)
    axis.set_xlim(-0.6, len(members) + 0.6)
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(axis="y", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _probe_lines(members: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    first = members[0]
    return {name: first[f"probe_{name}"]["mean"] for name in ("counts", "majority") if f"probe_{name}" in first}
