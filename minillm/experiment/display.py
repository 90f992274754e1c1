"""What a person sees in the terminal: progress, tables."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from minillm.report.columns import choose

NAMES = {"accuracy": "Accuracy", "exact": "Rows that are right to the end",
         "next_sentence_accuracy": "Accuracy of the sentences' relation",
         "word_order_accuracy": "Accuracy of the shuffled words"}  # fmt: skip


@contextlib.contextmanager
def watch(steps: int, quiet: bool) -> Iterator[tuple]:
    """(say, show) for a run: a live bar on a terminal, plain lines elsewhere, nothing when quiet."""
    if quiet:
        yield (lambda text: None), (lambda step, line: None)
        return
    console = Console()
    if not console.is_terminal:
        yield (lambda text: print(text, flush=True)), (lambda step, line: print(plain(step, steps, line), flush=True))
        return
    columns = (TextColumn("step {task.completed:.0f}/{task.total:.0f}"), BarColumn(), TextColumn("{task.fields[news]}"),
               TimeRemainingColumn(elapsed_when_finished=True))  # fmt: skip
    with Progress(*columns, console=console, speed_estimate_period=60) as bar:
        task = bar.add_task("train", total=steps, news="")

        def show(step: int, line: dict) -> None:
            if "validation_loss" in line:
                bar.print(plain(step, steps, line), highlight=False, markup=False)
            else:
                bar.update(task, completed=step, news=news(line))

        yield (lambda text: bar.print(text, highlight=False, markup=False)), show


def plain(step: int, steps: int, line: dict) -> str:
    """One line of progress."""
    if "validation_loss" in line:
        text = f"step {step}/{steps}: validation loss {line['validation_loss']:.4f}"
        if "validation_bits_per_character" in line:
            text += f", {line['validation_bits_per_character']:.3f} bits per character"
        others = ("recovered", "exact", "next_sentence_accuracy", "word_order_accuracy")
        found = {name: line[f"validation_{name}"] for name in ("accuracy", *others) if f"validation_{name}" in line}
        return text + "".join(f", {name.replace('_', ' ')} {value:.1%}" for name, value in found.items())
    left = f", {line['seconds_left']:.0f} s left" if "seconds_left" in line else ""
    return f"step {step}/{steps}: {news(line)}{left}"


def news(line: dict) -> str:
    """Loss and speed."""
    for unit in ("tokens", "images"):
        if f"{unit}_per_second" in line:
            return f"loss {line['loss']:.4f}, {line[f'{unit}_per_second']:,.0f} {unit}/s"
    return f"loss {line['loss']:.4f} after {line['time']:.1f} s, compilation included"


def summary(found: dict, root: Path) -> None:
    """The model beside its baselines, and where everything lies."""
    rows, columns = choose(found)
    table = Table(title="Held-out data")
    for title in ("", *(title for title, _ in columns.values())):
        table.add_column(title, justify="right" if title else "left")
    for name, row in rows:
        cells = (format(row[key], form) if key in row else "" for key, (_, form) in columns.items())
        table.add_row(name, *cells, style="bold" if name == "this model" else None)
    console = Console()
    console.print(table)
    for name, value in found["validation"].items():
        if name in NAMES and name not in columns:
            console.print(f"{NAMES[name]}: {value:.2%}", highlight=False)
    console.print(
        f"{found['steps']} steps in {found['training_seconds']:.0f} s. Read {root}/report.html", highlight=False
    )


def table(title: str, values: dict[str, Any]) -> None:
    """name -> value."""
    drawn = Table("metric", "value", title=title)
    for name, value in values.items():
        drawn.add_row(name, _number(value))
    Console().print(drawn)


def compare(rows: list[dict], plot: Path) -> None:
    """One row per run, and where the curves are."""
    drawn = Table(title="Runs", box=box.SIMPLE)
    for name in rows[0]:
        title = {"bits_per_character": "bits/char", "parameters": "params"}.get(name, name)
        drawn.add_column(title, justify="left" if name == "run" else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(_number(value) for value in row.values()))
    console = Console()
    console.print(drawn)
    console.print(f"Curves: {plot}", highlight=False, soft_wrap=True)


def lab(found: dict, root: Path) -> None:
    """Mean and deviation over seeds of every member, and the baselines below."""
    columns = {"bits_per_character": ("bits/char", 1.0), "accuracy": ("accuracy %", 100.0),
               "recovered": ("recovered %", 100.0), "exact": ("exact %", 100.0), "squared_error": ("squared error", 1.0),
               "probe_trained": ("probe %", 100.0), "probe_untrained": ("untrained %", 100.0)}  # fmt: skip
    columns = {key: column for key, column in columns.items() if any(key in row for row in found["rows"])}
    drawn = Table(
        title=f"{found['name']}: {found['compute']:.1e} FLOPs a run, mean ± deviation over seeds", box=box.SIMPLE
    )
    for title in ("", "objective", "params", "steps", "seconds", *(title for title, _ in columns.values())):
        drawn.add_column(title, justify="left" if title in ("", "objective") else "right", no_wrap=True)
    for row in found["rows"]:
        cells = (_spread(row.get(key), scale) for key, (_, scale) in columns.items())
        drawn.add_row(row["member"], row["objective"], f"{row['parameters'] / 1e6:.2f} M", f"{row['steps']:,}",
                      f"{row['training_seconds']['mean']:.0f}", *cells)  # fmt: skip
    for objective, baselines in found["baselines"].items():
        for name, values in baselines.items():
            cells = (
                _spread({"mean": values[key]} if key in values else None, scale) for key, (_, scale) in columns.items()
            )
            drawn.add_row(name, objective, "", "", "", *cells)
    for name in ("counts", "majority"):
        if key := next((f"probe_{name}" for row in found["rows"] if f"probe_{name}" in row), None):
            cells = (_spread(found["rows"][0][key], 100.0) if column == "probe_trained" else "" for column in columns)
            drawn.add_row(name, "probe", "", "", "", *cells)
    console = Console()
    console.print(drawn)
    console.print(f"Table: {root}/table.json   Figure: {root}/table.png", highlight=False, soft_wrap=True)


def _spread(value: dict | None, scale: float) -> str:
    if value is None:
        return ""
    deviation = f" ± {scale * value['deviation']:.{3 if scale == 1.0 else 1}f}" if value.get("deviation") else ""
    return f"{scale * value['mean']:.{3 if scale == 1.0 else 1}f}{deviation}"


def _number(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,}" if float(value).is_integer() else f"{value:,.3f}" if value < 1000 else f"{value:,.0f}"
