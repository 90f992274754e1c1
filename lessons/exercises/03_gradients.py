"""Exercises of lesson 03. Check your work: `minillm lessons check 03`, with `--hints` for help."""


def softmax_cross_entropy_gradient(logits, targets, weights):
    """The gradient of the weighted mean cross-entropy L with respect to the logits. (15 minutes, easy)

        L = sum over i of  w_i * -log softmax(logits_i)[target_i]  /  sum over i of w_i

    Args:
        logits: [n, k] floats, one row per example; may be as large as 1000 (mind exp).
        targets: [n] integers from 0 to k - 1, the right class of each row.
        weights: [n] floats; 1 for a real row, 0 for padding, anything between for a row that counts less.

    Returns: [n, k] floats, dL/dlogits.
    """
    raise NotImplementedError("exercise 03.1: use NumPy or JAX, without automatic differentiation")


def adamw_update(parameter, gradient, first, second, step, rate, beta1=0.9, beta2=0.95, epsilon=1e-8, decay=0.1):
    """One step of AdamW (Loshchilov and Hutter 2019) for one array. (25 minutes, medium)

    Args:
        parameter, gradient: arrays of one shape.
        first, second: running means of the gradient and of its square, same shape; zeros before the first step.
        step: which update this is, counted from 1.
        rate: the learning rate of this step; it multiplies the decay too.
        beta1, beta2: how much of `first` and `second` is kept.
        epsilon: added to the square root, outside of it.
        decay: weight decay, decoupled.

    Returns: (parameter, first, second), all new; what you return is what the next call receives.
    """
    raise NotImplementedError("exercise 03.2: write the equations of the lesson, without optax")
