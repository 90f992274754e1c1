"""How much of a reference a written text has: BLEU, chrF, ROUGE and exact match, as sums over examples.

    BLEU = BP exp(1/4 sum_{n=1..4} ln p_n),   BP = min(1, exp(1 - r / c))            Papineni et al. 2002, section 2.3
    chrF = (1 + b^2) P R / (b^2 P + R),  b = 2, P and R means over n = 1 ... 6       Popovic 2015, equation 1
    ROUGE-n = F1 of n-grams, ROUGE-L = F1 of the longest common subsequence          Lin 2004, sections 2 and 3

p_n: the share of the written n-grams that the reference has too, each at most as often as there; r and c: tokens of all
references and of all that was written. BLEU and chrF are made of counts added over all examples, ROUGE is a mean over
them. Numbers equal sacrebleu's (BLEU by characters is its tokenize="zh", by words "13a"; smoothing "exp": Lin and Och
2004) and rouge-score's (no stemming); tests hold them. All are on 0 to 100 for BLEU and chrF, 0 to 1 for the others.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from minillm.evaluation.textual import parts_words

ORDER, CHARACTERS, BETA = 4, 6, 2  # longest n-gram of BLEU and of chrF; how much more recall counts than precision
BLEU_SIZE, CHRF_SIZE = 2 * ORDER + 2, 3 * CHARACTERS
# sacrebleu writes its ranges beyond U+FFFF in a way that takes in U+2001 to U+2A6D: quotes, dashes and arrows too
CHINESE = re.compile("([\u2001-\u2a6d\u2e80-\u2fdf\u2ff0-\u303f\u3100-\u312f\u31a0-\u31bf\u31c0-\u31ef\u3200-\u4db5\u4e00-\u9fbb"
                     "\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef])")  # fmt: skip
MARKS = (  # mteval-v13a's rules, in order
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
ENTITIES = (("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
WORD = re.compile("[a-z0-9]+")  # ROUGE's: everything else parts words

Texts = Sequence[str]
Weights = Float64[np.ndarray, "draws examples"]
Values = Mapping[str, Float64[np.ndarray, "draws"]]


def _marked(text: str) -> list[str]:
    for pattern, spaced in MARKS:
        text = pattern.sub(spaced, text)
    return text.split()


def split_characters(text: str) -> list[str]:
    """Each Chinese character by itself, the rest in words and marks."""
    return _marked(CHINESE.sub(r" \1 ", text.strip()))


def split_words(text: str) -> list[str]:
    """Words and marks, entities of HTML read."""
    text = text.rstrip()
    for written, meant in ENTITIES:
        text = text.replace(written, meant)
    return _marked(f" {text} ")


def ngrams(units: Sequence, size: int) -> Counter:
    """How often each run of `size` units occurs."""
    return Counter(tuple(units[place : place + size]) for place in range(len(units) - size + 1))


def bleu_counts(written: Texts, references: Texts, split: Callable[[str], list[str]]) -> Float64[np.ndarray, "n k"]:
    """[examples, 2 * ORDER + 2]: matches and n-grams of n = 1 ... 4, tokens written, tokens of the reference."""
    rows = []
    for text, reference in zip(written, references, strict=True):
        said, true = split(text), split(reference)
        hits = [(ngrams(said, n) & ngrams(true, n)).total() for n in range(1, ORDER + 1)]
        rows.append([*hits, *(max(len(said) - n + 1, 0) for n in range(1, ORDER + 1)), len(said), len(true)])
    return np.array(rows, np.float64).reshape(-1, BLEU_SIZE)


def bleu(counts: Float64[np.ndarray, "draws k"]) -> Float64[np.ndarray, "draws"]:
    """Sums of `bleu_counts` -> BLEU, 0 to 100. The k-th order without a match counts 1 / 2^k matches."""
    hits, totals, (said, true) = counts[:, :ORDER], counts[:, ORDER : 2 * ORDER], counts[:, 2 * ORDER :].T
    missing = np.cumsum(hits == 0.0, axis=1)
    precisions = np.where(hits > 0.0, hits, 0.5**missing) / np.maximum(totals, 1.0)
    penalty = np.exp(np.minimum(0.0, 1.0 - true / np.maximum(said, 1e-9)))
    score = 100.0 * penalty * np.exp(np.log(precisions).mean(1))
    return np.where((totals > 0.0).all(1) & (hits > 0.0).any(1), score, 0.0)


def chrf_counts(written: Texts, references: Texts) -> Float64[np.ndarray, "n k"]:
    """[examples, 3 * CHARACTERS]: n-grams written, of the reference, and in both, of n = 1 ... 6; blanks do not count."""
    rows = []
    for text, reference in zip(written, references, strict=True):
        said, true = ("".join(side.split()) for side in (text, reference))
        row = []
        for n in range(1, CHARACTERS + 1):
            sizes = [max(len(side) - n + 1, 0) for side in (said, true)]
            row += [sizes[0] if sizes[1] else 0, sizes[1], (ngrams(said, n) & ngrams(true, n)).total()]
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, CHRF_SIZE)


def chrf(counts: Float64[np.ndarray, "draws k"]) -> Float64[np.ndarray, "draws"]:
    """Sums of `chrf_counts` -> chrF, 0 to 100; orders that one of both sides is too short for are left out."""
    said, true, hits = (counts[:, place::3] for place in range(3))
    there = (said > 0.0) & (true > 0.0)
    mean = lambda sizes: np.where(there, hits / np.maximum(sizes, 1.0), 0.0).sum(1) / np.maximum(there.sum(1), 1)
    precision, recall = mean(said), mean(true)
    both = BETA**2 * precision + recall
    return 100.0 * (1 + BETA**2) * precision * recall / np.where(both > 0.0, both, 1.0)


def longest_common(first: Sequence, second: Sequence) -> int:
    """Length of the longest subsequence of both."""
    row = [0] * (len(second) + 1)
    for unit in first:
        before = 0  # of the row before, one place to the left
        for place, other in enumerate(second, start=1):
            before, row[place] = row[place], before + 1 if unit == other else max(row[place], row[place - 1])
    return row[-1]


def rouge(written: Texts, references: Texts) -> dict[str, Float64[np.ndarray, "examples"]]:
    """rouge1, rouge2 and rougeL of each example: F1. Texts that no blanks part into words are compared by characters."""
    split = WORD.findall if parts_words(references) else split_characters
    rows = []
    for text, reference in zip(written, references, strict=True):
        said, true = split(text.lower()), split(reference.lower())
        counted = [((ngrams(said, n) & ngrams(true, n)).total(), len(said) - n + 1, len(true) - n + 1) for n in (1, 2)]
        rows.append([_f1(*row) for row in [*counted, (longest_common(said, true), len(said), len(true))]])
    columns = np.array(rows, np.float64).reshape(-1, 3).T
    return dict(zip(("rouge1", "rouge2", "rougeL"), columns, strict=True))


def _f1(hits: int, said: int, true: int) -> float:
    return 2.0 * hits / (max(said, 1) + max(true, 1)) if hits else 0.0


def translation(written: Texts, references: Texts, split: Callable[[str], list[str]]) -> Callable[[Weights], Values]:
    """bleu, chrf and exact_match, as functions of how often each example counts (see `intervals.bootstrap`)."""
    counted = bleu_counts(written, references, split), chrf_counts(written, references)
    exact = exact_matches(written, references)
    return lambda weights: {
        "bleu": bleu(weights @ counted[0]), "chrf": chrf(weights @ counted[1]), "exact_match": weighted(exact, weights)
    }  # fmt: skip


def summary(written: Texts, references: Texts) -> Callable[[Weights], Values]:
    """rouge1, rouge2, rougeL and exact_match, likewise."""
    found = rouge(written, references) | {"exact_match": exact_matches(written, references)}
    return lambda weights: {name: weighted(values, weights) for name, values in found.items()}


def exact_matches(written: Texts, references: Texts) -> Float64[np.ndarray, "examples"]:
    """1 where both are equal but for blanks at their ends."""
    return np.array([a.strip() == b.strip() for a, b in zip(written, references, strict=True)], np.float64)


def weighted(values: Float64[np.ndarray, "examples"], weights: Weights) -> Float64[np.ndarray, "draws"]:
    """The mean of each draw."""
    return weights @ values / weights.sum(1)
