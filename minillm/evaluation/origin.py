"""Shell or original? What the parameters of two models say about where they come from.

Two matrices of the same place are compared by the cosine of all their numbers, a . b / |a| |b|: near 1 where one was trained
on from the other, within about 1 / sqrt(numbers) of 0 for two random starts. Biases and scales begin alike everywhere and
prove nothing; they are listed, not judged.

A copy can be disguised without changing what it computes. Heads and feed-forward units may stand in another order: they are
matched first (the assignment problem of Ainsworth et al. 2022, "Git Re-Basin", section 3.1). Other changes of basis keep the
singular values of a matrix, which are compared in sorted order, beside what two Gaussian matrices of that shape differ by.
Nothing here sees a model that was trained anew on another one's answers.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Float, Float64
from scipy.optimize import linear_sum_assignment

from minillm.params import Params, flatten, unflatten

DERIVED = 0.5  # cosine from which a matrix counts as taken from the other
MOST, SOME = 0.5, 0.05  # shares of such matrices, by their numbers
TRACE = 0.1  # mean cosine of all matrices from which a common start shows
SPECTRUM = 0.3  # of the difference by chance, up to which spectra count as the same
KEPT = 1e-3  # of the difference of the matrices, up to which a change keeps their spectra
LARGEST = 2**22  # numbers of a matrix whose singular values are computed
PERMUTABLE = ("attention", "hidden")  # axes of the parameter table whose order is free: heads, feed-forward units

Axes = Mapping[str, tuple[str | None, ...]]


class Verdict(NamedTuple):
    """words: one of those in `judge`; reason: the numbers behind them."""

    words: str
    reason: str


def compare(
    left: Params, right: Params, axes: Axes, heads: int | None = None, ids: tuple[np.ndarray, np.ndarray] | None = None
) -> dict[str, Any]:
    """Everything about two trees of numpy arrays: a row per shared tensor, sums, spectra, and the verdict.

    Args:
        axes: path -> names of the axes of every parameter of both, from the tables (`ParamSpec.axes`).
        heads: of both models' attention, where both have the same number.
        ids: (of left, of right), which rows of the vocabulary belong together; None: those of the same number.
    """
    total = sum(np.size(leaf) for leaf in flatten(right).values())
    trees = (
        (left, right)
        if ids is None
        else (take_rows(tree, axes, rows) for tree, rows in zip((left, right), ids, strict=True))
    )
    flat = [{path: np.asarray(leaf) for path, leaf in flatten(tree).items()} for tree in trees]
    both = [path for path in flat[0] if path in flat[1]]
    shared = [path for path in both if flat[0][path].shape == flat[1][path].shape and flat[0][path].size]
    pair = tuple({path: tree[path] for path in shared} for tree in flat)
    aligned, moved = align(*pair, axes, heads)
    rows = [compare_tensor(path, *(tree[path] for tree in (*pair, aligned)), axes[path]) for path in shared]
    found = {
        "rows": rows,
        "only_left": sorted(set(flat[0]) - set(flat[1])),
        "only_right": sorted(set(flat[1]) - set(flat[0])),
        "other_shape": sorted(set(both) - set(shared)),
        "moved": moved,
        "compared": sum(row["size"] for row in rows) / max(total, 1),
        "equal_tensors": sum(row["equal"] for row in rows) / max(len(rows), 1),
        "spectrum": compare_spectra(*pair, axes),
    }
    return found | {"verdict": judge(found)._asdict()}


def compare_tensor(path: str, left: np.ndarray, right: np.ndarray, aligned: np.ndarray, axes: tuple) -> dict[str, Any]:
    """One row: whether it is equal bit by bit, cosine and relative difference as it stands; the rest once aligned.

    difference: |a - b| / sqrt(|a| |b|). derived: the share of its layers whose cosine is at least DERIVED. kept: equal once
    aligned, or rounded. rank: of the difference, where it is at most a quarter of the largest: LoRA leaves such a trace.
    """
    numbers = [_layers(array, axes) for array in (left, right, aligned)]
    whole = [values.ravel() for values in numbers]
    matrix = sum(axis != "layers" for axis in axes) >= 2
    by_layer = [cosine(a, b) for a, b in zip(numbers[0], numbers[2], strict=True)]
    restored = _equal(left, aligned)
    near = not restored and min(by_layer) >= DERIVED
    rounded = near and (is_rounding(left, aligned) or is_rounding(aligned, left))
    return {
        "path": path, "size": left.size, "matrix": matrix, "equal": _equal(left, right), "cosine": cosine(*whole[:2]),
        "difference": _difference(*whole[:2]), "aligned_cosine": cosine(whole[0], whole[2]),
        "aligned_difference": _difference(whole[0], whole[2]),
        "derived": float(np.mean([c >= DERIVED for c in by_layer])), "kept": restored or rounded, "rounded": rounded,
        "rank": low_rank(left, aligned, axes) if matrix and near and not rounded else None,
    }  # fmt: skip


def judge(found: Mapping[str, Any]) -> Verdict:
    """The thresholds are constants of this module; tests hold them against copies of every kind."""
    matrices = [row for row in found["rows"] if row["matrix"]]
    total = sum(row["size"] for row in matrices)
    if not total:
        return Verdict("nothing to compare", "no matrix has the same place and shape in both")
    mean = {
        key: sum(row["size"] * row[key] for row in matrices) / total
        for key in ("cosine", "aligned_cosine", "aligned_difference", "derived")
    }
    apart = mean["aligned_difference"]
    order = [f"{found['moved']} heads and units stand elsewhere"] if found["moved"] else []
    part = [f"{found['compared']:.1%} of the second's numbers were compared"] if found["compared"] < 0.9995 else []
    say = lambda words, *reasons: Verdict(words, "; ".join([*reasons, *part]))
    if all(row["kept"] for row in found["rows"]):
        rounded = [f"they differ by {apart:.1e}, on a coarser grid"] * any(r["rounded"] for r in matrices)
        words = f"the same weights{', rounded' * bool(rounded)}{', in another order' * bool(order)}"
        return say(words, *(rounded + order or [f"all {len(found['rows'])} shared tensors are equal bit by bit"]))
    changed = [row for row in matrices if not row["kept"]]
    spectrum = found["spectrum"]
    if changed and spectrum and _same_spectra(spectrum, apart, mean["aligned_cosine"]):
        values = f"singular values differ by {spectrum['difference']:.1e}, by chance {spectrum['by_chance']:.1e}"
        return say("the same weights, in another basis", values, f"the matrices differ by {apart:.1e}")
    if mean["derived"] >= SOME:
        alike = f"the cosine of {mean['derived']:.0%} of the matrices is at least {DERIVED}, the mean {mean['aligned_cosine']:.3f}"
        words = "fine-tuned from it, or both from one start" if mean["derived"] >= MOST else "partly the same"
        return say(words, alike, *_traces(matrices, changed), *order)
    words = "a trace of one start" if mean["cosine"] >= TRACE else "unrelated"
    return say(
        words,
        f"mean cosine of the matrices {mean['cosine']:.3f}, {mean['aligned_cosine']:.3f} in the best order of units",
    )


def _same_spectra(spectrum: Mapping[str, float], difference: float, cosines: float) -> bool:
    """A change of basis: matrices that differ have singular values that differ far less than after training."""
    alike = spectrum["difference"] <= SPECTRUM * spectrum["by_chance"] and cosines < DERIVED
    return alike or spectrum["difference"] <= KEPT * difference


def _traces(matrices: list[dict[str, Any]], changed: list[dict[str, Any]]) -> list[str]:
    """What tells how it was tuned."""
    if not changed:
        return ["all matrices are the same, biases or scales are not"]
    ranks = [row["rank"] for row in changed if row["rank"] is not None]
    low = [f"the difference of {len(ranks)} is of rank {max(ranks)} or less"] if ranks else []
    return [f"{len(changed)} of {len(matrices)} matrices differ", *low] if len(changed) < len(matrices) else low


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    """Of all numbers; equal zeros are alike."""
    norms = float(np.linalg.norm(left)) * float(np.linalg.norm(right))
    return float(left @ right) / norms if norms else float(not left.any() and not right.any())


def align(
    left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray], axes: Axes, heads: int | None
) -> tuple[dict[str, np.ndarray], int]:
    """(`right` with heads and feed-forward units in the order of `left`'s most similar ones, how many moved).

    In each layer, argmax over permutations p of sum_i f_i . g_p(i), where f_i are all numbers of unit i: a linear sum
    assignment. Layers that are alike as they stand are left alone.
    """
    found, moved = {path: np.array(array) for path, array in right.items()}, 0
    for axis, members in _groups(left, axes):
        size = left[members[0]].shape[axes[members[0]].index(axis)]
        parts = size if axis == "hidden" else heads
        if not parts or size % parts or any(left[m].shape[axes[m].index(axis)] != size for m in members):
            continue
        for layer in range(left[members[0]].shape[0]):
            units = [np.concatenate([_units(tree[m][layer], axes[m].index(axis) - 1, parts) for m in members], axis=1)
                     for tree in (left, right)]  # fmt: skip
            if cosine(units[0].ravel(), units[1].ravel()) >= DERIVED:
                continue
            order = linear_sum_assignment(units[0] @ units[1].T, maximize=True)[1]
            moved += int((order != np.arange(parts)).sum())
            whole = (order[:, None] * (size // parts) + np.arange(size // parts)).ravel()
            for member in members:
                place = axes[member].index(axis) - 1
                found[member][layer] = np.take(right[member][layer], whole, axis=place)
    return found, moved


def compare_spectra(
    left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray], axes: Axes
) -> dict[str, float] | None:
    """|s - t| / sqrt(|s| |t|) of sorted singular values, averaged over matrices; by_chance: of Gaussian matrices.

    Their order statistics are alike too, the more the larger they are, so only a difference far below that one counts.
    """
    found, chance, random = [], {}, np.random.default_rng(0)
    for path, array in left.items():
        shape = array.shape[-2:]
        if array.ndim < 2 or sum(axis != "layers" for axis in axes[path]) != 2 or np.prod(shape) > LARGEST:
            continue
        if shape not in chance:
            chance[shape] = _difference(*map(singular_values, random.normal(size=(2, *shape))))
        pairs = zip(array.reshape(-1, *shape), right[path].reshape(-1, *shape), strict=True)
        found += [(_difference(singular_values(a), singular_values(b)), chance[shape]) for a, b in pairs]
    if not found:
        return None
    difference, by_chance = np.mean(found, axis=0)
    return {"difference": float(difference), "by_chance": float(by_chance)}


def low_rank(left: np.ndarray, right: np.ndarray, axes: tuple) -> int | None:
    """The rank of right - left above the noise of float32, the largest over layers; None where it is not low.

    Low is a quarter of the rows and columns that differ at all: of a table, training moves only the rows that it read.
    """
    if sum(axis != "layers" for axis in axes) != 2:
        return None
    shape, ranks, room = left.shape[-2:], [], []
    for a, b in zip(left.reshape(-1, *shape), right.reshape(-1, *shape), strict=True):
        noise = 4.0 * np.finfo(np.float32).eps * float(np.abs(a).max()) * sum(np.sqrt(shape))
        difference = b.astype(np.float64) - a
        ranks.append(int((singular_values(difference) > noise).sum()))
        room.append(min(int(difference.any(axis).sum()) for axis in (0, 1)))
    return max(ranks) if 4 * max(ranks) <= max(room) else None


def is_rounding(exact: np.ndarray, coarse: np.ndarray) -> bool:
    """Whether `coarse` is `exact` in float16 or bfloat16, or lies on at most 255 equal steps per tensor, row or column."""
    for kind in (np.float16, ml_dtypes.bfloat16):
        with np.errstate(over="ignore"):
            if np.array_equal(exact.astype(kind).astype(np.float32), coarse.astype(np.float32)):
                return True
    rows = coarse.reshape(-1, *coarse.shape[-2:]) if coarse.ndim > 1 else coarse.reshape(1, 1, -1)
    return any(
        np.mean([_on_grid(line) for matrix in rows for line in lines(matrix)]) >= 0.5
        for lines in (lambda m: [m.ravel()], lambda m: m, lambda m: m.T)
    )


def singular_values(matrix: Float[np.ndarray, "rows columns"]) -> Float64[np.ndarray, "values"]:
    """In descending order, from the smaller of A A^T and A^T A: exact to 1e-8 of the largest, which is enough here."""
    rows = matrix.astype(np.float64)
    rows = rows if len(rows) <= rows.shape[1] else rows.T
    return np.sqrt(np.maximum(np.linalg.eigvalsh(rows @ rows.T), 0.0))[::-1]


def _difference(left: np.ndarray, right: np.ndarray) -> float:
    """|a - b| / sqrt(|a| |b|); 1 where one of them is zero."""
    size = np.sqrt(np.linalg.norm(left) * np.linalg.norm(right))
    return float(np.linalg.norm(left - right) / size) if size else float(left.any() or right.any())


def _equal(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


def _on_grid(values: np.ndarray) -> bool:
    different = np.unique(values.astype(np.float64))
    if len(different) < 3:
        return False
    steps = different / np.diff(different).min()
    return bool(np.abs(steps).max() <= 128.5 and np.abs(steps - np.round(steps)).max() < 0.02)


def _layers(array: np.ndarray, axes: tuple) -> Float64[np.ndarray, "layers numbers"]:
    return array.astype(np.float64).reshape(array.shape[0] if axes[0] == "layers" else 1, -1)


def _groups(tree: Mapping[str, np.ndarray], axes: Axes) -> Iterator[tuple[str, list[str]]]:
    """(axis, paths): what must be reordered together, the parts of one "blocks/NAME" with that axis."""
    groups: dict[tuple[str, str], list[str]] = {}
    for path in tree:
        before, found, after = path.rpartition("blocks/")
        for axis in PERMUTABLE:
            if found and axes[path][0] == "layers" and axis in axes[path]:
                groups.setdefault((before + after.split("/")[0], axis), []).append(path)
    yield from ((axis, members) for (_, axis), members in groups.items())


def _units(array: np.ndarray, axis: int, parts: int) -> Float64[np.ndarray, "parts numbers"]:
    return np.moveaxis(array.astype(np.float64), axis, 0).reshape(parts, -1)


def take_rows(params: Params, axes: Axes, ids: np.ndarray) -> Params:
    """The tree with only these ids along every axis of the vocabulary."""
    flat = flatten(params)
    rows = {path: np.take(leaf, ids, axis=axes[path].index("vocab")) if "vocab" in axes[path] else leaf
            for path, leaf in flat.items()}  # fmt: skip
    return unflatten(rows)
