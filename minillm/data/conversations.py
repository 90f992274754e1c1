"""Conversations and messages of packages: turns with their replies, questions with their topics, spam."""

import html
import itertools
from collections.abc import Iterator

from minillm.data.fetch import read_files

Pairs = Iterator[tuple[str, str]]

FOLDER = "chatterbot_corpus/data/"
LANGUAGES = {"en": "english", "zh": "chinese"}
LEAST = 20  # different questions of a topic, or else it is no class to learn
NO_TOPIC = ("conversations",)  # a file of small talk about anything


def conversations(language: str) -> Iterator[tuple[str, list[str]]]:
    """("topic:number", its turns) of every conversation, in the order of the files; blanks and line breaks are one blank."""
    import yaml

    prefix = f"{FOLDER}{LANGUAGES[language]}/"
    for path, data in read_files("dialogue", lambda path: path.startswith(prefix) and path.endswith(".yml")):
        topic = path.removeprefix(prefix).removesuffix(".yml")
        for number, turns in enumerate(yaml.safe_load(data)["conversations"]):
            yield f"{topic}:{number}", [" ".join(str(turn).split()) for turn in turns]


def turn_pairs(language: str) -> Pairs:
    """A document for each turn and its reply, a line each. Copies are as the source has them: English support is ten pairs
    in a thousand copies."""
    for name, turns in conversations(language):
        for place, (turn, reply) in enumerate(itertools.pairwise(turns)):
            yield f"{name}.{place}", f"{turn}\n{reply}"


def intents(language: str) -> Pairs:
    """The first turn of each conversation, of topics with LEAST different ones; the topic is the name of its file.

    That is a topic, not what a customer wants: the corpus has no other label.
    """
    rows = [(name, turns[0]) for name, turns in conversations(language)]
    different: dict[str, set[str]] = {}
    for name, question in rows:
        different.setdefault(name.partition(":")[0], set()).add(question.casefold())
    kept = {topic for topic, questions in different.items() if len(questions) >= LEAST and topic not in NO_TOPIC}
    yield from ((name, question) for name, question in rows if name.partition(":")[0] in kept)


def short_messages() -> Pairs:
    """English text messages, ham or spam: most of the collection of Almeida et al. 2011, without the marks of HTML."""
    ((_, data),) = read_files("sms-spam", lambda path: path.endswith("spam_collection.csv"))
    for number, line in enumerate(data.decode("utf8").split("\n"), start=1):
        label, _, text = line.partition("\t")
        if text.strip():
            yield f"{label}:{number}", html.unescape(text.strip())
