"""A name table: which of their tensors is which of our parameters, and how the one lies in the other.

    table(config).rows = (Row("h.@.attn.c_attn.weight", ("blocks/attention/query/kernel", ...)), ...)

"@" in their name is the number of a layer; our parameter then has the layers stacked on its first axis. A row with
several of our paths is one tensor of theirs that holds them side by side on the last axis. Nothing is passed over in
silence: a tensor is in a row, a copy of one that is, or a buffer that the table names with its reason, else an error.
"""

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from minillm.errors import UserError
from minillm.params import Specs


class Form(NamedTuple):
    """How a tensor changes on its way: `load` theirs -> ours, `save` ours -> theirs, each the other's inverse."""

    load: Callable[[np.ndarray], np.ndarray]
    save: Callable[[np.ndarray], np.ndarray]


PLAIN = Form(lambda tensor: tensor, lambda array: array)
TURNED = Form(np.transpose, np.transpose)  # torch.nn.Linear keeps [outputs, inputs], our kernels are [inputs, outputs]


class Row(NamedTuple):
    """One tensor of theirs, or with "@" one per layer, and the parameter or parameters of ours that it holds."""

    name: str
    paths: tuple[str, ...]
    form: Form = PLAIN


class Table(NamedTuple):
    """All rows of a model.

    prefix: what the names of the model's body begin with; a file may leave it out everywhere.
    copies: tensor -> the tensor that it repeats (tied weights); read only to see that it does.
    buffers: pattern -> what it is: tensors that hold no parameter.
    endings: old ending of a name -> the ending that it has today.
    """

    rows: tuple[Row, ...]
    prefix: str = ""
    copies: Mapping[str, str] = {}  # never written
    buffers: Mapping[str, str] = {}  # never written
    endings: Mapping[str, str] = {}  # never written


def row(name: str, path: str, form: Form = PLAIN) -> Row:
    """A tensor that is one parameter."""
    return Row(name, (path,), form)


def dense(name: str, path: str, *, bias: bool = True, form: Form = TURNED) -> tuple[Row, ...]:
    """A fully connected layer: weight -> kernel and, if it has one, bias."""
    kernel = row(f"{name}.weight", f"{path}/kernel", form)
    return (kernel, row(f"{name}.bias", f"{path}/bias")) if bias else (kernel,)


def norm(name: str, path: str, *, bias: bool = True) -> tuple[Row, ...]:
    """LayerNorm, or without bias RMSNorm: weight -> scale."""
    scale = row(f"{name}.weight", f"{path}/scale")
    return (scale, row(f"{name}.bias", f"{path}/bias")) if bias else (scale,)


class Place(NamedTuple):
    """One tensor of theirs, by its full name: its row, its layer (None without "@") and the shape that it must have."""

    row: Row
    layer: int | None
    shape: tuple[int, ...]


def places(table: Table, specs: Specs) -> dict[str, Place]:
    """Full name -> place, for every tensor of theirs. Raises: ValueError where rows and parameters do not match."""
    paths = [path for row in table.rows for path in row.paths]
    if sorted(paths) != sorted(specs):
        raise ValueError(f"the name table and the parameter table differ in {sorted(set(paths) ^ set(specs))}")
    found = {}
    for row in table.rows:
        stacked = "@" in row.name
        shapes = [specs[path].shape[1:] if stacked else specs[path].shape for path in row.paths]
        ours = np.broadcast_to(np.float32(0), (*shapes[0][:-1], sum(shape[-1] for shape in shapes)))
        shape = row.form.save(ours).shape
        layers = range(specs[row.paths[0]].shape[0]) if stacked else [None]
        found |= {row.name.replace("@", str(layer)): Place(row, layer, shape) for layer in layers}
    return found


def match(table: Table, specs: Specs, names: Iterable[str], where: str) -> tuple[dict[str, str], dict[str, str]]:
    """({full name: name in the file}, {copy in the file: full name of what it repeats}).

    Raises: UserError that names the tensors that are unknown, missing, or there twice.
    """
    names, expected = set(names), places(table, specs)
    short = lambda name: name.removeprefix(table.prefix)
    body = {short(name) for name in expected if name.startswith(table.prefix)}
    full = lambda name: table.prefix + short(name) if short(name) in body else name
    bare = not any(name.startswith(table.prefix) for name in names)
    found, copies, unknown = {}, {}, []
    for name in sorted(names):
        today = full(_today(name, table.endings))
        if today in expected:
            if today in found:
                raise UserError(f"the tensors {found[today]!r} and {name!r} are the same parameter", where, "keep one")
            found[today] = name
        elif name in table.copies:
            copies[name] = table.copies[name]
        elif not any(fnmatch.fnmatchcase(name, pattern) for pattern in table.buffers):
            unknown.append(name)
    _refuse_names(unknown, [short(name) if bare else name for name in sorted(expected.keys() - found.keys())], where)
    return found, copies


def _today(name: str, endings: Mapping[str, str]) -> str:
    for old, new in endings.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _refuse_names(unknown: list[str], missing: list[str], where: str) -> None:
    some = lambda names: ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if not unknown and not missing:
        return
    parts = [f"no parameter takes the tensor {some(unknown)}"] if unknown else []
    parts += [f"no tensor fills {some(missing)}"] if missing else []
    close = difflib.get_close_matches(unknown[0], missing, 1) if unknown else []
    mend = f"is {unknown[0]!r} another name of {close[0]!r}?" if close else "take the files as they were published"
    raise UserError("; ".join(parts), where, mend)


def to_params(table: Table, specs: Specs, read: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """Path -> float32 array. `read` gives a tensor by its full name, in the shape that `places` says."""
    flat = {path: np.empty(spec.shape, np.float32) for path, spec in specs.items()}
    for name, place in places(table, specs).items():
        ours, start = place.row.form.load(read(name)), 0
        for path in place.row.paths:
            target = flat[path] if place.layer is None else flat[path][place.layer]
            target[...] = ours[..., start : start + target.shape[-1]]
            start += target.shape[-1]
    return flat


def to_tensors(table: Table, specs: Specs, flat: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """(full name, tensor) for every tensor of theirs."""
    for name, place in places(table, specs).items():
        arrays = [np.asarray(flat[path]) for path in place.row.paths]
        arrays = arrays if place.layer is None else [array[place.layer] for array in arrays]
        ours = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
        yield name, np.ascontiguousarray(place.row.form.save(ours))
