"""Events in the People's Daily by a rule: silver data, made of its part-of-speech tags, that nobody has looked through.

A clause ends with one of 。！？；，. A verb of `TRIGGERS` (tagged v, vn or vi) is the trigger of an event if a name of a person, a
place or an organisation stands before it in its clause; the nearest such name is its AGENT. The nearest name behind it in the
clause, if there is one, is its OBJECT. The same verbs without a name before them are no events, so that a word alone does
not decide.
"""

import itertools
from collections.abc import Iterator, Sequence

TRIGGERS = {"会见": "MEET", "会谈": "MEET", "接见": "MEET", "访问": "VISIT", "抵达": "VISIT", "前往": "VISIT", "视察": "VISIT",
            "出席": "ATTEND", "参加": "ATTEND", "签署": "SIGN", "签订": "SIGN"}  # fmt: skip
VERBS, NAMES = ("v", "vn", "vi"), ("nr", "ns", "nt")
SENTENCE_ENDS, CLAUSE_ENDS = frozenset("。！？；"), frozenset("。！？；，")

Words = Sequence[tuple[str, str]]  # (word, part of speech)
Tagged = tuple[str, str, tuple[str, ...], None, tuple[str, ...]]


def find_events(lines: Sequence[Words]) -> Iterator[Tagged]:
    """Paragraphs of tagged words -> each different sentence with a trigger's word: its characters and their BIO tags."""
    seen = set()
    for number, line in enumerate(lines):
        for place, sentence in enumerate(_parted(_joined(line), SENTENCE_ENDS)):
            text = "".join(word for word, _ in sentence)
            if text in seen or not any(word in TRIGGERS for word, _ in sentence):
                continue
            seen.add(text)
            kinds = [kind for clause in _parted(sentence, CLAUSE_ENDS) for kind in label_clause(clause)]
            tags: list[str] = []
            for (word, _), kind in zip(sentence, kinds, strict=True):
                tags += [f"B-{kind}"] + [f"I-{kind}"] * (len(word) - 1) if kind else ["O"] * len(word)
            yield f"199801/{number:05d}:{place}", text, tuple(tags), None, tuple(text)


def label_clause(clause: Words) -> list[str | None]:
    """The rule: for each word the kind of its event, its role, or None. A word keeps the first kind that it gets."""
    kinds: list[str | None] = [None] * len(clause)
    names = [place for place, (_, tag) in enumerate(clause) if tag in NAMES]
    for place, (word, tag) in enumerate(clause):
        before = [name for name in names if name < place]
        if word not in TRIGGERS or tag not in VERBS or not before:
            continue
        kinds[place] = TRIGGERS[word]
        kinds[before[-1]] = kinds[before[-1]] or "AGENT"
        if behind := [name for name in names if name > place]:
            kinds[behind[0]] = kinds[behind[0]] or "OBJECT"
    return kinds


def _joined(line: Words) -> list[tuple[str, str]]:
    """Surname and given name, two words tagged nr, as one."""
    found: list[tuple[str, str]] = []
    for tag, words in itertools.groupby(line, key=lambda pair: pair[1]):
        texts = [word for word, _ in words]
        found += [(text, tag) for text in (["".join(texts)] if tag == "nr" else texts)]
    return found


def _parted(words: Words, ends: frozenset[str]) -> list[list[tuple[str, str]]]:
    """After each of `ends`."""
    parts: list[list[tuple[str, str]]] = [[]]
    for pair in words:
        parts[-1].append(pair)
        if pair[0] in ends:
            parts.append([])
    return [part for part in parts if part]
