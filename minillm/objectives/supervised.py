"""Learn from labels: one class, several classes, a number, a class per token, or where an answer begins and ends.

    classify     L = - log softmax(s)_y                                   Devlin et al. 2019, section 4.1
    multi_label  L = - mean over classes c of  y_c log sigmoid(s_c) + (1 - y_c) log sigmoid(-s_c)
    regression   L = (s - y)^2                                            their STS-B, appendix B.1
    tag          L = - log softmax(s_t)_{y_t}, over the tokens that carry a tag        section 5.3
    span_qa      L = - (log P_first + log Q_last) / 2,  P_i = exp(s_i1) / sum_j exp(s_j1), Q of s_i2 likewise        section 4.2

The scores s come from a head of the model: "classify" reads a whole row or image, "tag" and "span" each token.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from minillm.models.contract import Batch, Model
from minillm.nn.dropout import example_keys
from minillm.objectives.causal import prediction_sums
from minillm.objectives.contract import Sums
from minillm.objectives.masked import target_hidden

NOWHERE = -1e9  # the score of a token that cannot be part of an answer


def head_scores(model: Model, params, batch: Batch, key, head: str):
    """What a head says of the batch: "classify" [batch, labels], "tag" [batch, length, labels], "span" [batch, length, 2].

    `key` turns dropout on. Where the batch has target_positions, the head reads the tokens there alone.
    """
    if "labels" not in batch:
        raise ValueError(f"a head needs a batch of data.images or data.rows, with labels, got {sorted(batch)}")
    hidden = model.apply(params, batch, key=key).hidden
    keys = None if key is None else example_keys(key, batch["index"])
    return model.heads[head](params, target_hidden(hidden, batch), keys=keys)


def classify(model: Model, params, batch: Batch, key=None, extra=None, *, label_smoothing: float = 0.0) -> Sums:
    """One class per row or image: sum "loss" over those with weight; metrics "nll" and "accuracy".

    Batch: a model's input, labels [batch] int, weights [batch]; index [batch] where there is dropout.
    """
    scores = head_scores(model, params, batch, key, "classify")
    return class_sums(scores, batch, extra, label_smoothing=label_smoothing)


def class_sums(scores: Float[Array, "batch labels"], batch: Batch, extra=None, *, label_smoothing: float = 0.0) -> Sums:
    """What `classify` returns, from scores. Labels [batch, labels] are probabilities that a teacher gives."""
    if batch["labels"].ndim == 2:
        return _soft_sums(scores.astype(jnp.float32), batch["labels"], batch["weights"], extra)
    rows = {"targets": batch["labels"][:, None], "weights": batch["weights"][:, None]}
    return prediction_sums(scores[:, None], rows, extra, label_smoothing=label_smoothing, z_loss=False)


def _soft_sums(scores, labels, weights, extra) -> Sums:
    losses = -(labels * jax.nn.log_softmax(scores)).sum(-1)
    right = (scores.argmax(-1) == labels.argmax(-1)).astype(jnp.float32)
    loss, total = (losses * weights).sum(), weights.sum()
    return Sums(
        {"loss": loss}, {"loss": total}, {"nll": (loss, total), "accuracy": ((right * weights).sum(), total)}, extra
    )


def multi_label(model: Model, params, batch: Batch, key=None, extra=None) -> Sums:
    """Any number of classes per row: sum "loss", a mean over classes; metrics "nll" and "accuracy" (of single decisions).

    Batch: labels [batch, classes], 1.0 where a class applies.
    """
    scores = head_scores(model, params, batch, key, "classify").astype(jnp.float32)
    labels, weights = batch["labels"], batch["weights"]
    losses = -(labels * jax.nn.log_sigmoid(scores) + (1.0 - labels) * jax.nn.log_sigmoid(-scores)).mean(-1)
    right = ((scores > 0.0) == (labels > 0.5)).astype(jnp.float32).mean(-1)
    loss, total = (losses * weights).sum(), weights.sum()
    metrics = {"nll": (loss, total), "accuracy": ((right * weights).sum(), total)}
    return Sums({"loss": loss}, {"loss": total}, metrics, extra)


def regression(model: Model, params, batch: Batch, key=None, extra=None) -> Sums:
    """A number per row: sum "loss" of squared errors; metric "squared_error". Batch: labels [batch] float."""
    scores = head_scores(model, params, batch, key, "classify")[:, 0].astype(jnp.float32)
    weights = batch["weights"]
    loss, total = (jnp.square(scores - batch["labels"]) * weights).sum(), weights.sum()
    return Sums({"loss": loss}, {"loss": total}, {"squared_error": (loss, total)}, extra)


def tag(model: Model, params, batch: Batch, key=None, extra=None, *, label_smoothing: float = 0.0) -> Sums:
    """A class per token: sum "loss" over tokens with weight; metrics "nll" and "accuracy" (of tags, not of entities).

    Batch: labels [batch, length] int, weights [batch, length], 0 where a token carries no tag.
    """
    scores = head_scores(model, params, batch, key, "tag")
    rows = {"targets": batch["labels"], "weights": batch["weights"]}
    return prediction_sums(scores, rows, extra, label_smoothing=label_smoothing, z_loss=False)


def span_qa(model: Model, params, batch: Batch, key=None, extra=None) -> Sums:
    """Where the answer begins and ends: sum "loss" over rows with weight; metrics "nll" and "accuracy" (both places right).

    Batch: labels [batch, 2] int, the answer's first and last token; answerable [batch, length] bool, the tokens among which
    they are looked for: those of the passage, and the class token, where the row has not got the answer.
    """
    scores = head_scores(model, params, batch, key, "span").astype(jnp.float32)
    scores = jnp.where(batch["answerable"][..., None], scores, NOWHERE)
    labels, weights = batch["labels"], batch["weights"]
    likely = jnp.take_along_axis(jax.nn.log_softmax(scores, axis=1), labels[:, None, :], axis=1)[:, 0]
    right = (scores.argmax(1) == labels).all(-1).astype(jnp.float32)
    loss, total = -(likely.mean(-1) * weights).sum(), weights.sum()
    metrics = {"nll": (loss, total), "accuracy": ((right * weights).sum(), total)}
    return Sums({"loss": loss}, {"loss": total}, metrics, extra)
