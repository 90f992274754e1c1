"""Exercises of lesson 06. Check your work: `minillm lessons check 06`, with `--hints` for help."""


def scaled_attention(query, key, value, mask):
    """Scaled dot-product attention of one head (Vaswani et al. 2017, equation 1). (20 minutes, easy)

    Args:
        query: [n, d] floats, one row per token that asks.
        key: [m, d] floats, one row per token that may be found.
        value: [m, c] floats, what each of those gives.
        mask: [n, m] booleans; True: query i may look at key j. Every row has at least one True.

    Returns: [n, c] floats; row i is the average of the visible values, weighted by softmax(q_i . k_j / sqrt(d)).
    """
    raise NotImplementedError("exercise 06.1: use NumPy or JAX, without a ready-made attention")


def rotate_pairs(x, positions, base=10000.0):
    """Rotary positions (Su et al. 2021, equation 34) of one head. (25 minutes, medium)

    Entry i of the first half and entry i of the second half of a row form a pair, i = 0 ... d/2 - 1. At position p that
    pair (a, b) turns counter-clockwise by the angle t = p * base^(-2i/d):

        (a, b)  ->  (a cos t - b sin t,  b cos t + a sin t)

    Args:
        x: [n, d] floats, queries or keys; d is even.
        positions: [n] integers, where each row stands in the text.
        base: sets the slowest turn; pair 0 always turns by one radian per position.

    Returns: [n, d] floats, each row turned.
    """
    raise NotImplementedError("exercise 06.2: use NumPy or JAX")
