"""Elastic weight consolidation: weights that an old task needs are held near where it left them. Kirkpatrick et al. 2017.

    L = L_new + strength / 2 * sum over weights i of  F_i (theta_i - theta*_i)^2                       equation 3

theta* is where the run begins, F the diagonal of the Fisher information there, summed over the old tasks. Deviation: they
keep one anchor per task; here the last one stands for all, as in Schwarz et al. 2018, section 3.2. Both are frozen.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from minillm.params import Params
from minillm.tuning.contract import Tuning

FISHER = "fisher"  # beside a base's parameters: what `elastic` finds there
MODEL, ANCHOR = "model", "anchor"  # parts of what these methods freeze


def anchored(tuning: Tuning) -> Tuning:
    """The method with the trainable parameters as they began under ANCHOR, its own frozen ones under MODEL."""

    def init(params, key):
        trainable, frozen, extra = tuning.init({name: part for name, part in params.items() if name != FISHER}, key)
        return trainable, {MODEL: frozen, ANCHOR: jax.tree.map(jnp.copy, trainable)}, extra

    penalty = tuning.penalty and (lambda trainable, frozen: tuning.penalty(trainable, frozen[MODEL]))
    attach = lambda trainable, frozen: tuning.attach(trainable, frozen[MODEL])
    return tuning._replace(init=init, attach=attach, penalty=penalty)


def without_anchor(frozen: Params) -> Params:
    """What the method itself has frozen: the base that a saved adapter is put on."""
    return frozen[MODEL] if ANCHOR in frozen else frozen


def elastic(tuning: Tuning, strength: float) -> Tuning:
    """The method with the penalty of equation 3 beside its own; params[FISHER] has F in the shape of what trains."""
    held = anchored(tuning)

    def init(params, key):
        trainable, frozen, extra = held.init(params, key)
        unknown = jax.tree.map(jnp.zeros_like, trainable)  # where only shapes are asked for
        return trainable, frozen | {FISHER: params.get(FISHER, unknown)}, extra

    def penalty(trainable, frozen):
        own = 0.0 if held.penalty is None else held.penalty(trainable, frozen)
        return own + 0.5 * strength * weighted_distance(trainable, frozen[ANCHOR], frozen[FISHER])

    return held._replace(init=init, penalty=penalty)


def weighted_distance(parameters: Params, anchor: Params, weights: Params) -> Float[Array, ""]:
    """sum_i F_i (theta_i - theta*_i)^2."""
    parts = jax.tree.map(lambda now, then, weight: (weight * jnp.square(now - then)).sum(), parameters, anchor, weights)
    return sum(jax.tree.leaves(parts), start=jnp.zeros(()))


def fisher_information(log_probabilities: Callable, trainable: Params, rows: dict) -> Params:
    """The diagonal of the Fisher information: mean over rows x of  sum_y p(y | x) (d log p(y | x) / d theta)^2.

    Exact in y: all classes are gone through, none is drawn, and no label is read. (trainable, row) -> [classes] gives
    log p; the leaves of `rows` have all rows on their first axis, and are gone through in order.
    """

    def add(total, row):
        slopes = jax.jacrev(log_probabilities)(trainable, row)  # leaves [classes, ...]
        weights = jnp.exp(log_probabilities(trainable, row))
        return jax.tree.map(lambda sum, slope: sum + jnp.tensordot(weights, jnp.square(slope), 1), total, slopes), None

    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, trainable), rows)
    count = len(jax.tree.leaves(rows)[0])
    return jax.tree.map(lambda leaf: leaf / count, total)
