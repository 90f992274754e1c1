"""The roofline: what the machine allows a program that does so many FLOPs per byte of memory, and what ours reach.

    attainable FLOP/s = min(best matrix product, FLOPs per byte * best memory bandwidth)

Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model".
"""

from pathlib import Path
from typing import Any, NamedTuple

from minillm.report.plot import COLOURS, new_figure, save_figure


class Point(NamedTuple):
    """A program under the roof."""

    name: str
    intensity: float  # FLOPs per byte
    speed: float  # FLOP/s


def points(found: dict[str, Any]) -> list[Point]:
    """The training step, with the bytes that XLA counts, and generation, in which each token reads all weights once."""
    seconds = {row["case"]: row["seconds"] for row in found["cases"] if row["side"] == "minillm"}
    step = Point(
        "training step", found["step_flops"] / found["step_bytes"], found["step_flops"] / seconds["training step"]
    )
    token, made = found["token"], [step]
    for case, time in seconds.items():
        if case.startswith("generate"):
            rows = int(case.rpartition(" ")[2])
            work = token["flops"] * rows * token["count"]
            made.append(Point(case, rows * token["flops"] / token["bytes"], work / time))
    return made


def draw(found: dict[str, Any], path: Path) -> None:
    """The figure."""
    top, bandwidth, made = found["matmul_flops_per_second"], found["read_bytes_per_second"], points(found)
    corner = top / bandwidth
    figure, (axis,) = new_figure(1, [7])
    low = min(corner, *(point.intensity for point in made)) / 3
    high = max(corner, *(point.intensity for point in made)) * 3
    axis.plot([low, corner, high], [value / 1e9 for value in (low * bandwidth, top, top)], color="black", linewidth=1.5)
    small = {"fontsize": 8, "va": "bottom"}
    axis.text(high, top / 1e9 * 1.08, f"best matrix product, {top / 1e9:,.0f} GFLOP/s", ha="right", **small)
    axis.text(low, low * bandwidth / 1e9 * 2.6, f"memory, {bandwidth / 1e9:,.0f} GB/s", ha="left", **small)
    for number, point in enumerate(made):
        share = point.speed / min(top, point.intensity * bandwidth)
        axis.plot(
            [point.intensity],
            [point.speed / 1e9],
            "o",
            color=COLOURS[number],
            label=f"{point.name}: {share:.0%} of the roof",
        )
    axis.set(xscale="log", yscale="log", xlabel="FLOPs per byte of memory", ylabel="GFLOP/s")
    axis.set_ylim(min(point.speed for point in made) / 4e9, top / 1e9 * 2)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    save_figure(figure, path)
