"""The figure of a sweep: a metric against the key that varies, mean and 95 % interval over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from minillm.report.columns import COLUMNS, HIGHER
from minillm.report.plot import COLOURS, new_figure, save_figure
from minillm.sections.experiment import LABELLED


def choose_metric(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What points are compared by: what all rows have, a class by its score."""
    scores = HIGHER if all(row["objective"] in LABELLED for row in rows) else ()
    return next((key for key in (*scores, *COLUMNS) if all(key in row for row in rows)), None)


def write_figure(table: Mapping[str, Any], path: Path) -> None:
    """One line per value of the other keys; numbers on a logarithmic axis where they span more than a decade."""
    rows = table["rows"]
    metric = choose_metric(rows)
    if metric is None or not rows or not rows[0]["point"]:
        return
    if table.get("random"):
        return write_search(table, metric, path)
    first = next(iter(rows[0]["point"]))
    lines: dict[str, list[Mapping]] = {}
    for row in rows:
        others = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in row["point"].items() if key != first)
        lines.setdefault(others, []).append(row)
    figure, (axis,) = new_figure(1, [7])
    places = _places([row["point"][first] for row in rows], axis)
    for number, (name, members) in enumerate(lines.items()):
        colour, x = COLOURS[number % len(COLOURS)], [places[row["point"][first]] for row in members]
        _intervals(axis, x, members, metric, "o-", colour, name or None)
    _label(axis, table, metric, first)
    axis.set_ylabel(_title(metric, rows[0]))
    save_figure(figure, path)


def write_search(table: Mapping[str, Any], metric: str, path: Path) -> None:
    """A panel per key, with every point in each of them; the best one stands out."""
    rows, keys = table["rows"], list(table["rows"][0]["point"])
    figure, axes = new_figure(len(keys), [5] * len(keys))
    for key, axis in zip(keys, axes, strict=True):
        places = _places([row["point"][key] for row in rows], axis)
        for members, colour, name in ((rows[1:], COLOURS[0], None), (rows[:1], "black", "best")):
            _intervals(axis, [places[row["point"][key]] for row in members], members, metric, "o", colour, name)
        _label(axis, table, metric, key)
    axes[0].set_ylabel(_title(metric, rows[0]))
    save_figure(figure, path)


def _intervals(
    axis, x: list[float], rows: list[Mapping], metric: str, form: str, colour: str, name: str | None
) -> None:
    """Mean and interval of each row, a dot per seed."""
    means = [row[metric]["mean"] for row in rows]
    below = [row[metric]["mean"] - row[metric].get("low", row[metric]["mean"]) for row in rows]
    axis.errorbar(x, means, yerr=[below, below], fmt=form, capsize=3, color=colour, label=name)
    for place, row in zip(x, rows, strict=True):
        axis.plot([place] * len(row[metric]["values"]), row[metric]["values"], ".", color=colour, alpha=0.5)


def _label(axis, table: Mapping[str, Any], metric: str, key: str) -> None:
    """The baselines, the name of the axis, and what all panels share."""
    for number, (name, found) in enumerate(_baselines(table, metric).items()):
        axis.axhline(found, color=COLOURS[1 + number % 5], linestyle="--", linewidth=1, label=name)
    axis.set_xlabel(key)
    seen = [value for row in table["rows"] for value in row[metric]["values"]] + [*_baselines(table, metric).values()]
    margin = 0.1 * (max(seen) - min(seen)) or 0.1
    axis.set_ylim(min(seen) - margin, max(seen) + margin)  # an interval over two seeds may be far longer
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, frameon=False)


def _title(metric: str, row: Mapping[str, Any]) -> str:
    return f"{COLUMNS[metric][0]}, {row.get('part', 'validation')} part ({'higher' if metric in HIGHER else 'lower'} is better)"


def _places(values: list[str], axis) -> dict[str, float]:
    """Where each value stands on the x axis."""
    try:
        numbers = {value: float(value) for value in values}
    except ValueError:
        different = list(dict.fromkeys(values))
        axis.set_xticks(range(len(different)), different)
        return {value: float(place) for place, value in enumerate(different)}
    low, high = min(numbers.values()), max(numbers.values())
    if low > 0.0 and high / low > 10.0:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200.0 else (1.0,)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    return numbers


def _baselines(table: Mapping[str, Any], metric: str) -> dict[str, float]:
    return {name: values[metric] for found in table["baselines"].values()
            for name, values in found.items() if metric in values}  # fmt: skip
