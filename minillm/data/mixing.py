"""Who gets how many rows: several sources in one stream, in exact proportions, as a pure function of the step.

    p_k = n_k^(1/T) / sum over j of n_j^(1/T)        Raffel et al. 2020, section 3.5.2

T = 1 mixes in proportion to the examples n_k, a large T equally. They draw the source of each example at random, so that
the counts are right on average. Here source k has read floor(p_k * size * t) rows after t steps of `size` rows: never a
whole row more or less than its share, at any step, and nothing to remember.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from minillm.errors import UserError

WHOLE = 2**40  # parts of which shares are counted, so that floor is exact
Spans = tuple[int, int]  # the first row, and that after the last


def proportions(
    counts: Sequence[int], temperature: float = 1.0, limit: int | None = None
) -> Float64[np.ndarray, "sources"]:
    """p_k of sources with so many examples. `limit`: no source counts as larger than that (their K)."""
    sizes = np.minimum(np.asarray(counts, np.float64), np.inf if limit is None else float(limit))
    if not sizes.size or sizes.min() < 1.0 or not temperature > 0.0:
        message = f"sources of {list(counts)} examples at temperature {temperature} cannot be mixed"
        raise UserError(message, "mixing", "give each an example at least, and a temperature above 0")
    raised = np.exp(np.log(sizes / sizes.max()) / temperature)
    return raised / raised.sum()


def whole_parts(shares: Sequence[float]) -> list[int]:
    """Shares that sum to 1 -> whole numbers that sum to WHOLE, each within 1 of its part (largest remainders)."""
    exact = np.asarray(shares, np.float64) * WHOLE
    parts = np.floor(exact).astype(np.int64)
    for place in np.argsort(-(exact - parts), kind="stable")[: WHOLE - int(parts.sum())]:
        parts[place] += 1
    return [int(part) for part in parts]


def row_span(part: int, size: int, step: int) -> Spans:
    """The rows of its own endless sequence that a source with `part` of WHOLE reads in a step."""
    return part * size * step // WHOLE, part * size * (step + 1) // WHOLE


def most_rows(part: int, size: int, multiple: int = 1) -> int:
    """The most rows that a source reads in one step, up to a multiple: the rows of its batches."""
    most = (part * size + WHOLE - 1) // WHOLE
    return (most + multiple - 1) // multiple * multiple


def mixed_rows(batch_at: Callable[[int], Mapping], size: int, span: Spans, rows: int) -> dict[str, np.ndarray]:
    """Rows `span` of a source's endless sequence as a batch of `rows`; those that only fill it have weight 0.

    `batch_at` gives the source's own batches of `size` rows by their number; what only fills is read later.
    """
    first, after = span
    made, number = [], first
    while number < first + rows:
        step, place = divmod(number, size)
        stop = min(size, place + first + rows - number)
        made.append({name: leaf[place:stop] for name, leaf in batch_at(step).items()})
        number += stop - place
    batch = {name: np.concatenate([one[name] for one in made]) for name in made[0]}
    real = np.arange(rows) < after - first
    for name in batch:
        if name.endswith("weights"):
            shape = (rows, *(1,) * (batch[name].ndim - 1))
            batch[name] = batch[name] * real.reshape(shape).astype(batch[name].dtype)
    return batch | {"index": np.arange(rows, dtype=np.int32)}
