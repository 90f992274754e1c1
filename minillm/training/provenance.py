"""The provenance log: one line per step, each chained to the one before by a hash.

A line says which batch went in (sha256 of its arrays), under which key, which loss came out (its float32 bits), and at a
configured interval the hash of every parameter. "chain" is sha256(previous chain + this line): no line can be changed,
removed or moved without breaking every later one.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minillm.errors import UserError
from minillm.training.integrity import byte_view, replace_file


class Difference(NamedTuple):
    """Where a replay left the record."""

    step: int
    field: str  # batch, key, loss or parameters
    leaf: str | None = None


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """16 hex digits over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape};".encode())
        digest.update(byte_view(array))
    return digest.hexdigest()[:16]


def record(
    previous: str, step: int, batch: str, key: str, loss: float, parameters: Mapping[str, str] | None = None
) -> dict:
    """The line of a step; `previous` is the chain of the line before ("" for the first)."""
    line = {"step": step, "batch": batch, "key": key, "loss": struct.pack(">f", loss).hex()}
    if parameters is not None:
        line["parameters"] = dict(parameters)
    return line | {"chain": _chain(previous, line)}


def append(path: Path, line: Mapping) -> None:
    """Adds a line to the log."""
    with path.open("a", encoding="utf8") as handle:
        handle.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict]:
    """All lines, each checked against the chain. A last line torn by a kill is left out.

    Raises: UserError naming the first line that does not fit.
    """
    lines, previous = [], ""
    for number, text in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            line = json.loads(text)
            content = {name: value for name, value in line.items() if name != "chain"}
            fits = line["chain"] == _chain(previous, content) and json.dumps(line).encode() == text
        except (ValueError, KeyError, AttributeError):
            fits = False
        if not fits:
            raise UserError("the chain is broken here: the log was changed", f"{path}, line {number}", "run again")
        previous = line["chain"]
        lines.append(line)
    return lines


def cut(path: Path, step: int) -> None:
    """Drops the lines after `step`, and a torn last one, atomically."""
    if not path.exists():
        return
    whole = path.read_bytes()
    kept = [text for text in whole.split(b"\n")[:-1] if _step(text, path) <= step]
    data = b"".join(text + b"\n" for text in kept)
    if data != whole:
        replace_file(path, data)


cut_metrics: Callable[[Path, int], None] = cut  # metrics.jsonl is cut the same way


def first_difference(recorded: Iterable[Mapping], replayed: Iterable[Mapping]) -> Difference | None:
    """The first step, field and leaf in which a replay left the record."""
    for old, new in zip(recorded, replayed, strict=False):
        for field in ("step", "batch", "key", "loss"):
            if old[field] != new[field]:
                return Difference(int(old["step"]), field)
        a, b = old.get("parameters"), new.get("parameters")
        if a is not None and b is not None and a != b:
            leaf = next(path for path in sorted(a.keys() | b.keys()) if a.get(path) != b.get(path))
            return Difference(int(old["step"]), "parameters", leaf)
    return None


def _chain(previous: str, line: Mapping) -> str:
    return hashlib.sha256((previous + json.dumps(line, sort_keys=True)).encode()).hexdigest()


def _step(text: bytes, path: Path) -> int:
    try:
        return int(json.loads(text)["step"])
    except (ValueError, KeyError, TypeError):
        raise UserError("a line is damaged", str(path), "run again with another --out") from None
