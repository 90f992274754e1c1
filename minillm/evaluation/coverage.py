"""Answer only what one is sure of, and hand over the rest: accuracy of what is answered against its share.

    coverage(t) = share of texts with max_c p_c >= t        accuracy(t) = share of right ones among them

El-Yaniv and Wiener 2010, "On the foundations of noise-free selective classification" (risk against coverage); Hendrycks and
Gimpel 2017 (the largest probability as confidence).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def accuracy_at(
    labels: Int[np.ndarray, "examples"],
    probabilities: Float[np.ndarray, "examples classes"],
    shares: Sequence[float] = SHARES,
) -> list[dict[str, float]]:
    """A row per share of the texts that is answered, the surest first: coverage, threshold, accuracy.

    Texts that are as sure as the last one are answered too, since no threshold parts them.
    """
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    order, rows = np.sort(sure)[::-1], []
    for share in shares:
        threshold = order[max(round(share * len(order)), 1) - 1]
        kept = sure >= threshold
        rows.append(
            {"coverage": float(kept.mean()), "threshold": float(threshold), "accuracy": float(right[kept].mean())}
        )
    return rows
