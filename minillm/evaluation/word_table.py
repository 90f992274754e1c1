"""A translator without a network: each word of the source by itself, from a table that expectation maximisation fills.

    p(s_1 ... s_n | t_1 ... t_m) = product over i of  1 / (m + 1)  sum over j = 0 ... m of  p(s_i | t_j)

IBM model 1 (Brown et al. 1993, section 4.1), here of the source given the target, whose place 0 is an empty word. Each
round counts how much of each source word every target piece explains, c(s, t) = p(s | t) / sum over j of p(s | t_j), added
over all pairs, and divides: p(s | t) = c(s, t) / sum over s of c(s, t). A source word then is written as the piece that
explains most of it, or as nothing where that is the empty word; unknown words and placeholders are copied. Order stays
the source's.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

ROUNDS = 8
WORD = re.compile("[\ue000-\uf8ff]|\\w+|[^\\w\\s]")  # a sign for a placeholder is a word of its own

Translate = Callable[[str], list]


def split_words(text: str) -> list[str]:
    """Words in lower case, and marks."""
    return WORD.findall(text.lower())


def fit_table(sources: Sequence[str], targets: Sequence[Sequence[int]], rounds: int = ROUNDS) -> dict[str, int | None]:
    """Source word -> the id of the target piece that explains it best, None for the empty word. targets: ids."""
    words: dict[str, int] = {}
    places, left, right, link = 0, [], [], []  # of every pair of a source word and a target piece of one example
    for source, target in zip(sources, targets, strict=True):
        for word in split_words(source):
            number = words.setdefault(word, len(words))
            pieces = [0, *(int(id) + 1 for id in target)]  # 0: the empty word
            left += [number] * len(pieces)
            right += pieces
            link += [places] * len(pieces)
            places += 1
    left, right, link = (np.array(column, np.int64) for column in (left, right, link))
    width = int(right.max(initial=0)) + 1
    kinds, kind = np.unique(left * width + right, return_inverse=True)  # different (word, piece)
    probability = np.ones(len(kinds))
    for _ in range(rounds):
        found = probability[kind]
        shares = found / np.bincount(link, found, places)[link]
        counts = np.bincount(kind, shares, len(kinds))
        probability = counts / np.bincount(kinds % width, counts, width)[kinds % width]
    best: dict[int, tuple[float, int]] = {}
    for key, count in zip(kinds.tolist(), counts.tolist(), strict=True):
        best[key // width] = max(best.get(key // width, (-1.0, 0)), (count, key % width))
    return {word: best[number][1] - 1 if best[number][1] else None for word, number in words.items()}


def translate(table: dict[str, int | None], source: str, spell: Callable[[str], Sequence[int]]) -> list[int]:
    """The ids that are written for a source; `spell` gives those of an unknown word."""
    written: list[int] = []
    for found in WORD.finditer(source):
        word = found[0].lower()
        sign = "\ue000" <= word <= "\uf8ff"  # stands for a placeholder: copied, whatever the table has learned of it
        known = table[word] if word in table and not sign else spell(found[0])
        written += [] if known is None else [known] if isinstance(known, int) else known
    return written
