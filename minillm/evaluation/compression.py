"""A general-purpose compressor as a language model: what does held-out text cost once the training text is known?

A code of L bits is a model of probability 2^-L and the other way round (MacKay 2003, "Information theory, inference,
and learning algorithms", chapters 5 and 6), so bits per character of a compressor and of a model are comparable.
"""

import lzma

from minillm.errors import UserError

PRESET = 9 | lzma.PRESET_EXTREME  # a 64 MiB dictionary: training text further back than that is forgotten


def xz_bits_per_character(train_text: str, held_out_text: str) -> float:
    """size(train + held-out) - size(train) under xz -9e, in bits per raw held-out character (Unicode code point).

    Sizes are of UTF-8 text in the .xz format, whose blocks are padded to 4 bytes: exact to within 32 bits.

    Raises:
        UserError: the held-out text is empty.
    """
    if not held_out_text:
        raise UserError("the held-out text is empty", "xz", "raise the validation fraction or add documents")
    train, held_out = (text.encode("utf-8", "surrogatepass") for text in (train_text, held_out_text))
    extra = len(lzma.compress(train + held_out, preset=PRESET)) - len(lzma.compress(train, preset=PRESET))
    return 8.0 * extra / len(held_out_text)
