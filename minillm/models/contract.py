"""Contract 2: what a model is. Its module has `Config`, `param_specs`, `embed`, `init_carry`, `apply` and, if it scores
tokens, `logits`.

Where it has heads besides `logits`, `HEADS` names them: name -> function (params, hidden, config, keys=None) -> scores,
with `keys` one dropout key per example (`nn/dropout.py`) or None.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Batch = Mapping[str, Any]  # every leaf has a full leading batch axis
# tokens targets weights index | segments positions (packed documents) | lengths (cached prompts)
# mask (False at padding) token_types (0: sentence A, 1: sentence B) | target_positions order_weights (restored tokens)
# sentence_labels sentence_weights (how B stands to A)
# images [batch, height, width, channels] labels [batch] | clean (images before corruption) | masked_patches


class Output(NamedTuple):
    """What `apply` returns: the last hidden states, the carry (None in plain training) and what was captured."""

    hidden: Any
    carry: Any = None
    captured: Mapping[str, Any] = {}  # never written


class Model(NamedTuple):
    """A model with its config bound: what objectives receive. heads: name -> (params, hidden, keys=None) -> scores."""

    embed: Callable
    apply: Callable
    logits: Callable | None
    heads: Mapping[str, Callable] = {}  # never written
    config: Any = None  # the one that is bound


def bind(module, config) -> Model:
    """Binds a model module's pure functions to its config."""
    embed = functools.partial(module.embed, config=config)
    apply = functools.partial(module.apply, config=config)
    heads = {name: functools.partial(head, config=config) for name, head in getattr(module, "HEADS", {}).items()}
    return Model(embed, apply, getattr(module, "logits", None), heads, config)
