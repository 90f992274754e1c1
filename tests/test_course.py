"""The map of the course holds, its exercises grade what they promise, and the grader survives what students write."""

import ast
import importlib
import json
import re
import signal
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from minillm.course import grade, plan, readme
from minillm.course.contract import Mistake

ROOT = Path(__file__).parents[1]
LESSONS = ROOT / "lessons"
COURSE = plan.read(ROOT)
WRITTEN = [lesson for lesson in COURSE.lessons if lesson.written]
COVERED = 28  # sections with a written lesson: the README's figure, counted here by hand

every_lesson = pytest.mark.parametrize("lesson", WRITTEN, ids=lambda lesson: lesson.stem)


def resolve(name):
    """The object behind a dotted name."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise ImportError(name)


def files(lesson):
    """Paths of stub and solution, and the loaded checks."""
    stub, solution, checks = (LESSONS / kind / f"{lesson.stem}.py" for kind in ("exercises", "solutions", "checks"))
    return stub, solution, grade.load(checks)


def functions(path):
    """Public functions of a file, in order."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    return [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


# The map


def test_map_covers_the_documents():
    ids = [section.id for section in COURSE.sections]
    assert len(ids) == len(set(ids)) == 200
    assert [len(document.sections) for document in COURSE.documents] == [39, 37, 38, 46, 40]
    for number, document in enumerate(COURSE.documents, start=1):
        assert all(section.id.startswith(f"{number}.") and section.heading for section in document.sections)


def test_map_names_lessons_that_exist():
    ids = [lesson.id for lesson in COURSE.lessons]
    assert ids == [f"{number:02}" for number in range(44)]
    named = {lesson for section in COURSE.sections for lesson in section.lessons}
    assert named == set(ids)  # no section points elsewhere, no lesson stands without a section
    assert all(section.lessons == sorted(set(section.lessons)) for section in COURSE.sections)
    assert [path.stem for path in sorted(LESSONS.glob("[0-9]*.py"))] == [lesson.stem for lesson in WRITTEN]


def test_map_names_functions_that_import():
    for name in {name for section in COURSE.sections for name in section.functions}:
        assert name.startswith("minillm.")
        assert callable(resolve(name)), name


def test_sections_with_a_written_lesson():
    ready = {lesson.id for lesson in WRITTEN}
    covered = [section for section in COURSE.sections if ready & set(section.lessons)]
    assert len(covered) == COVERED
    assert all(section.functions for section in covered)


def test_errata_are_sentences_about_sections():
    errata = {section.id: section.erratum for section in COURSE.sections if section.erratum}
    assert len(errata) == len(plan.tomllib.loads((LESSONS / plan.MAP).read_text(encoding="utf8"))["errata"])
    for text in errata.values():
        assert text.endswith(".")
        assert text.isascii()  # our own words, not the documents'
        assert len(text) < 260


def test_readme_is_up_to_date():
    assert (LESSONS / "README.md").read_text(encoding="utf8") == readme.render(COURSE), (
        "python -m minillm.course.readme"
    )


# The written lessons


@every_lesson
def test_header_agrees_with_the_map(lesson):
    text = (LESSONS / f"{lesson.stem}.py").read_text(encoding="utf8")
    found = re.findall(r"^# \*\*Sections:\*\* (.+)$", text, re.MULTILINE)
    assert len(found) == 1, "one line `# **Sections:** 3.2.1, 3.4.1`"
    mapped = [section.id for section in COURSE.sections if lesson.id in section.lessons]
    assert found[0].strip().rstrip(".").split(", ") == mapped
    assert text.startswith("# %% [markdown]\n")
    for part in ("You will be able to", "Prerequisites", "Time", "Expected"):
        assert f"**{part}:**" in text, part
    assert f"minillm lessons check {lesson.id}" in text
    assert f'report("{lesson.id}"' in text
    assert 120 <= text.count("\n") <= 250


def test_expected_numbers_name_the_written_lessons():
    expected = json.loads((LESSONS / "expected.json").read_text(encoding="utf8"))
    assert sorted(expected) == [lesson.id for lesson in WRITTEN]
    for numbers in expected.values():
        assert numbers
        assert all(len(pair) == 2 and pair[1] >= 0 for pair in numbers.values())


@every_lesson
def test_files_of_exercises_agree(lesson):
    stub, solution, checks = files(lesson)
    names = [node.name for node in functions(stub)]
    assert names == [node.name for node in functions(solution)] == list(checks.CHECKS)
    assert set(names) == set(checks.HINTS) == set(checks.MISTAKES)
    assert 2 <= len(names) <= 4
    assert all(len(checks.HINTS[name]) == 2 and len(checks.MISTAKES[name]) >= 2 for name in names)
    for node in functions(stub):
        assert ast.get_docstring(node), node.name
    signatures = [[ast.unparse(node.args) for node in functions(path)] for path in (stub, solution)]
    assert signatures[0] == signatures[1]


@every_lesson
def test_stubs_are_not_started_and_solutions_pass(lesson):
    stub, solution, checks = files(lesson)
    for path, status in ((stub, "not started"), (solution, "passed")):
        outcomes = grade.grade(grade.load(path), path, checks.CHECKS)
        assert {outcome.exercise: outcome.status for outcome in outcomes} == dict.fromkeys(checks.CHECKS, status), (
            outcomes
        )


@every_lesson
def test_mistakes_are_named(lesson):
    _, _, checks = files(lesson)
    for name, mistakes in checks.MISTAKES.items():
        for wrong, words in mistakes:
            with pytest.raises(Mistake) as caught:
                checks.CHECKS[name](wrong)
            assert words in str(caught.value), (name, str(caught.value))
            assert len(words) >= 8, words


JUNK = {
    "None": None, "string": "an answer", "integer": 7, "nan": float("nan"), "infinity": float("inf"), "empty": [], "table": {"a": 1},
    "object": object(), "nested": [[1.0], [2.0, 3.0]], "shape": jnp.zeros((3, 5, 7)), "scalar": jnp.float32(0.5), "truth": True,
    "complex": 1j, "pair": (None, None), "function": print, "type": int, "bytes": b"abc",
}  # fmt: skip


@every_lesson
def test_junk_is_a_mistake_and_never_crashes(lesson):
    _, _, checks = files(lesson)
    for name, check in checks.CHECKS.items():
        for kind, value in JUNK.items():
            try:
                check(lambda *inputs, value=value, **options: value)
            except Mistake:
                continue
            pytest.fail(f"{name} passes when it returns {kind}")

        def stops(*inputs, **options):
            raise SystemExit(3)

        def fails(*inputs, **options):
            return 1 / 0

        for function in (stops, fails, lambda: 0, lambda *inputs, **options: NotImplemented):
            outcome = grade.grade_one(name, function, check, Path(__file__))
            assert outcome.status in ("mistake", "error"), (name, outcome)
            assert "\n" not in outcome.message


# The commands, on a course of one lesson

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

    monkeypatch.setattr(cli, "prepare", lambda: None)

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


def test_run_reports_a_killed_lesson(school, minillm):
    (school / "lessons/02_counting.py").write_text("import os\nos.kill(os.getpid(), 9)\n", encoding="utf8")
    assert minillm("run", "2")[0] == 128 + signal.SIGKILL


def test_check_tells_each_exercise(school, minillm):
    code, out, _ = minillm("check", "02")
    assert code == 1
    assert out.count("not started yet") == 2
    assert "02_counting.py line 4" in out
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
