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


def restorers(training: Mapping, batches: Sequence[Mapping], code: int | None) -> dict[str, dict[str, float]]:
    """Squared errors per pixel of what linear methods restore in `batches`.

    The mean image; and where there is a `code`, the principal components of clean images (Pearson 1901), and the linear
    map of that rank that restores corrupted training images best (reduced-rank regression: Izenman 1975), as a linear
    autoencoder would.

    Args:
        training: "images", corrupted as those of `batches` are, and "clean".
        batches: with "clean", or with "masked_patches" and "targets", where only the mean can answer.
    """
    clean, corrupted = (training[n].reshape(len(training[n]), -1).astype(np.float64) for n in ("clean", "images"))
    mean, centre = clean.mean(0), corrupted.mean(0)
    found = {"mean image": lambda rows: np.broadcast_to(mean, rows.shape)}
    if code is not None:
        rank = min(code, clean.shape[1])
        components = np.linalg.svd(clean - mean, full_matrices=False)[2][:rank]
        found[f"{rank} principal components"] = lambda rows: mean + (rows - mean) @ components.T @ components
        centred = corrupted - centre
        ridge = np.eye(clean.shape[1])  # pixels at the border never vary
        whole = np.linalg.solve(centred.T @ centred + ridge, centred.T @ (clean - mean))
        best = np.linalg.svd(centred @ whole, full_matrices=False)[2][:rank]
        found[f"linear map of rank {rank}"] = lambda rows: mean + (rows - centre) @ whole @ best.T @ best
    return {name: {"squared_error": _error(batches, restore)} for name, restore in found.items()}


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
