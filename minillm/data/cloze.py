"""Questions made of headlines: a name or number is taken out, the beginning of the article has it (Hermann et al. 2015).

Their "Teaching machines to read and comprehend", section 2, does so with the summaries beside news articles. In the
headlines here only the first word and names are capitalised, so that a capitalised word, but for the first, is a name.
"""

import re
from collections.abc import Iterable, Iterator

GAP = "___"
SENTENCES = 4  # of the article in the passage
NAME = re.compile(r"(?<![\w'-])(?:[A-Z][\w&-]*|\d[\d.,]*\w*)(?: (?:[A-Z][\w&-]*|\d[\d.,]*\w*))*")
END = re.compile(r"(?<=[.!?]) (?=[A-Z\"'])")


def cloze(articles: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str, str, None, int]]:
    """(name, headline and text) -> a question for each name of a headline that the article's first sentences have too."""
    seen = set()
    for name, article in articles:
        headline, _, body = article.partition("\n")
        passage = " ".join(END.split(" ".join(body.split()))[:SENTENCES])
        if passage in seen:
            continue
        seen.add(passage)
        for found in NAME.finditer(headline):
            there = re.search(rf"(?<!\w){re.escape(found.group())}(?!\w)", passage)
            if found.start() and there:
                question = headline[: found.start()] + GAP + headline[found.end() :]
                yield f"{name}:{found.start()}", question, found.group(), passage, None, there.start()
