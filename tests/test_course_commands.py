"""`minillm lessons`, on a course of one lesson: the grader survives what students write."""

import json
import signal
import sys
from pathlib import Path

import pytest

from minillm.course import plan

ROOT = Path(__file__).parents[1]
LESSONS = ROOT / "lessons"

CHECKS = """
from minillm.course.contract import Mistake
def check_double(function):
    if function(3) != 6:
        raise Mistake(f"double(3) is {function(3)}, not 6: do you add instead of multiplying?")
def check_half(function):
    if abs(function(3.0) - 1.5) > 1e-9:
        raise Mistake("half(3.0) is not 1.5: do you divide whole numbers?")
CHECKS = {"double": check_double, "half": check_half}
HINTS = {"double": ("2 x", "x + x"), "half": ("x / 2", "x * 0.5")}
MISTAKES = {}
"""
STUB = """
def double(x):
    '''Twice x.'''
    raise NotImplementedError("double")


def half(x):
    '''Half of x.'''
    raise NotImplementedError("half")
"""
RIGHT = "def double(x):\n    return 2 * x\ndef half(x):\n    return x / 2\n"
SCRIPT = """
import pathlib, sys, minillm
print("a lesson of", len(sys.argv), "word in", pathlib.Path.cwd().name)
pathlib.Path("runs/lessons/02").mkdir(parents=True, exist_ok=True)
pathlib.Path("runs/lessons/02/numbers.json").write_text('{"three": 3.0}')
sys.exit(CODE)
"""


