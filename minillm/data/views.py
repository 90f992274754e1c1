"""A second view of a text: some of its tokens replaced by tokens of other texts, as a pure function of (seed, step).

What is replaced is drawn anew whenever a row comes up; what replaces it is drawn as often as it occurs, so that frequent
tokens replace most (the unigram noise of Xie et al. 2017, "Data noising as smoothing in neural network language models",
section 3.1).
"""

from collections.abc import Sequence

import numpy as np

from minillm.data.masking import noise
from minillm.data.rows import RowDataset


def token_pool(dataset: RowDataset, special: Sequence[int]) -> np.ndarray:
    """Every ordinary token of a split, as often as it occurs."""
    return dataset.tokens[dataset.mask & ~np.isin(dataset.tokens, special)]


def replace_tokens(batch: dict, pool: np.ndarray, seed: int, step: int, rate: float, special: Sequence[int]) -> dict:
    """The batch with each ordinary token replaced at `rate` by one of the pool. Needs tokens and mask [rows, length]."""
    tokens, random = batch["tokens"], noise(seed, step, "views")
    if not len(pool) or rate == 0.0:
        return batch
    replaced = (random.random(tokens.shape) < rate) & batch["mask"] & ~np.isin(tokens, special)
    drawn = pool[random.integers(0, len(pool), tokens.shape)]
    return batch | {"tokens": np.where(replaced, drawn, tokens).astype(np.int32)}
