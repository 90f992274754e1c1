"""Checks of lesson 01: they name the mistake, not only the failure."""

from collections.abc import Callable

from minillm.course.contract import Mistake


def _list_of_strings(name: str, call: str, result: object) -> list[str]:
    if not isinstance(result, list):
        raise Mistake(f"{call} returned {type(result).__name__}, expected a list: does {name} end with `return`?")
    if not all(isinstance(piece, str) for piece in result):
        raise Mistake(
            f"{call} returned {result!r}, expected a list of strings: is there a number or a tuple among them?"
        )
    return result


def check_merge_pair(function: Callable) -> None:
    """Cases that part the usual mistakes: boundaries, overlaps, the last symbol, the argument."""
    cases = [
        ("then", ("h", "e"), ["t", "he", "n"], "the pair in the middle"),
        ("tte", ("t", "e"), ["t", "te"], "is the last symbol lost, or the pair at the very end?"),
        ("ten", ("h", "e"), ["t", "e", "n"], "a sequence without the pair must come back unchanged"),
        ("hehe", ("h", "e"), ["he", "he"], "is the loop left after the first merge? Every occurrence must be joined"),
        (
            "aaa",
            ("a", "a"),
            ["aa", "a"],
            "merges overlap: both symbols are used up by the first merge, so step over two",
        ),
        (
            "aaaa",
            ("a", "a"),
            ["aa", "aa"],
            "merges overlap: both symbols are used up by the first merge, so step over two",
        ),
        ("", ("a", "b"), [], "an empty sequence is an empty list"),
    ]
    cases = [(list(text), pair, expected, reason) for text, pair, expected, reason in cases]
    boundaries = "are the boundaries between symbols lost? Compare symbols, not characters of the joined text"
    cases += [
        (["t", "he", "n"], ("t", "he"), ["the", "n"], "symbols may have several characters"),
        (["th", "e", "h", "e"], ("h", "e"), ["th", "e", "he"], boundaries),
        (["a", "ba", "b"], ("ab", "ab"), ["a", "ba", "b"], boundaries),
    ]
    for sequence, pair, expected, reason in cases:
        argument = list(sequence)
        call = f"merge_pair({sequence!r}, {pair!r})"
        result = _list_of_strings("merge_pair", call, function(argument, pair))
        if "".join(result) != "".join(sequence):
            raise Mistake(f"{call} returned {result!r}, which spells another text: {_text_lost(reason)}")
        if result != expected:
            raise Mistake(f"{call} returned {result!r}, expected {expected!r}: {reason}")
        if argument != sequence:
            raise Mistake(f"{call} changed its argument to {argument!r}: build a new list instead")


def _text_lost(reason: str) -> str:
    return reason if "overlap" in reason or "last" in reason else "symbols are lost or doubled, is the last one kept?"


def check_byte_fallback(function: Callable) -> None:
    """English, Chinese and four-byte characters against UTF-8 itself."""
    cases = [("x=é", "x="), ("", "a"), ("ab", "ab"), ("模型", "型"), ("a𝄞b", "ab"), ("\n~", ""), ("e\u0301", "e")]
    for text, vocabulary in cases:
        call = f"byte_fallback({text!r}, {set(vocabulary)!r})"
        result = _list_of_strings("byte_fallback", call, function(text, set(vocabulary)))
        known = [[c] if c in vocabulary else [f"<0x{b:02X}>" for b in c.encode("utf8")] for c in text]
        expected = [piece for pieces in known for piece in pieces]
        if result != expected:
            raise Mistake(f"{call} returned {result!r}, expected {expected!r}: {_reason(text, result, expected)}")


