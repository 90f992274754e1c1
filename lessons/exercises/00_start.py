"""Exercises of lesson 00. Check your work: `minillm lessons check 00`, with `--hints` for help."""


def distances(x, y):
    """Euclidean distances between all rows of x and all rows of y, without a loop. (10 minutes, easy)

        distances([[0.0, 0.0]], [[3.0, 4.0], [0.0, 1.0]]) == [[5.0, 1.0]]

    Args:
        x: [n, d] floats.
        y: [m, d] floats.

    Returns: [n, m] floats.
    """
    raise NotImplementedError("exercise 00.1: make the shapes [n, 1, d] and [1, m, d], then broadcast")


def global_norm(tree):
    """The Euclidean norm of all leaves of a tree as one long vector. (10 minutes, easy)

        global_norm({"a": [3.0], "b": {"c": [[4.0]]}}) == 5.0

    Args:
        tree: nested dicts, lists and tuples; the leaves are arrays of floats of any shape.

    Returns: a number.
    """
    raise NotImplementedError("exercise 00.2: jax.tree.leaves, squares, one sum over everything, one root")


def draw(key, shapes):
    """Standard normal numbers for every name; adding or removing a name changes no other's. (15 minutes, medium)

    Equal key and name give equal numbers, today and in another process; other names and other keys give independent ones.
    (Python's `hash` of a string differs from process to process.)

    Args:
        key: a JAX key, from jax.random.key.
        shapes: {name: shape}, names are strings, shapes tuples of integers.

    Returns: {name: array of that shape}, the same names.
    """
    raise NotImplementedError("exercise 00.3: make a whole number from each name, then jax.random.fold_in")


def huber(x):
    """A loss that forgives outliers, entry by entry: x^2 / 2 where |x| <= 1, |x| - 1/2 elsewhere. (15 minutes, medium)

    `jax.jit(huber)` must work, on arrays of any shape, and so must its derivative: x between -1 and 1, the sign of x outside.

    Args:
        x: an array of floats.

    Returns: an array of the same shape.
    """
    raise NotImplementedError("exercise 00.4: a tracer has no value that an `if` could look at; choose with jnp.where")
