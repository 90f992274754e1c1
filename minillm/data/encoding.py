"""Bytes of a file -> text, or an error that says which line is in which encoding."""

import codecs
from pathlib import Path

from minillm.errors import UserError


def read_text(path: Path) -> str:
    """A UTF-8 file, with or without a byte order mark. Raises: UserError where it is missing, empty, binary or not UTF-8.

    One line in another encoding is enough: the error names the first, and says how many there are.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError("no such file", str(path), "mend its path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot be read: {reason}", str(path), "mend its path, or its permissions") from None
    if not data:
        raise UserError("the file is empty", str(path), "use a file with text")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError("UTF-16, by its byte order mark", str(path), "convert it: iconv -f UTF-16 -t UTF-8")
    if b"\0" in data:
        raise UserError(f"a binary file (zero byte at offset {data.index(0)})", str(path), "use a text file in UTF-8")
    try:
        return data.decode("utf8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise _foreign(data, error.start, path) from None


def _foreign(data: bytes, offset: int, path: Path) -> UserError:
    """What is not UTF-8 at `offset`, and in how many lines."""
    lines = data.split(b"\n")
    foreign = [line for line in lines if not _decodes(line, "utf8")]
    right = sum(not line.isascii() for line in lines) - len(foreign)
    number = data.count(b"\n", 0, offset) + 1
    message = f"not UTF-8 (byte 0x{data[offset]:02x} at offset {offset}, in line {number})"
    if right:  # lines in UTF-8 beyond ASCII: the file has two encodings
        message += f"; {len(foreign)} of {len(lines)} lines are not, {right} others are: mixed encodings"
    # a multi-byte code decodes by chance far more seldom than Latin-1, which always does
    chinese = all(_decodes(line, "gb18030") for line in foreign) and any(
        "\u4e00" <= character <= "\u9fff" for line in foreign for character in line.decode("gb18030")
    )
    encoding = "GB18030" if chinese else "ENCODING"
    mend = f"convert {'those lines' if right else 'it'}: iconv -f {encoding} -t UTF-8"
    return UserError(message, f"{path}, line {number}", mend)


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
