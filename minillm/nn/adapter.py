"""The adapter: a narrow two-layer network beside a frozen sublayer. Houlsby et al. 2019, section 2.1."""

import jax
from jaxtyping import Array, Float

from minillm.nn.linear import linear
from minillm.params import ParamSpec, Specs


def adapter_specs(width: int, size: int) -> Specs:
    """Rows: down [width, size] and up [size, width], with biases; up begins at zero, so that the adapter is the identity."""
    return {
        "down/kernel": ParamSpec((width, size), ("model", None), "normal", width**-0.5),
        "down/bias": ParamSpec((size,), (None,), "zeros"),
        "up/kernel": ParamSpec((size, width), (None, "model"), "zeros"),
        "up/bias": ParamSpec((width,), ("model",), "zeros"),
    }


def adapt(params: dict | None, x: Float[Array, "*batch model"]) -> Float[Array, "*batch model"]:
    """x + up(GELU(down(x))), or x where there are no rows (None). Houlsby et al. 2019, figure 2."""
    return x if params is None else x + linear(params["up"], jax.nn.gelu(linear(params["down"], x), approximate=True))
