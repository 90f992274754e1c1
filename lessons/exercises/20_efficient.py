"""Exercises of lesson 20. Fill in the bodies, then run `minillm lessons check 20`."""

import numpy as np


def lora_start(inputs: int, outputs: int, rank: int, generator: np.random.Generator) -> tuple:
    """The two factors of a low-rank part before the first step. (10 minutes, easy)

    With them the model is still the pretrained one, and yet the first step of a gradient changes what the model says.

    Args:
        inputs, outputs: the kernel W that they stand beside is [inputs, outputs].
        rank: how many columns the first factor has, and rows the second.
        generator: where random numbers come from, as in generator.normal(0.0, 0.1, size=(2, 3)).
    Returns:
        down [inputs, rank] and up [rank, outputs], for y = x W + (alpha / rank) (x down) up.
    """
    raise NotImplementedError("lora_start: which of the two is zero, and why not both?")


def switch(kernel: np.ndarray, off: tuple | None, on: tuple | None, alpha: float) -> np.ndarray:
    """A kernel with one adapter merged -> the same kernel with another one instead. (20 minutes, medium)

        merged = W + (alpha / rank) down up

    Args:
        kernel: [inputs, outputs], in which `off` is merged already; the plain W where `off` is None.
        off, on: adapters, each a pair (down [inputs, rank], up [rank, outputs]), maybe of different ranks; None: no
            adapter.
        alpha: of both.
    Returns:
        the kernel in which only `on` is merged, a new array.
    """
    raise NotImplementedError("switch: take the old product out, put the new one in, each at its own scale")


def prefix_attention(query, key, value, mask, prefix_key, prefix_value) -> np.ndarray:
    """Attention of one head whose keys and values have a trained prefix before them. (25 minutes, medium)

        softmax(q [P_k; K]^T / sqrt(head)) [P_v; V]

    Every query sees the whole prefix, and those tokens that its mask lets it see.

    Args:
        query, key, value: [length, head] floats.
        mask: [length, length] booleans, True where a query (row) may look at a token (column).
        prefix_key, prefix_value: [prefix, head] floats.
    Returns:
        [length, head]: one vector per query; the prefix asks nothing.
    """
    raise NotImplementedError("prefix_attention: the keys grow by the prefix, and so must the mask")
