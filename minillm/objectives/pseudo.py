"""Self-training: what a teacher says of texts without labels is learned as if it were their labels.

    L = L(labels)  +  strength * mean over pseudo-labelled texts u of  - sum over classes c of  q_c(u) log p_c(u)

q is one class (Yarowsky 1995; Lee 2013, equation 15) or the teacher's probabilities (Hinton et al. 2015). The data says
which texts count: those that the teacher is sure of.
"""

import jax

from minillm.models.contract import Batch, Model
from minillm.objectives.consistency import part_of
from minillm.objectives.contract import Objective, Sums, like
from minillm.objectives.supervised import classify

PSEUDO = "pseudo/"  # what the names of such rows in a batch begin with


def with_pseudo_labels(objective: Objective) -> Objective:
    """An objective -> the same with the sum "pseudo" over the rows "pseudo/..." of the batch.

    Their labels are classes [rows] or probabilities [rows, classes], which label smoothing leaves as they are.
    """

    def taught(model: Model, params, batch: Batch, key=None, extra=None) -> Sums:
        own = {name: leaf for name, leaf in batch.items() if not name.startswith(PSEUDO)}
        sums = objective(model, params, own, key, extra)
        other = None if key is None else jax.random.fold_in(key, 2)
        found = classify(model, params, part_of(batch, PSEUDO), other)
        loss, weight = found.sums["loss"], found.weights["loss"]
        metrics = {"pseudo": (loss, weight), "pseudo_accuracy": found.metrics["accuracy"]}
        return Sums(sums.sums | {"pseudo": loss}, sums.weights | {"pseudo": weight}, sums.metrics | metrics, sums.extra)

    return like(objective, taught)
