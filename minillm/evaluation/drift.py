"""Do the texts that come in still look like those of training? Statistics of a window of them, and an alarm.

    PSI = sum over bins b of  (w_b - r_b) ln(w_b / r_b)        population stability index; r, w: shares of reference, window
    KS  = max over x of  |F_w(x) - F_r(x)|                     Kolmogorov 1933, Smirnov 1939
    AUC of a classifier that tells window from reference       Lopez-Paz and Oquab 2017; 0.5: it cannot

PSI and KS look at one number per text, such as the model's confidence: they need no label. The alarm's threshold is set on
windows that are known to be in order, at a stated rate of false alarms.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from minillm.errors import UserError

Numbers = Sequence[float] | Float64[np.ndarray, "numbers"]


def stability_index(reference: Numbers, window: Numbers, bins: int = 10) -> float:
    """PSI over bins that hold equal shares of the reference. Half a text more in each bin keeps it finite."""
    reference, window = _both(reference, window)
    edges = np.unique(np.quantile(reference, np.arange(1, bins) / bins))
    share = lambda values: np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) + 0.5
    before, now = (counts / counts.sum() for counts in (share(reference), share(window)))
    return float(((now - before) * np.log(now / before)).sum())


def distance(reference: Numbers, window: Numbers) -> float:
    """KS: the largest gap between the two distribution functions."""
    reference, window = (np.sort(values) for values in _both(reference, window))
    places = np.concatenate([reference, window])
    below = lambda values: np.searchsorted(values, places, side="right") / len(values)
    return float(np.abs(below(reference) - below(window)).max())


def area(others: Numbers, ours: Numbers) -> float:
    """AUC: how often a number of `ours` is above one of `others`, ties as half (Mann and Whitney 1947)."""
    others, ours = _both(others, ours)
    ranked = np.sort(others)
    below, up_to = (np.searchsorted(ranked, ours, side=side) for side in ("left", "right"))
    return float((below + up_to).sum() / (2.0 * len(others) * len(ours)))


def classifier_area(reference: Sequence[str], window: Sequence[str], folds: int = 5, seed: int = 0) -> float:
    """AUC of TF-IDF of characters with logistic regression, of texts that were not fitted."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    texts, sides = [*reference, *window], np.repeat([0, 1], [len(reference), len(window)])
    model = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(class_weight="balanced"),
    )
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    scores = cross_val_predict(model, texts, sides, cv=parts, method="decision_function")
    return area(scores[sides == 0], scores[sides == 1])


def unknown_rate(tokens: Sequence[Sequence[int]], unknown: int) -> float:
    """Share of the tokens that the tokenizer has no piece for."""
    flat = np.concatenate([np.asarray(row, np.int64) for row in tokens])
    if not flat.size:
        raise UserError("there is no token in the window", "drift", "use texts with words")
    return float((flat == unknown).mean())


def alarm_threshold(statistics: Numbers, rate: float) -> float:
    """The value that a window in order exceeds with probability `rate` at most.

    Of n windows in order it is the ceil((1 - rate)(n + 1))-th smallest (Vovk et al. 2005, section 2.2), which holds for one
    more window like them, whatever the distribution. Raises: UserError where n is too small for the rate.
    """
    values = np.sort(np.asarray(statistics, np.float64))
    place = int(np.ceil((1.0 - rate) * (len(values) + 1) - 1e-9))
    if not 0.0 < rate < 1.0 or place > len(values):
        message = f"{len(values)} windows cannot set a threshold for a rate of false alarms of {rate}"
        raise UserError(
            message, "drift", f"use {int(np.ceil(1.0 / max(rate, 1e-9))) - 1} windows or more, or a higher rate"
        )
    return float(values[place - 1])


def first_alarm(statistics: Numbers, threshold: float) -> int | None:
    """The place of the first window above the threshold; None where none is."""
    above = np.flatnonzero(np.asarray(statistics, np.float64) > threshold)
    return int(above[0]) if above.size else None


def _both(reference: Numbers, window: Numbers) -> tuple[np.ndarray, np.ndarray]:
    found = tuple(np.asarray(values, np.float64) for values in (reference, window))
    if min(map(len, found)) < 1 or not all(np.isfinite(values).all() for values in found):
        raise UserError("a reference and a window need finite numbers, one at least", "drift", "use more texts")
    return found