@pytest.fixture
def school(tmp_path, monkeypatch):
    """A folder with the whole plan and one written lesson."""
    root = tmp_path / "school"
    for kind, text in (("", SCRIPT.replace("CODE", "0")), ("exercises", STUB), ("checks", CHECKS)):
        (root / "lessons" / kind).mkdir(parents=True, exist_ok=True)
        (root / "lessons" / kind / "02_counting.py").write_text(text, encoding="utf8")
    (root / "lessons" / plan.MAP).write_bytes((LESSONS / plan.MAP).read_bytes())
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def minillm(monkeypatch, capfd):
    """`minillm lessons ...` in this process: (exit code, stdout, stderr)."""
    from minillm import cli

    for module in (cli.runs, cli.labs, cli.exchange, cli.lessons):
        monkeypatch.setattr(module, "prepare", lambda: None)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["minillm", "lessons", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (stop.value.code or 0, *capfd.readouterr())

    return call


def test_list_shows_lessons_and_progress(school, minillm):
    code, out, _ = minillm("list")
    assert code == 0
    assert "1 of 44 lessons are written; you passed 0 of 2 exercises." in out
    assert "IV Engineering" in out
    (school / "mine.py").write_text(RIGHT.replace("/ 2", "// 2"), encoding="utf8")
    assert minillm("check", "2", "mine.py")[0] == 1
    rows = json.loads(minillm("list", "--json")[1])
    assert [row["lesson"] for row in rows if row["status"] == "written"] == ["02"]
    assert (rows[2]["passed"], rows[2]["exercises"], rows[1]["exercises"]) == (1, 2, 0)
    assert "3.4.1" in rows[2]["sections"]


@pytest.mark.parametrize("code", [0, 5])
def test_run_streams_and_passes_the_exit_code_on(school, minillm, code):
    (school / "lessons/02_counting.py").write_text(SCRIPT.replace("CODE", str(code)), encoding="utf8")
    found, out, _ = minillm("run", "2")
    assert (found, out) == (code, "a lesson of 1 word in school\n")
    found, out, errors = minillm("run", "02", "--json")
    assert (found, "a lesson of" in errors) == (code, True)
    assert out == ("" if code else json.dumps({"three": 3.0}, indent=2) + "\n")


def test_a_lesson_runs_at_the_root_from_anywhere(school, minillm, monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "__file__", str(school / "minillm/course/plan.py"))
    monkeypatch.chdir(tmp_path)
    assert minillm("run", "2")[1] == "a lesson of 1 word in school\n"
    assert (school / "runs/lessons/02/numbers.json").exists()


def test_run_reports_a_killed_lesson(school, minillm):
    (school / "lessons/02_counting.py").write_text("import os\nos.kill(os.getpid(), 9)\n", encoding="utf8")
    assert minillm("run", "2")[0] == 128 + signal.SIGKILL


def test_check_tells_each_exercise(school, minillm):
    code, out, _ = minillm("check", "02")
    assert code == 1
    assert out.count("not started yet") == 2
    assert "(lessons/exercises/02_counting.py line 4)" in out
    (school / "mine.py").write_text(RIGHT, encoding="utf8")
    code, out, _ = minillm("check", "2", "mine.py", "--hints")
    assert (code, out.count(": passed"), "hint" in out) == (0, 2, False)
    (school / "mine.py").write_text(
        "def double(x):\n    return x + 2\ndef half(x):\n    y = 0\n    return x / y\n", encoding="utf8"
    )
    code, out, _ = minillm("check", "2", "mine.py", "--hints")
    assert code == 1
    assert "double(3) is 5, not 6" in out
    assert "ZeroDivisionError" in out
    assert "mine.py line 5" in out
    assert out.count("hint 2: ") == 2
    found = json.loads(minillm("check", "2", "mine.py", "--json")[1])
    assert [row["status"] for row in found["exercises"]] == ["mistake", "error"]
    assert found["passed"] == 0


# body of double -> words of its line
STRANGE = {
    "exit()": "ends the program", "import sys; sys.exit('bye')": "ends the program", "return None": "double(3) is None",
    "return print": "double(3) is", "return double(x)": "RecursionError", "raise KeyboardInterrupt": "stopped by you",
    "raise BaseException": "BaseException", "raise NotImplementedError": "not started", "return undefined": "NameError",
    "import nowhere_to_be_found": "ModuleNotFoundError", "raise ValueError('a' * 9999)": "ValueError: aaa",
    "raise ValueError('two\\nlines')": "ValueError: two lines", "assert x > 3": "AssertionError",
    "class E(Exception):\n        __str__ = lambda self: 1 / 0\n    raise E": "str() failed",
    "class N:\n        __ne__ = lambda self, other: 1 / 0\n    return N()": "ZeroDivisionError",
    "return '[bold]6[/bold]'": "double(3) is [bold]6[/bold]", "print('x' * 100_000); return 6": "double: passed",
}  # fmt: skip


@pytest.mark.parametrize("body", STRANGE)
def test_strange_answers_end_in_one_line(body, school, minillm):
    (school / "mine.py").write_text(f"def double(x):\n    {body}\ndef half(x):\n    return x / 2\n", encoding="utf8")
    code, out, errors = minillm("check", "2", "mine.py")
    line = next(line for line in out.splitlines() if " double: " in line)
    assert STRANGE[body] in line, out
    assert len(line) < 500
    assert "half: passed" in out
    assert (code, errors) == (0 if "passed" in line else 1, "")


def test_the_line_is_the_deepest_of_the_file(school, minillm):
    (school / "mine.py").write_text(
        RIGHT.replace("2 * x", "helper(x)") + "def helper(x):\n    return x['a']\n", encoding="utf8"
    )
    assert "mine.py line 6" in minillm("check", "2", "mine.py")[1]


def test_progress_keeps_other_lessons(school, minillm):
    (school / "runs/lessons").mkdir(parents=True)
    path = school / "runs/lessons/progress.json"
    path.write_text('{"01": {"merge": true}}', encoding="utf8")
    minillm("check", "2")
    assert json.loads(path.read_text(encoding="utf8")) == {
        "01": {"merge": True},
        "02": {"double": False, "half": False},
    }
    assert list(path.parent.iterdir()) == [path]


def test_json_is_alone_on_stdout(school, minillm):
    (school / "mine.py").write_text(
        "print('at the top')\n" + RIGHT.replace("return 2", "print(x); return 2"), encoding="utf8"
    )
    code, out, errors = minillm("check", "2", "mine.py", "--json")
    assert (code, json.loads(out)["passed"], "at the top" in errors) == (0, 2, True)


# file -> words of the one line on stderr
BAD = {
    b"def double(x:\n    return x\n": "mine.py line 1", b"def double(x):\nreturn x\n": "IndentationError", b"x = 1\n": "no function double, half",
    b"def double(x):\n    return 2 * x\n": "no function half", b"double = 3\ndef half(x):\n    return x\n": "no function double",
    b"\n1 / 0\n": "mine.py line 2: ZeroDivisionError", b"import sys\nsys.exit(0)\n": "mine.py line 2: the file ends the program",
    b"a\0b": "null bytes", b"x = '\xff'\n": "SyntaxError", b"raise OSError('mine')\n": "OSError: mine",
    b"open('no_such_file')\n": "line 1: FileNotFoundError", b"from minillm.nowhere import x\n": "ModuleNotFoundError", b"": "no function double",
}  # fmt: skip


@pytest.mark.parametrize("content", BAD)
def test_files_that_cannot_be_graded(content, school, minillm):
    (school / "mine.py").write_bytes(content)
    code, out, errors = minillm("check", "2", "mine.py")
    assert (code, out) == (2, "")
    assert BAD[content] in errors
    assert "mine.py" in errors
    assert " -> " in errors
    assert errors.count("\n") == 1
    assert not (school / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "44"), "no lesson '44'"), (("run", "two"), "no lesson 'two'"), (("check", "-1"), ""), (("check", ""), "no lesson ''"),
        (("run", "9"), "planned, not written yet"), (("check", "09"), "choose from: 02"), (("check", "2", "nowhere.py"), "no such file"),
        (("check", "2", "lessons"), "not a Python file"), (("check", "2", "notes.ipynb"), "not a Python file"), (("check",), ""), ((), ""),
    ],
)  # fmt: skip
def test_bad_commands(arguments, words, school, minillm):
    code, _, errors = minillm(*arguments)
    assert (code, words in errors) == (2, True), errors
    assert not words or errors.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "words"), [("{", "cannot be read"), ("[]", "not a record"), ('{"02": 1}', "not a record")]
)
def test_damaged_progress(content, words, school, minillm):
    (school / "runs/lessons").mkdir(parents=True)
    (school / "runs/lessons/progress.json").write_text(content, encoding="utf8")
    code, _, errors = minillm("list")
    assert (code, words in errors, "delete it" in errors) == (2, True, True)


def test_damaged_map_and_no_lessons(school, minillm, monkeypatch):
    (school / "lessons/checks/02_counting.py").unlink()
    assert "no checks" in minillm("check", "2")[2]
    (school / "lessons" / plan.MAP).write_text("[[part]]\n", encoding="utf8")
    code, _, errors = minillm("list")
    assert (code, "not a map of the course" in errors) == (2, True)
    (school / "lessons" / plan.MAP).unlink()
    monkeypatch.setattr(plan, "__file__", str(school / "a/b/plan.py"))
    code, _, errors = minillm("list")
    assert (code, "no lessons/chapters.toml" in errors, "checkout" in errors) == (2, True, True)


def test_lessons_are_found_beside_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan.find_root() == ROOT


@pytest.mark.parametrize("command", ["list", "run", "check", ""])
def test_help_shows_an_example(command, minillm):
    code, out, _ = minillm(*filter(None, [command]), "--help")
    assert code == 0
    assert f"minillm lessons {command}" in out
