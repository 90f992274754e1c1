"""Say what an image shows: cross-entropy of its label, read off the class token.

L = - sum over images i of  w_i log p(label_i | image_i)  /  sum over i of w_i      Dosovitskiy et al. 2021, section 3.1
"""

from minillm.models.contract import Batch, Model
from minillm.nn.dropout import example_keys
from minillm.objectives.causal import prediction_sums
from minillm.objectives.contract import Sums


def image_classification(
    model: Model, params, batch: Batch, key=None, extra=None, *, label_smoothing: float = 0.0
) -> Sums:
    """Sum "loss" over the images with weight; metrics "nll" and "accuracy".

    Batch: images [batch, height, width, channels], labels, weights [batch]; index [batch] where there is dropout.
    """
    if "labels" not in batch:
        raise ValueError(f"image_classification needs a batch of data.images.image_batch_at, got {sorted(batch)}")
    hidden = model.apply(params, batch, key=key).hidden
    keys = None if key is None else example_keys(key, batch["index"])
    scores = model.heads["classify"](params, hidden, keys=keys)
    rows = {"targets": batch["labels"][:, None], "weights": batch["weights"][:, None]}
    return prediction_sums(scores[:, None], rows, extra, label_smoothing=label_smoothing, z_loss=False)
