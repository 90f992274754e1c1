"""Normalisation over the last axis, computed in float32 whatever the type of the input."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from minillm.params import ParamSpec, Specs


def layer_norm_specs(width: int, *, bias: bool = True) -> Specs:
    """Rows of a LayerNorm: scale [width] and, if asked, bias [width]."""
    specs = {"scale": ParamSpec((width,), (None,), "ones")}
    return specs | ({"bias": ParamSpec((width,), (None,), "zeros")} if bias else {})


def rms_norm_specs(width: int) -> Specs:
    """Row of an RMSNorm: scale [width]."""
    return {"scale": ParamSpec((width,), (None,), "ones")}


def layer_norm(params: dict, x: Float[Array, "*batch model"], epsilon: float = 1e-5) -> Float[Array, "*batch model"]:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias. Ba et al. 2016, equation 4."""
    y = x.astype(jnp.float32)
    y = y - y.mean(-1, keepdims=True)
    y = y * lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + epsilon) * params["scale"]
    if "bias" in params:
        y = y + params["bias"]
    return y.astype(x.dtype)


def rms_norm(params: dict, x: Float[Array, "*batch model"], epsilon: float = 1e-6) -> Float[Array, "*batch model"]:
    """x / sqrt(mean(x^2) + epsilon) * scale. Zhang and Sennrich 2019, equation 4."""
    y = x.astype(jnp.float32)
    y = y * lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + epsilon) * params["scale"]
    return y.astype(x.dtype)
