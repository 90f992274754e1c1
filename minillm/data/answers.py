"""Questions whose answers stand in a passage: where they stand, and what is wrong with them.

A document's text is the question, its pair the passage, its label the answer and `start` the character of the passage that
it begins with (Rajpurkar et al. 2016, section 3).
"""

from collections.abc import Sequence

from minillm.data.clean import normalise
from minillm.data.document import Document
from minillm.data.labels import Where
from minillm.errors import UserError


def resolve_answers(documents: Sequence[Document], where: Where) -> list[Document]:
    """Every document with a `start`, all checked: passage[start : start + len(answer)] is the answer.

    Without a start the answer's first place in the passage is taken. Raises: UserError for the first that is wrong.
    """
    return [document._replace(start=_find(document, where(document))) for document in documents]


def _find(document: Document, where: str) -> int:
    answer, passage, start = document.label, document.pair, document.start
    if passage is None:
        raise UserError("there is no passage", where, "set data.pair_key to the field that holds it")
    if isinstance(answer, tuple):
        raise UserError("several answers to one question", where, "give one; write each other one as a record")
    if not answer or not answer.strip():
        raise UserError("the answer is empty", where, "every question needs an answer that stands in its passage")
    if start is None:
        start = passage.find(answer)
        if start < 0:
            message = f"the answer {_short(answer)} does not stand in the passage"
            raise UserError(message, where, "write it as the passage does, letter for letter")
        return start
    if start >= len(passage):
        message = f"the answer begins at character {start}, the passage has {len(passage)}"
        raise UserError(message, where, "count characters from 0, not bytes")
    found = passage[start : start + len(answer)]
    if found != answer:
        message = f"at character {start} of the passage stands {_short(found)}, not the answer {_short(answer)}"
        raise UserError(message, where, "count characters from 0, not bytes")
    return start


def normalise_answer(document: Document, form: str) -> Document:
    """Question and passage under a Unicode form; what stands before, in and after the answer each by itself, so that the
    answer still is where `start` says."""
    after = document.start + len(document.label)
    parts = document.pair[: document.start], document.pair[document.start : after], document.pair[after:]
    before, answer, rest = (normalise(part, form) for part in parts)
    return document._replace(
        text=normalise(document.text, form), label=answer, pair=before + answer + rest, start=len(before)
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
