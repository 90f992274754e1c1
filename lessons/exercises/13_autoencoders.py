"""Exercises of lesson 13. Check your work: `minillm lessons check 13`, with `--hints` for help."""


def reconstruct_linearly(training, x, count):
    """The best linear autoencoder: principal components of `training`, applied to `x`. (20 minutes, easy)

    Args:
        training: [n, d] floats, the points from which mean and components are found; n >= d.
        x: [m, d] floats, other points.
        count: numbers in the code, at most d.

    Returns: [m, d] floats; each point's nearest one among mean + any combination of the first `count` components.
    """
    raise NotImplementedError(
        "exercise 13.1: use NumPy, without a ready-made decomposition into components (np.linalg is fine)"
    )


def image_tokens(image, patch, kernel, bias, class_token, positions):
    """What a Vision Transformer reads (Dosovitskiy et al. 2021, equation 1). (25 minutes, medium)

    Patches follow each other like words on a page: left to right, then down. The numbers of a patch do so too, and the
    channels of one pixel stand side by side: row, column, channel.

    Args:
        image: [height, width, channels] floats; `patch` divides height and width.
        patch: side of a patch.
        kernel: [patch * patch * channels, model] floats.
        bias: [model] floats.
        class_token: [model] floats; it stands first.
        positions: [1 + patches, model] floats, one for every token.

    Returns: [1 + patches, model] floats.
    """
    raise NotImplementedError("exercise 13.2: use NumPy or JAX")
