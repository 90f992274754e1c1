"""The provenance log: a chain of hashes that says what each step saw and produced, so that a replay can be compared.

One JSON object per line, with sorted keys and no spaces: `step` (updates done, this one included), `batch` and `key`
(what went in), `loss` (the bits of the float32), `parameters` (leaf -> sha256, where recorded), `number` (of the batch,
where others were left out), and
`chain` = sha256(chain of the line before + this line without its chain). A changed, moved or removed line breaks the
chain; only a cut at the very end cannot be seen from the log alone, so a checkpoint keeps the chain of its step.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from minillm.bits import byte_view, leaf_hashes, replace_file
from minillm.errors import UserError
from minillm.params import flatten

__all__ = [
    "START",
    "Difference",
    "append",
    "cut",
    "cut_metrics",
    "first_difference",
    "hash_arrays",
    "hash_batch",
    "hash_shards",
    "key_bits",
    "last_chain",
    "leaf_hashes",
    "losses",
    "read",
    "record",
]

START = "0" * 64  # the chain before the first line
FIELDS = ("batch", "key", "loss", "parameters")  # in the order of cause and effect


class Difference(NamedTuple):
    """The first place where a replay leaves the record. `leaf` is "" but for parameters."""

    step: int
    field: str
    leaf: str
    recorded: str | None
    replayed: str | None


def hash_arrays(arrays: Mapping[str, Any]) -> str:
    """16 hex characters of sha256 over names, dtypes, shapes and bytes, whatever the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name!r} {array.dtype.name} {array.shape}\n".encode())
        digest.update(byte_view(array))
    return digest.hexdigest()[:16]


