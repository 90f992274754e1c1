"""Which labelled examples stand before a question: drawn at random, or those most like the text that is asked about.

Brown et al. 2020, section 2 (drawn at random); Liu et al. 2022, "What makes good in-context examples for GPT-3?", section 2
(the nearest, in order of likeness, the nearest last).
"""

from collections.abc import Sequence

import numpy as np

from minillm.errors import UserError
from minillm.evaluation.similarity import nearest
from minillm.evaluation.textual import fit_vectors


def draw(count: int, shots: int, seed: int) -> np.ndarray:
    """`shots` different ones of `count` examples [shots], in random order; the same for the same seed, and those of fewer
    shots are among those of more. Raises: UserError where there are not so many."""
    _refuse_few(count, shots)
    return np.random.Generator(np.random.Philox(key=seed)).permutation(count)[:shots]


def nearest_texts(known: Sequence[str], asked: Sequence[str], shots: int) -> np.ndarray:
    """For each asked text the places of the `shots` nearest known ones [asked, shots], the nearest last: by the cosine of
    TF-IDF as the known texts weigh it."""
    _refuse_few(len(known), shots)
    transform, rows = fit_vectors(known)
    return nearest(rows, transform(asked), shots)[:, ::-1]


def _refuse_few(count: int, shots: int) -> None:
    if shots > count:
        message = f"{shots} demonstrations are wanted, and there are {count} labelled examples"
        raise UserError(message, "prompt.shots", "use fewer, or more examples for training")
