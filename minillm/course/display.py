"""What a student sees in the terminal."""

from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

MARKS = {"passed": ("✓", "green"), "not started": ("·", "dim"), "mistake": ("✗", "yellow"), "error": ("!", "red")}


def lessons(rows: list[dict[str, Any]]) -> None:
    """The lessons by part, with the student's progress."""
    table = Table(title="The course")
    table.add_column("lesson")
    table.add_column("title")
    table.add_column("status")
    table.add_column("exercises", justify="right")
    for part, group in groupby(rows, key=lambda row: row["part"]):
        table.add_section()
        table.add_row("", part, style="bold")
        for row in group:
            done = f"{row['passed']}/{row['exercises']}" if row["exercises"] else ""
            table.add_row(row["lesson"], row["title"], row["status"], done,
                          style=None if row["status"] == "written" else "dim")  # fmt: skip
    console = Console()
    console.print(table)
    written = sum(row["status"] == "written" for row in rows)
    passed, total = (sum(row[key] for row in rows) for key in ("passed", "exercises"))
    console.print(
        f"{written} of {len(rows)} lessons are written; you passed {passed} of {total} exercises.", highlight=False
    )


def outcomes(found: dict[str, Any]) -> None:
    """One line per exercise, and its hints where they were asked for."""
    console = Console(soft_wrap=True, highlight=False)
    for row in found["exercises"]:
        mark, style = MARKS[row["status"]]
        console.print(f"{mark} {row['exercise']}: {_say(row, found['file'])}", style=style, markup=False)
        for number, hint in enumerate(row.get("hints", ()), start=1):
            console.print(f"    hint {number}: {hint}", markup=False)
    console.print(f"{found['passed']} of {len(found['exercises'])} exercises of lesson {found['lesson']} passed")
    if found["passed"] < len(found["exercises"]) and not any("hints" in row for row in found["exercises"]):
        console.print(f"Stuck? minillm lessons check {found['lesson']} --hints")


def _say(row: dict[str, Any], file: str) -> str:
    where = f"{file} line {row['line']}" if row["line"] else file
    if row["status"] == "passed":
        return "passed"
    if row["status"] == "not started":
        return f"not started yet ({where})"
    return row["message"] if row["status"] == "mistake" else f"{row['message']} ({where})"
