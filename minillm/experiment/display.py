"""What a person sees in the terminal: progress, tables."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from minillm.experiment.display_classifiers import half
from minillm.report.columns import ATTACKS, COLUMNS, choose

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
        yield (
            (lambda text: print(text, flush=True)),
            (lambda step, line: print(plain(step, line.get("of", steps), line), flush=True)),
        )
        return
    columns = (TextColumn("step {task.completed:.0f}/{task.total:.0f}"), BarColumn(), TextColumn("{task.fields[news]}"),
               TimeRemainingColumn(elapsed_when_finished=True))  # fmt: skip
    with Progress(*columns, console=console, speed_estimate_period=60) as bar:
        task = bar.add_task("train", total=steps, news="")

        def show(step: int, line: dict) -> None:
            total = line.get("of", steps)  # a stage before has steps of its own
            if "validation_loss" in line:
                bar.print(plain(step, total, line), highlight=False, markup=False)
            else:
                bar.update(task, completed=step, total=total, news=news(line))

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
    for unit in ("tokens", "images", "examples"):
        if f"{unit}_per_second" in line:
            return f"loss {line['loss']:.4f}, {line[f'{unit}_per_second']:,.0f} {unit}/s"
    return f"loss {line['loss']:.4f} after {line['time']:.1f} s, compilation included"


def summary(found: dict, root: Path) -> None:
    """The model beside its baselines, and where everything lies."""
    rows, columns = choose(found)
    table = Table(title="Held-out data" + (f" ({found['judged']} part)" if "judged" in found else ""))
    for title in ("", *(title for title, _ in columns.values())):
        table.add_column(title, justify="right" if title else "left")
    for name, row in rows:
        cells = (format(row[key], form) if key in row else "" for key, (_, form) in columns.items())
        table.add_row(name, *cells, style="bold" if name == "this model" else None)
    console = Console()
    console.print(table)
    for name, value in found["validation"].items():
        if name in NAMES and name not in columns and "judged" not in found:
            console.print(f"{NAMES[name]}: {value:.2%}", highlight=False)
    own = found.get(found.get("judged", ""), {})
    for name in (name for name in ATTACKS if name in own and name not in columns):
        console.print(f"Accuracy under {name.partition('_')[2]}: {own[name]:.1%}", highlight=False)
    for name, row in (pair for kind in ("tasks", "tests") for pair in found.get(kind, {}).items()):
        part = row.get("judged", "validation")
        if "accuracy" in row[part]:
            size = f"{part} part{', ' + format(row['texts'], ',') + ' texts' if 'texts' in row else ''}"
            console.print(f"{name}: accuracy {row[part]['accuracy']:.1%} ({size})", highlight=False, markup=False)
    for name, row in ((name, row) for name, rows in found.get("differences", {}).items() for row in rows.items()):
        console.print(difference(name, *row), highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{found['steps']} steps in {found['training_seconds']:.0f} s. Read {root}/report.html", highlight=False
    )


def difference(name: str, metric: str, row: dict) -> str:
    """How far the model is above a baseline, or below, in words."""
    sure = "" if row["low"] > 0.0 or row["high"] < 0.0 else ": may be chance, the interval holds 0"
    return f"{COLUMNS[metric][0]} {row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] against {name}{sure}"


def table(title: str, values: dict[str, Any]) -> None:
    """name -> value."""
    drawn = Table("metric", "value", title=title)
    for name, value in values.items():
        drawn.add_row(name, _number(value))
    Console().print(drawn)


def predictions(rows: list[dict]) -> None:
    """A line per text: the label and how sure it is, or what else was said."""
    drawn = Table(box=box.SIMPLE)
    for title in ("text", "answer", "probability"):
        drawn.add_column(title, justify="right" if title == "probability" else "left", overflow="fold")
    for row in rows:
        sure = row.get("probabilities", {})
        if "label" in row:
            answer, number = row["label"] or "unsure: to a person", f"{max(sure.values()):.1%}"
        elif "labels" in row:
            answer, number = ", ".join(row["labels"]) or "none", ", ".join(f"{sure[k]:.1%}" for k in row["labels"])
        elif "answer" in row:
            answer, number = row["answer"], f"{row['probability']:.1%}"
        elif "written" in row:
            answer, number = row["written"], ""
        elif "value" in row:
            answer, number = f"{row['value']:.3f}", ""
        else:
            answer, number = ", ".join(f"{e['text']} ({e['kind']})" for e in row["entities"]) or "none", ""
        texts = " ‖ ".join(_start(row[key]) for key in ("text", "pair") if key in row)
        drawn.add_row(Text(texts), Text(answer), number)
    console = Console()
    console.print(drawn)
    if cut := sum(row["cut"] for row in rows):
        words = "1 text is" if cut == 1 else f"{cut} texts are"
        console.print(f"{words} longer than the run's data.length: only its first tokens were read.", soft_wrap=True)


def prompts(found: dict) -> None:
    """A row per way of asking, the best on top: mean and 95 % interval."""
    drawn = Table(
        title=f"{found['run']}: {found['texts']} texts, {found['examples']} labelled examples", box=box.SIMPLE
    )
    for title in ("", "macro F1", "[95 % interval]", "accuracy", "seeds"):
        drawn.add_column(title, justify="right" if title else "left")
    for name, row in sorted(found["rows"].items(), key=lambda item: -item[1]["macro_f1"]["mean"]):
        score = row["macro_f1"]
        bounds = f"[{score['low']:.3f}, {score['high']:.3f}]"
        cells = (f"{score['mean']:.3f}", bounds, f"{row['accuracy']['mean']:.1%}", str(len(score["values"])))
        drawn.add_row(Text(name), *map(Text, cells))
    console = Console()
    console.print(drawn)
    console.print("Of several seeds the interval is that over draws of demonstrations, of one that over texts.")


def passages(found: list[dict]) -> None:
    """Under each query its passages, best first."""
    for row in found:
        drawn = Table("score", "passage", title=Text(_start(row["query"])), box=box.SIMPLE)
        for passage in row["passages"]:
            drawn.add_row(f"{passage['score']:.3f}", Text(_start(passage["text"])))
        if not row["passages"]:
            drawn.add_row("", "no passage has any of these words")
        Console().print(drawn)


def _start(text: str, most: int = 200) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def compare(found: dict, plot: Path) -> None:
    """One row per run and where the curves are; then groups of seeds and how far they differ."""
    console = Console()
    if found["runs"]:
        drawn = Table(title="Runs", box=box.SIMPLE)
        for name in found["runs"][0]:
            title = {"bits_per_character": "bits/char", "parameters": "params"}.get(name, name)
            drawn.add_column(title, justify="left" if name == "run" else "right", overflow="fold")
        for row in found["runs"]:
            drawn.add_row(*(_number(value) for value in row.values()))
        console.print(drawn)
        console.print(f"Curves: {plot}", highlight=False, soft_wrap=True)
    if not found["differences"]:
        return
    drawn = Table(title="Seeds: mean ± half of the 95 % interval", box=box.SIMPLE)
    for title, side in (("group", "left"), ("seeds", "right"), (found["differences"][0]["metric"], "right")):
        drawn.add_column(title, justify=side, overflow="fold")
    for group in found["groups"]:
        metric = group["metrics"].get(found["differences"][0]["metric"])
        drawn.add_row(group["name"], ", ".join(map(str, group["seeds"])), half(metric))
    console.print(drawn)
    for row in found["differences"]:
        console.print(seed_difference(row), highlight=False, markup=False, soft_wrap=True)
    if len(found["differences"]) > 1:
        console.print("Each p is for its pair alone: among many pairs some are small by chance.", soft_wrap=True)


def seed_difference(row: dict) -> str:
    """How far two groups of seeds differ, in words: as if seeds were independent, and seed by seed."""
    parts = []
    for key, words in (("welch", "Welch"), ("paired", "paired by seed")):
        if test := row[key]:
            sure = "nothing varies" if test["p"] is None else f"p = {test['p']:.3f}"
            parts.append(f"[{test['low']:+.4f}, {test['high']:+.4f}] {sure} ({words})")
    return f"{row['right']} - {row['left']}: {row['metric']} {row['welch']['value']:+.4f}, {'; '.join(parts)}"


def _number(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,}" if float(value).is_integer() else f"{value:,.3f}" if value < 1000 else f"{value:,.0f}"
