"""Names in a figure: in a font that has all their signs, or as numbers where this machine has none."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

DEFAULT = "DejaVu Sans"  # matplotlib brings it along; it has no Chinese
PLACEHOLDERS = ("Last Resort",)  # fonts with a box for every sign
LONGEST = 18  # characters of a name


class Names(NamedTuple):
    """How names are written: texts, the font family, and whether they are numbers in place of the names."""

    texts: list[str]
    family: str
    numbered: bool


def write_names(names: Sequence[str]) -> Names:
    """Names as a figure can show them, cut to 18 characters."""
    texts = [" ".join(str(name).split()) for name in names]
    texts = [text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…" for text in texts]
    family = find_family("".join(texts))
    if family is None:
        return Names([str(number) for number in range(1, len(names) + 1)], DEFAULT, True)
    return Names(texts, family, False)


@functools.lru_cache
def find_family(text: str) -> str | None:
    """A font of this machine that has all signs of the text: matplotlib's own, else the first by name."""
    signs = {ord(character) for character in text if character != " "}
    fonts = [f for f in font_manager.fontManager.ttflist if f.style == "normal" and not f.name.startswith(PLACEHOLDERS)]
    for font in sorted(fonts, key=lambda f: (f.name != DEFAULT, abs(_weight(f.weight) - 400), f.name, f.fname)):
        if signs <= _signs(font.fname):
            return font.name
    return None


def _weight(weight: int | str) -> int:
    return weight if isinstance(weight, int) else font_manager.weight_dict.get(weight, 400)


@functools.cache
def _signs(path: str) -> frozenset[int]:
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # a bitmap font, or a file that has gone
        return frozenset()
