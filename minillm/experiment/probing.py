"""One question for all models alike: how well are labels read off their frozen features?

A document's features are the mean of its first tokens' hidden states: the decoder's where a model reads from left to
right, the encoder's otherwise. Labels are the first part of a document's name ("sport/017").
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from minillm.data.clean import Splits
from minillm.data.tokenizer import BOS, EOS, PAD
from minillm.errors import UserError
from minillm.evaluation.probe import ridge_probe
from minillm.experiment.ask.reopen import open_run
from minillm.experiment.data import split_documents
from minillm.experiment.saved import judged_step, restore
from minillm.experiment.setup import Setup, new_state

ROWS = 32  # documents per pass


def probe(root: Path) -> dict[str, float]:
    """Accuracy on the run's validation documents of probes fitted on its training documents.

    "trained": features of the run; "untrained": of the same model before its first step; "counts": the logarithms of
    how often each token occurs in the same tokens; "majority": always the most frequent label.
    """
    folder, experiment, tokenizer, setup, _ = open_run(root)
    if tokenizer is None:
        raise UserError("a probe needs documents with labels", str(root), "use a run on text")
    splits = split_documents(experiment)[0]
    names = label_names(splits)
    room = setup.config.context - 2  # BERT's frame takes two
    rows, labels = {}, {}
    for part in ("train", "validation"):
        documents = getattr(splits, part)
        rows[part] = [ids[:room] for ids in tokenizer.encode_many([document.text for document in documents])]
        labels[part] = [names.index(_label(document.name)) for document in documents]
    state, frozen, _ = restore(folder, setup, judged_step(folder))
    before, _ = new_state(setup)
    kinds: dict[str, Callable] = {
        "trained": lambda ids: features(setup, setup.tuning.attach(state.trainable, frozen), ids),
        "untrained": lambda ids: features(setup, setup.tuning.attach(before.trainable, frozen), ids),
        "counts": lambda ids: np.stack([np.log1p(np.bincount(row, minlength=tokenizer.vocabulary)) for row in ids]),
    }
    found = {"majority": float(np.mean(np.array(labels["validation"]) == np.bincount(labels["train"]).argmax()))}
    for name, make in kinds.items():
        arguments = (make(rows["train"]), labels["train"], make(rows["validation"]), labels["validation"])
        found[name] = ridge_probe(*arguments)["accuracy"]
    return found


def label_names(splits: Splits) -> list[str]:
    """The labels of training and validation documents. Raises: UserError where their names hold none."""
    names = sorted({_label(document.name) for part in (splits.train, splits.validation) for document in part})
    if not 2 <= len(names) <= 100:
        message = f"{len(names)} labels in the names of documents, expected 2 to 100"
        raise UserError(message, "probe", "use a source whose names begin with a label, such as bbc-news, or no probe")
    return names


def features(setup: Setup, params: Any, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """[rows, model]: the mean of the hidden states of each row's own tokens, in float32."""
    length, first = setup.config.context, [] if hasattr(setup.module, "encode") else [BOS]  # an encoder never saw one

    @jax.jit
    def pooled(params, tokens, mask):
        hidden = hidden_states(setup, params, tokens, mask).astype(jnp.float32)
        return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)

    found = []
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        ids, mask = np.full((ROWS, length), PAD, np.int32), np.zeros((ROWS, length), bool)
        mask[len(part) :, 0] = True  # rows that fill the batch up
        for place, row in enumerate(part):
            frame = [*first, *row, EOS]
            ids[place, : len(frame)], mask[place, : len(frame)] = frame, True
        found.append(np.asarray(pooled(params, ids, mask))[: len(part)])
    return np.concatenate(found)


def hidden_states(setup: Setup, params: Any, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """tokens, mask [batch, length] -> [batch, length, model]."""
    if hasattr(setup.module, "encode"):  # an encoder-decoder
        source = setup.module.embed(params, {"source": tokens}, setup.config)["source"]
        return setup.module.encode(params["encoder"], source, mask, setup.config)[0]
    return setup.tuning.wrap(setup.model).apply(params, {"tokens": tokens, "mask": mask}).hidden


def _label(name: str) -> str:
    return name.partition("/")[0].partition(":")[0]
