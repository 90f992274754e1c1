"""Hashes that tie files to what was saved, and writes that a killed process cannot leave half done.

A checkpoint folder holds, beside its data, `manifest.json` (size and sha256 of every file; dtype, shape and sha256 of
every leaf) and `manifest.sha256`, the seal: the manifest's own hash in the format that `sha256sum --check` reads.
Orbax itself checks no hash, no dtype and no shape when it loads. sha256: FIPS 180-4.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from minillm.errors import UserError

MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
ARRAYS = "arrays"  # the Orbax item; one folder per leaf


def flatten_paths(tree: Any) -> dict[str, Any]:
    """Path -> leaf in the tree's own order; a NamedTuple's fields and a list's positions are path parts too.

    None and empty containers (optax.EmptyState) have no leaves, so no paths.

    Raises:
        ValueError: two leaves would share a path or a folder (a key that contains "/" or ".").
    """
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    leaves = {jax.tree_util.keystr(keys, simple=True, separator="/") or "value": leaf for keys, leaf in pairs}
    if len({leaf_folder(path) for path in leaves}) != len(pairs):
        raise ValueError(f"two leaves share a path once '/' and '.' separate its parts: {sorted(leaves)}")
    return leaves


def leaf_folder(path: str) -> str:
    """The folder that Orbax gives to a leaf: blocks/mlp/kernel -> blocks.mlp.kernel."""
    return path.replace("/", ".")


def host_array(leaf: Any) -> np.ndarray:
    """A copy of the leaf in the host's memory: a view would share the buffer that the next step is given to reuse."""
    return np.array(leaf, order="C", copy=True)


def host_arrays(tree: Any) -> dict[str, np.ndarray]:
    """Path -> copy of the leaf on the host, gathered from all its devices.

    Raises:
        TypeError: a leaf is no array of numbers, such as a typed random key (keys are derived, never stored).
    """
    arrays = {}
    for path, leaf in flatten_paths(tree).items():
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
            raise TypeError(f"leaf {path} has dtype {leaf.dtype}: store jax.random.key_data(key), or derive the key")
        arrays[path] = host_array(leaf)
        if arrays[path].dtype.kind in "OSU":
            raise TypeError(f"leaf {path} is a {type(leaf).__name__}, not an array of numbers; text belongs into meta")
    return arrays


def byte_view(array: np.ndarray) -> np.ndarray:
    """The array's bytes in C order as uint8 [bytes]; no copy where it is contiguous (bfloat16 has no buffer)."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def hash_array(array: np.ndarray) -> str:
    """sha256 of the bytes in hex: -0.0 differs from 0.0, and one NaN from another."""
    return hashlib.sha256(byte_view(array)).hexdigest()


def leaf_hashes(tree: Any) -> dict[str, str]:
    """Path -> sha256 (hex) of the leaf's bytes; the same however the leaf is sharded."""
    return {path: hash_array(array) for path, array in host_arrays(tree).items()}


def hash_file(path: Path) -> str:
    """sha256 of a file in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: Path) -> list[str]:
    """Paths of all files below `folder`, relative to it, with "/" between parts, in sorted order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def write_manifest(folder: Path, step: int, leaves: Mapping[str, np.ndarray]) -> None:
    """Record every file that lies in `folder` and every leaf, then seal the record."""
    manifest = {
        "format": 1,
        "step": step,
        "files": {
            name: {"size": (folder / name).stat().st_size, "sha256": hash_file(folder / name)}
            for name in list_files(folder)
        },
        "leaves": {
            path: {"dtype": array.dtype.name, "shape": list(array.shape), "sha256": hash_array(array)}
            for path, array in leaves.items()
        },
    }
    data = json.dumps(manifest, indent=1).encode()
    (folder / MANIFEST).write_bytes(data)
    (folder / SEAL).write_bytes(_seal(data))


def _seal(manifest: bytes) -> bytes:
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def read_manifest(folder: Path) -> dict:
    """The manifest, once its seal was found to fit.

    Raises:
        UserError: the manifest or the seal is missing or damaged; names the file.
    """
    for name in (SEAL, MANIFEST):
        if not (folder / name).is_file():
            raise UserError("this file of the checkpoint is missing", folder / name, mend(folder))
    data, seal = (folder / MANIFEST).read_bytes(), (folder / SEAL).read_bytes()
    if not re.fullmatch(rb"[0-9a-f]{64}  " + re.escape(MANIFEST).encode() + rb"\n", seal):
        raise UserError("is damaged: not one line with a sha256 and a name", folder / SEAL, mend(folder))
    if seal != _seal(data):
        raise UserError(f"is damaged: its sha256 is not the one in {SEAL}", folder / MANIFEST, mend(folder))
    return json.loads(data)


def check_files(folder: Path) -> dict:
    """Compare every file below `folder` with the manifest, and return the manifest.

    Raises:
        UserError: a file is missing, added, of another size or of another content; names the file and, in the
            Orbax item, the leaf.
    """
    manifest = read_manifest(folder)
    files, found = manifest["files"], set(list_files(folder)) - {MANIFEST, SEAL}
    owners = {leaf_folder(path): path for path in manifest["leaves"]}

    def refuse(name: str, what: str):
        parts = name.split("/")
        leaf = owners.get(parts[1]) if parts[0] == ARRAYS and len(parts) > 2 else None
        raise UserError(f"leaf {leaf}: {what}" if leaf else what, folder / name, mend(folder))

    for name in sorted(files.keys() | found):
        if name not in found:
            refuse(name, "this file of the checkpoint is missing")
        if name not in files:
            refuse(name, "this file does not belong to the checkpoint")
        size = (folder / name).stat().st_size
        if size != files[name]["size"]:
            refuse(name, f"is damaged: expected {files[name]['size']} bytes, got {size}")
        if hash_file(folder / name) != files[name]["sha256"]:
            refuse(name, "is damaged: its sha256 is not the recorded one")
    return manifest


def mend(folder: Path) -> str:
    """What to do about a checkpoint that does not fit its record."""
    return f"restore the folder from a copy, or delete {folder.name} to go on from the checkpoint before it"


def sync(path: Path) -> None:
    """Have the system write a file or a folder's entries to the disk: a rename must not get there before its data."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Write all files and folders from `folder` down to the disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def replace_file(path: Path, data: bytes) -> None:
    """Give a file new content; a kill at any moment leaves the old or the new one.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        temporary.write_bytes(data)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot be written: {error.strerror}", path, "free some space, or choose another --out"
        ) from None
