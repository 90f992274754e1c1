"""What persists between steps. It is donated to every step and is what a checkpoint holds."""

from typing import Any, NamedTuple


class State(NamedTuple):
    """step: [] int32, updates done · trainable: nested dicts · optimizer: optax's state · extra: a method's own."""

    step: Any
    trainable: Any
    optimizer: Any
    extra: Any
