"""The least that a model of masked or removed tokens must beat: what it knows who has only counted tokens."""

from collections.abc import Iterable, Sequence

import numpy as np


def unigram_guess(
    documents: Sequence[np.ndarray], batches: Iterable[dict], weights: str, vocabulary: int
) -> tuple[float, float]:
    """(nats per token, accuracy) of guessing each weighted target from its frequency in `documents`, one added to each.

    batches: with "targets" and the named weights, both [batch, targets].
    """
    counts = np.bincount(np.concatenate(documents), minlength=vocabulary) + 1.0
    losses, nll, hits, total = -np.log(counts / counts.sum()), 0.0, 0.0, 0.0
    for batch in batches:
        nll += float((losses[batch["targets"]] * batch[weights]).sum())
        hits += float(((batch["targets"] == counts.argmax()) * batch[weights]).sum())
        total += float(batch[weights].sum())
    return nll / total, hits / total
