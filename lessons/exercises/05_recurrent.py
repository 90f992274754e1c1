"""Exercises of lesson 05. Check your work: `minillm lessons check 05`, with `--hints` for help."""


def lstm_step(x, h, c, W, U, b, forget_bias=1.0):
    """One step of an LSTM (Gers et al. 2000). (15 minutes, easy)

    The four gates stand side by side in the order input, forget, candidate, output:

        i, f, g, o = x W + b + h U
        new c = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(g)
        new h = sigmoid(o) * tanh(new c)

    Args:
        x: [batch, inputs] floats, the embeddings of the tokens that are read now.
        h, c: [batch, width] floats, hidden state and cell before them.
        W: [inputs, 4 * width] floats.
        U: [width, 4 * width] floats.
        b: [4 * width] floats.
        forget_bias: a number, added to the forget gate before its sigmoid.

    Returns: (new h, new c), each [batch, width].
    """
    raise NotImplementedError("exercise 05.1: use NumPy or JAX; split the gates, then three lines of equations")


def state_jacobian(U, states):
    """How the last state of an RNN depends on the one before the first: dh_T / dh_0. (20 minutes, medium)

    The network is h_t = tanh(x_t W + b + h_(t-1) U), with h as a row vector. Entry [i, j] is the derivative of entry j of
    h_T by entry i of h_0.

        state_jacobian([[0.5]], [[0.0], [0.0], [0.0]]) == [[0.125]]

    Args:
        U: [width, width] floats, the recurrent kernel.
        states: [T, width] floats, h_1 ... h_T, T >= 1; h_0 is not among them and not needed.

    Returns: [width, width] floats.
    """
    raise NotImplementedError("exercise 05.2: a product of T matrices, without automatic differentiation")


def continuing_segments(ids, rows, length):
    """Lays out a stream for truncated back-propagation: row r of each segment goes on where row r of the last one stopped.

    (20 minutes, medium) The stream is cut into `rows` equal pieces of running text, as long as possible; the rest at its end is
    left out. Each piece is read in segments of `length` inputs and their `length` targets, the next ids. Only whole
    segments count.

        continuing_segments([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 2, 2) == [[[0, 1, 2], [5, 6, 7]], [[2, 3, 4], [7, 8, 9]]]

    Args:
        ids: [n] integers.
        rows: how many pieces are read side by side.
        length: inputs per segment.

    Returns: [segments, rows, length + 1] integers; [..., :-1] are inputs, [..., 1:] their targets.
    """
    raise NotImplementedError("exercise 05.3: one piece per row first, then cut along the text")
