"""Learn from labels by words: the language model's own scores of each class's word, in the place that a template leaves.

    s_c = logit of word v(c) at the label's place          L = - log softmax(s)_y       Schick and Schuetze 2021, section 3.1

The softmax runs over the words of the classes alone. No head is new: what pretraining taught about these words is where
learning begins. The place is a mask (BERT), or the last token of what stands before the label (GPT).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from minillm.models.contract import Batch, Model
from minillm.objectives.causal import prediction_sums
from minillm.objectives.contract import Sums
from minillm.objectives.masked import target_hidden


def word_scores(model: Model, params, batch: Batch, key=None) -> Float[Array, "batch labels"]:
    """The logits of the classes' words. Batch: words [batch, labels], target_positions [batch, 1]; `key`: dropout."""
    if "words" not in batch:
        raise ValueError(f"a pattern needs a batch of data.rows with words, got {sorted(batch)}")
    hidden = model.apply(params, batch, key=key).hidden
    scores = model.logits(params, target_hidden(hidden, batch))[:, 0]
    return jnp.take_along_axis(scores, batch["words"], axis=1)


def pattern(model: Model, params, batch: Batch, key=None, extra=None, *, label_smoothing: float = 0.0) -> Sums:
    """One class per row: sum "loss" over those with weight; metrics "nll" and "accuracy".

    Batch: that of `word_scores`, labels [batch] int, weights [batch]; index [batch] where there is dropout.
    """
    scores = word_scores(model, params, batch, key)
    rows = {"targets": batch["labels"][:, None], "weights": batch["weights"][:, None]}
    return prediction_sums(scores[:, None], rows, extra, label_smoothing=label_smoothing, z_loss=False)
