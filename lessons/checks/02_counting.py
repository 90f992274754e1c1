"""Checks of lesson 02: they name the mistake, not only the failure."""

from collections.abc import Callable

import numpy as np

from minillm.course.contract import Mistake


def _numbers(call: str, result: object, shape: tuple[int, ...]) -> np.ndarray:
    if result is None:
        raise Mistake(f"{call} returned None: does it end with `return`?")
    try:
        values = np.asarray(result, dtype=np.float64)
    except Exception:
        raise Mistake(f"{call} returned {type(result).__name__}, expected numbers") from None
    if values.shape != shape:
        raise Mistake(f"{call} returned an array of shape {values.shape}, expected {shape}")
    if not np.isfinite(values).all():
        raise Mistake(
            f"{call} returned {result!r}: is something divided by 0, or exp or log taken of the wrong number?"
        )
    return values


def check_perplexity(function: Callable) -> None:
    """Documents of unequal length part the mean over tokens from every mean of means."""
    cases = [[[0.25, 0.25]], [[0.5, 0.5], [0.125]], [[0.9], [0.2, 0.6, 0.1, 0.3], [0.5, 0.05]]]
    for probabilities in cases:
        rows = [np.log(row) for row in probabilities]
        call = f"perplexity(log of {probabilities})"
        value = float(_numbers(call, function([row.copy() for row in rows]), ()))
        mean = -np.concatenate(rows).mean()
        if not np.isclose(value, np.exp(mean), rtol=1e-5):
            raise Mistake(
                f"{call} returned {value:.4f}, expected {np.exp(mean):.4f}: {_perplexity_reason(value, rows, mean)}"
            )


def _perplexity_reason(value: float, rows: list[np.ndarray], mean: float) -> str:
    means = np.array([-row.mean() for row in rows])
    usual = {
        "the arguments are in nats, so the base is e: 2 belongs to bits": 2**mean,
        "that is the cross-entropy; perplexity is its exp": mean,
        "the sign is lost: log-probabilities are negative, take their negative mean": np.exp(-mean),
        "the sum is not divided by the number of tokens": np.exp(sum(-row.sum() for row in rows)),
        "a mean of perplexities: average the negative log-probabilities of all tokens, then take exp once": np.exp(means).mean(),
        "a mean over documents of their means: short documents weigh too much, divide by the number of tokens": np.exp(means.mean()),
        "a mean of 1 / p per token: average before exp, not after": np.exp(-np.concatenate(rows)).mean(),
        "divided by the number of documents: the mean is over tokens": np.exp(mean * sum(map(len, rows)) / len(rows)),
    }  # fmt: skip
    return next((reason for reason, wrong in usual.items() if np.isclose(value, wrong, rtol=1e-5)), "check it by hand")


def check_add_k_bigram(function: Callable) -> None:
    """An unseen row, a fractional k, and tables that are not symmetric."""
    cases = [
        ([[0, 2], [0, 0]], 1.0),
        ([[3, 1, 0], [0, 0, 0], [5, 0, 2]], 0.5),
        ([[0, 4, 1], [2, 2, 0], [0, 0, 1]], 0.01),
    ]
    for table, k in cases:
        counts = np.array(table)
        argument = counts.copy()
        call = f"add_k_bigram({table}, k={k})"
        values = _numbers(call, function(argument, k), counts.shape)
        if not np.array_equal(argument, counts):
            raise Mistake(f"{call} changed its argument: counts += k or an assignment writes into it, make a new array")
        smoothed = counts + k
        expected = smoothed / smoothed.sum(1, keepdims=True)
        if not np.allclose(values, expected, rtol=1e-5, atol=1e-7):
            shown = np.round(values, 3).tolist()
            raise Mistake(f"{call} returned {shown}: {_bigram_reason(values, counts, k)}")


def _bigram_reason(values: np.ndarray, counts: np.ndarray, k: float) -> str:
    smoothed, totals = counts + k, counts.sum(1, keepdims=True)
    if np.allclose(values, smoothed / smoothed.sum()):
        return "the whole table sums to 1: that is p(h, w), while p(w | h) makes every row sum to 1"
    if np.allclose(values, smoothed / smoothed.sum(0)):
        return "the columns sum to 1, not the rows: counts[h, w] has the earlier token first"
    if np.allclose(values, smoothed / smoothed.sum(1)):
        return (
            "row h is divided by the totals of other rows: keepdims=True keeps them [vocabulary, 1], each with its row"
        )
    if (values == 0).any():
        return "unseen pairs still have probability 0: k is added to every pair, seen or not"
    if np.allclose(values, smoothed / (totals + k)):
        return "rows do not sum to 1: each of the V tokens gets k, so the total grows by k * V, not by k"
    if not np.allclose(values.sum(1), 1):
        return "rows do not sum to 1: add k to every count, then divide by the total of the same row, k * V included"
    return (
        "rows sum to 1 but the values are wrong: is k used as it was given (not 1), and in every row, unseen ones too?"
    )


CHECKS = {"perplexity": check_perplexity, "add_k_bigram": check_add_k_bigram}

HINTS = {
    "perplexity": (
        "Two numbers suffice: the sum of all log-probabilities and the number of all tokens.",
        "np.concatenate(log_probabilities) is one array of all tokens.",
    ),
    "add_k_bigram": (
        "counts + k is a new array; its row totals are already c(h) + k V.",
        "Divide by .sum(axis=1, keepdims=True): [vocabulary, 1] stretches along each row.",
    ),
}


def _mean_of_perplexities(rows):
    return np.mean([np.exp(-row.mean()) for row in rows])


def _mean_of_means(rows):
    return np.exp(np.mean([-row.mean() for row in rows]))


def _base_two(rows):
    return 2 ** -np.concatenate(rows).mean()


def _no_sign(rows):
    return np.exp(np.concatenate(rows).mean())


def _no_division(rows):
    return np.exp(-np.concatenate(rows).sum())


def _no_exp(rows):
    return -np.concatenate(rows).mean()


def _whole_table(counts, k):
    return (counts + k) / (counts + k).sum()


def _columns(counts, k):
    return (counts + k) / (counts + k).sum(axis=0, keepdims=True)


def _no_keepdims(counts, k):
    return (counts + k) / (counts + k).sum(axis=1)


def _k_without_vocabulary(counts, k):
    return (counts + k) / (counts.sum(axis=1, keepdims=True) + k)


def _only_seen(counts, k):
    smoothed = np.where(counts > 0, counts + k, 0)
    return smoothed / np.maximum(smoothed.sum(axis=1, keepdims=True), 1)


def _always_one(counts, k):
    return (counts + 1) / (counts + 1).sum(axis=1, keepdims=True)


MISTAKES = {
    "perplexity": [
        (_mean_of_perplexities, "mean of perplexities"),
        (_mean_of_means, "mean over documents"),
        (_base_two, "base is e"),
        (_no_sign, "sign is lost"),
        (_no_division, "not divided"),
        (_no_exp, "cross-entropy"),
    ],
    "add_k_bigram": [
        (_whole_table, "whole table"),
        (_columns, "columns sum to 1"),
        (_no_keepdims, "keepdims"),
        (_k_without_vocabulary, "k * V"),
        (_only_seen, "unseen pairs"),
        (_always_one, "as it was given"),
    ],
}
