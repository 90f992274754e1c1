"""What a person sees in the terminal: progress, tables."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


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
        return text + f", accuracy {line['validation_accuracy']:.1%}"
    left = f", {line['seconds_left']:.0f} s left" if "seconds_left" in line else ""
    return f"step {step}/{steps}: {news(line)}{left}"


def news(line: dict) -> str:
    """Loss and speed."""
    if "tokens_per_second" not in line:
        return f"loss {line['loss']:.4f} after {line['time']:.1f} s, compilation included"
    return f"loss {line['loss']:.4f}, {line['tokens_per_second']:,.0f} tokens/s"


def summary(found: dict, root: Path) -> None:
    """The model beside its baselines, and where everything lies."""
    rows = {"this model": found["validation"], **found["baselines"]}
    columns = {"loss": ("loss (nats/token)", ".3f"), "perplexity": ("perplexity", ",.2f"),
               "bits_per_character": ("bits per character", ".3f")}  # fmt: skip
    columns = {key: column for key, column in columns.items() if any(key in row for row in rows.values())}
    table = Table(title="Held-out text: lower is better")
    for title in ("", *(title for title, _ in columns.values())):
        table.add_column(title, justify="right" if title else "left")
    for name, row in sorted(rows.items(), key=lambda item: item[1].get("bits_per_character", item[1].get("loss", 0.0))):
        cells = (format(row[key], form) if key in row else "" for key, (_, form) in columns.items())
        table.add_row(name, *cells, style="bold" if name == "this model" else None)
    console = Console()
    console.print(table)
    if "accuracy" in found["validation"]:
        console.print(f"Accuracy of the next token: {found['validation']['accuracy']:.2%}", highlight=False)
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


def _number(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,}" if float(value).is_integer() else f"{value:,.3f}" if value < 1000 else f"{value:,.0f}"
