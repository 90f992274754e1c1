"""A tuned model as one small file: what was trained, without the base that it was trained on.

A safetensors file of the trainable leaves (a task's head among them). Its metadata holds the [tuning] section, whatever
the caller adds, and the type, shape and sha256 of every leaf, of its own and of its base: it is put beside no other
base. Several can be kept, and switched over one base in memory.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from minillm.bits import hash_array, host_arrays, replace_file
from minillm.errors import UserError
from minillm.params import Params, flatten, unflatten

KEY = "minillm_adapter"  # of the one entry of the metadata: two could change places from one save to the next


def save_adapter(path: str | Path, trainable: Params, frozen: Params, section: Any, about: Mapping[str, Any]) -> None:
    """Writes the trainable leaves, in place of an older file; a kill leaves the old or the new one.

    Args:
        section: the [tuning] section, a dataclass or plain data.
        about: any JSON object, such as the model's section, the labels and where the base came from.

    Raises:
        UserError: nothing is frozen, so that there is no base to go back to; or the file cannot be written.
    """
    path = Path(path)
    if not flatten(frozen):
        message = "every parameter was trained, so that the whole model would be saved"
        raise UserError(message, path, "keep the run's checkpoint, or use another tuning.method")
    leaves = host_arrays(trainable)
    section = dataclasses.asdict(section) if dataclasses.is_dataclass(section) else dict(section)
    record = {
        "tuning": section,
        "about": dict(about),
        "leaves": _describe(leaves),
        "base": _describe(host_arrays(frozen)),
    }
    text = json.dumps(record, sort_keys=True)
    replace_file(path, save(leaves, {KEY: json.dumps({"record": text, "sha256": _hash(text)})}))


def load_adapter(path: str | Path, frozen: Params) -> tuple[Params, dict[str, Any], dict[str, Any]]:
    """A saved adapter for this base -> (trainable, the [tuning] section as plain data, about).

    Raises: UserError where the file is missing, damaged or no adapter, or where it was trained on another base; names
    the first leaf that differs.
    """
    path = Path(path)
    record, leaves = _read(path)
    wanted, found = record["base"], _describe(host_arrays(frozen))
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            what, mend = _difference(wanted.get(name), found.get(name)), "load the base that it was trained on"
            raise UserError(f"it was trained on another base: {name} {what}", path, mend)
    trainable = unflatten({name: jnp.asarray(leaf) for name, leaf in leaves.items()})
    return trainable, record["tuning"], record["about"]


def read_about(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the [tuning] section, about) of a saved adapter: what it takes to build its base. Raises: UserError."""
    record, _ = _read(Path(path))
    return record["tuning"], record["about"]


def base_hash(frozen: Params) -> str:
    """One sha256 (hex) for a base: over the paths, types, shapes and hashes of its leaves."""
    return _hash(json.dumps(_describe(host_arrays(frozen)), sort_keys=True))


def _read(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """The record and the leaves, both as they were saved."""
    mend = "restore the file from a copy"
    if path.is_dir():
        raise UserError("this is a folder", path, "name a saved adapter")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata, leaves = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError("there is no such file", path, "name a saved adapter") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot be read as safetensors: {error}", path, mend) from None
    if KEY not in metadata:
        raise UserError("this is no saved adapter", path, "name a file that save_adapter wrote")
    try:
        sealed = json.loads(metadata[KEY])
        record, seal = sealed["record"], sealed["sha256"]
    except (ValueError, KeyError, TypeError):
        record, seal = "", ""
    if _hash(record) != seal:
        raise UserError("is damaged: its record does not fit the record's sha256", path, mend)
    record = json.loads(record)
    wanted, found = record["leaves"], _describe(leaves)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise UserError(f"is damaged: {name} {_difference(wanted.get(name), found.get(name))}", path, mend)
    return record, leaves


def _describe(leaves: Mapping[str, np.ndarray]) -> dict[str, list]:
    """Path -> [type, shape, sha256]."""
    return {name: [leaf.dtype.name, list(leaf.shape), hash_array(leaf)] for name, leaf in leaves.items()}


def _difference(wanted: list | None, found: list | None) -> str:
    if wanted is None or found is None:
        return "is missing" if found is None else "is one leaf too many"
    for name, ours, theirs in zip(("type", "shape"), wanted, found, strict=False):
        if ours != theirs:
            return f"has the {name} {theirs}, not {ours}"
    return "has other numbers"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
