"""The record that ties a checkpoint's files to what was saved.

A checkpoint folder holds, beside its data, `manifest.json` (size and sha256 of every file; dtype, shape and sha256 of
every leaf) and `manifest.sha256`, the seal: the manifest's own hash in the format that `sha256sum --check` reads.
Orbax itself checks no hash, no dtype and no shape when it loads.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minillm.bits import hash_array, hash_file, leaf_folder
from minillm.errors import UserError

MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
ARRAYS = "arrays"  # the Orbax item; one folder per leaf


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
