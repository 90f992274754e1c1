"""Safetensors files, read and written: one file, or several with an index. Pickled weights are refused: reading a pickle
runs what it says.

The library checks offsets and sizes; names that stand twice, shapes, types and values that are no numbers are checked here.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minillm.errors import UserError

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth", "model.ckpt")
PICKLED = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # how a zip file and pickles begin
OTHERS = ("tf_model.h5", "flax_model.msgpack", "model.onnx")
TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # float32 holds each of them exactly
AGAIN = "take the file as it was published"


class Tensor(NamedTuple):
    """Where a tensor lies and what the file says of it."""

    path: Path
    handle: Any
    dtype: str
    shape: tuple[int, ...]


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[dict[str, Tensor]]:
    """Name -> tensor, for all of a model's files. Raises: UserError for what is missing, damaged or not safetensors."""
    with contextlib.ExitStack() as stack:
        index = _read_index(folder)
        files = sorted(set(index.values())) if index else [FILE]
        found: dict[str, Tensor] = {}
        for file in files:
            path = folder / file
            handle = stack.enter_context(_open(path))
            for name in handle.keys():  # noqa: SIM118 (no mapping)
                if index is not None and index.get(name) != file:
                    raise UserError(f"the tensor {name!r} is not where {INDEX} says", str(path), AGAIN)
                part = handle.get_slice(name)
                found[name] = Tensor(path, handle, part.get_dtype(), tuple(part.get_shape()))
        absent = sorted((index or {}).keys() - found.keys())
        if absent:
            raise UserError(
                f"the tensor {absent[0]!r} is not in it, {INDEX} says so", str(folder / index[absent[0]]), AGAIN
            )
        yield found


def read(name: str, tensor: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor in float32. Raises: UserError for another shape or type, or for values that are no numbers."""
    where = f"{tensor.path}: {name}"
    if tensor.dtype not in TYPES:
        raise UserError(f"has the type {tensor.dtype}, a parameter has one of {', '.join(TYPES)}", where, AGAIN)
    if tensor.shape != shape:
        turned = " (transposed?)" if tensor.shape == shape[::-1] else ""
        raise UserError(f"has the shape {list(tensor.shape)}, {list(shape)} was expected{turned}", where,
                        "config.json and the weights must be of one model")  # fmt: skip
    array = tensor.handle.get_tensor(name).astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError("holds values that are no numbers (NaN or infinity)", where, AGAIN)
    return array


def write(path: Path, tensors: Mapping[str, np.ndarray], dtype: str) -> None:
    """Writes a file that transformers reads. Raises: UserError where a value does not fit into the type."""
    import ml_dtypes
    from safetensors.numpy import save_file

    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    with np.errstate(over="ignore"):
        cast = {name: array.astype(kind) for name, array in tensors.items()}
    for name, array in cast.items():
        if not np.isfinite(array.astype(np.float32)).all():
            raise UserError(f"the tensor {name!r} has values that do not fit into {dtype}", str(path), "use float32")
    path.touch()
    mode = path.stat().st_mode  # the library would leave the file to its owner alone
    save_file(cast, path, metadata={"format": "pt"})
    path.chmod(mode)


def _read_index(folder: Path) -> dict[str, str] | None:
    """Tensor -> file, where the weights are in several files. Raises: UserError where there is nothing to read."""
    path = folder / INDEX
    if (folder / FILE).is_file() and path.is_file():
        raise UserError(f"there are both {FILE} and {INDEX}", str(folder), "remove the one that is not wanted")
    if (folder / FILE).is_file():
        return None
    if not path.is_file():
        _refuse_absence(folder)
    try:
        index = json.loads(path.read_text(encoding="utf8"))["weight_map"]
        names = {str(name): str(file) for name, file in index.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise UserError("not an index of safetensors files", str(path), AGAIN) from None
    strange = [file for file in names.values() if Path(file).name != file or not file.endswith(".safetensors")]
    if strange or not names:
        what = f"{strange[0]!r} is not the name of a safetensors file beside it" if strange else "it lists no tensor"
        raise UserError(what, str(path), AGAIN)
    return names


def _refuse_absence(folder: Path) -> None:
    for name in PICKLES:
        if (folder / name).exists():
            raise UserError("the weights are pickled, and reading a pickle runs what it says: it is not read",
                            str(folder / name), "save them as safetensors (save_pretrained does)")  # fmt: skip
    for name in OTHERS:
        if (folder / name).exists():
            raise UserError("the weights are not safetensors", str(folder / name), f"convert them to {FILE}")
    raise UserError(f"there is no {FILE}", str(folder), "name the folder that holds the model's files")


def _open(path: Path):
    from safetensors import SafetensorError, safe_open

    try:
        _refuse_disguise(path)
        return safe_open(path, "np")
    except FileNotFoundError:
        raise UserError(f"this file is missing, {INDEX} names it", str(path), AGAIN) from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"damaged or cut short: {error}", str(path), AGAIN) from None


def _refuse_disguise(path: Path) -> None:
    """A pickle under this name; a pointer in place of the file; a header that has a name twice, the last of which the
    library would take."""
    with path.open("rb") as file:
        start, brace = file.read(8), file.read(1)
        if start[:2] in PICKLED and brace != b"{":  # the first two bytes may also be a header's length
            raise UserError("this is a pickle under another name: it is not read", str(path),
                            "save the weights as safetensors (save_pretrained does)")  # fmt: skip
        if start == b"version ":
            raise UserError("this is the pointer of Git LFS, not the file", str(path), "run `git lfs pull` there")
        size = int.from_bytes(start, "little")
        header = brace + file.read(size - 1) if len(start) == 8 and size < path.stat().st_size else b""
    pairs: Any = ()
    with contextlib.suppress(ValueError):  # the library says what is wrong
        pairs = json.loads(header, object_pairs_hook=list)
    names = Counter(key for key, _ in pairs)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UserError(f"the tensor {twice[0]!r} stands twice in it", str(path), AGAIN)
