"""Figures of `minillm describe`: what a step needs of each device, and how it scales."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, NullFormatter

from minillm.report.columns import time_text
from minillm.report.plot import COLOURS, new_figure, save_figure

ROOFS = ("compute", "memory", "communication")


def write_figure(found: Mapping[str, Any], path: Path) -> None:
    """Left: memory per device as a stacked bar. Right: a step's three times per hardware, stacked as they come in turn."""
    figure, (left, right) = new_figure(2, [4, 8], 3.6)
    _memory(left, found)
    names = []
    for place, machine in enumerate(found["hardware"]):
        start = 0.0
        for colour, name in zip(COLOURS, ROOFS, strict=False):
            seconds = machine[f"{name}_seconds"]
            share = seconds / machine["in_turn_seconds"]
            right.barh(place, share, left=start, color=colour, label=name if place == 0 else None)
            if share > 0.08:
                middle = {"ha": "center", "va": "center", "fontsize": 7, "color": "white"}
                right.text(start + share / 2, place, time_text(seconds), **middle)
            start += share
        times = (time_text(machine[f"{name}_seconds"]) for name in ("overlapped", "in_turn"))
        names.append(f"{machine['name']}\n{' to '.join(times)}")
    right.set_yticks(range(len(names)), names, fontsize=8)
    right.invert_yaxis()
    right.set_xlim(0, 1)
    right.set_xlabel("share of a step whose parts come in turn", fontsize=8)
    right.set_title("a step takes at least (all at once, to one after the other)", fontsize=9)
    right.legend(fontsize=7, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    right.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _memory(axis, found: Mapping[str, Any]) -> None:
    memory = found["memory_per_device"]
    parts = {
        "arguments: state and batch": memory["arguments"],
        "outputs not donated": memory["outputs"] - memory["aliased"],
        "temporaries: activations, gradients": memory["temporaries"],
    }
    scale, unit = (1e9, "GB") if memory["total"] >= 1e9 else (1e6, "MB")
    start = 0.0
    for colour, (name, size) in zip((COLOURS[0], COLOURS[4], COLOURS[3]), parts.items(), strict=True):
        axis.bar(0, size / scale, bottom=start / scale, color=colour, label=name, width=0.5)
        start += size
    for machine in found["hardware"]:
        if memory["total"] / 20 < machine["memory_bytes"] < 3 * memory["total"]:
            axis.axhline(machine["memory_bytes"] / scale, color="#555555", linestyle="--", linewidth=1)
            place = {"xycoords": ("axes fraction", "data"), "fontsize": 7, "va": "bottom"}
            axis.annotate(machine["name"], (0.01, machine["memory_bytes"] / scale), **place)
    axis.set_xticks([])
    axis.set_xlim(-0.5, 0.5)
    axis.set_ylabel(f"{unit} per device", fontsize=8)
    axis.set_title("memory", fontsize=9)
    axis.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.05))
    axis.spines[["top", "right"]].set_visible(False)


def write_scaling(found: Mapping[str, Any], path: Path) -> None:
    """Weak and strong efficiency and memory per device over the number of devices, a colour per hardware."""
    figure, axes = new_figure(3, [6, 6, 6], 4.2)
    for colour, machine in zip(COLOURS, found["hardware"], strict=False):
        for axis, way in zip(axes, ("weak", "strong"), strict=False):
            rows = [row for row in machine["rows"] if row["way"] == way]
            devices = [row["devices"] for row in rows]
            axis.plot(
                devices,
                [row["overlapped_efficiency"] for row in rows],
                "o-",
                color=colour,
                markersize=3,
                label=machine["name"],
            )
            axis.plot(devices, [row["in_turn_efficiency"] for row in rows], "o--", color=colour, markersize=3)
            axis.set_title(f"{way} scaling, efficiency", fontsize=9)
            axis.set_ylim(0, 1.05)
        axes[2].axhline(machine["memory_bytes"] / 1e9, color=colour, linestyle=":", linewidth=1)
    for line, way in (("-", "weak"), ("--", "strong")):
        rows = [row for row in found["hardware"][0]["rows"] if row["way"] == way]
        axes[2].plot(
            [row["devices"] for row in rows], [row["memory"] / 1e9 for row in rows], line, color="black", label=way
        )
    axes[2].set_title("GB per device; dotted: what there is", fontsize=9)
    axes[2].set_yscale("log")
    axes[2].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[2].yaxis.set_minor_formatter(NullFormatter())
    axes[0].set_xlabel("devices; line: at once, dashed: in turn", fontsize=8)
    axes[1].set_xlabel("devices", fontsize=8)
    axes[2].set_xlabel("devices", fontsize=8)
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.grid(alpha=0.25)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False)
    save_figure(figure, path)
