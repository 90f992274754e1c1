"""Commands of the course."""

from pathlib import Path
from typing import Annotated

import typer

from minillm.commands.shared import Json, Number, lessons, output, prepare


@lessons.command("list", epilog="Example: `minillm lessons list`")
def lessons_list(as_json: Json = False) -> None:
    """All lessons, written or planned, and how far you are."""
    from minillm.course import commands, display

    rows = commands.list_lessons()
    output(rows, as_json, lambda: display.lessons(rows))


@lessons.command("run", epilog="Example: `minillm lessons run 02`")
def lessons_run(number: Number, as_json: Json = False) -> None:
    """Run a lesson; its figures and numbers lie under runs/lessons."""
    from minillm.course import commands

    code, numbers = commands.run_lesson(number, quiet=as_json)
    if code:
        raise SystemExit(code)
    output(numbers, as_json, lambda: None)


@lessons.command("check", epilog="Example: `minillm lessons check 02 my_solutions.py --hints`")
def lessons_check(
    number: Number,
    file: Annotated[Path | None, typer.Argument(help="Your file; default lessons/exercises/NN_name.py")] = None,
    hints: Annotated[bool, typer.Option("--hints", help="Show the hints of what is not passed")] = False,
    as_json: Json = False,
) -> None:
    """Check your exercises. Your file runs here as any program of yours would: this is not a sandbox."""
    prepare()
    from minillm.course import commands, display

    found = commands.check_lesson(number, file, hints, quiet=as_json)
    output(found, as_json, lambda: display.outcomes(found))
    if found["passed"] < len(found["exercises"]):
        raise SystemExit(1)
