"""Exercises of lesson 18. Fill in the bodies, then run `minillm lessons check 18`."""

import numpy as np


def parse_line(line: str) -> tuple[str, str]:
    """A line text:label -> (text, label), parted at the last colon, ASCII (:) or full-width. (10 minutes, easy)

    The text may hold colons of either kind. Blanks around text and label go, and so does the line's end.

        parse_line("service: fine, price: too high:neg") == ("service: fine, price: too high", "neg")

    Returns: two strings. Raises: ValueError for a line without a colon.
    """
    raise NotImplementedError("parse_line: where is the last colon of either kind?")


def make_row(ids: list[int], length: int, begin: int, end: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """One text's ids -> a row for a model that reads from left to right. (15 minutes, easy)

    The row is begin, ids, end, with its padding in front, so that the last place is `end` whatever the text's length. A
    text that is too long loses its last ids, never begin or end.

        make_row([7, 8], 6, begin=2, end=3, pad=0) == ([0, 0, 2, 7, 8, 3], [False, False, True, True, True, True])

    Args:
        ids: of the text, without special ones; maybe none.
        length: of the row, at least 2.
    Returns:
        the tokens [length] int32, and the mask [length] of booleans, True at what is no padding.
    """
    raise NotImplementedError("make_row: cut, frame, then pad in front")


def classifier_loss(
    hidden: np.ndarray, kernel: np.ndarray, bias: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> float:
    """The loss of a classifier on the last token. (15 minutes, medium)

        L = sum over rows i of  w_i * -log softmax(W h_i + b)[y_i]  /  sum over rows of w_i

    Args:
        hidden: a GPT's output [rows, length, model]; h_i is that of the row's last place.
        kernel: [model, classes]. bias: [classes].
        labels: the classes [rows], as integers.
        weights: [rows], 1.0 for a text, 0.0 for a row that only fills the batch up; at least one is 1.
    Returns:
        nats per text.
    """
    raise NotImplementedError("classifier_loss: last token, scores, log-softmax, the label's, weighted mean")
