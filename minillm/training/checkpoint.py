"""Checkpoints: a tree of arrays through Orbax, atomic on disk and verified bit for bit on load.

    checkpoints/step_00000100/arrays/            the Orbax item, one folder per leaf
                              meta.json          what the caller adds: scores, counters of early stopping, ...
                              manifest.json      hashes of all files and leaves (integrity.py)
                              manifest.sha256    the manifest's own

A save goes to a sibling `.tmp-step_...`, reaches the disk, and is then renamed: a kill at any moment leaves the old
state or the new one. Saving is synchronous, from copies on the host, because the next step reuses the donated buffers.
Arrays are gathered on the host, so a checkpoint does not depend on the mesh; one process saves.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from minillm.bits import flatten_paths, hash_array, host_arrays, leaf_hashes, sync, sync_tree
from minillm.errors import UserError
from minillm.training import integrity
from minillm.training.integrity import ARRAYS, check_files, mend

__all__ = ["drop_after", "latest", "leaf_hashes", "prune", "read_meta", "restore", "save", "steps", "verify"]

META = "meta.json"
TEMPORARY = ".tmp-"  # being written, or being deleted: never read
REPLACED = ".old-"  # a step saved a second time; it counts until the new one carries its name


def save(folder: str | Path, step: int, tree: Any, meta: Any) -> Path:
    """Save `tree` and `meta` as the checkpoint of `step`, in place of an earlier one of that step.

    Args:
        folder: the run's `checkpoints`; it is made if missing.
        step: updates done, at least 0.
        tree: any pytree of arrays (jax or numpy, sharded or not); None and empty containers are structure.
        meta: any JSON value.

    Raises:
        UserError: the disk is full or the folder cannot be written; earlier checkpoints stay as they were.
    """
    folder = Path(folder)
    target, temporary = folder / _name(step), folder / (TEMPORARY + _name(step))
    arrays, text = host_arrays(tree), json.dumps(meta, indent=1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _clean(folder)
        temporary.mkdir()
        _write_arrays(temporary / ARRAYS, arrays)
        (temporary / META).write_text(text, encoding="utf-8")
        integrity.write_manifest(temporary, step, arrays)
        sync_tree(temporary)
        _install(temporary, target)
    except BaseException as error:
        _remove(temporary)
        reason = _system_error(error)
        if reason is None:
            raise
        raise UserError(
            f"cannot save the checkpoint: {reason}; earlier ones are intact",
            target,
            "free some space or choose another folder, then resume",
        ) from error
    return target


def restore(folder: str | Path, step: int, template: Any) -> tuple[Any, Any]:
    """The tree and the meta of the checkpoint of `step`, verified, in the structure of `template`.

    Args:
        template: pytree of arrays or jax.ShapeDtypeStruct. A leaf comes back as a numpy array where the template has
            one, else as a jax array, on the template's sharding if it has one.

    Raises:
        UserError: no such checkpoint; a damaged, missing or added file (names file and leaf); a leaf that the
            template lacks, adds, or has with another dtype or shape (names the leaf). Nothing is ever cast.
    """
    path = _locate(Path(folder), step)
    manifest = check_files(path)
    if manifest["step"] != step:
        raise UserError(f"holds step {manifest['step']}: the folder was renamed", path, f"name it {_name(step)}")
    wanted = flatten_paths(template)
    _compare(manifest["leaves"], wanted, path)
    arrays = _read_arrays(path, manifest["leaves"])
    placed = [_place(arrays[name], leaf, f"{path}: {name}") for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(template), placed), _load_meta(path)


def read_meta(folder: str | Path, step: int) -> Any:
    """The meta of a checkpoint alone, after all its files were verified."""
    path = _locate(Path(folder), step)
    check_files(path)
    return _load_meta(path)


def verify(folder: str | Path, step: int) -> dict:
    """Compare all files of a checkpoint with its manifest and return the manifest: step, files, leaves.

    Raises:
        UserError: a file is damaged, missing or added; names it, and the leaf if it holds one.
    """
    return check_files(_locate(Path(folder), step))


def steps(folder: str | Path) -> list[int]:
    """Steps of the complete checkpoints, ascending; empty for a folder that does not exist.

    A checkpoint gets its name only when complete. One that was damaged later is listed, so that restoring it says
    what is wrong, rather than an older one being taken in silence; only a folder with none of our files is passed over.
    """
    folder = Path(folder)
    found = set()
    for path in folder.iterdir() if folder.is_dir() else ():
        match = re.fullmatch(rf"(?:{re.escape(REPLACED)})?step_(\d{{8,}})", path.name)
        if match and any((path / name).is_file() for name in (integrity.MANIFEST, integrity.SEAL, META)):
            found.add(int(match[1]))
    return sorted(found)


def latest(folder: str | Path) -> int | None:
    """The highest step that has a complete checkpoint; None without one."""
    return max(steps(folder), default=None)


def prune(folder: str | Path, keep_last: int, keep_steps: Iterable[int] = ()) -> list[int]:
    """Delete all checkpoints but the last `keep_last` (at least 1) and those of `keep_steps`; return what went.

    A checkpoint is renamed before it is deleted, so a kill leaves no half of one.
    """
    if keep_last < 1:
        raise ValueError(f"keep_last must be at least 1, got {keep_last}")
    return _delete(Path(folder), lambda present: sorted(set(present[:-keep_last]) - set(keep_steps)))


def drop_after(folder: str | Path, step: int) -> list[int]:
    """Delete all checkpoints after `step`, the newest first, so that a kill leaves those of one history."""
    return _delete(Path(folder), lambda present: [later for later in reversed(present) if later > step])


def _delete(folder: Path, choose: Callable[[list[int]], list[int]]) -> list[int]:
    try:
        if folder.is_dir():
            _clean(folder)
        doomed = choose(steps(folder))
        for step in doomed:
            os.replace(folder / _name(step), folder / (TEMPORARY + _name(step)))
            shutil.rmtree(folder / (TEMPORARY + _name(step)))
    except OSError as error:
        raise UserError(f"cannot delete old checkpoints: {error.strerror}", folder, "check its permissions") from error
    return doomed


def _name(step: int) -> str:
    if step < 0:
        raise ValueError(f"step must be at least 0, got {step}")
    return f"step_{step:08d}"


def _locate(folder: Path, step: int) -> Path:
    for path in (folder / _name(step), folder / (REPLACED + _name(step))):
        if path.is_dir():
            return path
    known = ", ".join(map(str, steps(folder))) or "none"
    raise UserError(f"no checkpoint of step {step}; there are: {known}", folder, "choose one of these steps")


def _remove(folder: Path) -> None:
    """Delete what a failed save wrote; Orbax's other writers may still add files for a moment after one has failed."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _clean(folder: Path) -> None:
    """Remove what a killed save or prune left behind; put a replaced checkpoint back if its successor never came."""
    for path in folder.iterdir():
        if path.name.startswith(REPLACED):
            target = path.with_name(path.name.removeprefix(REPLACED))
            if target.exists():
                shutil.rmtree(path)
            else:
                os.replace(path, target)
        elif path.name.startswith(TEMPORARY + "step_"):
            shutil.rmtree(path)


