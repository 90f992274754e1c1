"""The best answer in one or more windows of a passage, from the scores of first and last tokens.

A span from token i to token j >= i scores s_i + e_j (Devlin et al. 2019, section 4.2); the best of all windows is the answer.
Its probability is exp(s_i + e_j) over the sum of that over all pairs of places in all windows (Clark and Gardner 2018,
"Simple and effective multi-paragraph reading comprehension", section 3.3): with one window the product of the two softmaxes.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Span(NamedTuple):
    """First and last token of an answer, and the row that has them."""

    row: int
    first: int
    last: int
    probability: float


def best_span(
    scores: Float[np.ndarray, "rows length 2"], answerable: Bool[np.ndarray, "rows length"], longest: int
) -> Span | None:
    """The best span of at most `longest` tokens; None where no window has a token.

    Token 0, the class token, says that the answer is in another window: it takes its share, but is never the answer.
    """
    length = answerable.shape[1]
    scores = np.where(answerable[..., None], scores.astype(np.float64), -np.inf)
    within = np.arange(length)[None, :] - np.arange(length)[:, None]
    allowed = (within >= 0) & (within < longest)
    allowed[0] = False
    both = np.where(allowed, scores[:, :, None, 0] + scores[:, None, :, 1], -np.inf)
    place = int(both.argmax())
    if not np.isfinite(both.flat[place]):
        return None
    row, rest = divmod(place, length * length)
    best = both.flat[place]
    every = np.logaddexp.reduce(scores[..., 0], axis=1) + np.logaddexp.reduce(scores[..., 1], axis=1)
    return Span(row, *divmod(rest, length), float(np.exp(best - np.logaddexp.reduce(every))))
