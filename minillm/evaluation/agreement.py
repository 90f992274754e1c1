"""Do two models say the same? Overlap of their tokenizers, agreement of their hidden states on the same texts."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

from minillm.errors import UserError

SHUFFLES = 20  # of the texts, for what agrees by chance


def piece_overlap(left: Sequence[str], right: Sequence[str]) -> dict[str, float]:
    """Pieces by id -> how many each has and both share, shared / all, and of the shared ones those with the same id."""
    shared = set(left) & set(right)
    places = [{piece: number for number, piece in enumerate(pieces)} for pieces in (left, right)]
    same = sum(places[0][piece] == places[1][piece] for piece in shared)
    return {
        "left": len(left), "right": len(right), "shared": len(shared),
        "jaccard": len(shared) / max(len(set(left) | set(right)), 1), "same_id": same / max(len(shared), 1),
    }  # fmt: skip


def shared_ids(left: Sequence[str], right: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The ids of the pieces that both have, in the left one's order: (left ids, right ids)."""
    places = {piece: number for number, piece in enumerate(right)}
    pairs = [(number, places[piece]) for number, piece in enumerate(left) if piece in places]
    return tuple(np.array(pairs, np.int64).reshape(-1, 2).T)


def pooled_cosine(left: Float[np.ndarray, "texts model"], right: Float[np.ndarray, "texts model"]) -> dict[str, float]:
    """Mean cosine of the two vectors of a text, of those of two texts, and the first with the second as its zero.

        centred = (same - other) / (1 - other)

    Hidden states of a Transformer point into one narrow cone (Ethayarajh 2019), so that a cosine alone says little.
    """
    rows = [values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12) for values in _check(left, right)]
    cosines = rows[0] @ rows[1].T
    texts = len(cosines)
    same = float(np.trace(cosines)) / texts
    other = (float(cosines.sum()) - same * texts) / (texts * (texts - 1))
    return {"same": same, "other": other, "centred": (same - other) / max(1.0 - other, 1e-12)}


def linear_cka(
    left: Float[np.ndarray, "texts left"], right: Float[np.ndarray, "texts right"], seed: int = 0
) -> dict[str, float]:
    """Linear centred kernel alignment, and its mean over shuffled texts. Kornblith et al. 2019, equations 3 and 4:

        HSIC(K, L) = tr(K H L H) / (n - 1)^2        CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))

    with K = X X^T, L = Y Y^T and H = I - 1 1^T / n. It ignores rotations and one scale, and compares other widths too; with
    fewer texts than features it is far from 0 by chance, which the shuffled texts show.
    """
    kernels = [_centre(rows @ rows.T) for rows in _check(left, right)]
    size = np.sqrt((kernels[0] ** 2).sum() * (kernels[1] ** 2).sum())
    random, found = np.random.default_rng(seed), []
    for _ in range(SHUFFLES):
        order = random.permutation(len(left))
        found.append(float((kernels[0] * kernels[1][np.ix_(order, order)]).sum()))
    alignment = float((kernels[0] * kernels[1]).sum())
    return {"cka": alignment / max(size, 1e-300), "shuffled": float(np.mean(found)) / max(size, 1e-300)}


def _centre(kernel: Float64[np.ndarray, "texts texts"]) -> Float64[np.ndarray, "texts texts"]:
    """H K H."""
    return kernel - kernel.mean(0) - kernel.mean(1, keepdims=True) + kernel.mean()


def _check(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(left) != len(right) or len(left) < 2:
        message = f"{len(left)} and {len(right)} vectors, expected the same texts for both and two of them at least"
        raise UserError(message, "texts", "give more texts")
    return left.astype(np.float64), right.astype(np.float64)
