"""Contract 4: tuning edits the tree. A method is a handful of functions; the step differentiates `trainable` only."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Tuning(NamedTuple):
    """A tuning method.

    init:   (params, key) -> (trainable, frozen, extra)
    specs:  (model's specs) -> specs of the trainable rows: decay, sharding and checkpoints follow from them
    attach: (trainable, frozen) -> params: weights and rows, nothing else
    wrap:   model -> model
    wrap_module: (module, config) -> (module, config), the same for what generates with a model's own functions
    penalty: (trainable, frozen) -> scalar, added once, outside accumulation; None where there is none
    update: (trainable, extra, gradients, step) -> (trainable, extra), after the optimizer; None where there is none
    scale:  (trainable, step) -> multipliers of the optimizer's updates, pure in the step; None where all are 1. Its
        moments gather the gradients as they are
    """

    init: Callable[..., tuple[Any, Any, Any]]
    specs: Callable
    attach: Callable
    wrap: Callable = lambda model: model
    wrap_module: Callable = lambda module, config: (module, config)
    penalty: Callable | None = None
    update: Callable | None = None
    scale: Callable | None = None
