"""Span corruption: write down what was cut out of the source. Raffel et al. 2020, section 3.1.4.

`data.spans.corrupt_spans` cuts the spans; what remains to learn is a target sequence, given a source.
"""

import jax.numpy as jnp

from minillm.models.contract import Batch, Model
from minillm.objectives.causal import prediction_sums, token_losses
from minillm.objectives.contract import Sums


def span(
    model: Model, params, batch: Batch, key=None, extra=None, *, label_smoothing: float = 0.0, z_loss: bool = False
) -> Sums:
    """The sums of `causal`, and the metrics "recovered" and "removed_nll": accuracy and nats of what was cut out.

    "accuracy" and "nll" also count sentinels and end tokens, a quarter of the targets or more, which are learned at once.
    Batch: source, source_mask [batch, keys]; tokens, targets, weights, removed [batch, length]; index [batch].
    """
    if "removed" not in batch:
        raise ValueError(f"span needs a batch of data.spans.corrupt_spans, got {sorted(batch)}")
    logits = model.logits(params, model.apply(params, batch, key=key).hidden)
    found = prediction_sums(logits, batch, extra, label_smoothing=label_smoothing, z_loss=z_loss)
    removed = batch["removed"].astype(jnp.float32)
    correct = (logits.argmax(-1) == batch["targets"]).astype(jnp.float32)
    losses, _ = token_losses(logits, batch["targets"])
    total = removed.sum()
    mine = {"recovered": ((correct * removed).sum(), total), "removed_nll": ((losses * removed).sum(), total)}
    return found._replace(metrics=found.metrics | mine)
