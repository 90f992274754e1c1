"""A linear rule for two classes, learned from several domains: plainly (erm), or by one of `objectives/invariance.py`.

    erm         the mean of the domains' risks
    dro         the risks weighed by how bad they are                               Sagawa et al. 2020
    irm         the mean plus the penalty on slopes, after some steps without it    Arjovsky et al. 2019

So small that it can be learned in a second, and read: each feature has one weight.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from minillm.objectives import invariance

Method = Literal["erm", "dro", "irm"]
RATE = 0.05  # of Adam, and of group DRO's weights
PLAIN_STEPS, STRENGTH = 100, 100.0  # irm: steps before the penalty counts, and how much it then does


def fit_rule(
    features: Float[np.ndarray, "examples features"],
    labels: Int[np.ndarray, "examples"],
    domains: Int[np.ndarray, "examples"],
    method: Method = "erm",
    steps: int = 600,
) -> Float[np.ndarray, "features"]:
    """The weights of a rule that says 1 where features @ weights > 0, by Adam on all examples at once, from zeros.

    Raises: ValueError for labels other than 0 and 1, or an unknown method.
    """
    if set(np.unique(labels)) - {0, 1}:
        raise ValueError(f"a rule tells 0 from 1, got labels {np.unique(labels).tolist()}")
    if method not in ("erm", "dro", "irm"):
        raise ValueError(f"method must be erm, dro or irm, got {method!r}")
    inputs = jnp.asarray(features, jnp.float32), jnp.asarray(labels, jnp.int32), jnp.asarray(domains, jnp.int32)
    return np.asarray(_fit(*inputs, count=int(np.max(domains)) + 1, method=method, steps=steps))


@functools.partial(jax.jit, static_argnames=("count", "method", "steps"))
def _fit(features: Array, labels: Array, domains: Array, count: int, method: str, steps: int) -> Array:
    rule, start = optax.adam(RATE), jnp.zeros(features.shape[1])

    def loss(kernel: Array, log_weights: Array, strength: Array):
        scores = jnp.stack([jnp.zeros(len(features)), features @ kernel], axis=1)
        risks = invariance.domain_risks(scores, labels, domains, count)
        penalty = invariance.irm_penalty(scores, labels, domains, count) if method == "irm" else 0.0
        # divided as the authors do, so that a large strength makes no large step
        return ((jnp.exp(log_weights) * risks).sum() + strength * penalty) / jnp.maximum(strength, 1.0), risks

    def step(number: Array, carry: tuple):
        kernel, state, log_weights = carry
        strength = jnp.where((number >= PLAIN_STEPS) & (method == "irm"), STRENGTH, 0.0)
        slope, risks = jax.grad(loss, has_aux=True)(kernel, log_weights, strength)
        change, state = rule.update(slope, state)
        log_weights = invariance.reweigh_domains(log_weights, risks, RATE) if method == "dro" else log_weights
        return kernel + change, state, log_weights

    return jax.lax.fori_loop(0, steps, step, (start, rule.init(start), jnp.full(count, -np.log(count))))[0]
