"""Consistency: two views of one text should get one answer.

    R-Drop  L = (L_1 + L_2) / 2  +  strength * (KL(p_1 || p_2) + KL(p_2 || p_1)) / 2        Liang et al. 2021, equation 3
            p_1, p_2: the batch read twice with different dropout (theirs counts L_1 + L_2 whole: strength is half of it)

    UDA     L + strength * mean over texts u without label of  [max q(u) > threshold] H(q(u)^(1/t) / Z, p(u~))
            q: the model's answer to u, which no gradient passes; u~: u with noise        Xie et al. 2020, sections 2.2, 3

The mean of UDA is over all texts without label, also those whose answer is not sure enough: weights come from data alone.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from minillm.models.contract import Batch, Model
from minillm.objectives.contract import Objective, Sums, like
from minillm.objectives.contrastive import SECOND_VIEW
from minillm.objectives.supervised import class_sums, head_scores

UNLABELLED, NOISED = "unlabelled/", "noised/"  # what the names of such rows in a batch begin with

Scores = Float[Array, "batch labels"]


def part_of(batch: Batch, name: str) -> dict:
    """The fields whose names begin with `name`, without it; "": those that have no such beginning."""
    if not name:
        return {key: leaf for key, leaf in batch.items() if "/" not in key}
    return {key.removeprefix(name): leaf for key, leaf in batch.items() if key.startswith(name)}


def divergence(scores: Scores, others: Scores) -> Float[Array, "batch"]:
    """(KL(p || q) + KL(q || p)) / 2 of two softmaxes, in nats."""
    logs = [jax.nn.log_softmax(found.astype(jnp.float32)) for found in (scores, others)]
    return ((jnp.exp(logs[0]) - jnp.exp(logs[1])) * (logs[0] - logs[1])).sum(-1) / 2.0


def r_drop(model: Model, params, batch: Batch, key=None, extra=None, *, label_smoothing: float = 0.0) -> Sums:
    """`classify` as a mean over two readings, and the sum "consistency" of how far they diverge."""
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), dict(batch))
    twice["index"] = jnp.concatenate([batch["index"], batch["index"] + SECOND_VIEW])
    scores, rows = head_scores(model, params, twice, key, "classify"), len(batch["weights"])
    sums = class_sums(scores, twice, extra, label_smoothing=label_smoothing)
    apart = (divergence(scores[:rows], scores[rows:]) * batch["weights"]).sum()
    return _with_term(sums, "consistency", apart, batch["weights"].sum())


def uda(objective: Objective, *, threshold: float = 0.8, temperature: float = 0.4) -> Objective:
    """An objective -> the same with the sum "consistency"; metric "sure", the share of the answers that teach.

    The batch has rows "unlabelled/..." and, row by row, the same ones with noise, "noised/...".
    """

    def consistent(model: Model, params, batch: Batch, key=None, extra=None) -> Sums:
        sums = objective(model, params, part_of(batch, ""), key, extra)
        rows = part_of(batch, UNLABELLED)
        said = jax.lax.stop_gradient(head_scores(model, params, rows, None, "classify").astype(jnp.float32))
        sure = jax.nn.softmax(said).max(-1) > threshold
        targets = jax.nn.softmax(said / temperature)
        own = None if key is None else jax.random.fold_in(key, 1)
        scores = head_scores(model, params, part_of(batch, NOISED), own, "classify")
        losses = -(targets * jax.nn.log_softmax(scores.astype(jnp.float32))).sum(-1)
        counted, total = rows["weights"] * sure, rows["weights"].sum()
        found = _with_term(sums, "consistency", (losses * counted).sum(), total)
        return found._replace(metrics=found.metrics | {"sure": (counted.sum(), total)})

    return like(objective, consistent)


def _with_term(sums: Sums, name: str, value, weight) -> Sums:
    tables: tuple[Mapping, ...] = ({name: value}, {name: weight}, {name: (value, weight)})
    return Sums(*(old | new for old, new in zip(sums[:3], tables, strict=True)), sums.extra)
