"""Arrays and files bit for bit: hashes, and writes that a killed process cannot leave half done. sha256: FIPS 180-4."""

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from minillm.errors import UserError


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
    """A copy of the leaf in the host's memory: a view would share the buffer that the next step is given to reuse.

    A leaf that lies on several hosts is gathered, for which all their processes must ask at once.
    """
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
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
        with contextlib.suppress(OSError):  # its folder may be none
            temporary.unlink()
        raise UserError(
            f"cannot be written: {error.strerror}", path, "free some space, or choose another place"
        ) from None
