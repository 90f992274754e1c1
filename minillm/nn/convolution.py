"""Convolution and pooling over images [batch, height, width, channels] or sequences [batch, length, channels].

A convolution is one linear layer, applied to every window of its input:

    y[p, o] = sum over offsets k and channels c of  x[stride * p + k - padding, c] W[(k, c), o] + b[o]

so its kernel is a matrix [window * channels, outputs] (rows: offset first, channel last). LeCun et al. 1998, section II.A:
the same weights at every place, and local ones only. (Strictly a correlation: as everywhere in deep learning, the kernel
is not turned around.) `convolve_windows` is that line; `convolve` is the same function by the compiler's convolution, which
lays no windows side by side: 16 images of 32 x 32, from 32 to 64 channels, take 11 ms of CPU with gradients so, and 32 ms
plainly. A test and lesson 04 hold the two equal.
"""

import itertools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from minillm.nn.linear import linear, linear_specs
from minillm.params import Specs

Grid = Float[Array, "batch *space channels"]  # one or two axes of space
Places = Float[Array, "batch *places outputs"]
Size = int | tuple[int, ...]  # per axis of space; one number: the same for all


def convolution_specs(
    size: tuple[int, ...], inputs: int, outputs: int, *, bias: bool = True, scale: float = 0.02
) -> Specs:
    """Rows of a convolution: kernel [window * inputs, outputs] and, if asked, bias [outputs]."""
    return linear_specs(math.prod(size) * inputs, outputs, (None, "hidden"), bias=bias, scale=scale)


def convolve(params: dict, x: Grid, size: Size, stride: Size = 1, padding: Size = 0) -> Places:
    """[batch, *space, inputs] -> [batch, *places, outputs], with places = (space + 2 padding - size) // stride + 1.

    A kernel of another leaf type than a plain array goes through `linear`, which knows them all.
    """
    if not isinstance(params["kernel"], jax.Array):
        return convolve_windows(params, x, size, stride, padding)
    size, stride, padding = _geometry(x, size, stride, padding)
    axes = "HW"[: len(size)]
    kernel = params["kernel"].astype(x.dtype).reshape(*size, x.shape[-1], -1)
    y = jax.lax.conv_general_dilated(
        x, kernel, stride, [(p, p) for p in padding], dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C")
    )
    return y + params["bias"].astype(x.dtype) if "bias" in params else y


def convolve_windows(params: dict, x: Grid, size: Size, stride: Size = 1, padding: Size = 0) -> Places:
    """The plain form of `convolve`: one linear layer on every window."""
    return linear(params, merge_windows(windows(x, size, stride, padding)))


def max_pool(x: Grid, size: Size, stride: Size | None = None, padding: Size = 0) -> Places:
    """The largest value of each window, per channel; equal largest ones share the gradient. stride None: size."""
    return windows(x, size, size if stride is None else stride, padding, fill=-jnp.inf).max(-2)


def average_pool(x: Grid, size: Size, stride: Size | None = None, padding: Size = 0) -> Places:
    """The mean of each window, per channel; padding counts as zeros. stride None: size."""
    return windows(x, size, size if stride is None else stride, padding).mean(-2)


def upsample(x: Grid, factor: int = 2) -> Places:
    """Every value `factor` times along each axis of space: before a convolution, what a decoder grows by.

    Odena et al. 2016: unlike a transposed convolution, no place is written to more often than its neighbours.
    """
    for axis in range(1, x.ndim - 1):
        x = jnp.repeat(x, factor, axis)
    return x


def windows(
    x: Grid, size: Size, stride: Size = 1, padding: Size = 0, fill: float = 0.0
) -> Float[Array, "batch *places window channels"]:
    """Every window of x: one shifted slice per offset within the window, laid side by side.

    Raises: ValueError where a window is larger than the padded input.
    """
    size, stride, padding = _geometry(x, size, stride, padding)
    space = x.shape[1:-1]
    places = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(space, size, stride, padding, strict=True))
    x = jnp.pad(x, ((0, 0), *((p, p) for p in padding), (0, 0)), constant_values=fill)
    span = [slice(0, (n - 1) * s + 1) for n, s in zip(places, stride, strict=True)]
    slices = []
    for offset in itertools.product(*map(range, size)):
        cut = (slice(k, k + part.stop, s) for k, part, s in zip(offset, span, stride, strict=True))
        slices.append(x[(slice(None), *cut)])
    return jnp.stack(slices, axis=-2)


def merge_windows(x: Float[Array, "*batch window channels"]) -> Float[Array, "*batch inputs"]:
    """[..., window, channels] -> [..., window * channels], the order of a kernel's rows."""
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def patches(
    x: Float[Array, "batch height width channels"], size: int
) -> Float[Array, "batch rows columns window channels"]:
    """Windows of size x size that do not overlap: equal to `windows(x, size, stride=size)`, by reshaping alone.

    Raises: ValueError where `size` does not divide height and width.
    """
    batch, height, width, channels = x.shape
    if height % size or width % size:
        raise ValueError(f"patches of {size} x {size} do not tile an image of {height} x {width}")
    x = x.reshape(batch, height // size, size, width // size, size, channels).swapaxes(2, 3)
    return x.reshape(batch, height // size, width // size, size * size, channels)


def _geometry(x: Grid, *values: Size) -> list[tuple[int, ...]]:
    """Size, stride and padding, each with a number per axis of space."""
    space = x.shape[1:-1]
    size, _, padding = found = [(value,) * len(space) if isinstance(value, int) else value for value in values]
    for value in found:
        if len(value) != len(space):
            raise ValueError(f"{value} names {len(value)} axes of space, the input has {len(space)}")
    if any(k > n + 2 * p for n, k, p in zip(space, size, padding, strict=True)):
        raise ValueError(f"a window of {size} is larger than the input {space} with padding {padding}")
    return found
