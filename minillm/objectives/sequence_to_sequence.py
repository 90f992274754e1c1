"""The objective of an encoder-decoder: write the target, given the source and the target's own beginning.

L = - sum over t of  w_t log p(y_t | y_1 ... y_{t-1}, x)  /  sum over t of w_t        Sutskever et al. 2014, section 2

The decoder reads the true y_1 ... y_{t-1} (teacher forcing: Williams and Zipser 1989): `tokens` is `targets` one place
later, behind a beginning token.
"""

import jax.numpy as jnp

from minillm.models.contract import Batch, Model
from minillm.objectives.causal import prediction_sums
from minillm.objectives.contract import Sums


def sequence_to_sequence(
    model: Model, params, batch: Batch, key=None, extra=None, *, label_smoothing: float = 0.0, z_loss: bool = False
) -> Sums:
    """The sums of `causal`, and the metric "exact": the share of rows whose every weighted target is the most likely.

    Batch: source, source_mask [batch, keys]; tokens, targets, weights [batch, length]; index [batch].
    """
    if "source" not in batch:
        raise ValueError(f"sequence_to_sequence needs a batch with a source, got {sorted(batch)}")
    logits = model.logits(params, model.apply(params, batch, key=key).hidden)
    found = prediction_sums(logits, batch, extra, label_smoothing=label_smoothing, z_loss=z_loss)
    counts = batch["weights"] > 0.0
    rows = counts.any(-1).astype(jnp.float32)
    right = ((logits.argmax(-1) == batch["targets"]) | ~counts).all(-1)
    return found._replace(metrics=found.metrics | {"exact": ((right * rows).sum(), rows.sum())})
