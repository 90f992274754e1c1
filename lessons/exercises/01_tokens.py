"""Exercises of lesson 01. Fill in the bodies, then run `minillm lessons check 01`."""

from collections.abc import Collection


def merge_pair(sequence: list[str], pair: tuple[str, str]) -> list[str]:
    """One merge of byte-pair encoding: every neighbouring `pair` becomes one symbol. (10 minutes, easy)

    Goes from left to right; a symbol takes part in one merge at most. The argument is left as it was.

        merge_pair(["t", "h", "e", "n"], ("h", "e")) == ["t", "he", "n"]

    Args:
        sequence: symbols of one or more characters; may be empty.
        pair: the left and the right symbol.
    Returns:
        A new list whose symbols, put together, spell the same text.
    """
    raise NotImplementedError("merge_pair: walk through the sequence and join the pair where it stands")


def byte_fallback(text: str, vocabulary: Collection[str]) -> list[str]:
    """Pieces of a character tokenizer with byte fallback. (15 minutes, medium)

    A character of the vocabulary is its own piece. Any other is spelled as the bytes of its UTF-8 form, each written as
    SentencePiece does: "<0x", two upper-case hexadecimal digits, ">".

        byte_fallback("x=é", {"x", "="}) == ["x", "=", "<0xC3>", "<0xA9>"]

    Args:
        text: any text; may be empty.
        vocabulary: single characters.
    Returns:
        One piece per known character, one per byte of every other.
    """
    raise NotImplementedError("byte_fallback: spell what the vocabulary lacks as UTF-8 bytes")
