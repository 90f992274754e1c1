"""Checks of lesson 21: they name the mistake, not only the failure."""

import functools
from collections.abc import Callable

import numpy as np

from minillm.course.answers import as_array, close
from minillm.course.contract import Mistake
from minillm.inference import prompting

numbers = functools.partial(as_array, infinite="is a logarithm of 0 taken, or something divided by 0?")
RANDOM = np.random.default_rng(21)

# word_score

LOGITS, PROMPT, WORD = 3.0 * RANDOM.normal(size=(9, 7)), 4, [5, 2, 6]
SCORES = {
    "late": "the places are one too late: the logits at a place are about the token at the next one, so the word's first "
    "token is judged at the prompt's last place",
    "first": "only the first token counts: add those of all the word's tokens",
    "probability": "probabilities are added: add their logarithms, for the word's probability is a product",
    "logits": "logits are added, not logarithms of probabilities: subtract the log of the sum of exponentials over the vocabulary",
    "mean": "the sum is divided by the number of tokens: that is another score, the mean",
    "among": "the softmax runs over the word's own tokens: it runs over the whole vocabulary",
}


def _word_score(logits, prompt, word, slip=None):
    start = prompt - (slip != "late")
    rows = logits[start : start + len(word)]
    over = rows[:, list(word)] if slip == "among" else rows
    logs = rows - np.log(np.exp(over).sum(axis=1, keepdims=True))
    logs = rows if slip == "logits" else np.exp(logs) if slip == "probability" else logs
    found = [logs[place, token] for place, token in enumerate(word)]
    return sum(found[:1] if slip == "first" else found) / (len(word) if slip == "mean" else 1)


def check_word_score(function: Callable) -> None:
    """A word of three tokens; one of one token; logits so large that exp of them overflows."""
    result = numbers(function(LOGITS.copy(), PROMPT, list(WORD)), (), "the score")
    if not close(result, _word_score(LOGITS, PROMPT, WORD)):
        for slip, message in SCORES.items():
            if close(result, _word_score(LOGITS, PROMPT, WORD, slip)):
                raise Mistake(message)
        raise Mistake("the score of a word of three tokens is wrong: print the log-probability of each of them")
    if not close(numbers(function(LOGITS.copy(), 1, [3]), (), "the score"), _word_score(LOGITS, 1, [3])):
        raise Mistake("the score of a word of one token after a prompt of one is wrong")
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        result = as_array(function(LOGITS + 1e4, PROMPT, list(WORD)), (), "the score")
    if not close(result, _word_score(LOGITS, PROMPT, WORD), 1e-3):
        raise Mistake("large logits overflow in exp: subtract each row's maximum first, which changes no probability")


# calibrate

ASKED, EMPTY = 2.0 * RANDOM.normal(size=(5, 3)), 2.0 * RANDOM.normal(size=(4, 3))
CALIBRATIONS = {
    "multiplied": "the answers are multiplied by those of the content-free prompts: that doubles the preference; divide",
    "difference": "probabilities are subtracted: divide by those of the content-free prompts",
    "open": "the rows do not sum to 1: divide each by its sum at the end",
    "first": "only the first content-free prompt counts: take the mean over all of them",
    "logs": "the mean is taken of log-probabilities: make them probabilities first, then take the mean",
    "none": "these are the answers as they come: nothing is calibrated",
    "raw": "scores that are no probabilities are divided: softmax over the classes comes first",
}


def _softmax(rows):
    raised = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def _calibrate(scores, content_free, slip=None):
    answers, empty = _softmax(scores), _softmax(content_free)
    expected = empty[0] if slip == "first" else _softmax(content_free.mean(0)) if slip == "logs" else empty.mean(0)
    if slip == "difference":
        return answers - expected
    if slip == "raw":
        found = scores / content_free.mean(0)
    else:
        found = answers * expected if slip == "multiplied" else answers if slip == "none" else answers / expected
    return found if slip == "open" else found / found.sum(axis=1, keepdims=True)


def _over_texts(scores, content_free):
    return _calibrate(scores.T, np.zeros((1, len(scores)))).T


def check_calibrate(function: Callable) -> None:
    """Five texts, three classes, four content-free prompts; and a content-free prompt itself."""
    result = numbers(function(ASKED.copy(), EMPTY.copy()), ASKED.shape, "the probabilities")
    if not close(result, prompting.calibrate(ASKED, EMPTY)):
        for slip, message in CALIBRATIONS.items():
            if close(result, _calibrate(ASKED, EMPTY, slip)):
                raise Mistake(message)
        if close(result.sum(axis=0), np.ones(3)):
            raise Mistake("the columns sum to 1: the softmax runs over the classes, axis 1")
        raise Mistake("the probabilities are wrong: print p, e and p / e of the first text")
    one = numbers(function(EMPTY[:1].copy(), EMPTY[:1].copy()), (1, 3), "the probabilities")
    if not close(one, np.full((1, 3), 1 / 3)):
        raise Mistake("a content-free prompt calibrated by itself should give each class the same probability")


CHECKS = {"word_score": check_word_score, "calibrate": check_calibrate}

HINTS = {
    "word_score": (
        "The word's tokens stand at places prompt, prompt + 1, ...; the logits about them one place before each.",
        "log softmax = row - max - log(sum(exp(row - max))), over the vocabulary; pick the word's ids, and add.",
    ),
    "calibrate": (
        "Write softmax over axis 1 as a small function and use it for both arguments.",
        "q = softmax(scores) / softmax(content_free).mean(axis=0), then divide each row by its sum.",
    ),
}

MISTAKES = {
    "word_score": [(functools.partial(_word_score, slip=slip), message) for slip, message in SCORES.items()]
    + [(_word_score, "overflow")],
    "calibrate": [(functools.partial(_calibrate, slip=slip), message) for slip, message in CALIBRATIONS.items()]
    + [(_over_texts, "columns sum to 1")],
}
