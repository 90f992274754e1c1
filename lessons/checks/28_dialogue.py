"""Checks of lesson 28: they name the mistake, not only the failure."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from minillm.course.answers import as_array, close
from minillm.course.contract import Mistake
from minillm.evaluation import replies as library
from minillm.inference.generate import Sampling, filter_logits

numbers = functools.partial(
    as_array, infinite="is something divided by 0? At least one token stays, whatever the share"
)

# nucleus

GIVEN = np.array([0.05, 0.4, 0.1, 0.25, 0.2])
NUCLEI = {
    "short": "the token that crosses the border is left out: the set must sum to at least `share`, so it belongs in",
    "long": "one token too many stays: a token stays only if those before it sum to less than `share`",
    "order": "the first places are kept, not the most likely tokens: sort by probability, and put each back into its place",
    "sorted": "the result stands in order of likelihood: put each probability back into its own token's place",
    "open": "what is left does not sum to 1: divide by its sum",
    "each": "tokens with a probability below a border are left out: the border is one of the sum, not of each",
    "least": "the least likely tokens are kept: begin with the most likely",
}


def _nucleus(probabilities, share, slip=None):
    if slip == "each":
        kept = np.where(probabilities >= 1.0 - share, probabilities, 0.0)
        return kept / max(kept.sum(), 1e-9)
    order = np.arange(len(probabilities)) if slip == "order" else np.argsort(-probabilities)
    order = order[::-1] if slip == "least" else order
    ranked = probabilities[order]
    total = np.cumsum(ranked)
    stays = total <= share if slip == "short" else total - ranked < share
    if slip == "long":
        stays = np.concatenate([[True], stays[:-1]])
    ranked = np.where(stays, ranked, 0.0)
    kept = np.zeros(len(probabilities))
    kept[order] = ranked
    kept = ranked if slip == "sorted" else kept
    return kept if slip == "open" else kept / max(kept.sum(), 1e-9)


def check_nucleus(function: Callable) -> None:
    """The library's filter at several shares, one of them smaller than the likeliest token, one of them 1."""
    for share in (0.7, 0.5, 0.9, 0.1, 1.0):
        given = GIVEN.copy()
        result = numbers(function(given, share), GIVEN.shape, "the distribution")
        if not np.array_equal(given, GIVEN):
            raise Mistake("nucleus changed its argument: the next draw would begin from it; build a new array")
        logits = jnp.log(jnp.asarray(GIVEN, jnp.float32))[None]
        expected = np.asarray(jax.nn.softmax(filter_logits(logits, Sampling(1.0, 0, share))))[0]
        if close(result, expected):
            continue
        for slip, message in NUCLEI.items():
            if close(result, _nucleus(GIVEN, share, slip)):
                raise Mistake(message)
        raise Mistake(f"with share {share} the distribution is wrong: {int((expected > 0).sum())} tokens should stay")


def _in_place(probabilities, share):
    probabilities[:] = _nucleus(probabilities.copy(), share)
    return probabilities


# distinct

SAID = ["yes i do", "yes i do not", "no", "i do i do", ""]
DISTINCTS = {
    "across": "n-grams go from one reply into the next: collect them reply by reply",
    "letters": "letters are counted, not words: split each reply at its blanks",
    "mean": "this is the mean over replies: all n-grams go into one set, or a model that always says the same looks varied",
    "count": "this is the number of different n-grams: divide by that of all",
    "words": "the different n-grams are divided by the number of words: divide by the number of n-grams",
    "one": "single words are counted whatever n: an n-gram is n words side by side",
}


def _distinct(replies, n, slip=None):
    rows = [list(reply) if slip == "letters" else reply.split() for reply in replies]
    rows = [[word for row in rows for word in row]] if slip == "across" else rows
    size = 1 if slip == "one" else n
    grams = [[tuple(row[i : i + size]) for i in range(len(row) - size + 1)] for row in rows]
    if slip == "mean":
        return float(np.mean([len(set(row)) / len(row) for row in grams if row] or [0.0]))
    found = [gram for row in grams for gram in row]
    whole = {"count": 1, "words": sum(map(len, rows))}.get(slip, len(found))
    return len(set(found)) / max(whole, 1)


def check_distinct(function: Callable) -> None:
    """Words and pairs of five replies; replies that are all too short."""
    for n in (2, 1):
        result = numbers(function(list(SAID), n), (), "distinct-n")
        if close(result, library.distinct(SAID, n)):
            continue
        for slip, message in DISTINCTS.items():
            if close(result, _distinct(SAID, n, slip)):
                raise Mistake(message)
        raise Mistake(f"distinct-{n} is wrong: print the list of all n-grams and its set")
    try:
        result = function(["yes", "no"], 2)
    except ZeroDivisionError:
        raise Mistake("where no reply is long enough there is no n-gram to divide by: return 0") from None
    if not close(numbers(result, (), "distinct-n"), 0.0):
        raise Mistake("where no reply is long enough the result is 0")


def _no_words(replies, n):
    found = [tuple(row.split()[i : i + n]) for row in replies for i in range(len(row.split()) - n + 1)]
    return len(set(found)) / len(found)


CHECKS = {"nucleus": check_nucleus, "distinct": check_distinct}

HINTS = {
    "nucleus": (
        "order = np.argsort(-probabilities); before = np.cumsum(sorted) - sorted says what stands before each token.",
        "A token stays where before < share; kept[order] = ... puts it back; divide by the sum at the end.",
    ),
    "distinct": (
        "For one reply: words = reply.split(), and tuple(words[i : i + n]) for i in range(len(words) - n + 1).",
        "One list over all replies; len(set(found)) / max(len(found), 1).",
    ),
}

MISTAKES = {
    "nucleus": [(functools.partial(_nucleus, slip=slip), message) for slip, message in NUCLEI.items()]
    + [(_in_place, "changed its argument")],
    "distinct": [(functools.partial(_distinct, slip=slip), message) for slip, message in DISTINCTS.items()]
    + [(_no_words, "no n-gram to divide by")],
}
