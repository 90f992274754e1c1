"""The figure of a lab: what each model reaches, a dot per seed, beside the baselines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minillm.report.plot import COLOURS, new_figure, save_figure

PANELS = (  # (key of a row, title, objective whose baselines are drawn, their key)
    ("bits_per_character", "bits per character\n(lower is better)", "causal", "bits_per_character"),
    ("accuracy", "masked tokens\nfound (%)", "masked", "accuracy"),
    ("recovered", "removed tokens\nrecovered (%)", "span", "recovered"),
    ("probe_trained", "probe: topic from\nfrozen features (%)", None, None),
)


def write_figure(table: Mapping[str, Any], path: Path) -> None:
    """One panel per column that a row has. Raises: OSError where the file cannot be written."""
    rows = table["rows"]
    panels = [panel for panel in PANELS if any(_belongs(row, panel) for row in rows)]
    widths = [1 + sum(_belongs(row, panel) for row in rows) for panel in panels]
    figure, axes = new_figure(len(panels), widths)
    for place, (panel, axis) in enumerate(zip(panels, axes, strict=True)):
        key, title, objective, baseline = panel
        members = [row for row in rows if _belongs(row, panel)]
        scale = 1.0 if key == "bits_per_character" else 100.0
        _dots(axis, members, key, scale)
        lines = {name: found[baseline] for name, found in (table["baselines"].get(objective) or {}).items()
                 if baseline in found} if baseline else _probe_lines(members)  # fmt: skip
        for number, (name, value) in enumerate(sorted(lines.items(), key=lambda item: item[1])):
            axis.axhline(scale * value, color=COLOURS[1 + number % 5], linestyle="--", linewidth=1)
            axis.text(len(members) - 0.45, scale * value, name, va="center", fontsize=8, color=COLOURS[1 + number % 5])
        axis.set_title(title, fontsize=9)
        axis.set_label(f"panel {place}")
    save_figure(figure, path)


def _belongs(row: Mapping[str, Any], panel: tuple) -> bool:
    key = panel[0]
    return key in row and (key != "accuracy" or row["objective"] not in ("causal", "span"))


def _dots(axis, members: Sequence[Mapping[str, Any]], key: str, scale: float) -> None:
    for place, row in enumerate(members):
        values = [scale * value for value in row[key]["values"]]
        axis.plot([place] * len(values), values, "o", color=COLOURS[0], alpha=0.6, markersize=5)
        axis.plot([place - 0.25, place + 0.25], [scale * row[key]["mean"]] * 2, color=COLOURS[0], linewidth=2)
    axis.set_xticks(range(len(members)), [row["member"] for row in members], rotation=40, ha="right", fontsize=8)
    axis.set_xlim(-0.6, len(members) + 0.1)
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(axis="y", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _probe_lines(members: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    first = members[0]
    return {name: first[f"probe_{name}"]["mean"] for name in ("counts", "majority") if f"probe_{name}" in first}
