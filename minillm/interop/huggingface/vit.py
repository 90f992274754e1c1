"""ViT: bare, with a classifier, or with SimMIM's decoder of masked patches, under transformers' ViT... names.

Their patch projection is a convolution [width, channels, row, column]; our kernel's rows are (row, column, channel).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from minillm.errors import UserError
from minillm.interop.huggingface.names import Form, Table, dense, norm, row
from minillm.interop.huggingface.settings import Settings, refuse, table_of_labels
from minillm.models import vit as model
from minillm.models.vit import Config

KIND, PREFIX = "vit", "vit."
BARE = "ViTModel"  # the class whose files leave the prefix out
# their class -> tasks of ours that it certainly has; the pooler is there where the file has it
CLASSES = {BARE: (), "ViTForImageClassification": ("classify",), "ViTForMaskedImageModeling": ("patches",)}
VECTOR = Form(lambda tensor: tensor[0, 0], lambda array: array[None, None])
POSITIONS = Form(lambda tensor: tensor[0], lambda array: array[None])


def read_config(settings: Settings, names: Iterable[str]) -> Config:
    """config.json and the names of the tensors -> our Config."""
    tasks = set(CLASSES[settings.architecture(tuple(CLASSES))])
    tasks |= {"pool"} if any(name.removeprefix(PREFIX).startswith("pooler.") for name in names) else set()
    width, patch = settings.take("hidden_size"), _sides(settings, "patch_size")
    for key, supported in (("layer_norm_eps", model.EPSILON), ("qkv_bias", True), ("pooler_act", "tanh"),
                           ("pooler_output_size", width)):  # fmt: skip
        settings.only(key, supported)
    settings.only("hidden_act", "gelu", "gelu")
    if patch[0] != patch[1]:
        raise UserError(
            f"patch_size = {patch!r} is not supported, only a square", settings.where, "choose another model"
        )
    if "patches" in tasks:
        settings.only("encoder_stride", patch[0], 16)
    config = Config(
        image=_sides(settings, "image_size"), channels=settings.take("num_channels", default=3), patch=patch[0],
        layers=settings.take("num_hidden_layers"), width=width, heads=settings.take("num_attention_heads"),
        hidden=settings.take("intermediate_size"), labels=settings.labels(),
        tasks=tuple(task for task in ("pool", "classify", "patches") if task in tasks),
        dropout=settings.rate("hidden_dropout_prob", "attention_probs_dropout_prob", default=0.0),
    )  # fmt: skip
    settings.finish(("encoder_stride",))
    return config


def _sides(settings: Settings, key: str) -> tuple[int, int]:
    """A side of a square, or height and width."""
    found = settings.take(key, (int, list))
    sides = found if isinstance(found, list) else [found, found]
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"{key} has a value of the wrong type: {found!r}", settings.where, "mend that key")
    return sides[0], sides[1]


def write_config(config: Config) -> dict[str, Any]:
    """Our Config -> config.json. Raises: UserError for heads that no one class of theirs has together."""
    tasks = set(config.tasks) - {"pool"}
    classes = [name for name, heads in CLASSES.items() if set(heads) == tasks]
    if not classes:
        refuse(f"the heads {', '.join(sorted(tasks))} on one ViT", "export a run whose model.tasks has one of them")
    height, width = config.image
    return {
        "model_type": "vit", "architectures": classes, "image_size": height if height == width else [height, width],
        "patch_size": config.patch, "encoder_stride": config.patch, "num_channels": config.channels,
        "num_hidden_layers": config.layers, "hidden_size": config.width, "num_attention_heads": config.heads,
        "intermediate_size": config.hidden or 4 * config.width, "hidden_act": "gelu", "layer_norm_eps": model.EPSILON,
        "hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.dropout, "qkv_bias": True,
    } | (table_of_labels(config.labels) if "classify" in tasks else {})  # fmt: skip


def pixel_forms(config: Config) -> dict[str, Form]:
    """(row, column, channel) of ours <-> (channel, row, column) of theirs, for what reads or writes a patch's pixels."""
    window, pixels = (config.patch, config.patch, config.channels), config.pixels
    theirs = lambda array: np.moveaxis(array.reshape(*array.shape[:-1], *window), -1, -3)
    ours = lambda tensor: np.moveaxis(tensor, -3, -1).reshape(*tensor.shape[:-3], pixels)
    turned = (config.channels, config.patch, config.patch)
    flat = lambda array: theirs(array).reshape(*array.shape[:-1], pixels)
    unflat = lambda tensor: ours(tensor.reshape(*tensor.shape[:-1], *turned))
    return {
        "patch": Form(lambda tensor: ours(tensor).T, lambda array: theirs(array.T)),
        "kernel": Form(lambda tensor: unflat(tensor[..., 0, 0].T), lambda array: flat(array).T[..., None, None]),
        "bias": Form(unflat, flat),
    }


def table(config: Config) -> Table:
    """The name table."""
    layer, embeddings, pixels = f"{PREFIX}encoder.layer.@", f"{PREFIX}embeddings", pixel_forms(config)
    rows = [
        row(f"{embeddings}.cls_token", "class_token", VECTOR),
        row(f"{embeddings}.position_embeddings", "position/table", POSITIONS),
        row(f"{embeddings}.patch_embeddings.projection.weight", "patch/kernel", pixels["patch"]),
        row(f"{embeddings}.patch_embeddings.projection.bias", "patch/bias"),
        *norm(f"{layer}.layernorm_before", "blocks/attention_norm"),
        *dense(f"{layer}.attention.attention.query", "blocks/attention/query"),
        *dense(f"{layer}.attention.attention.key", "blocks/attention/key"),
        *dense(f"{layer}.attention.attention.value", "blocks/attention/value"),
        *dense(f"{layer}.attention.output.dense", "blocks/attention/output"),
        *norm(f"{layer}.layernorm_after", "blocks/feedforward_norm"),
        *dense(f"{layer}.intermediate.dense", "blocks/feedforward/up"),
        *dense(f"{layer}.output.dense", "blocks/feedforward/down"),
        *norm(f"{PREFIX}layernorm", "final_norm"),
    ]
    heads = {
        "pool": dense(f"{PREFIX}pooler.dense", "pooler"),
        "classify": dense("classifier", "classify"),
        "patches": (row("decoder.0.weight", "patches/kernel", pixels["kernel"]),
                    row("decoder.0.bias", "patches/bias", pixels["bias"]),
                    row(f"{embeddings}.mask_token", "mask_token", VECTOR)),
    }  # fmt: skip
    rows += [row for task in config.tasks for row in heads[task]]
    return Table(tuple(rows), PREFIX)