def _reason(text: str, result: list[str], expected: list[str]) -> str:
    if [piece.upper() for piece in result] == [piece.upper() for piece in expected]:
        return "the hexadecimal digits are upper case and the x is lower case"
    if [_padded(piece) for piece in result] == expected:
        return "a byte has two hexadecimal digits, also below 0x10"
    if any(piece == f"<0x{ord(c):02X}>" for piece in result for c in text if ord(c) > 127):
        return "that is the number of the code point; a byte stops at FF. Encode the character in UTF-8 first"
    if any(piece.startswith("<unk") for piece in result):
        return "<unk> loses the character; its bytes keep it"
    if any(f"<0x{b:02X}>" in result for c in text if c in expected for b in c.encode("utf8")):
        return "are known characters spelled in bytes too? Bytes stand in only for what the vocabulary lacks"
    if len(result) < len(expected):
        return "pieces are missing: one piece per byte, and a UTF-8 character has up to four"
    return "check the order and the spelling of the pieces"


def _padded(piece: str) -> str:
    return f"<0x0{piece[3:]}" if len(piece) == 5 and piece.startswith("<0x") else piece


CHECKS = {"merge_pair": check_merge_pair, "byte_fallback": check_byte_fallback}

HINTS = {
    "merge_pair": (
        "Use a position and a while loop: a for loop cannot step over the second symbol of a merge.",
        "If sequence[place:place + 2] is the pair, append the joined symbol and add 2 to place, else append one and add 1.",
    ),
    "byte_fallback": (
        "character.encode('utf8') gives bytes; iterating over bytes gives numbers from 0 to 255.",
        "f'<0x{byte:02X}>' writes one byte; use `+=` to add several pieces to a list at once.",
    ),
}


def _overlapping(sequence, pair):
    merged = []
    for left, right in zip(sequence, [*sequence[1:], None], strict=True):
        merged.append(left + right if (left, right) == pair else left)
    return [s for i, s in enumerate(merged) if i == 0 or (sequence[i - 1], s) != pair]


def _string_replace(sequence, pair):
    return " ".join(sequence).replace(" ".join(pair), "".join(pair)).split()


def _first_only(sequence, pair):
    for i in range(len(sequence) - 1):
        if (sequence[i], sequence[i + 1]) == pair:
            return [*sequence[:i], "".join(pair), *sequence[i + 2 :]]
    return list(sequence)


def _loses_the_last(sequence, pair):
    merged, i = [], 0
    while i < len(sequence) - 1:
        if (sequence[i], sequence[i + 1]) == pair:
            merged.append("".join(pair))
            i += 2
        else:
            merged.append(sequence[i])
            i += 1
    return merged


def _in_place(sequence, pair):
    i = 0
    while i < len(sequence) - 1:
        if (sequence[i], sequence[i + 1]) == pair:
            sequence[i : i + 2] = ["".join(pair)]
        i += 1
    return sequence


def _code_point(text, vocabulary):
    return [c if c in vocabulary else f"<0x{ord(c):02X}>" for c in text]


def _lower_case(text, vocabulary):
    return [p for c in text for p in ([c] if c in vocabulary else [f"<{b:#04x}>" for b in c.encode("utf8")])]


def _no_leading_zero(text, vocabulary):
    return [p for c in text for p in ([c] if c in vocabulary else [f"<0x{b:X}>" for b in c.encode("utf8")])]


def _unknown(text, vocabulary):
    return [c if c in vocabulary else "<unk>" for c in text]


def _all_or_nothing(text, vocabulary):
    known = all(c in vocabulary for c in text)
    return list(text) if known else [f"<0x{b:02X}>" for b in text.encode("utf8")]


MISTAKES = {
    "merge_pair": [
        (_overlapping, "overlap"),
        (_string_replace, "boundaries"),
        (_first_only, "after the first merge"),
        (_loses_the_last, "last one"),
        (_in_place, "changed its argument"),
    ],
    "byte_fallback": [
        (_code_point, "code point"),
        (_lower_case, "upper case"),
        (_no_leading_zero, "two hexadecimal digits"),
        (_unknown, "<unk> loses"),
        (_all_or_nothing, "known characters"),
    ],
}
