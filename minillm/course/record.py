"""What a lesson leaves behind: its figures and its numbers, under runs/lessons/NN/."""

import json
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path("runs/lessons")


def figure_path(lesson: str, name: str) -> Path:
    """Where lesson "02" saves its figure `name`; the folder exists afterwards."""
    folder = FOLDER / lesson
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def report(lesson: str, numbers: Mapping[str, float]) -> None:
    """Prints a lesson's numbers and writes numbers.json, which a test holds against lessons/expected.json."""
    width = max(map(len, numbers))
    print(f"\nLesson {lesson}, the numbers it states:")
    for name, value in ((name, float(value)) for name, value in numbers.items()):
        print(f"  {name:{width}}  {f'{value:,.0f}' if value == round(value) and abs(value) < 1e9 else f'{value:.4g}'}")
    figure_path(lesson, "numbers.json").write_text(json.dumps({k: float(v) for k, v in numbers.items()}, indent=2))
