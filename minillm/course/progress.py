"""What a student has passed, kept in runs/lessons/progress.json beside the lessons."""

import json
import os
from pathlib import Path

from minillm.course.grade import Outcome
from minillm.course.record import FOLDER
from minillm.errors import UserError

Progress = dict[str, dict[str, bool]]  # lesson id -> exercise -> passed, at the last check


def read(root: Path) -> Progress:
    """Raises: UserError where the file is damaged."""
    path = root / FOLDER / "progress.json"
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {error}", str(path), "delete it and check your exercises again") from None
    if not isinstance(found, dict) or not all(isinstance(row, dict) for row in found.values()):
        raise UserError("not a record of progress", str(path), "delete it and check your exercises again")
    return found


def write(root: Path, lesson: str, outcomes: list[Outcome]) -> None:
    """Replaces what is known about one lesson, atomically."""
    found = read(root) | {lesson: {outcome.exercise: outcome.status == "passed" for outcome in outcomes}}
    path = root / FOLDER / "progress.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"progress.{os.getpid()}.json")
        fresh.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf8")
        fresh.replace(path)
    except OSError as error:
        raise UserError(error.strerror or str(error), str(path), "make the folder writable") from None
