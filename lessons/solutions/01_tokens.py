"""Solutions of lesson 01."""

from collections.abc import Collection


def merge_pair(sequence: list[str], pair: tuple[str, str]) -> list[str]:
    """One merge of byte-pair encoding, from left to right."""
    merged, place = [], 0
    while place < len(sequence):
        here = tuple(sequence[place : place + 2]) == tuple(pair)
        merged.append("".join(pair) if here else sequence[place])
        place += 2 if here else 1  # both symbols are used up, so that a a a -> aa a
    return merged


def byte_fallback(text: str, vocabulary: Collection[str]) -> list[str]:
    """Known characters, and the UTF-8 bytes of every other."""
    pieces = []
    for character in text:
        known = character in vocabulary
        pieces += [character] if known else [f"<0x{byte:02X}>" for byte in character.encode("utf8")]
    return pieces
