"""Checks of lesson 13: each wrong answer is compared with those that others have given before, and named."""

import functools

import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array, close
from minillm.course.contract import Mistake
from minillm.models import vit

# reconstruct_linearly

RANDOM = np.random.default_rng(13)
TRAINING = RANDOM.normal(size=(40, 5)) * [3.0, 0.3, 1.0, 2.0, 0.1] + [4.0, -3.0, 0.0, 1.0, 2.0]
X = RANDOM.normal(size=(7, 5)) * [3.0, 0.3, 1.0, 2.0, 0.1] + [5.0, -2.0, 1.0, 1.0, 2.0]

COMPONENT_SLIPS = {
    "mean lost": "the mean is subtracted but not added back to the reconstruction",
    "not centred": "the mean is not subtracted before the components are found: the first one then points at the mean",
    "mean of x": "the mean of x is used: mean and components both come from `training`",
    "fitted on x": "the components are found from x: they must come from `training`, or the code is fitted on what is held out",
    "last": "the components with the least variance are kept: eigh sorts upwards, svd downwards",
    "all": "`count` is not used: the reconstruction is x itself",
    "columns": "columns and rows of the components are mixed up: svd returns components as rows, eigh as columns",
}


def _reconstruct(training, x, count, slip=None):
    source = x if slip == "fitted on x" else training
    mean = np.zeros(x.shape[1]) if slip == "not centred" else (x if slip == "mean of x" else source).mean(0)
    centre = mean if slip == "not centred" else source.mean(0)
    directions = np.linalg.svd(source - centre, full_matrices=False)[2]
    if slip == "columns":
        directions = directions.T
    chosen = directions[-count:] if slip == "last" else directions if slip == "all" else directions[:count]
    return (0.0 if slip == "mean lost" else mean) + (x - mean) @ chosen.T @ chosen


def _check_components(function) -> None:
    for count in (2, 1):
        found = as_array(function(TRAINING.copy(), X.copy(), count), X.shape, "the reconstruction")
        if close(found, _reconstruct(TRAINING, X, count)):
            continue
        for slip, message in COMPONENT_SLIPS.items():
            if close(found, _reconstruct(TRAINING, X, count, slip)):
                raise Mistake(message)
        rank = np.linalg.matrix_rank(found - found.mean(0), tol=1e-6)
        if rank > count:
            raise Mistake(f"the reconstructions spread in {rank} directions, a code of {count} allows only {count}")
        raise Mistake(
            "the reconstruction is not the nearest one: project x - mean on orthonormal rows, then add the mean"
        )


# image_tokens

SIZE, CHANNELS, MODEL = 2, 3, 5
IMAGE = RANDOM.normal(size=(4, 6, CHANNELS)).astype(np.float32)
KERNEL = RANDOM.normal(size=(SIZE * SIZE * CHANNELS, MODEL)).astype(np.float32)
BIAS, CLASS_TOKEN = RANDOM.normal(size=(2, MODEL)).astype(np.float32)
POSITIONS = RANDOM.normal(size=(7, MODEL)).astype(np.float32)

TOKEN_SLIPS = {
    "down first": "the patches run down the columns first: go left to right, then down",
    "channel first": "the numbers of a patch stand channel by channel: here the order is row, column, channel",
    "column first": "the numbers of a patch run down its columns: here the order is row, column, channel",
    "strips": "the image is reshaped without moving axes: a token then holds a strip of a row, not a square patch",
    "class last": "the class token stands at the end: it comes first",
    "no bias": "the bias is not added to the patches",
    "bias everywhere": "the bias is added to the class token too: it belongs to the map of the pixels",
    "no positions": "the positions are not added: without them patches are a set",
    "patches only": "the class token has no position: positions[0] is its own",
}


def _tokens(image, patch, kernel, bias, class_token, positions, slip=None):
    height, width, channels = image.shape
    cut = image.reshape(height // patch, patch, width // patch, patch, channels)
    orders = {
        "down first": (2, 0, 1, 3, 4),
        "channel first": (0, 2, 4, 1, 3),
        "column first": (0, 2, 3, 1, 4),
        "strips": (0, 1, 2, 3, 4),
    }
    pixels = cut.transpose(orders.get(slip, (0, 2, 1, 3, 4))).reshape(-1, patch * patch * channels)
    tokens = pixels @ kernel + (0.0 if slip == "no bias" else bias)
    first = class_token + (bias if slip == "bias everywhere" else 0.0)
    rows = [tokens, first[None]] if slip == "class last" else [first[None], tokens]
    places = np.array(positions) * (slip != "no positions")
    places[0] *= slip != "patches only"
    return np.concatenate(rows) + places


def _check_tokens(function) -> None:
    arguments = (IMAGE, SIZE, KERNEL, BIAS, CLASS_TOKEN, POSITIONS)
    copies = [value.copy() if isinstance(value, np.ndarray) else value for value in arguments]
    found = as_array(function(*copies), (7, MODEL), "the result")
    config = vit.Config(image=IMAGE.shape[:2], channels=CHANNELS, patch=SIZE, layers=1, width=MODEL, heads=1)
    weights = {
        "patch": {"kernel": jnp.asarray(KERNEL), "bias": jnp.asarray(BIAS)},
        "class_token": jnp.asarray(CLASS_TOKEN),
        "position": {"table": jnp.asarray(POSITIONS)},
    }
    library = np.asarray(vit.embed(weights, {"images": jnp.asarray(IMAGE)[None]}, config)[0])
    if close(found, library):
        return
    for slip, message in TOKEN_SLIPS.items():
        if close(found, _tokens(*arguments, slip)):
            raise Mistake(message)
    row = int(np.abs(found - library).max(1).argmax())
    raise Mistake(f"token {row} is wrong: print the pixels of that patch and compare them with the image")


CHECKS = {"reconstruct_linearly": _check_components, "image_tokens": _check_tokens}

HINTS = {
    "reconstruct_linearly": (
        "np.linalg.svd(training - mean, full_matrices=False)[2] holds the components as rows, the most important first.",
        "The code is (x - mean) @ components.T, of shape [m, count]; its way back is code @ components, plus the mean.",
    ),
    "image_tokens": (
        "Two loops work: over top = 0, patch, ... and left = 0, patch, ...; a slice's reshape(-1) is row, column, channel.",
        "Stack the class token and patches @ kernel + bias into [1 + patches, model], and add the positions at the end.",
    ),
}

MISTAKES = {
    "reconstruct_linearly": [
        (functools.partial(_reconstruct, slip=slip), message) for slip, message in COMPONENT_SLIPS.items()
    ],
    "image_tokens": [(functools.partial(_tokens, slip=slip), message) for slip, message in TOKEN_SLIPS.items()],
}
