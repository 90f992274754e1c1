"""The fully connected layer, through which every matrix product with a parameter goes."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from minillm.params import ParamSpec, Specs


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LowRank:
    """A kernel W and a learned matrix of low rank beside it: W + scale * down diag(values) up, which is never built.

    Hu et al. 2021, equation 3 (their B is `up` and their A `down`, transposed) without `values`; Zhang et al. 2023,
    equation 3, with them. A node of the parameter tree: its arrays are cut into layers and scanned as any others.
    """

    base: Any  # [*layers, inputs, outputs]; no type, since JAX builds nodes of shapes, places and None too
    down: Any  # [*layers, inputs, rank]
    up: Any  # [*layers, rank, outputs]
    values: Any = None  # singular values [*layers, rank]; None: all 1
    scale: float = field(default=1.0, metadata={"static": True})


Kernel = Array | np.ndarray | LowRank  # compression adds a quantised one here; `multiply` dispatches on them


def linear_specs(
    inputs: int, outputs: int, axes: tuple[str | None, str | None], *, bias: bool = True, scale: float = 0.02
) -> Specs:
    """The rows of one layer: kernel [inputs, outputs] and, if asked, bias [outputs]."""
    specs = {"kernel": ParamSpec((inputs, outputs), axes, "normal", scale)}
    if bias:
        specs["bias"] = ParamSpec((outputs,), axes[1:], "zeros")
    return specs


def linear(params: dict, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
    """y = x W + b, in the type of x.

    The leading axes are flattened first: XLA on the CPU picks poor layouts for products of more than two axes (a GELU
    feed-forward's gradient took 141 ms so and 101 ms flattened; on accelerators the reshape is free).
    """
    y = multiply(x.reshape(-1, x.shape[-1]), params["kernel"])
    if "bias" in params:
        y = y + params["bias"].astype(x.dtype)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def multiply(x: Float[Array, "batch inputs"], kernel: Kernel) -> Float[Array, "batch outputs"]:
    """x W for any kind of kernel, in the type of x; x (W + s A diag(v) B) as x W + s ((x A) v) B."""
    if isinstance(kernel, LowRank):
        low = x @ kernel.down.astype(x.dtype)
        low = low if kernel.values is None else low * kernel.values.astype(x.dtype)
        return multiply(x, kernel.base) + kernel.scale * (low @ kernel.up.astype(x.dtype))
    return x @ kernel.astype(x.dtype)


def low_rank_product(kernel: LowRank) -> Float[Array, "*layers inputs outputs"]:
    """scale * down diag(values) up as a matrix, for merging."""
    down = kernel.down if kernel.values is None else kernel.down * kernel.values[..., None, :]
    return kernel.scale * jnp.matmul(down, kernel.up)
