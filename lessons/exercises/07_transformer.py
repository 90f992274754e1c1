"""Exercises of lesson 07. Check your work: `minillm lessons check 07`, with `--hints` for help."""


def post_norm_block(x, attention, feedforward, epsilon=1e-5):
    """One encoder block as in the paper, post-norm (Vaswani et al. 2017, section 3.1). (15 minutes, easy)

        x = norm(x + attention(x))
        x = norm(x + feedforward(x))
        norm(x) = (x - mean) / sqrt(variance + epsilon), mean and variance of each token over its width

    Scale and bias of the norm are left out. The variance divides by the width, not by the width minus one.

    Args:
        x: [length, width] floats.
        attention, feedforward: functions from [length, width] to [length, width].
        epsilon: above 0.

    Returns: [length, width] floats.
    """
    raise NotImplementedError("exercise 07.1: use NumPy or JAX; write the norm as a function of its own")


def cross_attention(target, source, source_mask, query, key, value):
    """Cross-attention of one head: the target asks, the source is read. (20 minutes, medium)

    Args:
        target: [length, width] floats, the decoder's states.
        source: [keys, width] floats, the encoder's output.
        source_mask: [keys] booleans; False: padding, which nobody reads. At least one is True.
        query, key, value: [width, head] floats, the kernels of the three projections.

    Returns: [length, head] floats; row t is the average of the source's values, weighted by
        softmax(q_t . k_j / sqrt(head)) over the real source tokens j.
    """
    raise NotImplementedError("exercise 07.2: three projections, then attention; no causal mask here")


def decoder_batch(answers, begin, end):
    """What the decoder reads and what it should write, under teacher forcing. (15 minutes, easy)

    The decoder reads `begin` and then the answer; at each place it should write the next token, and `end` after the last. Rows are
    padded on the right with 0, which may also be a real token.

        decoder_batch([[5, 6], [7]], 2, 3) == {
            "tokens": [[2, 5, 6], [2, 7, 0]], "targets": [[5, 6, 3], [7, 3, 0]], "weights": [[1, 1, 1], [1, 1, 0]]}

    Args:
        answers: a list of lists of ids, at least one id each.
        begin, end: ids.

    Returns: "tokens" and "targets" [rows, longest answer + 1] integers; "weights", the same shape, 1.0 where a target counts.
    """
    raise NotImplementedError("exercise 07.3: tokens are begin + answer, targets are answer + end")
