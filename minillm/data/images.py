"""Labelled images: the digits of scikit-learn, batches as pure functions of (seed, step), and corruptions to undo.

A batch has images [batch, height, width, channels] float32 in [0, 1], labels [batch] int32, weights [batch] float32
and index [batch] int32. A corruption takes a batch and returns it with other images or fewer patches to look at:

    clean           [batch, height, width, channels]  the images before `corrupt_pixels`
    masked_patches  [batch, patches]                  True where `mask_patches` hides a patch from the model
    targets         [batch, patches, pixels]          the pixels of every patch (row, column, channel)
"""

import gzip
import io
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from minillm.data.batches import epoch_order
from minillm.data.fetch import read_files
from minillm.data.masking import noise

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}
NOISES = ("zero", "gaussian")


class ImageDataset(NamedTuple):
    """images [n, height, width, channels] float32 in [0, 1] and labels [n] int32."""

    images: np.ndarray
    labels: np.ndarray


def digits() -> ImageDataset:
    """1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak 1998), from the archive of scikit-learn."""
    ((_, data),) = read_files("digits", lambda path: path == "sklearn/datasets/data/digits.csv.gz")
    rows = np.loadtxt(io.BytesIO(gzip.decompress(data)), delimiter=",", dtype=np.float32)
    return ImageDataset(rows[:, :-1].reshape(-1, 8, 8, 1) / 16.0, rows[:, -1].astype(np.int32))


def split(dataset: ImageDataset, part: str) -> ImageDataset:
    """The "train", "validation" or "test" part: 70, 15 and 15 % of every label, always the same images.

    The images of a label are drawn at random, not by writer (the archive does not name the writers), so that a writer's
    hand occurs in every part. Raises: ValueError for another part.
    """
    if part not in SHARES:
        raise ValueError(f"unknown part {part!r}, known: {', '.join(SHARES)}")
    names, bounds = list(SHARES), np.cumsum([0.0, *SHARES.values()])
    begin, end = bounds[names.index(part)], bounds[names.index(part) + 1]
    chosen = []
    for label in np.unique(dataset.labels):
        members = np.flatnonzero(dataset.labels == label)
        members = members[np.random.Generator(np.random.Philox(key=int(label))).permutation(len(members))]
        chosen.append(members[round(begin * len(members)) : round(end * len(members))])
    places = np.sort(np.concatenate(chosen))
    return ImageDataset(dataset.images[places], dataset.labels[places])


def image_batch_at(dataset: ImageDataset, seed: int, step: int, batch_size: int, shifts: int = 0) -> dict:
    """The batch of a step. Each epoch goes over the images once, in an order of its own.

    With `shifts`, every image moves by up to that many pixels along each axis, and zeros move in.
    """
    count = len(dataset.labels)
    numbers = [divmod(step * batch_size + place, count) for place in range(batch_size)]
    rows = np.array([epoch_order(count, seed, epoch)[place] for epoch, place in numbers])
    images = dataset.images[rows]
    if shifts:
        images = shift(images, noise(seed, step, "shift").integers(-shifts, shifts + 1, size=(batch_size, 2)))
    return _batch(images, dataset.labels[rows], np.ones(batch_size, np.float32))


def image_evaluation_batches(dataset: ImageDataset, batch_size: int) -> Iterator[dict]:
    """Every image once, in order; the last batch is filled up with empty ones of weight 0."""
    count = len(dataset.labels)
    for start in range(0, count, batch_size):
        images, labels = dataset.images[start : start + batch_size], dataset.labels[start : start + batch_size]
        missing = batch_size - len(labels)
        images = np.pad(images, ((0, missing), *((0, 0),) * 3))
        weights = (np.arange(batch_size) < len(labels)).astype(np.float32)
        yield _batch(images, np.pad(labels, (0, missing)), weights)


def shift(images: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Moves image i by moves[i] = (down, right) pixels; zeros move in."""
    height, width = images.shape[1:3]
    shifted = np.zeros_like(images)
    for row, (down, right) in enumerate(moves):
        inside = images[row, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
        shifted[row, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = inside
    return shifted


def corrupt_pixels(batch: Mapping, seed: int, step: int, kind: str = "zero", rate: float = 0.25) -> dict:
    """The batch with corrupted images, and the originals as `clean`.

    "zero" sets each pixel to 0 with probability `rate` (masking noise: Vincent et al. 2008, section 2.3); "gaussian" adds
    noise of standard deviation `rate` (Vincent et al. 2010). Raises: ValueError for another kind or rate.
    """
    if kind not in NOISES or rate < 0.0 or (kind == "zero" and rate > 1.0):
        raise ValueError(
            f"noise must be one of {', '.join(NOISES)} with a rate from 0, to 1 for zero: {kind!r}, {rate}"
        )
    images, generator = batch["images"], noise(seed, step, "pixels")
    if kind == "zero":
        corrupted = np.where(generator.random(images.shape) < rate, np.float32(0.0), images)
    else:
        corrupted = images + np.float32(rate) * generator.standard_normal(images.shape, np.float32)
    return {**batch, "images": corrupted, "clean": images}


def mask_patches(batch: Mapping, seed: int, step: int, patch: int, rate: float = 0.5) -> dict:
    """The batch with `rate` of every image's patches hidden (at least one), and the pixels of all as `targets`.

    The images stay as they are: the model replaces the embeddings of hidden patches by its mask token (Xie et al. 2022).
    """
    targets = cut_patches(batch["images"], patch)
    rows, count = targets.shape[:2]
    hidden = max(round(rate * count), 1)
    order = noise(seed, step, "patches").random((rows, count)).argsort(1)
    return {**batch, "masked_patches": order < hidden, "targets": targets}


def cut_patches(images: np.ndarray, patch: int) -> np.ndarray:
    """[batch, height, width, channels] -> [batch, patches, patch * patch * channels], row by row."""
    rows, height, width, channels = images.shape
    cut = images.reshape(rows, height // patch, patch, width // patch, patch, channels).swapaxes(2, 3)
    return cut.reshape(rows, -1, patch * patch * channels)


def _batch(images: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> dict:
    index = np.arange(len(labels), dtype=np.int32)
    return {"images": images, "labels": labels.astype(np.int32), "weights": weights, "index": index}
