"""Curves as PNG files, drawn without pyplot's global state."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from minillm.bits import replace_file

LEAD_IN = 5  # of what follows a fork, a fifth as much is drawn before it
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito: safe for colour blindness


def loss_curve(metrics: Sequence[dict], path: Path, baselines: Mapping[str, float], label: str) -> None:
    """Training loss (raw and smoothed), validation points, and a labelled line per baseline, over steps."""
    figure, axes = _figure()
    train = [(m["step"], m["loss"]) for m in metrics if "loss" in m]
    held_out = [(m["step"], m["validation_loss"]) for m in metrics if "validation_loss" in m]
    if train:
        steps, losses = np.array(train).T
        axes.plot(steps, losses, color=COLOURS[0], alpha=0.3, linewidth=0.8)
        axes.plot(steps, smooth(losses), color=COLOURS[0], label="training (smoothed)")
    if held_out:
        axes.plot(*np.array(held_out).T, "o-", color=COLOURS[1], label="held out")
    for place, (name, loss) in enumerate(sorted(baselines.items(), key=lambda item: item[1])):
        colour = COLOURS[2 + place % 4]
        axes.axhline(loss, color=colour, linestyle="--", linewidth=1, label=f"{name}: {loss:.2f}")
    _save(figure, axes, path, label)


def compare_curves(runs: Mapping[str, Sequence[dict]], path: Path, forks: Mapping[str, int] | None = None) -> None:
    """One smoothed training curve per run, held-out points in the same colour.

    `forks`: the step at which a run leaves another of them. Its curve begins there, all are drawn from a little before the
    first fork on, and none is smoothed across one: what comes after it must not show before.
    """
    figure, axes = _figure()
    forks, last = forks or {}, max((m["step"] for metrics in runs.values() for m in metrics), default=0)
    cuts = sorted(set(forks.values()))
    start = cuts[0] - (last - cuts[0]) / LEAD_IN if cuts else 0
    for place, (name, metrics) in enumerate(runs.items()):
        colour = COLOURS[place % len(COLOURS)]
        fork = forks.get(name, 0)
        drawn = [m for m in metrics if m["step"] > start and m["step"] >= fork]
        train = np.array([(m["step"], m["loss"]) for m in drawn if "loss" in m]).reshape(-1, 2)
        held_out = [(m["step"], m["validation_loss"]) for m in drawn if "validation_loss" in m and m["step"] > fork]
        if len(train):
            parts = np.split(train[:, 1], np.searchsorted(train[:, 0], cuts, side="right"))
            axes.plot(train[:, 0], np.concatenate([smooth(part) for part in parts]), color=colour, label=name)
            axes.plot(*train.T, color=colour, alpha=0.25, linewidth=0.8) if cuts else None
        if held_out:
            axes.plot(*np.array(held_out).T, "o", color=colour)
    for cut in cuts:
        axes.axvline(cut, color="#555555", linestyle="--", linewidth=1, label=f"fork at step {cut}")
    _save(figure, axes, path, "loss; dots: held out")


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average over a tenth of the points, fewer at both ends: unlike an exponential one it does not lag.

    As many on either side everywhere: where a curve falls steeply, an average ahead alone would begin too low.
    """
    last = len(values) - 1
    reach = [min(len(values) // 20, i, last - i) for i in range(len(values))]
    return np.array([values[i - half : i + half + 1].mean() for i, half in enumerate(reach)])


def _figure():
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _save(figure: Figure, axes, path: Path, label: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    save_figure(figure, path)


def new_figure(panels: int, widths: Sequence[float], height: float = 4.0):
    """A figure with panels side by side, and their axes; height in inches."""
    figure = Figure(figsize=(2.0 + 0.75 * sum(widths), height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels, squeeze=False, width_ratios=widths)[0]


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG file atomically."""
    image = io.BytesIO()
    figure.savefig(image, format="png")
    replace_file(path, image.getvalue())
