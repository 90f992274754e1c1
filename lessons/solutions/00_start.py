"""Solutions of lesson 00."""

from hashlib import sha256

import jax
import jax.numpy as jnp


def distances(x, y):
    """[n, 1, d] - [1, m, d] is [n, m, d]; the last axis is summed."""
    difference = jnp.asarray(x)[:, None, :] - jnp.asarray(y)[None, :, :]
    return jnp.sqrt(jnp.square(difference).sum(-1))


def global_norm(tree):
    """One sum over all squares, one root."""
    return jnp.sqrt(sum(jnp.square(jnp.asarray(leaf)).sum() for leaf in jax.tree.leaves(tree)))


def draw(key, shapes):
    """Each name has a key of its own, made from the name alone."""
    word = lambda name: int.from_bytes(sha256(name.encode()).digest()[:4], "big")
    return {name: jax.random.normal(jax.random.fold_in(key, word(name)), shape) for name, shape in shapes.items()}


def huber(x):
    """Both cases are computed, jnp.where picks."""
    return jnp.where(jnp.abs(x) <= 1.0, 0.5 * jnp.square(x), jnp.abs(x) - 0.5)
