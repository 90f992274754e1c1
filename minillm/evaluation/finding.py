"""Answers found without a network: by shared words, by the shape of what is looked for, by counting names.

The sentence that shares most with the question is where Richardson, Burges and Renshaw 2013 ("MCTest") and SQuAD's authors
look first; the name that the passage has most often is a baseline of Hermann et al. 2015 (section 3.1).
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

from minillm.evaluation.answers import Answer, tokens

SENTENCE = re.compile(r"[^\s](?:[^。！？.!?]|[.!?](?!\s|$))*[。！？.!?]*")
CANDIDATE = re.compile(r"(?:[A-Z][\w'-]*|\.\w+|\d[\d.,]*\w*)(?:[ -](?:(?:and|the|of) )*(?:[A-Z][\w'-]*|\d[\d.,]*\w*))*")

Find = Callable[[Sequence[str], Sequence[str]], list[Answer]]  # (questions, passages) -> answers


def fit_overlap(questions: Sequence[str], answers: Sequence[str]) -> Find:
    """The sentence whose words the question shares, the last of equals, and in it a name or number that the question has not.

    A shared word counts log(1 + 1 / its number in the passage), as in MCTest's algorithm 1; stop words do not count. Of
    several candidates it is the first with the shape of the answer to the training question that is most like this one;
    without any, the whole sentence.
    """
    rows = [frozenset(tokens(question)) for question in questions]

    def find(question: str, passage: str) -> Answer:
        asked, there = frozenset(tokens(question)), Counter(tokens(passage))
        likest = max(range(len(rows)), key=lambda i: len(rows[i] & asked) / (len(rows[i] | asked) or 1))
        weigh = lambda text: sum(math.log(1.0 + 1.0 / there[w]) for w in (asked & {*tokens(text)}) - _stop_words())
        best = max(reversed(list(SENTENCE.finditer(passage))), key=lambda found: weigh(found.group()))
        found = _candidates(best.group(), asked)
        fitting = [answer for answer in found if _shape(answer.text) == _shape(answers[likest])]
        text, start, _ = (fitting or found or [Answer(best.group(), 0)])[0]
        return Answer(text, best.start() + start)

    return lambda questions, passages: [find(*pair) for pair in zip(questions, passages, strict=True)]


def most_frequent_name(questions: Sequence[str], passages: Sequence[str]) -> list[Answer]:
    """The name or number that the passage has most often and the question has not; the first of equals."""
    answers = []
    for question, passage in zip(questions, passages, strict=True):
        found = _candidates(passage, frozenset(tokens(question)))
        counts = Counter(answer.text for answer in found)
        answers.append(max(found, key=lambda answer: counts[answer.text], default=Answer(passage, 0)))
    return answers


def _candidates(text: str, asked: frozenset[str]) -> list[Answer]:
    """Names and numbers in order, without stop words before them, but for those whose words the question has."""
    found = []
    for match in CANDIDATE.finditer(text):
        name, start = match.group().rstrip(".,'-").removesuffix("'s"), match.start()
        while name.partition(" ")[0].lower() in _stop_words():
            before, _, name = name.partition(" ")
            start += len(before) + 1
        found += [Answer(name, start)] if name and not set(tokens(name)) <= asked else []
    return found


@functools.cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return ENGLISH_STOP_WORDS


def _shape(text: str) -> str:
    """A number, a number with commas, a word behind a dot, capitals, or a name."""
    if text[:1].isdigit():
        return "large number" if "," in text else "number"
    return "domain" if text.startswith(".") else "capitals" if text.isupper() else "name"
