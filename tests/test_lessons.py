"""Every written lesson runs from beginning to end, without a warning, and states the numbers that expected.json holds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minillm.course import plan

ROOT = Path(__file__).parents[1]
WRITTEN = [lesson for lesson in plan.read(ROOT).lessons if lesson.written]
SECONDS = 600  # a lesson takes less than a minute; other tests may run beside it


@pytest.mark.lesson
@pytest.mark.parametrize("lesson", WRITTEN, ids=lambda lesson: lesson.stem)
def test_lesson_states_its_numbers(lesson):
    folder = ROOT / "runs/lessons" / lesson.id
    for old in (*folder.glob("*.png"), *folder.glob("numbers.json")):
        old.unlink()
    environment = os.environ | {"MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", f"lessons/{lesson.stem}.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = json.loads((ROOT / "lessons/expected.json").read_text(encoding="utf8"))[lesson.id]
    numbers = json.loads((folder / "numbers.json").read_text(encoding="utf8"))
    assert set(numbers) == set(expected)
    wrong = {
        name: (numbers[name], pair) for name, pair in expected.items() if not abs(numbers[name] - pair[0]) <= pair[1]
    }
    assert not wrong, "name: (found, [expected, tolerance])"
    figures = list(folder.glob("*.png"))
    assert figures
    assert all(figure.stat().st_size > 5000 for figure in figures)
