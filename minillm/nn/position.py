"""Where a token stands: learned, sinusoidal and rotary positions."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from minillm.params import ParamSpec, Specs


def learned_position_specs(context: int, width: int, scale: float = 0.02) -> Specs:
    """Row of a learned position table [context, width]. Look it up with `embed_tokens`."""
    return {"table": ParamSpec((context, width), ("position", "model"), "normal", scale)}


def sinusoidal_positions(positions: Int[Array, "*batch"], width: int) -> Float[Array, "*batch model"]:
    """PE(p, 2i) = sin(p / 10000^(2i/width)), PE(p, 2i+1) = cos(same). Vaswani et al. 2017, section 3.5.

    Raises: ValueError for an odd width.
    """
    if width % 2:
        raise ValueError(f"sinusoidal positions need an even width, got {width}")
    angles = _angles(positions, width, 10000.0)
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(*positions.shape, width)


def rotate(
    x: Float[Array, "batch length heads head"], positions: Int[Array, "batch length"], base: float = 10000.0
) -> Float[Array, "batch length heads head"]:
    """Rotary positions: pairs (x_i, x_{i + head/2}) turn by position * base^(-2i/head). Su et al. 2021, equation 34.

    The pairs are halves apart (as in GPT-NeoX and Llama), not neighbours; the two differ by a fixed permutation of the
    rows of the query and key kernels. The dot product of a rotated query and key depends on their distance alone.
    """
    angles = _angles(positions, x.shape[-1], base)[:, :, None, :]
    cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _angles(positions, size: int, base: float):
    frequencies = base ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
    return positions[..., None].astype(jnp.float32) * frequencies
