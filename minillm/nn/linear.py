"""The fully connected layer, through which every matrix product with a parameter goes."""

from jaxtyping import Array, Float

from minillm.params import ParamSpec, Specs

Kernel = Array  # tuning and compression add leaf types here (low-rank, quantised); `linear` dispatches on them


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
    kernel = params["kernel"].astype(x.dtype)
    y = x.reshape(-1, x.shape[-1]) @ kernel
    if "bias" in params:
        y = y + params["bias"].astype(x.dtype)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])
