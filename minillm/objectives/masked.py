"""The masked-LM objective: predict the original token where one was masked, from both sides.

L = - sum over masked t of  log p(x_t | corrupted x)  /  number of masked t        Devlin et al. 2019, section 3.1

The corruption is the data's (`data/masking.py`), so that the weights depend on no parameter.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from minillm.models.contract import Batch, Model
from minillm.objectives.causal import token_losses
from minillm.objectives.contract import Sums

Scores = Float[Array, "batch targets vocab"]


def masked(model: Model, params, batch: Batch, key=None, extra=None) -> Sums:
    """Sum "masked" over the tokens with weight; metrics "nll" (nats per masked token) and "accuracy"."""
    hidden = model.apply(params, batch, key=key).hidden
    scores = model.logits(params, target_hidden(hidden, batch))
    return token_terms("masked", scores, batch["targets"], batch["weights"])._replace(extra=extra)


def target_hidden(hidden: Float[Array, "batch length model"], batch: Batch) -> Float[Array, "batch targets model"]:
    """The hidden states that predict: all, or those at batch["target_positions"] [batch, targets].

    One position in seven predicts; leaving out the others spares the head most of its products with the vocabulary.
    """
    if "target_positions" not in batch:
        return hidden
    return jnp.take_along_axis(hidden, batch["target_positions"][..., None], axis=1)


def token_terms(
    name: str, scores: Scores, targets: Int[Array, "batch targets"], weights: Float[Array, "batch targets"]
) -> Sums:
    """Cross-entropy of the tokens with weight as the sum `name`, with metrics "nll" and "accuracy"."""
    losses, _ = token_losses(scores, targets)
    correct = (scores.argmax(-1) == targets).astype(jnp.float32)
    loss, total = (losses * weights).sum(), weights.sum()
    return Sums({name: loss}, {name: total}, {"nll": (loss, total), "accuracy": ((correct * weights).sum(), total)})
