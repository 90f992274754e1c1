"""Exercises of lesson 27. Fill in the bodies, then run `minillm lessons check 27`."""

import numpy as np


def decoder_input(targets: np.ndarray, begin: int, pad: int) -> np.ndarray:
    """What the decoder reads while it learns to write `targets`: teacher forcing. (10 minutes, easy)

    Args:
        targets: [rows, length] integers: y_1 ... y_m and the end token, then padding.
        begin: the token that begins every target; pad: the one that fills rows up.
    Returns:
        [rows, length], a new array: begin y_1 ... y_m, so that place t holds what stands before targets[:, t]; where
        targets have padding, padding.
    """
    raise NotImplementedError("decoder_input: at place t the decoder must not see targets[:, t] itself")


def rouge_l(written: str, reference: str) -> float:
    """F1 of the longest common subsequence of words. (25 minutes, medium)

        P = LCS / words written      R = LCS / words of the reference      F1 = 2 P R / (P + R)

    A subsequence keeps the order and may leave words out: that of "the cat sat" and "the old cat sat down" is 3 long.

    Args:
        written, reference: texts in small letters, words parted by blanks; one of them may be empty.
    Returns:
        a number from 0 to 1; 0 where nothing is common.
    """
    raise NotImplementedError("rouge_l: fill a table of the prefixes of both, row by row")


def beam_step(scores: np.ndarray, log_probabilities: np.ndarray, beams: int) -> tuple:
    """One step of beam search: the best continuations of all hypotheses together. (25 minutes, medium)

    Args:
        scores: [hypotheses] log-probabilities of what has been written so far.
        log_probabilities: [hypotheses, vocabulary] of the next token after each.
        beams: how many go on; there are at least as many continuations.
    Returns:
        (scores, parents, tokens), each [beams], best first: the new log-probabilities (floats), which hypothesis each goes
        on from, and with which token (integers).
    """
    raise NotImplementedError("beam_step: one list of hypotheses x vocabulary candidates, and its best")
