"""A vector for a whole text: the mean of its tokens' states, and the same of length 1."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def mean_of(
    hidden: Float[Array, "batch length model"], mask: Bool[Array, "batch length"]
) -> Float[Array, "batch model"]:
    """sum_i mask_i h_i / sum_i mask_i in float32; zero where a row has no token."""
    weights = mask[..., None].astype(jnp.float32)
    return (hidden.astype(jnp.float32) * weights).sum(1) / jnp.maximum(weights.sum(1), 1.0)


def unit_length(vectors: Float[Array, "batch model"]) -> Float[Array, "batch model"]:
    """v / |v|; a vector of zeros stays one, with a gradient that is finite."""
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.square(vectors).sum(-1, keepdims=True), 1e-12))
