"""How two sentences stand to each other: next or random (BERT), in order or swapped (ALBERT), or three ways (StructBERT).

The data draws the pair and its label (`data/pairs.py`); the objective is the same. With the masked LM it is BERT's
pretraining, L = masked + next sentence (Devlin et al. 2019, appendix A.2): two sums over different things, tokens and
rows, each divided by a weight of its own.
"""

from jaxtyping import Array, Float

from minillm.models.contract import Batch, Model
from minillm.objectives.contract import Sums
from minillm.objectives.masked import target_hidden, token_terms


def next_sentence(model: Model, params, batch: Batch, key=None, extra=None) -> Sums:
    """Sum "next_sentence" over the rows with weight; metrics "next_sentence_nll" and "next_sentence_accuracy"."""
    hidden = model.apply(params, batch, key=key).hidden
    return sentence_terms(model, params, hidden, batch)._replace(extra=extra)


def masked_next_sentence(model: Model, params, batch: Batch, key=None, extra=None) -> Sums:
    """BERT's pretraining: the sums and metrics of `masked` and `next_sentence`, from one pass."""
    hidden = model.apply(params, batch, key=key).hidden
    scores = model.logits(params, target_hidden(hidden, batch))
    tokens = token_terms("masked", scores, batch["targets"], batch["weights"])
    return join(tokens, sentence_terms(model, params, hidden, batch))._replace(extra=extra)


def sentence_terms(model: Model, params, hidden: Float[Array, "batch length model"], batch: Batch) -> Sums:
    """Cross-entropy of the relation of A and B, read off the class token."""
    if "sentence_labels" not in batch:
        raise ValueError(f"next_sentence needs a batch of data.pairs.pair_batch_at, got {sorted(batch)}")
    scores = model.heads["next_sentence"](params, hidden)
    name, labels, weights = "next_sentence", batch["sentence_labels"], batch["sentence_weights"]
    terms = token_terms(name, scores[:, None], labels[:, None], weights[:, None])
    return terms._replace(metrics={f"{name}_{metric}": pair for metric, pair in terms.metrics.items()})


def join(*parts: Sums) -> Sums:
    """Several objectives' sums as one; each name keeps its own weight. Raises: ValueError for a name used twice."""
    merged = Sums({}, {}, {})
    for part in parts:
        twice = [name for old, new in zip(merged[:3], part[:3], strict=True) for name in set(old) & set(new)]
        if twice:
            raise ValueError(f"two objectives share the names {sorted(set(twice))}")
        merged = Sums(*({**old, **new} for old, new in zip(merged[:3], part[:3], strict=True)))
    return merged
