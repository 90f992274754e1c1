"""StructBERT's objective: masked words, shuffled words put back in order, and the order of two sentences.

L = masked + word structure + sentence structure        Wang et al. 2019, section 2.3

The word structural objective predicts the original token at every place of a shuffled trigram with the masked LM's own
head; the sentence structural objective tells next, previous and random apart (`data/pairs.py`, kind "structural").
"""

from minillm.models.contract import Batch, Model
from minillm.objectives.contract import Sums
from minillm.objectives.masked import target_hidden, token_terms
from minillm.objectives.next_sentence import join, sentence_terms


def structural(model: Model, params, batch: Batch, key=None, extra=None) -> Sums:
    """Sums "masked", "word_order" and "next_sentence", each with its own weight, from one pass.

    Metrics as in `masked_next_sentence`, and "word_order_nll" and "word_order_accuracy".
    """
    if "order_weights" not in batch:
        raise ValueError(f"structural needs a batch of data.masking.shuffle_trigrams, got {sorted(batch)}")
    hidden = model.apply(params, batch, key=key).hidden
    scores = model.logits(params, target_hidden(hidden, batch))
    tokens = token_terms("masked", scores, batch["targets"], batch["weights"])
    order = token_terms("word_order", scores, batch["targets"], batch["order_weights"])
    order = order._replace(metrics={f"word_order_{metric}": pair for metric, pair in order.metrics.items()})
    return join(tokens, order, sentence_terms(model, params, hidden, batch))._replace(extra=extra)
