"""Sentences of software's messages with the program that says them: texts in the translators' domain, but not theirs."""

from collections.abc import Iterator

from minillm.data.catalogues import catalogue, name, plain
from minillm.data.clean_pairs import source_key
from minillm.data.document import Document
from minillm.data.pairs import split_sentences

LONG, SHORT = 100, 20  # characters: `pairs.longest` of configs/translate.toml; what says little about its program


def unseen_sentences() -> Iterator[tuple[str, str]]:
    """English sentences of the programs' messages that are in no pair of up to LONG characters a side: (name, text).

    They are those of longer messages, and of messages that are translated into French alone. One that is the same as a
    message of such a pair but for case, punctuation and placeholders is left out: the translators may have learned it.
    """
    chinese = catalogue(0)
    sides = {key: (plain(key[0], message.source), plain(key[0], message.text)) for key, message in chinese.items()}
    read = {key for key, both in sides.items() if max(map(len, both)) <= LONG}
    fold = lambda text: source_key(Document("", text))
    known = {fold(sides[key][0]) for key in read}
    for number, (key, message) in enumerate((chinese | catalogue(1)).items()):
        if key in read:
            continue
        for sentence in split_sentences(" ".join(plain(key[0], message.source).split())):
            if SHORT <= len(sentence.strip()) <= LONG and fold(sentence.strip()) not in known:
                yield name(key[0], number), sentence.strip()