def hash_shards(batch: Mapping[str, Any], shards: int) -> np.ndarray:
    """[shards, 2] uint32: the hash of each of `shards` equal parts of a batch's rows, by whoever has them."""
    parts = [
        hash_arrays({name: leaf[number * len(leaf) // shards : (number + 1) * len(leaf) // shards]
                     for name, leaf in batch.items()})
        for number in range(shards)
    ]  # fmt: skip
    return np.array([[int(part[:8], 16), int(part[8:], 16)] for part in parts], np.uint32)


def hash_batch(batch: Mapping[str, Any], shards: int) -> str:
    """A batch's hash; with virtual shards that of its shards' hashes, which several processes can make together."""
    batch = flatten(batch)  # several tasks have a batch each
    return hash_arrays(batch if shards == 1 else {"shards": hash_shards(batch, shards)})


def key_bits(key: Any) -> str:
    """The words of a JAX random key, typed or raw uint32, in hex."""
    words = jax.random.key_data(key) if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return "".join(f"{int(word):08x}" for word in np.asarray(words, np.uint32).reshape(-1))


def record(
    previous_chain: str, step: int, batch_hash: str, key: str, loss: Any,
    parameters: Mapping[str, str] | None = None, number: int | None = None,
) -> dict:  # fmt: skip
    """One line of the log.

    Args:
        previous_chain: the `chain` of the line before, START for the first.
        batch_hash: from `hash_arrays`.
        key: from `key_bits`.
        loss: a scalar; its float32 bits are kept, so a NaN or the last bit counts.
        parameters: from `leaf_hashes`, where they are recorded.
        number: of the batch, where it is not step - 1 because others were left out.
    """
    bits = int(np.asarray(loss, np.float32).reshape(()).view(np.uint32))
    line = {"step": int(step), "batch": batch_hash, "key": key, "loss": f"{bits:08x}"}
    if parameters is not None:
        line["parameters"] = dict(parameters)
    if number is not None and number != step - 1:
        line["number"] = number
    return line | {"chain": _chain(previous_chain, line)}


def append(path: str | Path, line: Mapping) -> None:
    """Add one line and hand it to the system in one piece: it then outlives a killed process."""
    path = Path(path)
    try:
        with open(path, "ab", buffering=0) as file:
            file.write(_canonical(line) + b"\n")
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", path, "free some space, then resume") from error


def read(path: str | Path) -> list[dict]:
    """All lines, with the chain checked from the first on; a last line that a kill tore off is left out.

    Raises:
        UserError: the file is missing, or a line was changed, moved or removed; names the line and the file.
    """
    path = Path(path)
    return _check(path, _split(path)[0])


def cut(path: str | Path, step: int) -> list[dict]:
    """Drop the lines after `step` and a torn last one, atomically; return the lines kept. No file: nothing to cut."""
    path = Path(path)
    if not path.is_file():
        return []
    raw, torn = _split(path)
    lines = _check(path, raw)
    kept = [line for line in lines if line["step"] <= step]
    if kept != lines[: len(kept)]:
        raise UserError(f"steps are out of order, so it cannot be cut at step {step}", path, "delete the log")
    _rewrite(path, raw, raw[: len(kept)], torn)
    return kept


def cut_metrics(path: str | Path, step: int) -> None:
    """Drop the lines of a metrics file whose "step" is above `step`, and a torn last one, atomically.

    Raises:
        UserError: another line is not a JSON object with a "step"; names it.
    """
    path = Path(path)
    if not path.is_file():
        return
    raw, torn = _split(path)
    kept = []
    for number, text in enumerate(raw, 1):
        line = _parse(text)
        if line is None or not isinstance(line.get("step"), int):
            raise UserError('is not a JSON object with a whole "step"', f"{path}:{number}", "delete that line")
        if line["step"] <= step:
            kept.append(text)
    _rewrite(path, raw, kept, torn)


def last_chain(lines: list[dict]) -> str:
    """What the next `record` continues from."""
    return lines[-1]["chain"] if lines else START


def losses(path: Path, step: int, count: int) -> list[float]:
    """The last `count` losses up to a step, those that are not finite left out."""
    lines = read(path) if path.is_file() else []
    bits = np.array([int(line["loss"], 16) for line in lines if line["step"] <= step], np.uint32)
    values = bits.view(np.float32)
    return values[np.isfinite(values)][-count:].tolist()


def first_difference(recorded: Iterable[Mapping], replayed: Iterable[Mapping]) -> Difference | None:
    """The first replayed step whose batch, key, loss or parameters differ from the record; None if all agree.

    Steps that were not replayed are not compared; parameters only where the record has them.
    """
    known = {line["step"]: line for line in recorded}
    for line in replayed:
        old = known.get(line["step"])
        if old is None:
            return Difference(line["step"], "step", "", None, str(line["step"]))
        for field in FIELDS:
            before, after = old.get(field), line.get(field)
            if before == after or (field == "parameters" and before is None):
                continue
            if field != "parameters":
                return Difference(line["step"], field, "", before, after)
            leaf = min(
                name for name in before.keys() | (after or {}).keys() if before.get(name) != (after or {}).get(name)
            )
            return Difference(line["step"], field, leaf, before.get(leaf), (after or {}).get(leaf))
    return None


def _canonical(line: Mapping) -> bytes:
    return json.dumps(line, sort_keys=True, separators=(",", ":")).encode()


def _chain(previous: str, line: Mapping) -> str:
    body = {name: value for name, value in line.items() if name != "chain"}
    return hashlib.sha256(previous.encode() + _canonical(body)).hexdigest()


def _check(path: Path, raw: list[bytes]) -> list[dict]:
    lines, previous = [], START
    for number, text in enumerate(raw, 1):
        line = _parse(text)
        # compared as written: a space or an escape added by hand leaves the parsed line, and so its chain, as it was
        if line is None or _canonical(line) != text or line.get("chain") != _chain(previous, line):
            raise UserError(
                "the chain of hashes breaks here: a line was changed, moved or removed",
                f"{path}:{number}",
                "restore the log from a copy; without one, nothing from here on is proven",
            )
        lines.append(line)
        previous = line["chain"]
    return lines


def _split(path: Path) -> tuple[list[bytes], bytes]:
    """(complete lines, torn end). A kill in mid-write leaves the beginning of a line; other bytes are damage."""
    try:
        *raw, torn = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise UserError("this file is missing", path, "choose a folder that holds a run") from None
    if torn and not _may_be_torn(torn):
        raise UserError(
            "is damaged: neither a line nor the beginning of one", f"{path}:{len(raw) + 1}", "delete that line"
        )
    return raw, torn


def _may_be_torn(text: bytes) -> bool:
    """Whether a text without a line end begins a JSON object, with nothing after it if it is whole."""
    decoded = text.decode("utf-8", errors="ignore")  # a kill can split a character
    if not decoded.startswith("{"):
        return False
    try:
        return json.JSONDecoder().raw_decode(decoded)[1] == len(decoded)
    except ValueError:
        return True


def _parse(text: bytes) -> dict | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _rewrite(path: Path, raw: list[bytes], kept: list[bytes], torn: bytes) -> None:
    if torn or len(kept) < len(raw):
        replace_file(path, b"".join(text + b"\n" for text in kept))
