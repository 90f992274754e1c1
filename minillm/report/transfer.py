"""The figure of sequences of tasks: a matrix of accuracies for each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minillm.report.plot import new_figure, save_figure


def write_matrices(sequences: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """A heatmap per sequence: row i after task i, column j tested on task j, mean over seeds in per cent."""
    figure, axes = new_figure(len(sequences), [3] * len(sequences), 3.2)
    low = min(np.min(found["matrix"]) for found in sequences.values())
    high = max(np.max(found["matrix"]) for found in sequences.values())
    for (name, found), axis in zip(sequences.items(), axes, strict=True):
        matrix, tasks = np.array(found["matrix"]), found["tasks"]
        axis.imshow(matrix, vmin=low, vmax=high, cmap="viridis")
        for row, column in np.ndindex(*matrix.shape):
            dark = matrix[row, column] < (low + high) / 2.0
            text = f"{100.0 * matrix[row, column]:.0f}"
            axis.text(column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=9)
        axis.set_xticks(range(len(tasks)), tasks, rotation=40, ha="right", fontsize=8)
        moments = [f"after {task}" if axis is axes[0] else "" for task in tasks]
        axis.set_yticks(range(len(tasks)), moments, fontsize=8)
        axis.set_title(f"{name}\nforgetting {100.0 * found['forgetting']['mean']:.1f} points", fontsize=9)
    save_figure(figure, path)
