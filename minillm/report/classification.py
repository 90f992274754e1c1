"""What a run on classes gets wrong: confusions, reliability and F1 of each class, as one figure and as tables.

Both read what `evaluation.json` holds: "labels", and for "this model" and each baseline its "metrics", its "intervals" and
the "details" of its classes.
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.transforms import ScaledTranslation

from minillm.report.columns import ATTACKS, COLUMNS
from minillm.report.fonts import write_names
from minillm.report.plot import COLOURS, new_figure, save_figure

MODEL = "this model"
CELLS = 12  # classes up to which the cells of a confusion matrix have room for numbers
ROWS = 30  # classes that the panel of F1 has room for
METRICS = {  # key -> (title, format)
    "bleu": ("BLEU", ".1f"), "chrf": ("chrF", ".1f"), "rouge1": ("ROUGE-1", ".3f"), "rouge2": ("ROUGE-2", ".3f"),
    "rougeL": ("ROUGE-L", ".3f"), "placeholders_kept": ("placeholders kept", ".1%"),
    "placeholders_kept_where_any": ("where there are any", ".1%"),
    "answer_f1": ("answer F1", ".3f"), "exact_match": ("exact match", ".1%"),
    "accuracy": ("accuracy", ".1%"), "subset_accuracy": ("all classes right", ".1%"),
    "entity_precision": ("entity precision", ".3f"), "entity_recall": ("entity recall", ".3f"),
    "entity_f1": ("entity F1", ".3f"), "macro_precision": ("macro precision", ".3f"),
    "macro_recall": ("macro recall", ".3f"), "macro_f1": ("macro F1", ".3f"), "micro_f1": ("micro F1", ".3f"),
    "r2": ("R²", ".3f"), "squared_error": ("squared error", ".4f"), "pearson": ("Pearson correlation", ".3f"),
    "spearman": ("Spearman correlation", ".3f"), **{name: COLUMNS[name] for name in ATTACKS},
    "log_loss": ("log loss", ".3f"),
    "calibration_error": ("calibration error", ".3f"),
}  # fmt: skip


def write_figure(evaluation: Mapping[str, Any], path: Path) -> bool:
    """Confusion matrix and reliability diagram where each example has one class, and F1 beside the best baseline's.

    False, and no file, where there are no classes.
    """
    details = evaluation[MODEL]["details"]
    if not details.get("classes"):
        return False
    shown, baseline = _shown(details["classes"]), _best_baseline(evaluation)
    names = write_names([row["class"] for row in details["classes"]])
    labels = dict(zip((row["class"] for row in details["classes"]), names.texts, strict=True))
    single, classes = "confusion" in details, len(details["classes"])
    widths = [min(2.5 + 0.55 * classes, 9.0), 5.0, 5.5] if single else [7.0]
    rows = classes if single else 0
    height = max(4.0, 1.6 + 0.4 * min(rows, 20), 1.6 + 0.24 * len(shown))
    figure, axes = new_figure(len(widths), widths, height)
    if single:
        _confusion(axes[0], np.array(details["confusion"]), names)
        _reliability(axes[1], details["reliability"], evaluation[MODEL]["metrics"])
    _f1(axes[-1], evaluation, baseline, [(row["class"], labels[row["class"]]) for row in shown])
    for text in axes[-1].get_yticklabels():
        text.set(family=names.family, parse_math=False)
    if len(shown) < classes:
        axes[-1].set_title(f"F1 with 95 % interval\nof the {len(shown)} lowest of {classes} classes", fontsize=9)
    if names.numbered:
        figure.supxlabel("classes by number: no font here has their names, the report's table does", fontsize=8)
    save_figure(figure, path)
    return True


def tables(evaluation: Mapping[str, Any]) -> str:
    """HTML: the metrics of model and baselines with their intervals, and a row per class, as a part of report.html."""
    return _metric_table(evaluation) + _class_table(evaluation)


def _confusion(axis, matrix: np.ndarray, names: Any) -> None:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    size = 9 if len(matrix) <= 5 else 7
    for (row, column), count in np.ndenumerate(matrix if len(matrix) <= CELLS else np.zeros((0, 0))):
        colour = "white" if shares[row, column] > 0.6 else "black"
        text = f"{count:,}\n{shares[row, column]:.0%}" if count else "0"
        axis.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    if len(matrix) <= ROWS:
        places, style = range(len(matrix)), {"fontsize": size, "family": names.family, "parse_math": False}
        turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if _turns(names.texts) else {}
        axis.set_xticks(places, names.texts, **style, **turned)
        axis.set_yticks(places, names.texts, **style)
    else:
        axis.set(xticks=[], yticks=[])
    axis.set_xlabel("predicted", fontsize=9)
    axis.set_ylabel("true", fontsize=9)
    numbers = "counts and shares" if len(matrix) <= CELLS else "shares"
    axis.set_title(f"confusion\n{numbers} of the true class", fontsize=9)


def _turns(texts: Sequence[str]) -> bool:
    return max(map(len, texts)) > (3 if len(texts) > 5 else 8)


def _reliability(axis, rows: Sequence[Mapping[str, float]], metrics: Mapping[str, float]) -> None:
    total = sum(row["count"] for row in rows)
    low, width = [row["low"] for row in rows], [row["high"] - row["low"] for row in rows]
    axis.bar(low, [row["accuracy"] for row in rows], width, align="edge", color=COLOURS[0], alpha=0.75,
             edgecolor="white", label="accuracy")  # fmt: skip
    axis.bar(low, [row["count"] / total for row in rows], width, align="edge", fill=False, edgecolor="black",
             linewidth=0.8, label="share of the examples")  # fmt: skip
    axis.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="as sure as right")
    axis.set(xlim=(0, 1), ylim=(0, 1.02))
    axis.set_xlabel("probability of the predicted class", fontsize=9)
    axis.set_title(f"reliability\ncalibration error {metrics['calibration_error']:.3f}", fontsize=9)
    _tidy(axis)
    axis.legend(fontsize=8, framealpha=0.9, edgecolor="none", loc="upper left")


def _f1(axis, evaluation: Mapping[str, Any], baseline: str | None, shown: Sequence[tuple[str, str]]) -> None:
    """shown: (class, how it is written), the first on top."""
    for number, who in enumerate(name for name in (MODEL, baseline) if name):
        details = evaluation[who]["details"]
        values = {row["class"]: row["f1"] for row in details["classes"]}
        for place, (name, _) in enumerate(shown):
            if name in values:
                height, colour = place + 0.3 * number - (0.15 if baseline else 0.0), COLOURS[number]
                axis.plot(
                    details["f1_intervals"].get(name, [values[name]] * 2), [height] * 2, color=colour, linewidth=2
                )
                axis.plot(values[name], height, "os"[number], color=colour, label=None if place else who, markersize=5)
    axis.set_yticks(range(len(shown)), [text for _, text in shown], fontsize=8)
    axis.set(xlim=(-0.02, 1.02), ylim=(len(shown) - 0.5, -0.5))
    axis.set_title("F1\nwith 95 % interval", fontsize=9)
    _tidy(axis)
    below = axis.transAxes + ScaledTranslation(0.0, -0.25, axis.figure.dpi_scale_trans)  # a quarter of an inch
    axis.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=below, ncols=2)


def _tidy(axis) -> None:
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _shown(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """All classes, or those of the lowest F1 where there is no room for all."""
    return list(rows) if len(rows) <= ROWS else sorted(rows, key=lambda row: row["f1"])[:ROWS]


def _best_baseline(evaluation: Mapping[str, Any]) -> str | None:
    """The one of the highest entity F1 or macro F1."""
    names = [name for name in _judged(evaluation) if name != MODEL]
    key = "entity_f1" if "entity_f1" in evaluation[MODEL]["metrics"] else "macro_f1"
    return max(names, key=lambda name: evaluation[name]["metrics"].get(key, 0.0), default=None)


def _judged(evaluation: Mapping[str, Any]) -> list[str]:
    return [name for name, found in evaluation.items() if isinstance(found, Mapping) and "metrics" in found]


def _metric_table(evaluation: Mapping[str, Any]) -> str:
    names = _judged(evaluation)
    body = ""
    for key, (title, form) in METRICS.items():
        if key in evaluation[MODEL]["metrics"]:
            cells = (_cell(evaluation[name], key, form) for name in names)
            body += f"<tr><td>{title}</td>{''.join(cells)}</tr>"
    header = "".join(f"<th class=number>{html.escape(name)}</th>" for name in names)
    note = f"Of the {html.escape(str(evaluation.get('split', 'held-out')))} examples, with 95 % bootstrap intervals over them."
    return f"<h2>Metrics with intervals</h2><div class='wide'><table><tr><th></th>{header}</tr>{body}</table></div><p>{note}</p>"


def _cell(found: Mapping[str, Any], key: str, form: str) -> str:
    if key not in found["metrics"]:
        return "<td></td>"
    bounds = found["intervals"].get(key)
    interval = "" if bounds is None else f"<br><small>{bounds[0]:{form}} to {bounds[1]:{form}}</small>"
    return f"<td class='number'>{found['metrics'][key]:{form}}{interval}</td>"


def _class_table(evaluation: Mapping[str, Any]) -> str:
    details = evaluation[MODEL]["details"]
    if not details.get("classes"):
        return ""
    baseline, body = _best_baseline(evaluation), ""
    other = {row["class"]: row["f1"] for row in evaluation[baseline]["details"]["classes"]} if baseline else {}
    for number, row in enumerate(details["classes"], start=1):
        name = html.escape(str(row["class"]))
        numbers = "".join(f"<td class='number'>{row[key]:.3f}</td>" for key in ("precision", "recall", "f1"))
        bounds = details["f1_intervals"].get(row["class"])
        interval = "" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"
        compared = f"<td class='number'>{other.get(row['class'], 0.0):.3f}</td>" if baseline else ""
        body += (f"<tr><td class='number'>{number}</td><td>{name}</td><td class='number'>{row['actual']:,}</td>"
                 f"<td class='number'>{row['predicted']:,}</td>{numbers}<td class='number'>{interval}</td>{compared}</tr>")  # fmt: skip
    titles = ["no.", "class", "true", "predicted", "precision", "recall", "F1", "95 % interval"]
    titles += [f"F1 of {html.escape(baseline)}"] if baseline else []
    header = "".join(f"<th{'' if title == 'class' else ' class=number'}>{title}</th>" for title in titles)
    return f"<h2>Classes</h2><div class='wide'><table><tr>{header}</tr>{body}</table></div>"
