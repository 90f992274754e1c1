"""The map of the course, read from lessons/chapters.toml: lessons, sections of the documents, errata."""

import tomllib
from pathlib import Path
from typing import NamedTuple

from minillm.errors import UserError

MAP = "chapters.toml"


class Lesson(NamedTuple):
    """One lesson. It is written when its file exists, otherwise planned."""

    id: str  # two digits
    name: str  # for its file names
    title: str
    part: str  # "I Foundations"
    written: bool

    @property
    def stem(self) -> str:
        """The name of its files: lessons/STEM.py, lessons/exercises/STEM.py, ..."""
        return f"{self.id}_{self.name}"


class Section(NamedTuple):
    """One section of a document, and what carries it here."""

    id: str  # document.section, like "3.4.1"
    heading: str
    lessons: list[str]  # ids
    functions: list[str]  # dotted names that import
    erratum: str | None  # what is right where the document slips


class Document(NamedTuple):
    """One of the five documents."""

    name: str
    title: str
    sections: list[Section]


class Course(NamedTuple):
    """Everything that chapters.toml says."""

    lessons: list[Lesson]
    documents: list[Document]

    @property
    def sections(self) -> list[Section]:
        """All sections of all documents, in order."""
        return [section for document in self.documents for section in document.sections]

    def lesson(self, number: str) -> Lesson:
        """The lesson "2" or "02". Raises: UserError where there is none."""
        for lesson in self.lessons:
            if number in (lesson.id, str(int(lesson.id))):
                return lesson
        last = self.lessons[-1].id
        raise UserError(f"no lesson {number!r}", "lessons", f"choose from 00 to {last}; see `minillm lessons list`")

    def written(self, number: str) -> Lesson:
        """The same, for a lesson that can be run. Raises: UserError where it is only planned."""
        lesson = self.lesson(number)
        if not lesson.written:
            ready = ", ".join(other.id for other in self.lessons if other.written) or "none yet"
            raise UserError(
                f"lesson {lesson.id} ({lesson.title}) is planned, not written yet", "lessons", f"choose from: {ready}"
            )
        return lesson


def find_root() -> Path:
    """The folder that holds lessons/: the current one, or the checkout of this package. Raises: UserError."""
    for folder in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (folder / "lessons" / MAP).is_file():
            return folder
    raise UserError(
        f"no lessons/{MAP} here or beside the package",
        str(Path.cwd()),
        "run this in a checkout of the repository: the lessons are not part of the installed package",
    )


def read(root: Path) -> Course:
    """The course under `root`. Raises: UserError where the map is damaged."""
    path = root / "lessons" / MAP
    try:
        table = tomllib.loads(path.read_text(encoding="utf8"))
        lessons = [
            Lesson(row["id"], row["name"], row["title"], f"{part['number']} {part['title']}", _exists(root, row))
            for part in table["part"]
            for row in part["lessons"]
        ]
        documents = [
            Document(
                document["name"],
                document["title"],
                [Section(**row, erratum=table["errata"].get(row["id"])) for row in document["sections"]],
            )
            for document in table["document"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"not a map of the course: {error!r}", str(path), "restore it from the repository") from None
    return Course(lessons, documents)


def _exists(root: Path, row: dict) -> bool:
    return (root / "lessons" / f"{row['id']}_{row['name']}.py").is_file()
