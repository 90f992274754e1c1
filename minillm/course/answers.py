"""What the checks of exercises have in common: a student's result as numbers, or a sentence about what is wrong with it."""

from typing import Any

import numpy as np

from minillm.course.contract import Mistake


def parse(value: Any, what: str) -> np.ndarray:
    """The result as an array of whatever it holds; rows of different lengths become one of type object. Raises: Mistake."""
    if value is None:
        raise Mistake(f"{what} is None: does the function end with `return`?")
    try:
        return np.asarray(value)
    except (TypeError, ValueError):  # rows of different lengths
        return np.asarray(None)


def as_array(value: Any, shape: tuple[int, ...] | None, what: str, infinite: str | None = None) -> np.ndarray:
    """The result as float64, of the given shape (None: of any).

    `infinite` is the question to ask where a number is infinite or none; None lets such numbers pass. Raises: Mistake.
    """
    array = parse(value, what)
    if array.dtype.kind not in "biuf":
        raise Mistake(f"{what} should be an array of real numbers, got {type(value).__name__}")
    if shape is not None and array.shape != shape:
        raise Mistake(f"{what} should have the shape {list(shape)}, got {list(array.shape)}")
    if infinite is not None and not np.isfinite(array).all():
        raise Mistake(f"{what} holds {array[~np.isfinite(array)][0]}: {infinite}")
    return array.astype(np.float64)


def close(a: Any, b: Any, smallest: float = 1e-5) -> bool:
    """Equal up to float32 rounding, shapes included; NaN equals NaN, and no right answer has one."""
    return np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-4, atol=smallest, equal_nan=True)
