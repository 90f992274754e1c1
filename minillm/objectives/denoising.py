"""Restore what was corrupted: a whole input from its code (autoencoders), or the pixels of hidden patches (ViT).

L = sum over images i of  w_i |reconstruction(corrupted x_i) - x_i|^2  /  (pixels * sum over i of w_i)

With no corruption it is the plain autoencoder of Hinton and Salakhutdinov 2006; with some, Vincent et al. 2008. The
corruption is the data's (`data/images.py`), so that the weights depend on no parameter.
"""

import math

import jax.numpy as jnp

from minillm.models.contract import Batch, Model
from minillm.objectives.contract import Sums


def denoising(model: Model, params, batch: Batch, key=None, extra=None) -> Sums:
    """Sum "reconstruction" over the pixels of images with weight; metric "squared_error", its mean per pixel.

    Batch: images (corrupted) and clean [batch, ...], weights [batch].
    """
    if "clean" not in batch:
        raise ValueError(f"denoising needs a batch of data.images.corrupt_pixels, got {sorted(batch)}")
    found = model.heads["reconstruct"](params, model.apply(params, batch, key=key).hidden)
    errors = jnp.square(found.astype(jnp.float32) - batch["clean"])
    errors = errors.reshape(len(errors), -1).sum(-1)
    pixels = math.prod(batch["clean"].shape[1:])
    return _squared_error(errors, batch["weights"].astype(jnp.float32), pixels, extra)


def masked_patches(model: Model, params, batch: Batch, key=None, extra=None) -> Sums:
    """The same over the pixels of hidden patches. He et al. 2022, section 3 (the loss), Xie et al. 2022 (the model).

    Batch: images, masked_patches [batch, patches], targets [batch, patches, pixels], weights [batch].
    """
    if "masked_patches" not in batch:
        raise ValueError(f"masked_patches needs a batch of data.images.mask_patches, got {sorted(batch)}")
    found = model.heads["patches"](params, model.apply(params, batch, key=key).hidden)
    errors = jnp.square(found.astype(jnp.float32) - batch["targets"]).sum(-1)
    weights = batch["masked_patches"] * batch["weights"].astype(jnp.float32)[:, None]
    return _squared_error(errors, weights, batch["targets"].shape[-1], extra)


def _squared_error(errors, weights, pixels: int, extra) -> Sums:
    total, count = (errors * weights).sum(), pixels * weights.sum()
    return Sums({"reconstruction": total}, {"reconstruction": count}, {"squared_error": (total, count)}, extra)