def _install(temporary: Path, target: Path) -> None:
    """Give a finished save its name. A folder cannot replace a full one, so an older save first steps aside."""
    replaced = target.with_name(REPLACED + target.name)
    if target.exists():
        os.replace(target, replaced)
    try:
        os.replace(temporary, target)
    except OSError:
        if replaced.exists():
            os.replace(replaced, target)
        raise
    sync(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


@contextlib.contextmanager
def _orbax():
    """Yield (Orbax's tree handler, its save arguments, its path type).

    Imported here because Orbax takes half a second. The handler alone, without the Checkpointer around it, leaves
    atomicity to us and writes no timestamps: the same state gives the same bytes. Without OCDBT every leaf is a folder
    of its own, so a damaged file names its leaf. Orbax logs the traceback of what it raises, which we report in one
    line, hence its logger rests meanwhile.
    """
    import orbax.checkpoint as ocp
    from etils import epath  # what Orbax's signatures ask for

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=False)
    try:
        yield handler, ocp.args.PyTreeSave, epath.Path
    finally:
        handler.close()
        logger.setLevel(level)


def _write_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Orbax refuses arrays without elements and empty trees; the manifest alone describes those."""
    stored = {path: array for path, array in arrays.items() if array.size}
    if not stored:
        return
    from flax.traverse_util import unflatten_dict

    folder.mkdir()
    with _orbax() as (handler, arguments, path_type):
        handler.save(path_type(folder), args=arguments(unflatten_dict(stored, sep="/")))


def _read_arrays(path: Path, leaves: Mapping[str, Mapping]) -> dict[str, np.ndarray]:
    """Path -> array, each with the recorded dtype, shape and bytes: what Orbax decoded is hashed once more."""
    arrays = {}
    if (path / ARRAYS).is_dir():
        with _orbax() as (handler, _, path_type):
            arrays = flatten_paths(handler.restore(path_type(path / ARRAYS)))
    for name, leaf in leaves.items():
        if 0 in leaf["shape"]:
            arrays[name] = np.zeros(leaf["shape"], np.dtype(leaf["dtype"]))
        array = arrays.get(name)
        if not isinstance(array, np.ndarray) or _describe(array) != _describe_record(leaf):
            got = "nothing" if array is None else _describe(np.asarray(array))
            raise UserError(f"leaf {name} was saved as {_describe_record(leaf)}, read as {got}", path, mend(path))
        if hash_array(array) != leaf["sha256"]:
            raise UserError(f"leaf {name} is damaged: its sha256 is not the recorded one", path, mend(path))
    return arrays


def _compare(leaves: Mapping[str, Mapping], template: Mapping[str, Any], path: Path) -> None:
    """Refuse a template whose leaves differ from the recorded ones in name, dtype or shape."""
    advice = "restore with the config that the run was started with"
    for name in sorted(template.keys() | leaves.keys()):
        if name not in leaves:
            raise UserError(f"leaf {name} is expected but not in the checkpoint", path, advice)
        if name not in template:
            raise UserError(f"leaf {name} is in the checkpoint but not expected", path, advice)
        expected = template[name] if hasattr(template[name], "dtype") else np.asarray(template[name])
        if _describe(expected) != _describe_record(leaves[name]):
            got = _describe_record(leaves[name])
            raise UserError(f"leaf {name}: expected {_describe(expected)}, the checkpoint has {got}", path, advice)


def _describe(leaf: Any) -> str:
    return f"{leaf.dtype.name} {list(leaf.shape)}"


def _describe_record(leaf: Mapping) -> str:
    return f"{leaf['dtype']} {leaf['shape']}"


def _place(array: np.ndarray, template: Any, where: str) -> Any:
    """The array as the template wants it: numpy stays numpy, all else goes to a device.

    may_alias=False: on the CPU JAX would otherwise borrow numpy's memory, which it could not donate.
    """
    if not isinstance(template, jax.Array | jax.ShapeDtypeStruct):
        return array
    placed = jax.device_put(array, template.sharding, may_alias=False)
    if placed.dtype != array.dtype:
        raise UserError(
            f"{array.dtype} would be cast to {placed.dtype}", where, "set jax_enable_x64 as in the saved run"
        )
    return placed


def _load_meta(path: Path) -> Any:
    return json.loads((path / META).read_text(encoding="utf-8"))


def _system_error(error: BaseException) -> str | None:
    """What the system refused, in words; None if it was not the system. Orbax says it in a ValueError with a code."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    code = re.search(r"os_error_code='(\d+)'", str(error)) if isinstance(error, Exception) else None
    return os.strerror(int(code[1])) if code else None
