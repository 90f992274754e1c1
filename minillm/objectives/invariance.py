"""What holds in every domain, and what holds only where one looked: penalties over domains, for scores of classes.

    IRM        sum over domains e of |d R_e(w s) / d w at w = 1|^2        Arjovsky et al. 2019, IRMv1, section 3.1
               R_e(w s): the mean cross-entropy of domain e when the scores s count w times; for a softmax p its slope is
               the mean of  sum over classes c of p_c s_c - s_y

    Group DRO  sum over e of q_e R_e,  q_e <- q_e exp(rate R_e) / Z       Sagawa et al. 2020, algorithm 1

A rule that serves all domains needs no other scale in any of them, so that IRM's slopes are 0; a rule that leans on what
goes with the label more often in one domain than in another does. Group DRO minimises the worst domain instead. Examples
of a domain meet in the square, so that IRM cannot be parted into shards; Group DRO's sum can, once q is known.

In runs ([invariance]) batches are drawn from all texts, whatever their domains, where both papers draw from each alike.
IRM's penalty stands beside the batch's mean loss (theirs beside the sum of R_e), and Group DRO's q is that of the step
before (theirs has seen the batch that it weighs), so that it is known before the batch is parted.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from minillm.models.contract import Batch, Model
from minillm.objectives.contract import Sums
from minillm.objectives.supervised import class_sums, head_scores

MEMORY = "invariance"  # in a state's extra: irm's number of updates, or group DRO's log q
Scores = Float[Array, "batch labels"]
Own = Float[Array, "batch domains"]  # 1 where a row with weight is of that domain


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


def scale_slopes(scores: Scores, labels: Int[Array, "batch"]) -> Float[Array, "batch"]:
    """How fast each cross-entropy grows when the scores do."""
    own = jnp.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
    return (jax.nn.softmax(scores) * scores).sum(1) - own


def irm_penalty(
    scores: Scores, labels: Int[Array, "batch"], domains: Int[Array, "batch"], count: int
) -> Float[Array, ""]:
    """The sum over domains of the squared slope, of all examples there are."""
    return jnp.square(domain_means(scale_slopes(scores, labels), domains, count)).sum()


def irm_estimate(scores: Scores, labels: Int[Array, "batch"], own: Own) -> Float[Array, ""]:
    """The same from a batch that is a sample: the mean over pairs of different rows of slope times slope, 0 of single ones.

    The square of a sample's mean is too large by the mean's variance; products of different rows are right on average.
    Arjovsky et al. multiply the means of two halves (section 3.1), which has the same mean and varies more. May be negative.
    """
    slopes = scale_slopes(scores, labels)
    sums, squares, rows = own.T @ slopes, own.T @ jnp.square(slopes), own.sum(0)
    return ((jnp.square(sums) - squares) / jnp.maximum(rows * (rows - 1.0), 1.0)).sum()


def classify_irm(
    model: Model, params, batch: Batch, key=None, extra=None, *, domains: tuple[str, ...], strength: float, warmup: int = 0
) -> Sums:  # fmt: skip
    """`classify`, and the sum "irm", `strength` times the estimate, once at the most during `warmup` updates.

    Batch: domains [batch] int, places in `domains`. The metric "irm" is the estimate itself. As in their program all is
    divided by the strength that counts where it is above 1, so that the end of the warm-up makes no large step.
    """
    scores = head_scores(model, params, batch, key, "classify").astype(jnp.float32)
    sums = class_sums(scores, batch, extra)
    penalty = irm_estimate(scores, batch["labels"], own_rows(batch, domains))
    factor = jnp.where(extra[MEMORY] < warmup, min(1.0, strength), strength) if warmup else strength
    one, scale = jnp.ones(()), 1.0 / jnp.maximum(factor, 1.0)
    terms = {"loss": scale * sums.sums["loss"], "irm": scale * factor * penalty}
    weights, metrics = {"irm": one}, {"irm": (penalty, one)}
    return Sums(sums.sums | terms, sums.weights | weights, sums.metrics | metrics, extra)


def classify_dro(
    model: Model, params, batch: Batch, key=None, extra=None, *, domains: tuple[str, ...], label_smoothing: float = 0.0
) -> Sums:
    """A sum "risk_NAME" per domain, which counts q_e times; metrics of them as they are, and q as "weight_NAME"."""
    scores, q = head_scores(model, params, batch, key, "classify"), jax.nn.softmax(extra[MEMORY])
    metrics, sums, weights = dict(class_sums(scores, batch).metrics), {}, {}
    for place, (name, own) in enumerate(zip(domains, own_rows(batch, domains).T, strict=True)):
        part = class_sums(scores, {**batch, "weights": own}, label_smoothing=label_smoothing)
        loss, weights[f"risk_{name}"] = part.sums["loss"], part.weights["loss"]
        sums[f"risk_{name}"] = q[place] * loss
        metrics |= {f"risk_{name}": (loss, part.weights["loss"]), f"weight_{name}": (q[place], jnp.ones(()))}
    return Sums(sums, weights, metrics, extra)


classify_irm.interacts = True


def own_rows(batch: Batch, domains: tuple[str, ...]) -> Own:
    """Which rows with weight are of which domain."""
    return jax.nn.one_hot(batch["domains"], len(domains)) * batch["weights"][:, None]


def reweigh_domains(
    log_weights: Float[Array, "domains"], risks: Float[Array, "domains"], rate: float
) -> Float[Array, "domains"]:
    """The logarithms of group DRO's weights after a step: the worse a domain, the more it counts next time.

    A weight itself would reach 0 in float32 after some hundred steps, and never come back.
    """
    return jax.nn.log_softmax(log_weights + rate * jax.lax.stop_gradient(risks))
