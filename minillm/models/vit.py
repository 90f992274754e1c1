"""ViT: a stack of self-attention blocks over the patches of an image.

Dosovitskiy et al. 2021. An image is cut into patches that do not overlap; each is a token, its embedding a linear map of
its pixels; a learned class token stands before them and learned positions are added (equations 1 to 4). Deviations: the
class token starts random, not zero, and the classifier is one linear layer also in pretraining, both as in the weights
that transformers publishes; dropout as in BERT. Pretraining by filling in masked patches, from their pixels (task
"patches"), is SimMIM's: Xie et al. 2022.

batch: images [batch, height, width, channels] | masked_patches [batch, patches], True where the model may not look
"""

from dataclasses import dataclass, replace
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from minillm.models.contract import Batch, Output
from minillm.nn import attention, convolution, dropout, feedforward, linear, norm, position
from minillm.nn.adapter import adapt
from minillm.nn.layers import run_layers
from minillm.params import Params, ParamSpec, Specs, prefix, stack

CAPTURES = ("attention", "hidden")
EPSILON = 1e-12  # of every LayerNorm; the published weights of transformers were trained with it
Hidden = Float[Array, "batch length model"]  # length = 1 + patches: the class token stands at index 0
Keys = Key[Array, "batch"] | None


@dataclass(frozen=True)
class Config:
    """ViT's own settings. The defaults suit images of 8 x 8; ViT-B/16 is image (224, 224), channels 3, patch 16, 12 x 768."""

    __pydantic_config__ = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # noqa: RUF012

    image: tuple[int, int] = (8, 8)  # height and width
    channels: int = 1
    patch: int = 2  # side of a patch
    layers: int = 4
    width: int = 64
    heads: int = 4
    hidden: int | None = None  # feed-forward width; None: 4 * width
    tasks: tuple[Literal["pool", "classify", "patches"], ...] = ("classify",)
    labels: int = 10  # classes of "classify"
    dropout: float = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters stay float32
    remat: bool = False  # recompute each block in the backward pass: less memory, one more forward
    scan: bool | None = None  # one compiled block for all layers; None: from 13 layers on

    def __post_init__(self):
        for name in ("channels", "patch", "layers", "width", "heads", "labels", "hidden"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if min(self.image) < 1 or any(side % self.patch for side in self.image):
            raise ValueError(f"patch must divide both sides of the image: {self.patch}, {self.image}")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width: {self.width} % {self.heads} = {self.width % self.heads}")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks names one twice: {', '.join(self.tasks)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.image[0] // self.patch) * (self.image[1] // self.patch)

    @property
    def pixels(self) -> int:
        """Numbers in a patch."""
        return self.patch**2 * self.channels

    @property
    def scans(self) -> bool:
        """Unrolled layers run faster, scanned ones compile faster (see gpt.py for numbers)."""
        return self.layers > 12 if self.scan is None else self.scan


def param_specs(config: Config) -> Specs:
    """The parameter table: patch projection, class token, positions, blocks and the rows of the tasks asked for."""
    width, layer_norm = config.width, norm.layer_norm_specs(config.width)
    block = prefix(layer_norm, "attention_norm") | prefix(attention.attention_specs(width, width), "attention")
    block |= prefix(layer_norm, "feedforward_norm")
    block |= prefix(feedforward.feedforward_specs(width, config.hidden or 4 * width), "feedforward")
    specs = prefix(linear.linear_specs(config.pixels, width, (None, "model"), scale=config.pixels**-0.5), "patch")
    specs |= {"class_token": ParamSpec((width,), ("model",))}
    specs |= prefix(position.learned_position_specs(1 + config.patches, width, scale=0.2), "position")
    specs |= prefix(stack(glorot(block), config.layers), "blocks") | prefix(layer_norm, "final_norm")
    return specs | head_specs(config)


def glorot(specs: Specs) -> Specs:
    """Kernels start at sqrt(2 / (inputs + outputs)), as in the authors' code. Glorot and Bengio 2010, equation 12."""
    scale = lambda spec: (2.0 / sum(spec.shape)) ** 0.5 if len(spec.shape) == 2 else spec.scale
    return {path: replace(spec, scale=scale(spec)) for path, spec in specs.items()}


def head_specs(config: Config) -> Specs:
    """Rows of the heads."""
    dense = lambda outputs, name: prefix(linear.linear_specs(config.width, outputs, ("model", None)), name)
    specs = dense(config.width, "pooler") if "pool" in config.tasks else {}
    specs |= dense(config.labels, "classify") if "classify" in config.tasks else {}
    if "patches" in config.tasks:
        specs |= dense(config.pixels, "patches") | {"mask_token": ParamSpec((config.width,), ("model",))}
    return specs


def embed(params: Params, batch: Batch, config: Config) -> Hidden:
    """[class token; x_1 E; ...; x_N E] + positions (equation 1); a masked patch is the mask token and its position."""
    images, dtype = batch["images"], jnp.dtype(config.dtype)
    if images.shape[1:] != (*config.image, config.channels):
        raise ValueError(f"images are {images.shape[1:]}, the config says {(*config.image, config.channels)}")
    pixels = convolution.merge_windows(convolution.patches(images, config.patch))  # [batch, rows, columns, pixels]
    x = linear.linear(params["patch"], pixels.reshape(len(images), config.patches, config.pixels).astype(dtype))
    if "masked_patches" in batch:
        x = jnp.where(batch["masked_patches"][..., None], _rows(params, "mask_token").astype(dtype), x)
    first = jnp.broadcast_to(params["class_token"].astype(dtype), (len(images), 1, config.width))
    return jnp.concatenate([first, x], axis=1) + params["position"]["table"].astype(dtype)


def self_attention(params: Params, x: Hidden, config: Config, keys: Keys, capture: tuple[str, ...]):
    """x -> (attended [batch, length, model], captured weights): every patch sees every other."""
    query, key, value = attention.project_heads(params, x, config.heads)
    key, value, _ = attention.with_prefix(params.get("prefix"), key, value)
    attended = attention.dot_product_attention(query, key, value, keys=keys, rate=config.dropout)
    captured = {"attention": attention.attention_weights(query, key)} if "attention" in capture else {}
    return linear.linear(params["output"], attention.merge_heads(attended)), captured


def block(params: Params, x: Hidden, config: Config, keys: Keys, capture: tuple[str, ...]):
    """One block, pre-norm: x = x + attention(norm(x)), then x = x + feedforward(norm(x)) (equations 2 and 3)."""
    branch = norm.layer_norm(params["attention_norm"], x, EPSILON)
    attended, captured = self_attention(params["attention"], branch, config, dropout.fold_keys(keys, 0), capture)
    attended = dropout.dropout(attended, dropout.fold_keys(keys, 1), config.dropout)
    x = x + adapt(params["attention"].get("adapter"), attended)
    branch = norm.layer_norm(params["feedforward_norm"], x, EPSILON)
    transformed = feedforward.feedforward(params["feedforward"], branch, "gelu_exact")
    transformed = dropout.dropout(transformed, dropout.fold_keys(keys, 2), config.dropout)
    x = x + adapt(params["feedforward"].get("adapter"), transformed)
    return x, captured | ({"hidden": x} if "hidden" in capture else {})


def init_carry(params: Params, batch: Batch, config: Config, length: int) -> None:
    """An image is seen at once: there is nothing to carry."""


def apply(params: Params, batch: Batch, config: Config, *, embeddings=None, carry=None, key=None, capture=()) -> Output:
    """images [batch, height, width, channels] -> hidden states [batch, 1 + patches, model]; see `models/contract.py`.

    `key` turns dropout on (and needs batch["index"]). `capture` may name "attention" [layers, batch, heads, length,
    keys] and "hidden" [layers, batch, length, model]. Raises: ValueError for another capture, a carry, or images of
    another shape.
    """
    unknown = set(capture) - set(CAPTURES)
    if unknown:
        raise ValueError(f"unknown capture {sorted(unknown)}, known: {CAPTURES}")
    if carry is not None:
        raise ValueError("ViT sees an image at once and continues nothing: carry must be None")
    x = embed(params, batch, config) if embeddings is None else embeddings
    keys = None if key is None or config.dropout == 0.0 else dropout.example_keys(key, batch["index"])
    x = dropout.dropout(x, dropout.fold_keys(keys, 0), config.dropout)

    def run(layer_params, x, layer, state):
        x, captured = block(layer_params, x, config, dropout.fold_keys(keys, 3 + layer), tuple(capture))
        return x, state, captured

    x, _, captured = run_layers(run, params["blocks"], x, scan=config.scans, remat=config.remat)
    return Output(norm.layer_norm(params["final_norm"], x, EPSILON), None, captured)


def pool(params: Params, hidden: Hidden, config: Config, keys: Keys = None) -> Float[Array, "batch model"]:
    """tanh(W h + b) of the class token at index 0."""
    return jnp.tanh(linear.linear(_rows(params, "pooler"), hidden[:, 0]))


def classify(params: Params, hidden: Hidden, config: Config, keys: Keys = None) -> Float[Array, "batch labels"]:
    """Scores of the image's label, read off the class token (equation 4)."""
    return linear.linear(_rows(params, "classify"), hidden[:, 0])


def patches(params: Params, hidden: Hidden, config: Config, keys: Keys = None) -> Float[Array, "batch patches pixels"]:
    """Pixels of every patch (row, column, channel): one linear layer. Xie et al. 2022, section 3.4."""
    return linear.linear(_rows(params, "patches"), hidden[:, 1:])


HEADS = {"pool": pool, "classify": classify, "patches": patches}


def _rows(params: Params, name: str) -> Params | Array:
    if name not in params:
        raise ValueError(f"the table has no rows for {name!r}: name its task in model.tasks")
    return params[name]
