"""Exercises of lesson 04. Check your work: `minillm lessons check 04`, with `--hints` for help."""


def convolve(image, kernel, bias, stride, padding):
    """A convolution in two dimensions, as the lesson defines it (no kernel is turned around). (30 minutes, medium)

    Args:
        image: [height, width, inputs] floats.
        kernel: [size, size, inputs, outputs] floats.
        bias: [outputs] floats.
        stride: places from one window to the next, along both axes.
        padding: rows and columns of zeros on each of the four sides.

    Returns: [rows, columns, outputs] floats, with rows = (height + 2 padding - size) // stride + 1, columns likewise.
    """
    raise NotImplementedError("exercise 04.1: use NumPy, without a ready-made convolution")


def embedding_gradient(tokens, upstream, vocabulary):
    """The gradient of an embedding table. (10 minutes, easy, and a trap)

    The forward pass is output = table[tokens]; `upstream` is the gradient of the loss by that output.

    Args:
        tokens: [n] integers from 0 to vocabulary - 1; a token may occur several times.
        upstream: [n, width] floats.
        vocabulary: number of rows of the table.

    Returns: [vocabulary, width] floats, the gradient of the loss by the table.
    """
    raise NotImplementedError("exercise 04.2: use NumPy")
