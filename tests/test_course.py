"""The map of the course holds, and the exercises of every written lesson grade what they promise."""

import ast
import importlib
import json
import re
from pathlib import Path

import jax.numpy as jnp
import pytest

from minillm.course import grade, plan, readme
from minillm.course.contract import Mistake

ROOT = Path(__file__).parents[1]
LESSONS = ROOT / "lessons"
COURSE = plan.read(ROOT)
WRITTEN = [lesson for lesson in COURSE.lessons if lesson.written]
COVERED = 190  # sections with a written lesson: the README's figure, counted here by hand

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
    found = re.findall(r"^# \*\*Sections:\*\* ((?:.+,\n# )*.+)$", text, re.MULTILINE)
    assert len(found) == 1, "one entry `# **Sections:** 3.2.1, 3.4.1`; a long one goes on after a comma"
    mapped = [section.id for section in COURSE.sections if lesson.id in section.lessons]
    assert found[0].replace("\n# ", " ").strip().rstrip(".").split(", ") == mapped
    assert text.startswith("# %% [markdown]\n")
    for part in ("You will be able to", "Prerequisites", "Time", "Expected"):
        assert f"**{part}:**" in text, part
    assert f"minillm lessons check {lesson.id}" in text
    assert f'report("{lesson.id}"' in text


LONGER = {"30": 370}  # two subjects in one


@every_lesson
def test_lessons_are_short(lesson):
    lines = (LESSONS / f"{lesson.stem}.py").read_text(encoding="utf8").count("\n")
    assert 120 <= lines <= LONGER.get(lesson.id, 250)


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
            assert len(words) >= 4, words


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
