"""Exercises of lesson 12. Check your work: `minillm lessons check 12`, with `--hints` for help."""


def shift_to_keys(scores):
    """Scores by distance -> scores by key, for one head. (20 minutes, medium)

    The last `length` of the `keys` keys are the queries' own segment, those before are memory. So query i stands at key
    keys - length + i. Column c of `scores` belongs to distance keys - 1 - c, for every query: the last column is distance 0.

        shift_to_keys([[3.0, 2.0, 1.0, 0.0], [3.0, 2.0, 1.0, 0.0]]) == [[2.0, 1.0, 0.0, 0.0], [3.0, 2.0, 1.0, 0.0]]

    Args:
        scores: [length, keys] floats, keys >= length.

    Returns: [length, keys] floats; entry [i, j] is query i's score for the distance to key j, or 0 where j comes after it.
    """
    raise NotImplementedError("exercise 12.1: two loops are fine; which column has the distance from i to j?")


def next_memory(memory, inputs, size):
    """What a layer keeps for the next segment. (10 minutes, easy)

    Args:
        memory: [kept, width] floats, what it kept so far, the oldest first; `kept` may be 0 and is at most `size`.
        inputs: [length, width] floats, the layer's inputs of this segment; may be shorter or longer than `size`.
        size: at least 1.

    Returns: the last `size` rows of both together, the oldest first; all of them while there are fewer.
    """
    raise NotImplementedError("exercise 12.2: put them side by side in time, keep the end")


def farthest(place, layers, segment, memory):
    """How many tokens back the last layer's output for a token can depend on what was read. (25 minutes, harder)

    Tokens are numbered from 0 and read in segments of `segment`: 0 ... segment - 1, and so on. In each layer a token sees its own
    segment up to itself, and the `memory` tokens before the segment, as that layer received them when they were read.

        farthest(39, 1, 8, 8) == 15        farthest(39, 2, 8, 8) == 23        farthest(39, 2, 8, 12) == 35

    Args:
        place: the token's number.
        layers, segment, memory: at least 1.

    Returns: an integer: place minus the number of the oldest token that matters; that is never below 0.
    """
    raise NotImplementedError(
        "exercise 12.3: which token is the oldest that one layer sees? And what had that one seen?"
    )
