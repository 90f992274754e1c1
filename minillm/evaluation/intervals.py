"""How sure is a number? Bootstrap over examples, t over seeds.

Efron and Tibshirani 1993, "An introduction to the bootstrap": draw n examples of n with replacement, compute the metric,
again and again; the middle 95 % of what comes out is the percentile interval (chapter 13). It says what other test
examples would change, not what another training run would: for that there are seeds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from minillm.errors import UserError

LEVEL = 0.95
RESAMPLES = 1000
ROOM = 2**22  # numbers per block of draws: 32 MiB

Metric = Callable[[Float64[np.ndarray, "draws examples"]], Mapping[str, Float64[np.ndarray, "draws"]]]


def draw_weights(
    examples: int, resamples: int = RESAMPLES, seed: int = 0
) -> Iterator[Float64[np.ndarray, "draws examples"]]:
    """How often each example is drawn, a row per resample; blocks of rows, so that many examples fit into memory."""
    random, size = np.random.default_rng(seed), max(1, ROOM // examples)
    for start in range(0, resamples, size):
        rows = (random.integers(0, examples, examples) for _ in range(min(size, resamples - start)))
        yield np.stack([np.bincount(row, minlength=examples) for row in rows]).astype(np.float64)


def bootstrap(
    metric: Metric, examples: int, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Name -> {"value", "low", "high"} of everything that `metric` returns.

    Args:
        metric: weights [draws, examples] -> name -> values [draws], such as
            `lambda weights: single_label(labels, probabilities, weights)`.
        examples: what is drawn: texts, not tokens, where the tokens of a text hang together.
        level: of the interval. seed: the same seed draws the same examples, whatever the metric.
    """
    values, draws = _evaluate(metric, examples, resamples, seed)
    tails = [(1.0 - level) / 2.0, (1.0 + level) / 2.0]
    bounds = {name: np.quantile(found, tails) for name, found in draws.items()}
    return {n: {"value": values[n], "low": float(low), "high": float(high)} for n, (low, high) in bounds.items()}


def paired_bootstrap(
    metric: Metric,
    other: Metric,
    examples: int,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Two systems on the same examples: name -> {"value", "low", "high", "p"} of the difference, metric - other.

    Each draw judges both on the same examples, so that what is hard for both cancels (Koehn 2004, "Statistical significance
    tests for machine translation evaluation", section 4). p is two-sided, the level at which the percentile interval begins
    to hold 0: twice the smaller share of differences <= 0 or >= 0, where 1 is added to both counts (Davison and Hinkley 1997,
    section 4.2), so that no p is below 2 / (resamples + 1).
    """

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        left, right = metric(weights), other(weights)
        return {name: np.asarray(left[name] - right[name]) for name in left if name in right}

    values, draws = _evaluate(difference, examples, resamples, seed)
    tails = [(1.0 - level) / 2.0, (1.0 + level) / 2.0]
    found = {}
    for name, row in draws.items():
        low, high = np.quantile(row, tails)
        smaller = min(int((row <= 0.0).sum()), int((row >= 0.0).sum()))
        p = min(1.0, 2.0 * (smaller + 1) / (resamples + 1))
        found[name] = {"value": values[name], "low": float(low), "high": float(high), "p": p}
    return found


def over_seeds(
    values: Sequence[float] | Float64[np.ndarray, "seeds"], *, level: float = LEVEL
) -> dict[str, float | list[float] | None]:
    """{"mean", "deviation", "low", "high", "values"}: mean -+ t s / sqrt(n), t with n - 1 degrees of freedom (Student 1908).

    deviation, low and high are None for a single value, which says nothing about them.
    """
    from scipy.stats import t

    if not len(values):
        raise UserError("no values to average", "seeds", "run at least one seed")
    row = np.asarray(values, np.float64)
    found = {"mean": float(row.mean()), "deviation": None, "low": None, "high": None, "values": row.tolist()}
    if len(row) > 1:
        deviation = float(row.std(ddof=1))
        half = float(t.ppf((1.0 + level) / 2.0, len(row) - 1)) * deviation / len(row) ** 0.5
        found |= {"deviation": deviation, "low": found["mean"] - half, "high": found["mean"] + half}
    return found


def welch(
    left: Sequence[float] | Float64[np.ndarray, "seeds"],
    right: Sequence[float] | Float64[np.ndarray, "others"],
    *,
    level: float = LEVEL,
) -> dict[str, float | None]:
    """{"value", "low", "high", "p"} of mean(right) - mean(left) for seeds that are independent, of unequal variance.

    Welch 1947: with v = s^2 / n of either side, the difference has the standard error sqrt(v1 + v2) and about
    (v1 + v2)^2 / (v1^2 / (n1 - 1) + v2^2 / (n2 - 1)) degrees of freedom (Satterthwaite 1946). p is two-sided.
    """
    rows = [np.asarray(values, np.float64) for values in (left, right)]
    if min(map(len, rows)) < 2:
        message = f"{len(rows[0])} and {len(rows[1])} seeds, one alone does not say how much seeds differ"
        raise UserError(message, "seeds", "run two of each at least")
    parts = [float(row.var(ddof=1)) / len(row) for row in rows]
    freedom = sum(parts) ** 2 / max(
        sum(part**2 / (len(row) - 1) for part, row in zip(parts, rows, strict=True)), 1e-300
    )
    return _student(float(rows[1].mean() - rows[0].mean()), sum(parts) ** 0.5, freedom, level)


def paired_seeds(
    left: Sequence[float] | Float64[np.ndarray, "seeds"],
    right: Sequence[float] | Float64[np.ndarray, "seeds"],
    *,
    level: float = LEVEL,
) -> dict[str, float | None]:
    """The same where values at one place share their seed: what a seed does to both cancels (Student 1908)."""
    row = np.asarray(right, np.float64) - np.asarray(left, np.float64)
    if len(row) < 2:
        raise UserError(f"{len(row)} pairs of seeds", "seeds", "run two seeds of each at least")
    return _student(float(row.mean()), float(row.std(ddof=1)) / len(row) ** 0.5, len(row) - 1, level)


def _student(value: float, error: float, freedom: float, level: float) -> dict[str, float | None]:
    """Interval and two-sided p of a difference with that standard error; no p where nothing varies."""
    from scipy.stats import t

    if error == 0.0:
        return {"value": value, "low": value, "high": value, "p": None}
    half = float(t.ppf((1.0 + level) / 2.0, freedom)) * error
    return {
        "value": value,
        "low": value - half,
        "high": value + half,
        "p": float(2.0 * t.sf(abs(value) / error, freedom)),
    }


def _evaluate(
    metric: Metric, examples: int, resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """(values on the examples themselves, values on each draw)."""
    if examples < 1 or resamples < 1:
        message = f"{examples} examples and {resamples} resamples, expected at least one of each"
        raise UserError(message, "bootstrap", "use a split with examples")
    values = {name: float(row[0]) for name, row in metric(np.ones((1, examples))).items()}
    blocks = [metric(weights) for weights in draw_weights(examples, resamples, seed)]
    return values, {name: np.concatenate([block[name] for block in blocks]) for name in values}
