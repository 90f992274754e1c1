"""The copy task: remember a random string and write it again. An exact answer, learned in seconds.

ids: 0 padding, 1 separator, 2 beginning, 3 end, 4 ... the symbols
row: beginning, s_1 ... s_n, separator, s_1 ... s_n, end
"""

import numpy as np

PAD, SEPARATOR, BEGIN, END, FIRST = 0, 1, 2, 3, 4


def vocabulary_size(symbols: int) -> int:
    """Ids in all."""
    return FIRST + symbols


def example_length(length: int) -> int:
    """Tokens of an example that copies `length` symbols: beginning, the string twice and the separator between."""
    return 2 * length + 2


def copy_batch(
    seed: int, step: int, batch_size: int, length: int, symbols: int, split: str = "train"
) -> dict[str, np.ndarray]:
    """A batch of strings of `length` symbols; weight 1 on the copy and the end only.

    Validation strings never occur in training: the sum of a string's symbols is 0 modulo 4 in validation only (its
    last symbol is moved on until that holds, or until it does not).
    """
    held_out = split != "train"
    generator = np.random.Generator(np.random.Philox(key=[seed, 2 * step + held_out]))
    strings = generator.integers(symbols, size=(batch_size, length))
    if symbols >= 4:
        rest = strings[:, :-1].sum(1)
        wrong = ((rest + strings[:, -1]) % 4 == 0) != held_out
        while wrong.any():
            strings[wrong, -1] = generator.integers(symbols, size=int(wrong.sum()))
            wrong = ((rest + strings[:, -1]) % 4 == 0) != held_out
    strings = strings.astype(np.int32) + FIRST
    column = lambda value: np.full((batch_size, 1), value, np.int32)
    rows = np.concatenate([column(BEGIN), strings, column(SEPARATOR), strings, column(END)], axis=1)
    weights = np.zeros((batch_size, rows.shape[1] - 1), np.float32)
    weights[:, length + 1 :] = 1.0
    return {
        "tokens": np.ascontiguousarray(rows[:, :-1]),
        "targets": np.ascontiguousarray(rows[:, 1:]),
        "weights": weights,
        "index": np.arange(batch_size, dtype=np.int32),
    }
