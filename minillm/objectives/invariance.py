"""What holds in every domain, and what holds only where one looked: penalties over domains, for scores of classes.

    IRM        sum over domains e of |d R_e(w s) / d w at w = 1|^2        Arjovsky et al. 2019, IRMv1, section 3.1
               R_e(w s): the mean cross-entropy of domain e when the scores s count w times; for a softmax p its slope is
               the mean of  sum over classes c of p_c s_c - s_y

    Group DRO  sum over e of q_e R_e,  q_e <- q_e exp(rate R_e) / Z       Sagawa et al. 2020, algorithm 1

A rule that serves all domains needs no other scale in any of them, so that IRM's slopes are 0; a rule that leans on what
goes with the label more often in one domain than in another does. Group DRO minimises the worst domain instead. Examples
of a domain meet in the square, so that IRM cannot be parted into shards.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Scores = Float[Array, "batch labels"]


def domain_means(values: Float[Array, "batch"], domains: Int[Array, "batch"], count: int) -> Float[Array, "domains"]:
    """The mean of each domain's values, 0 where it has none."""
    own = jax.nn.one_hot(domains, count)
    return own.T @ values / jnp.maximum(own.sum(0), 1.0)


def domain_risks(
    scores: Scores, labels: Int[Array, "batch"], domains: Int[Array, "batch"], count: int
) -> Float[Array, "domains"]:
    """The mean cross-entropy of each domain, in nats; their mean weighs domains alike, whatever their sizes."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], axis=1)[:, 0]
    return domain_means(-chosen, domains, count)


def irm_penalty(
    scores: Scores, labels: Int[Array, "batch"], domains: Int[Array, "batch"], count: int
) -> Float[Array, ""]:
    """The sum over domains of the squared slope."""
    own = jnp.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
    slopes = (jax.nn.softmax(scores) * scores).sum(1) - own
    return jnp.square(domain_means(slopes, domains, count)).sum()


def reweigh_domains(
    weights: Float[Array, "domains"], risks: Float[Array, "domains"], rate: float
) -> Float[Array, "domains"]:
    """Group DRO's weights after a step: the worse a domain, the more it counts next time."""
    raised = weights * jnp.exp(rate * jax.lax.stop_gradient(risks))
    return raised / raised.sum()
