"""Contrastive objectives: what should lie close is pulled together, everything else in the batch is pushed away.

    SimCSE   L_i = - log  exp(cos(h_i, h_i') / t) / sum over j of exp(cos(h_i, h_j') / t)     Gao et al. 2021, equation 1
             h and h' are one text read twice with different dropout: no label is needed

    SupCon   L_i = - mean over p in P(i) of  log  exp(z_i z_p / t) / sum over a != i of exp(z_i z_a / t)
             P(i): the other examples of the batch with i's label                  Khosla et al. 2020, equation 2 (L_out)

The second stands beside the cross-entropy of a classifier: CE + strength SCL, where Gunel et al. 2021, equation 1, have
(1 - l) CE + l SCL, the same with l = strength / (1 + strength) but for a factor of the gradient, which Adam sees through clipping alone.
Examples of a batch interact, so that a batch cannot be parted and added up (contract 3): `interacts` says so.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from minillm.models.contract import Batch, Model
from minillm.nn.dropout import example_keys
from minillm.nn.pooling import mean_of, unit_length
from minillm.objectives.contract import Sums
from minillm.objectives.masked import target_hidden
from minillm.objectives.supervised import class_sums

Vectors = Float[Array, "batch model"]
SECOND_VIEW = 2**30  # added to an example's index, so that its second reading has a noise of its own


def unit_vectors(
    hidden: Float[Array, "batch length model"], mask: Bool[Array, "batch length"], pooling: str
) -> Vectors:
    """A vector of length 1 per text: the mean over its tokens ("mean"), or the class token's ("first")."""
    return unit_length(mean_of(hidden, mask) if pooling == "mean" else hidden[:, 0].astype(jnp.float32))


def view_losses(
    first: Vectors, second: Vectors, real: Bool[Array, "batch"], temperature: float
) -> tuple[Float[Array, "batch"], Float[Array, "batch"]]:
    """(L_i of SimCSE, 1 where the nearest second view is the text's own); rows that are not real meet nobody."""
    cosines = jnp.where(real[None], first @ second.T / temperature, -jnp.inf)
    cosines = jnp.where(real[:, None], cosines, 0.0)
    own = jnp.diagonal(cosines)
    right = (cosines.argmax(-1) == jnp.arange(len(cosines))).astype(jnp.float32)
    return jax.nn.logsumexp(cosines, axis=-1) - own, right


def label_losses(
    vectors: Vectors, labels: Int[Array, "batch"], real: Bool[Array, "batch"], temperature: float
) -> tuple[Float[Array, "batch"], Bool[Array, "batch"]]:
    """(L_i of SupCon, which rows have a partner of their label); the others have a loss of 0."""
    others = real[:, None] & real[None] & ~jnp.eye(len(labels), dtype=bool)
    scores = jnp.where(others, vectors @ vectors.T / temperature, -1e9)
    log_shares = scores - jax.nn.logsumexp(scores, axis=-1, keepdims=True)
    partners = others & (labels[:, None] == labels[None])
    count = partners.sum(-1)
    losses = -jnp.where(partners, log_shares, 0.0).sum(-1) / jnp.maximum(count, 1)
    return losses, count > 0


def simcse(
    model: Model, params, batch: Batch, key=None, extra=None, *, temperature: float = 0.05, pooling: str = "mean"
) -> Sums:
    """Sum "loss" over the rows with weight; metrics "nll", the same, and "accuracy": the own second view is nearest.

    The views are made by dropout, also where held-out loss is measured (then by a fixed key). Batch: tokens, mask,
    weights, index [batch].
    """
    key = jax.random.key(0) if key is None else key
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), dict(batch))
    twice["index"] = jnp.concatenate([batch["index"], batch["index"] + SECOND_VIEW])
    vectors = unit_vectors(model.apply(params, twice, key=key).hidden, twice["mask"], pooling)
    real, rows = batch["weights"] > 0.0, len(batch["weights"])
    losses, right = view_losses(vectors[:rows], vectors[rows:], real, temperature)
    weights = real.astype(jnp.float32)
    loss, total = (losses * weights).sum(), weights.sum()
    return Sums(
        {"loss": loss}, {"loss": total}, {"nll": (loss, total), "accuracy": ((right * weights).sum(), total)}, extra
    )


def classify_contrastive(
    model: Model, params, batch: Batch, key=None, extra=None, *,
    label_smoothing: float = 0.0, temperature: float = 0.1, pooling: str = "mean",
) -> Sums:  # fmt: skip
    """`classify`, and from the same pass the sum "contrastive" over the rows that have a partner of their label."""
    hidden = model.apply(params, batch, key=key).hidden
    keys = None if key is None else example_keys(key, batch["index"])
    scores = model.heads["classify"](params, target_hidden(hidden, batch), keys=keys)
    sums = class_sums(scores, batch, extra, label_smoothing=label_smoothing)
    vectors = unit_vectors(hidden, batch["mask"], pooling)
    losses, paired = label_losses(vectors, batch["labels"], batch["weights"] > 0.0, temperature)
    terms = {"contrastive": losses.sum()}, {"contrastive": paired.astype(jnp.float32).sum()}
    metrics = {"contrastive": (terms[0]["contrastive"], terms[1]["contrastive"])}
    return Sums(sums.sums | terms[0], sums.weights | terms[1], sums.metrics | metrics, extra)


simcse.interacts = classify_contrastive.interacts = True
