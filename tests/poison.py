"""Data of which some batches give a loss that is not a number."""

import math
from collections.abc import Callable, Container

import numpy as np

from minillm.experiment.data import load_data


def poisoned(numbers: Container[int]) -> Callable:
    """`load_data`, whose batches with these numbers have weights that are not numbers."""

    def load(*arguments):
        data = load_data(*arguments)

        def batch(number: int) -> dict:
            found = data.batch(number)
            return found | {"weights": found["weights"] * np.float32(math.nan)} if number in numbers else found

        return data._replace(batch=batch)

    return load
