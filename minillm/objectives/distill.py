"""Learning without forgetting: what the old model says of the new texts is a target too. Li and Hoiem 2017.

    L = L_new + strength * mean over rows of  - sum_y q_y log p_y,   p = softmax(s / T), q = softmax(s_old / T)

Their equations 2 to 4, with T = 2 after Hinton et al. 2015. No old text is needed. Here old and new task share the head.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from minillm.models.contract import Batch, Model
from minillm.objectives.contract import Objective, Sums, like
from minillm.objectives.supervised import head_scores

OLD = "old_scores"  # [batch, classes]: the key of a batch


def distilled(objective: Objective, temperature: float) -> Objective:
    """`classify`'s objective with one more sum, "distill", over the rows of a batch with `OLD` scores (0 without them)."""

    def both(model: Model, params, batch: Batch, key=None, extra=None) -> Sums:
        found = objective(model, params, batch, key, extra)
        weights = batch["weights"].astype(jnp.float32)
        loss = jnp.zeros(())
        if OLD in batch:
            scores = head_scores(model, params, batch, key, "classify").astype(jnp.float32)
            target = jax.nn.softmax(batch[OLD].astype(jnp.float32) / temperature)
            loss = (-(target * jax.nn.log_softmax(scores / temperature)).sum(-1) * weights).sum()
        sums, totals = {**found.sums, "distill": loss}, {**found.weights, "distill": weights.sum()}
        return Sums(sums, totals, {**found.metrics, "distill": (loss, weights.sum())}, found.extra)

    return like(objective, both)


def with_old_scores(gradient: Callable, scores: Callable) -> Callable:
    """A gradient whose batches get `OLD` scores: (frozen, batch) -> [batch, classes]; nothing is learned through them."""

    def old(frozen, batch):
        return {**batch, OLD: jax.lax.stop_gradient(scores(frozen, batch))}

    def wrapped(trainable, frozen, extra, batch, key, weights=None):
        return gradient(trainable, frozen, extra, old(frozen, batch), key, weights)

    wrapped.weights = lambda trainable, frozen, extra, batch, key: gradient.weights(
        trainable, frozen, extra, old(frozen, batch), key
    )
    wrapped.interacts = getattr(gradient, "interacts", False)
    return wrapped
