"""Files as documents: one function per format. Every error names the file and, where there is one, the line or record.

A document's name ends with the number of its line (of its record in csv and tsv). Labels are as the file has them:
strings, or tuples of strings; `labels.py` tells what they mean.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from minillm.data.document import Document
from minillm.data.encoding import read_text
from minillm.errors import UserError


class Fields(NamedTuple):
    """Where a record's parts stand: the fields of jsonl, the columns of csv and tsv. `separator`: of documents in text."""

    text: str = "text"
    label: str | None = None
    pair: str | None = None
    separator: str | None = None
    start: str | None = None  # where in the pair the label begins
    target: str | None = None  # what is to be written
    label_setting: str = "label_key"  # the key of [data] that names `label`
    domain: str | None = None


def _text_files(path: Path, fields: Fields) -> Iterator[Document]:
    separator = fields.separator
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


def _json_lines(path: Path, fields: Fields) -> Iterator[Document]:
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
        text = _json_text(row, fields.text, "text_key", where)
        pair = None if fields.pair is None else _json_text(row, fields.pair, "pair_key", where)
        label = None if fields.label is None else _json_label(row, fields.label, fields.label_setting, where)
        start = None if fields.start is None else _offset(_json_field(row, fields.start, "start_key", where), where)
        target = None if fields.target is None else _json_text(row, fields.target, "target_key", where)
        domain = None if fields.domain is None else _json_text(row, fields.domain, "domain_key", where).strip()
        yield Document(f"{path.name}:{number}", text, label, pair, start=start, target=target, domain=domain)


def _offset(value: Any, where: str) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        message = f"{value!r} is no place in a passage"
        raise UserError(message, where, "give the number of characters before the answer, from 0")
    return value


def _json_field(row: dict, key: str, setting: str, where: str) -> Any:
    if key not in row:
        raise UserError(f"no field {key!r}", where, f"set data.{setting} to one of its fields: {', '.join(row)}")
    return row[key]


def _json_text(row: dict, key: str, setting: str, where: str) -> str:
    text = _json_field(row, key, setting, where)
    if not isinstance(text, str):
        message = f"the field {key!r} is {type(text).__name__}, expected a string"
        raise UserError(message, where, f"set data.{setting} to the field with the text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError("half of a surrogate pair in the text", where, "write the whole character")
    return text


def _json_label(row: dict, key: str, setting: str, where: str) -> str | tuple[str, ...]:
    """A string, a number as a string, "" for null, or several of them."""
    label = _json_field(row, key, setting, where)
    plain = lambda value: "" if value is None else value.strip() if isinstance(value, str) else json.dumps(value)
    values = label if isinstance(label, list) else [label]
    if any(isinstance(value, list | dict) for value in values):
        message = f"the field {key!r} is no label: {json.dumps(label, ensure_ascii=False)[:60]}"
        raise UserError(message, where, "a label is a string, a number, or a list of strings")
    return tuple(map(plain, values)) if isinstance(label, list) else plain(label)


def _table(delimiter: str) -> Callable[[Path, Fields], Iterator[Document]]:
    def read_table(path: Path, fields: Fields) -> Iterator[Document]:
        header, *body = _rows(path, delimiter) or [[]]
        keys = {
            "text_key": fields.text,
            fields.label_setting: fields.label,
            "pair_key": fields.pair,
            "start_key": fields.start,
            "target_key": fields.target,
            "domain_key": fields.domain,
        }
        columns = {setting: _column(header, key, setting, path) for setting, key in keys.items() if key is not None}
        for number, row in enumerate(body, start=2):
            if len(row) != len(header):
                message = f"{len(row)} fields, the header has {len(header)}"
                raise UserError(message, f"{path}, record {number}", "quote fields that contain the delimiter")
            found = (row[columns[key]] if key in columns else None for key in keys)
            text, label, pair, start, target, domain = found
            start = None if start is None else _offset(start, f"{path}, record {number}")
            label, domain = (None if field is None else field.strip() for field in (label, domain))
            yield Document(f"{path.name}:{number}", text, label, pair, start=start, target=target, domain=domain)

    return read_table


def _rows(path: Path, delimiter: str) -> list[list[str]]:
    text = read_text(path)
    before = csv.field_size_limit(max(len(text), 131072))  # a field may be as long as a whole document
    reader, rows, line = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [], 1
    try:
        for row in reader:
            rows += [row] if row else []
            line = reader.line_num + 1
    except csv.Error as error:
        where = f"{path}, record {len(rows) + 1}, which begins in line {line}"
        raise UserError(f"not a table: {error}", where, "quote fields as RFC 4180 says") from None
    finally:
        csv.field_size_limit(before)
    return rows


def _column(header: list[str], key: str, setting: str, path: Path) -> int:
    if header.count(key) == 1:
        return header.index(key)
    if key in header:
        raise UserError(f"{header.count(key)} columns are called {key!r}", str(path), "give each a name of its own")
    message = f"no column {key!r}, there are {', '.join(map(repr, header)) or 'none'}"
    raise UserError(message, str(path), f"set data.{setting} to a column")


def lines_of(path: Path) -> list[str]:
    """Parted at line feeds and carriage returns alone: `str.splitlines` would also cut at U+2028 and others."""
    return read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _labelled_lines(path: Path, fields: Fields) -> Iterator[Document]:
    """text:label, parted at the last colon, ASCII or full-width. A blank line is no record."""
    for number, line in enumerate(lines_of(path), start=1):
        if not line.strip():
            continue
        cut = max(line.rfind(":"), line.rfind("："))
        if cut < 0:
            message = f"no colon in {line.strip()[:40]!r}"
            raise UserError(message, f"{path}, line {number}", "write text:label, or remove the line")
        yield Document(f"{path.name}:{number}", line[:cut].strip(), line[cut + 1 :].strip())


def _columns_of_tags(path: Path, fields: Fields) -> Iterator[Document]:
    """CoNLL: a unit and its tag per line (with more columns the first and the last), a blank line between sentences.

    A tab parts them, or in a line without one blanks. Where every unit of the file is one character, the text is the
    units without blanks between them.
    """
    sentences: list[tuple[int, list[tuple[str, str]]]] = []
    begins = True
    for number, line in enumerate(lines_of(path), start=1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            begins = True
            continue
        columns = line.split("\t") if "\t" in line else line.rstrip(" ").split(" ")
        unit, tag = columns[0], columns[-1].strip()
        if len(columns) < 2 or not unit or not tag:
            message = f"no unit and tag in {line[:40]!r}"
            raise UserError(message, f"{path}, line {number}", "write a unit, a tab and its tag, such as B-PER or O")
        if begins:
            sentences.append((number, []))
        begins = False
        sentences[-1][1].append((unit, tag))
    between = " " if any(len(unit) > 1 for _, pairs in sentences for unit, _ in pairs) else ""
    for number, pairs in sentences:
        units, tags = zip(*pairs, strict=True)
        yield Document(f"{path.name}:{number}", between.join(units), tags, None, units)


FILES: dict[str, Callable[[Path, Fields], Iterator[Document]]] = {
    "text": _text_files, "jsonl": _json_lines, "csv": _table(","), "tsv": _table("\t"), "lines": _labelled_lines,
    "conll": _columns_of_tags,
}  # fmt: skip
