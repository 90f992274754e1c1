"""What the matrix products of a GPT's training step take, each alone and in its own shape.

The best square product is a limit for any program; products this narrow do not reach it, whoever calls them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from minillm.bench.sizes import Sizes, fastest


class Product(NamedTuple):
    """A product by the letters of its axes, how large these are, and how often a step has it."""

    letters: str
    sizes: dict[str, int]
    times: int


def of_step(sizes: Sizes) -> list[Product]:
    """Forward, gradient of the input and gradient of the weights, for all layers; attention with its masked half."""
    tokens, width, heads = sizes.batch * sizes.length, sizes.width, sizes.batch * sizes.heads
    linear = {(width, width): 4 * sizes.layers, (width, 4 * width): sizes.layers, (4 * width, width): sizes.layers,
              (width, sizes.vocabulary): 1}  # fmt: skip
    found = [
        Product(letters, {"t": tokens, "i": inputs, "o": outputs}, times)
        for (inputs, outputs), times in linear.items()
        for letters in ("ti,io->to", "to,io->ti", "ti,to->io")
    ]
    per_head = {"h": heads, "q": sizes.length, "k": sizes.length, "d": width // sizes.heads}
    for letters in ("hqd,hkd->hqk", "hqk,hkd->hqd"):  # each has two gradients of the same shapes
        found.append(Product(letters, per_head, 3 * sizes.layers))
    return found


def seconds(products: list[Product]) -> float:
    """All of them, one after the other."""
    total = 0.0
    for letters, size, times in products:
        left, right = (jnp.full([size[axis] for axis in part], 0.5) for part in letters.partition("->")[0].split(","))
        multiply = jax.jit(lambda a, b, letters=letters: jnp.einsum(letters, a, b))
        total += times * fastest(lambda: multiply(left, right))  # noqa: B023
    return total
