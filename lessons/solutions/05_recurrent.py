"""Solutions of lesson 05."""

import numpy as np


def lstm_step(x, h, c, W, U, b, forget_bias=1.0):
    """Gates, cell, hidden state."""
    sigmoid = lambda z: 1.0 / (1.0 + np.exp(-z))
    i, f, g, o = np.split(np.asarray(x) @ W + b + np.asarray(h) @ U, 4, axis=-1)
    c = sigmoid(f + forget_bias) * np.asarray(c) + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def state_jacobian(U, states):
    """Row vectors: each step multiplies from the right by U diag(1 - h_t^2)."""
    U = np.asarray(U)
    product = np.eye(len(U))
    for h in np.asarray(states):
        product = product @ U * (1.0 - h * h)  # scales column j by 1 - h_j^2
    return product


def continuing_segments(ids, rows, length):
    """Neighbouring segments share one id: the last target of the one is the first input of the next."""
    ids = np.asarray(ids)
    size = len(ids) // rows
    pieces = ids[: rows * size].reshape(rows, size)
    return np.stack([pieces[:, start : start + length + 1] for start in range(0, size - length, length)])
