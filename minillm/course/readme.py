"""Writes lessons/README.md from lessons/chapters.toml:  python -m minillm.course.readme"""

from pathlib import Path

from minillm.course import plan
from minillm.course.plan import Course, Document, Lesson, Section

INTRODUCTION = """<!-- Made from chapters.toml by `python -m minillm.course.readme`; edit that file. -->

# The course

Every section of the five documents leads to a lesson here, and every lesson to the functions of `minillm` that it is
about. A lesson asks a question, gives the mathematics with an example that you can check by hand, builds the naive
version, holds it against the library, and then measures something real beside a baseline.

## How to use it

1. `minillm lessons list` shows the lessons and how far you are.
2. Open a lesson, for example `lessons/02_counting.py`: it is a script (`minillm lessons run 02`) and, cell by cell, a
   notebook in VS Code, or in Jupyter with jupytext. Answer "Predict before you run" before you run. Figures and numbers land in
   `runs/lessons/02`; the numbers that a lesson states are in `expected.json`, and a test compares them.
3. Fill in the two functions of `lessons/exercises/02_counting.py` and run `minillm lessons check 02`. A wrong answer
   is told by the mistake behind it; `--hints` helps further. `lessons/solutions` holds one way to write them.
   To keep the repository clean, work on a copy: `minillm lessons check 02 my_answers.py`.

The check runs your file as any program of yours would run. It is not a sandbox: do not check files of people you do
not trust.
"""


def render(course: Course) -> str:
    """The whole page."""
    written = [lesson for lesson in course.lessons if lesson.written]
    ready = {lesson.id for lesson in written}
    covered = sum(bool(ready & set(section.lessons)) for section in course.sections)
    errata = sum(section.erratum is not None for section in course.sections)
    return "\n".join(
        [
            INTRODUCTION,
            "## The lessons",
            "",
            f"{len(written)} of {len(course.lessons)} are written; the others are planned.",
            "",
            *_lessons(course),
            "",
            "## The documents, section by section",
            "",
            f"{covered} of {len(course.sections)} sections have a written lesson (**bold**); the others wait for a planned one.",
            f"{errata} sections slip somewhere; the last column says what is right.",
            *(line for document in course.documents for line in _document(document, course)),
            "",
        ]
    )


def _lessons(course: Course) -> list[str]:
    lines = ["| part | lesson | status | sections |", "| --- | --- | --- | --- |"]
    for lesson in course.lessons:
        sections = ", ".join(section.id for section in course.sections if lesson.id in section.lessons)
        title = f"{lesson.id} {lesson.title}"
        name, status = (f"[{title}]({lesson.stem}.py)", "written") if lesson.written else (title, "planned")
        lines.append(f"| {lesson.part} | {name} | {status} | {sections} |")
    return lines


def _document(document: Document, course: Course) -> list[str]:
    lessons = {lesson.id: lesson for lesson in course.lessons}
    return [
        "",
        f"### {document.name}: {document.title}",
        "",
        "| section | heading | lessons | functions | where it slips |",
        "| --- | --- | --- | --- | --- |",
        *(_section(section, lessons) for section in document.sections),
    ]


def _section(section: Section, lessons: dict[str, Lesson]) -> str:
    numbers = ", ".join(f"**{number}**" if lessons[number].written else number for number in section.lessons)
    functions = ", ".join(f"`{name.removeprefix('minillm.')}`" for name in section.functions)
    cells = (section.id, section.heading, numbers, functions, section.erratum or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main() -> Path:
    """Writes the page beside the map that it shows."""
    root = plan.find_root()
    path = root / "lessons" / "README.md"
    path.write_text(render(plan.read(root)), encoding="utf8")
    return path


if __name__ == "__main__":
    print(main())
