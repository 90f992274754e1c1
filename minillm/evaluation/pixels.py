"""What images give away without a network: linear maps with closed forms."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from minillm.data.images import ImageDataset, cut_patches
from minillm.evaluation.probe import ridge_probe


def classifiers(train: ImageDataset, test: ImageDataset) -> dict[str, dict[str, float]]:
    """Accuracies on `test` of always naming the most frequent label, and of ridge regression on the pixels."""
    flat = [part.images.reshape(len(part.images), -1).astype(np.float64) for part in (train, test)]
    most = np.bincount(train.labels).argmax()
    ridge = ridge_probe(flat[0], train.labels, flat[1], test.labels)["accuracy"]
    return {"majority": {"accuracy": float((test.labels == most).mean())}, "ridge on pixels": {"accuracy": ridge}}


def restorers(train: np.ndarray, batches: Sequence[Mapping], code: int | None) -> dict[str, dict[str, float]]:
    """Squared errors per pixel of restoring what `batches` ask for, by methods that see clean training images only.

    The mean image; and where there is a `code`, the projection of the corrupted image onto as many principal components
    (Pearson 1901). Batches with "clean" images, or with "masked_patches" and "targets", where only the mean can answer.
    """
    flat = train.reshape(len(train), -1).astype(np.float64)
    mean = flat.mean(0)
    results = {"mean image": {"squared_error": _error(batches, lambda rows: np.broadcast_to(mean, rows.shape))}}
    if code is not None:
        components = np.linalg.svd(flat - mean, full_matrices=False)[2][:code]
        restore = lambda rows: mean + (rows - mean) @ components.T @ components
        results[f"{code} principal components"] = {"squared_error": _error(batches, restore)}
    return results


def _error(batches: Sequence[Mapping], restore: Callable) -> float:
    total, count = 0.0, 0.0
    for batch in batches:
        images = batch["images"]
        found = restore(images.reshape(len(images), -1)).reshape(images.shape)
        if "clean" in batch:
            errors, weights = np.square(found - batch["clean"]), batch["weights"][:, None, None, None]
        else:
            side = round((batch["targets"].shape[-1] / images.shape[-1]) ** 0.5)
            errors = np.square(cut_patches(found, side) - batch["targets"])
            weights = (batch["masked_patches"] * batch["weights"][:, None])[..., None]
        total += float((errors * weights).sum())
        count += float(np.broadcast_to(weights, errors.shape).sum())
    return total / count
