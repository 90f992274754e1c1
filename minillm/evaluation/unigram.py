"""The least that a model of masked or removed tokens must beat: what it knows who has only counted tokens."""

from collections.abc import Iterable, Sequence

import numpy as np


def unigram_guess(
    documents: Sequence[np.ndarray], batches: Iterable[dict], weights: str, possible: np.ndarray
) -> tuple[float, float]:
    """(nats per token, accuracy) of guessing each weighted target from its frequency in `documents`, one added to each.

    batches: with "targets" and the named weights, both [batch, targets]. possible: [vocabulary], the ids that may be
    asked for; no other is guessed.
    """
    counts = (np.bincount(np.concatenate(documents), minlength=len(possible)) + 1.0) * possible
    with np.errstate(divide="ignore"):
        losses = -np.log(counts / counts.sum())
    nll, hits, total = 0.0, 0.0, 0.0
    for batch in batches:
        targets, weight = (batch[name][batch[weights] > 0.0] for name in ("targets", weights))
        nll += float((losses[targets] * weight).sum())
        hits += float(((targets == counts.argmax()) * weight).sum())
        total += float(weight.sum())
    return nll / total, hits / total
