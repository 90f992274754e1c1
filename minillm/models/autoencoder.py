"""Autoencoder: an encoder to a code of few numbers, and a decoder from the code back to the input.

Hinton and Salakhutdinov 2006, with the code and the output linear, so that without hidden layers the best one spans the
space of the first principal components (Baldi and Hornik 1989). Trained on corrupted inputs it is the denoising
autoencoder of Vincent et al. 2008. Deviations: rectified units and plain gradient descent from a random start, where the
paper trains logistic units layer by layer first; squared error, not cross-entropy.

form "dense": fully connected layers over the flattened input, of any shape. form "convolution": images; every hidden layer is a
convolution of 3 x 3 that halves height and width, and the decoder doubles them again before each of its own.

batch: images [batch, *shape]
"""

import math
from dataclasses import dataclass
from typing import Literal

import jax
from jaxtyping import Array, Float, Key

from minillm.models.contract import Batch, Output
from minillm.nn import convolution, linear
from minillm.params import Params, Specs, prefix

Code = Float[Array, "batch code"]


@dataclass(frozen=True)
class Config:
    """The autoencoder's own settings. `hidden`: widths (dense) or channels (convolution) of the encoder's layers."""

    __pydantic_config__ = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # noqa: RUF012

    form: Literal["dense", "convolution"] = "dense"
    shape: tuple[int, ...] = (8, 8, 1)  # of one input; images: height, width, channels
    hidden: tuple[int, ...] = (128, 64)  # the decoder mirrors it; (): linear, as principal components
    code: int = 8
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters stay float32

    def __post_init__(self):
        if not self.shape or min(*self.shape, *self.hidden, self.code) < 1:
            raise ValueError(f"shape, hidden and code must be at least 1: {self.shape}, {self.hidden}, {self.code}")
        if self.form == "convolution":
            factor = 2 ** len(self.hidden)
            if len(self.shape) != 3 or any(side % factor for side in self.shape[:2]):
                raise ValueError(f"shape must be height, width (multiples of {factor}) and channels: {self.shape}")

    @property
    def features(self) -> tuple[int, ...]:
        """Shape of what the encoder's layers make of an input, before its last, linear layer."""
        if self.form == "dense":
            return (self.hidden[-1] if self.hidden else math.prod(self.shape),)
        height, width, channels = self.shape
        factor = 2 ** len(self.hidden)
        return (height // factor, width // factor, self.hidden[-1] if self.hidden else channels)


def param_specs(config: Config) -> Specs:
    """The parameter table; kernels before a rectifier start at sqrt(2 / inputs) (He et al. 2015)."""
    first = math.prod(config.shape) if config.form == "dense" else config.shape[-1]
    widths, features = (first, *config.hidden), math.prod(config.features)
    specs = {}
    for layer in range(len(config.hidden)):
        specs |= prefix(_layer_specs(config, widths[layer], widths[layer + 1]), f"encoder/{layer}")
        specs |= prefix(_layer_specs(config, widths[layer + 1], widths[layer], layer == 0), f"decoder/{layer}")
    specs |= prefix(linear.linear_specs(features, config.code, ("hidden", None), scale=features**-0.5), "code")
    gain = 2.0 if config.hidden else 1.0
    return specs | prefix(
        linear.linear_specs(config.code, features, (None, "hidden"), scale=(gain / config.code) ** 0.5), "expand"
    )


def _layer_specs(config: Config, inputs: int, outputs: int, last: bool = False) -> Specs:
    fan, gain = inputs * (9 if config.form == "convolution" else 1), 1.0 if last else 2.0
    if config.form == "convolution":
        return convolution.convolution_specs((3, 3), inputs, outputs, scale=(gain / fan) ** 0.5)
    return linear.linear_specs(inputs, outputs, ("model", "hidden"), scale=(gain / fan) ** 0.5)


def embed(params: Params, batch: Batch, config: Config) -> Float[Array, "batch *shape"]:
    """The input itself: what may be perturbed."""
    images = batch["images"]
    if images.shape[1:] != config.shape:
        raise ValueError(f"inputs are {images.shape[1:]}, the config says {config.shape}")
    return images.astype(config.dtype)


def init_carry(params: Params, batch: Batch, config: Config, length: int) -> None:
    """An input is seen at once: there is nothing to carry."""


def apply(params: Params, batch: Batch, config: Config, *, embeddings=None, carry=None, key=None, capture=()) -> Output:
    """images [batch, *shape] -> hidden: the code [batch, code]; see `models/contract.py`. There is no dropout."""
    if capture or carry is not None:
        raise ValueError(f"an autoencoder captures and carries nothing, got {tuple(capture)}, {carry}")
    x = embed(params, batch, config) if embeddings is None else embeddings
    x = x.reshape(len(x), -1) if config.form == "dense" else x
    for layer in range(len(config.hidden)):
        weights = params["encoder"][str(layer)]
        if config.form == "convolution":
            x = jax.nn.relu(convolution.convolve(weights, x, 3, stride=2, padding=1))
        else:
            x = jax.nn.relu(linear.linear(weights, x))
    return Output(linear.linear(params["code"], x.reshape(len(x), -1)))


def reconstruct(
    params: Params, code: Code, config: Config, keys: Key[Array, "batch"] | None = None
) -> Float[Array, "batch *shape"]:
    """code [batch, code] -> inputs [batch, *shape]: the decoder."""
    x = linear.linear(params["expand"], code).reshape(len(code), *config.features)
    for layer in reversed(range(len(config.hidden))):
        x, weights = jax.nn.relu(x), params["decoder"][str(layer)]
        dense = config.form == "dense"
        x = linear.linear(weights, x) if dense else convolution.convolve(weights, convolution.upsample(x), 3, padding=1)
    return x.reshape(len(x), *config.shape)


HEADS = {"reconstruct": reconstruct}
