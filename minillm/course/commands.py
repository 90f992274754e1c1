"""What `minillm lessons` does: list, run, check."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from minillm.course import grade, plan, progress, record
from minillm.errors import UserError


def list_lessons() -> list[dict[str, Any]]:
    """One row per lesson: what it is about, and how far the student is."""
    root = plan.find_root()
    course, done = plan.read(root), progress.read(root)
    rows = []
    for lesson in course.lessons:
        exercises = done.get(lesson.id) or dict.fromkeys(_names(root, lesson), False)
        rows.append(
            {
                "lesson": lesson.id,
                "part": lesson.part,
                "title": lesson.title,
                "status": "written" if lesson.written else "planned",
                "passed": sum(map(bool, exercises.values())),
                "exercises": len(exercises),
                "sections": [section.id for section in course.sections if lesson.id in section.lessons],
            }
        )
    return rows


def run_lesson(number: str, quiet: bool) -> tuple[int, dict[str, float]]:
    """Runs a lesson in a process of its own, from the root. Returns its exit code and the numbers that it states.

    Args:
        quiet: its output goes to stderr.
    """
    root = plan.find_root()
    lesson = plan.read(root).written(number)
    numbers = root / record.FOLDER / lesson.id / "numbers.json"
    numbers.unlink(missing_ok=True)
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(Path("lessons") / f"{lesson.stem}.py")]
    sys.stdout.flush()
    try:
        code = subprocess.run(command, cwd=root, env=environment, stdout=sys.stderr if quiet else None).returncode
    except KeyboardInterrupt:  # the lesson got it too
        return 130, {}
    found = json.loads(numbers.read_text(encoding="utf8")) if code == 0 and numbers.exists() else {}
    return (code if code >= 0 else 128 - code), found


def check_lesson(number: str, file: Path | None, with_hints: bool, quiet: bool) -> dict[str, Any]:
    """Grades a student's file and records the progress. Raises: UserError for what cannot be graded.

    Args:
        quiet: what the student's code prints goes to stderr.
    """
    root = plan.find_root()
    lesson = plan.read(root).written(number)
    own = root / "lessons" / "exercises" / f"{lesson.stem}.py"
    path = file or (own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)
    checks = _checks(root, lesson)
    with contextlib.redirect_stdout(sys.stderr) if quiet else contextlib.nullcontext():
        outcomes = grade.grade(grade.load(path), path, checks.CHECKS)
    progress.write(root, lesson.id, outcomes)
    rows = [outcome._asdict() for outcome in outcomes]
    for row in rows if with_hints else ():
        row["hints"] = [] if row["status"] == "passed" else list(checks.HINTS[row["exercise"]])
    passed = sum(outcome.status == "passed" for outcome in outcomes)
    return {"lesson": lesson.id, "file": str(path), "passed": passed, "exercises": rows}


def _checks(root: Path, lesson: plan.Lesson) -> Any:
    path = root / "lessons" / "checks" / f"{lesson.stem}.py"
    if not path.is_file():
        raise UserError(f"lesson {lesson.id} has no checks", str(path), "restore the file from the repository")
    return grade.load(path)


def _names(root: Path, lesson: plan.Lesson) -> list[str]:
    """The exercises of a lesson, read from its stubs without running them."""
    path = root / "lessons" / "exercises" / f"{lesson.stem}.py"
    if not lesson.written or not path.is_file():
        return []
    lines = path.read_text(encoding="utf8", errors="replace").splitlines()
    return [line[4:].split("(")[0].strip() for line in lines if line.startswith("def ")]
