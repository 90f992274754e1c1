"""Random search: points drawn from lists and ranges, the same ones whenever the same are asked for.

Where few of many keys matter, n random points try n values of each, a grid of n points far fewer (Bergstra and Bengio 2012,
"Random search for hyper-parameter optimization").

    optimizer.learning_rate=1e-4..1e-2:log     uniform in the logarithm
    model.dropout=0.0..0.3                     uniform
    model.layers=1..4                          a whole number, both ends included
    optimizer.schedule=cosine,linear           one of a list
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minillm.errors import UserError
from minillm.experiment import folder as folders

TRIES = 100  # per point, before a space is called too small


class Search(NamedTuple):
    """How many points, and the seed of the drawing."""

    points: int
    seed: int = 0


class Range(NamedTuple):
    """Both ends, whether the logarithm is uniform, and whether only whole numbers count."""

    low: float
    high: float
    logarithmic: bool
    whole: bool


def draw_points(grid: Mapping[str, Sequence[str]], search: Search) -> list[dict[str, str]]:
    """Different points, each key -> value as one would type it; more of them begin with the same. Raises: UserError.

    Draw i has a generator of its own, so that it depends on seed and i alone.
    """
    spaces = {key: [parse(value) for value in values] for key, values in grid.items()}
    found: list[dict[str, str]] = []
    for number in range(TRIES * search.points):
        random = np.random.default_rng([search.seed, number])
        point = {key: _draw(values[random.integers(len(values))], random) for key, values in spaces.items()}
        if point not in found:
            found.append(point)
        if len(found) == search.points:
            return found
    message = f"{search.points} points are wanted, {len(found)} different ones were found"
    raise UserError(message, "--random", f"ask for {len(found)}, or widen the ranges")


def parse(text: str) -> str | Range:
    """A value as typed, or the range that it describes. Raises: UserError where that is empty."""
    match = re.fullmatch(r"([^.].*?)\.\.([^.].*?)(:log)?", text)
    try:
        low, high = float(match[1]), float(match[2])
    except (TypeError, ValueError):  # no range, or a path that looks like one
        return text
    if not low < high or not math.isfinite(high - low):
        raise UserError(f"{text} has no numbers in it", "--grid", "write LOW..HIGH, the smaller one first")
    if match[3] and low <= 0.0:
        raise UserError(f"{text} begins at {low}, which has no logarithm", "--grid", "begin above 0, or leave :log out")
    whole = all(re.fullmatch(r"-?\d+", end) for end in (match[1], match[2]))
    return Range(low, high, bool(match[3]), whole)


def remember(path: Path, draws: dict[str, Any]) -> None:
    """Writes {"grid", "seed", "points"}; more points may come to those there. Raises: UserError where others lie there."""
    if path.exists():
        old = folders.read_json(path)
        both = min(len(old["points"]), len(draws["points"]))
        if any(old[key] != draws[key] for key in ("grid", "seed")) or old["points"][:both] != draws["points"][:both]:
            raise UserError("points of another search lie there", str(path), "choose another --out")
        draws = draws | {"points": max(old["points"], draws["points"], key=len)}
    with folders.system_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    folders.write_json(path, draws)


def _draw(space: str | Range, random: np.random.Generator) -> str:
    if isinstance(space, str):
        return space
    low, high = space.low, space.high
    if space.whole:  # each whole number owns half a unit on both sides
        low, high = low - 0.5, high + 0.5
    value = math.exp(random.uniform(math.log(low), math.log(high))) if space.logarithmic else random.uniform(low, high)
    if space.whole:
        return str(int(min(max(round(value), space.low), space.high)))
    text = f"{value:.{_digits(space)}g}"
    inside = min(max(float(text), space.low), space.high)
    return text if inside == float(text) else str(inside)


def _digits(space: Range) -> int:
    """Three, and more where a range is so narrow beside its ends that three would leave few numbers in it."""
    narrow = max(abs(space.low), abs(space.high)) / (space.high - space.low) / 2.0
    return 3 + max(math.ceil(math.log10(narrow)), 0)
