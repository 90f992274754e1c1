"""Contract 2: what a model is. Its module has `Config`, `param_specs`, `embed`, `init_carry`, `apply` and `logits`."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Batch = Mapping[str, Any]  # every leaf has a full leading batch axis
# tokens targets weights index | segments positions (packed documents) | lengths (cached prompts)


class Output(NamedTuple):
    """What `apply` returns: the last hidden states, the carry (None in plain training) and what was captured."""

    hidden: Any
    carry: Any = None
    captured: Mapping[str, Any] = {}  # never written


class Model(NamedTuple):
    """A model with its config bound: what objectives receive."""

    embed: Callable
    apply: Callable
    logits: Callable


def bind(module, config) -> Model:
    """Binds a model module's pure functions to its config."""
    embed = functools.partial(module.embed, config=config)
    apply = functools.partial(module.apply, config=config)
    return Model(embed, apply, module.logits)
