"""Tasks from string to string with exact answers, learned in seconds: copy, reverse.

ids as in `data/synthetic.py`: 0 padding, 2 beginning, 3 end, 4 ... the symbols
source s_1 ... s_n end;  target f(s_1 ... s_n) end;  the decoder reads the target one place later, after the beginning
"""

import numpy as np

from minillm.data.synthetic import BEGIN, END, FIRST

TASKS = {"copy": lambda string: string, "reverse": lambda string: string[::-1]}


def transduction_batch(
    seed: int, step: int, batch_size: int, length: int, symbols: int, task: str = "reverse", split: str = "train"
) -> dict[str, np.ndarray]:
    """Strings of 1 to `length` of at least four `symbols`: source, source_mask, tokens, targets, weights, index.

    Every leaf but index is [batch, length + 1]. Validation strings never occur in training: the sum of a string's
    symbols is 0 modulo 4 in validation only.
    """
    if symbols < 4:
        raise ValueError(f"held-out strings need at least 4 symbols, got {symbols}")
    held_out = split != "train"
    generator = np.random.Generator(np.random.Philox(key=[seed, 2 * step + held_out]))
    names = ("source", "tokens", "targets")
    batch = {name: np.zeros((batch_size, length + 1), np.int32) for name in names}
    batch["source_mask"] = np.zeros((batch_size, length + 1), bool)
    batch["weights"] = np.zeros((batch_size, length + 1), np.float32)
    for row in range(batch_size):
        string = generator.integers(symbols, size=generator.integers(1, length + 1))
        while (string.sum() % 4 == 0) != held_out:
            string[-1] = generator.integers(symbols)
        string = string + FIRST
        answer, size = TASKS[task](string), len(string) + 1
        batch["source"][row, :size] = [*string, END]
        batch["tokens"][row, :size] = [BEGIN, *answer]
        batch["targets"][row, :size] = [*answer, END]
        batch["source_mask"][row, :size], batch["weights"][row, :size] = True, 1.0
    return batch | {"index": np.arange(batch_size, dtype=np.int32)}
