"""Sentence embeddings: the mean of an encoder's hidden states over a text's tokens.

Reimers and Gurevych 2019, section 3 (mean pooling was the best of three there). The cosine of two embeddings, their dot
product once their length is 1, says how close two texts are in meaning, for a model that was trained to.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from minillm.nn.pooling import mean_of, unit_length
from minillm.params import Params

MULTIPLE = 16  # rows are padded to a multiple of this, so that few lengths are compiled


def mean_pool(
    hidden: Float[Array, "batch length model"], mask: Bool[Array, "batch length"], *, unit: bool = True
) -> Float[Array, "batch model"]:
    """sum_i mask_i h_i / sum_i mask_i, and with `unit` divided by its length. A row without a token is zero."""
    mean = mean_of(hidden, mask)
    return unit_length(mean) if unit else mean


def embed_texts(
    encode: Any,
    params: Params,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    context: int,
    batch_size: int = 32,
    unit: bool = True,
) -> np.ndarray:
    """Texts -> embeddings [texts, model], in the order of the texts; class token and separator count as tokens.

    Args:
        encode: (params, batch) -> Output of a bidirectional model, such as bind(bert, config).apply; it is compiled once
            for every length, and again for another `encode`.
        tokenizer: with encode_many, bos (the class token), eos (the separator) and pad.
        context: tokens of a text at most; what is beyond is cut.
        unit: divide each embedding by its length.
    """
    rows = [[tokenizer.bos, *ids[: context - 2], tokenizer.eos] for ids in tokenizer.encode_many(texts)]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # rows of like length share a batch
    found = {}
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        batch = pad_rows([rows[i] for i in numbers], tokenizer.pad, batch_size, context)
        found |= zip(
            numbers, np.asarray(_pooled(encode, params, batch, unit)), strict=False
        )  # rows of padding are left over
    return np.stack([found[i] for i in range(len(rows))]) if rows else np.zeros((0, 0), np.float32)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _pooled(encode, params, batch, unit: bool):
    return mean_pool(encode(params, batch).hidden, batch["mask"], unit=unit)


def pad_rows(rows: Sequence[Sequence[int]], pad: int, batch: int, context: int) -> dict[str, np.ndarray]:
    """Rows of ids -> {"tokens", "mask"} [batch, length]: the longest row, rounded up; rows that lack are padding."""
    length = min(-(-max(map(len, rows)) // MULTIPLE) * MULTIPLE, context)
    tokens, mask = np.full((batch, length), pad, np.int32), np.zeros((batch, length), bool)
    for number, row in enumerate(rows):
        tokens[number, : len(row)], mask[number, : len(row)] = row, True
    return {"tokens": tokens, "mask": mask}
