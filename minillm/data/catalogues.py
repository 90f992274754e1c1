"""Pairs of texts out of packages: messages of software in English, French and Chinese, and news with their headlines.

A catalogue (.po, of GNU gettext) has per message the English text as its id and a translation. Those that nobody has
checked ("fuzzy") or that are obsolete are left out. French and Chinese are joined through the English id that they share:
no translator ever saw such a pair.
"""

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from minillm.data.fetch import read_files
from minillm.data.packages import bbc_news

Pairs = Iterable[tuple[str, str, str]]  # name, source, target

KEY = re.compile(r'(msgctxt|msgid_plural|msgid|msgstr(?:\[\d+\])?)\s+(".*")$')
# "&File", "Cu&t", "文件(&F)": a key of the keyboard, no word; "R&D" is one
ACCELERATOR = re.compile(r"\s?\(&\w\)|&(?=\w)(?!\w+;)(?!(?<=[A-Z]&)[A-Z])")
TRANSLATED = {  # archive -> the folders or files of its Chinese and French catalogues
    "translation": ("zh_Hans/", "/fr/"),
    "translation-horizon": ("zh_Hans/", "/fr/"),
    "translation-sphinx": ("zh_CN/", "/fr/"),
    "translation-spyder": ("zh_CN/", "/fr/"),
    "translation-wagtail": ("zh_Hans/", "/fr/"),
}
JUPYTER = ("translation-jupyterlab-zh", "translation-jupyterlab-fr")


class Message(NamedTuple):
    """One message: where two share their id, the context tells them apart."""

    context: str
    id: str
    source: str  # the id, or its plural where there is one
    text: str  # the translation, of many where there is a choice


def parse_catalogue(text: str) -> Iterator[Message]:
    """The translated messages of a .po file that are neither fuzzy nor obsolete."""
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        lines = [line.strip() for line in block.split("\n") if not line.startswith("#~")]
        if any(line.startswith("#,") and "fuzzy" in line for line in lines):
            continue
        fields: dict[str, str] = {}
        key = ""
        for line in lines:
            if found := KEY.match(line):
                key = found[1]
                fields[key] = ast.literal_eval(found[2])
            elif line.startswith('"') and key:
                fields[key] += ast.literal_eval(line)
        said = [value for name, value in fields.items() if name.startswith("msgstr")]
        if fields.get("msgid") and said and said[-1]:
            source = fields.get("msgid_plural", fields["msgid"])
            yield Message(fields.get("msgctxt", ""), fields["msgid"], source, said[-1])


def _jupyter(name: str) -> Iterator[Message]:
    """The catalogues of JupyterLab as JSON: id -> translations, with the context before a sign of its own."""
    for _, data in read_files(name, lambda path: path.endswith(".json") and "/LC_MESSAGES/" in path):
        for key, said in json.loads(data).items():
            context, _, id = key.rpartition("\x04")
            if id and isinstance(said, list) and said[-1]:
                yield Message(context, id, id, said[-1])


def catalogue(language: int) -> dict[tuple[str, str, str], Message]:
    """All messages in Chinese (0) or French (1), by (archive, context, id)."""
    found = {}
    for archive, places in TRANSLATED.items():
        inside = places[language]
        for _, data in read_files(archive, lambda path, inside=inside: inside in path and path.endswith(".po")):
            for message in parse_catalogue(data.decode("utf8")):
                found.setdefault((archive, message.context, message.id), message)
    for message in _jupyter(JUPYTER[language]):
        found.setdefault(("translation-jupyterlab", message.context, message.id), message)
    return found


def english_chinese() -> Pairs:
    """Messages of six programs in English and in simplified Chinese."""
    for number, ((archive, *_), message) in enumerate(catalogue(0).items()):
        yield name(archive, number), plain(archive, message.source), plain(archive, message.text)


def chinese_english() -> Pairs:
    """The same, the other way round."""
    return ((name, text, source) for name, source, text in english_chinese())


def french_chinese() -> Pairs:
    """The same messages in French and in simplified Chinese, where both have been translated."""
    french = catalogue(1)
    for number, (key, message) in enumerate(catalogue(0).items()):
        if key in french:
            yield name(key[0], number), plain(key[0], french[key].text), plain(key[0], message.text)


def bbc_headlines() -> Pairs:
    """News articles without their headline, and the headline."""
    for name, text in bbc_news():
        headline, _, body = text.partition("\n")
        yield name, body.strip(), headline.strip()


def name(archive: str, number: int) -> str:
    """ "translation-horizon", 12 -> "horizon/00012"."""
    return f"{archive.removeprefix('translation').removeprefix('-') or 'django'}/{number:05d}"


def plain(archive: str, text: str) -> str:
    """Without accelerators, which the menus of Spyder alone have."""
    return ACCELERATOR.sub("", text) if archive == "translation-spyder" else text


PAIRED: dict[str, Callable[[], Pairs]] = {
    "messages-en-zh": english_chinese, "messages-zh-en": chinese_english, "messages-fr-zh": french_chinese, "bbc-headlines": bbc_headlines,
}  # fmt: skip
