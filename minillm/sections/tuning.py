"""The [tuning] section of a config: every key with its type, default and limits."""

from dataclasses import dataclass, fields
from typing import Literal

from minillm.sections.data import STRICT

TUNING_OPTIONS = {
    "full": ("layer_decay", "unfreeze_every"),
    "freeze": ("freeze", "freeze_layers", "layer_decay", "unfreeze_every"),
    "bitfit": (),
    "lora": ("targets", "rank", "alpha"),
    "adalora": ("targets", "rank", "alpha", "target_rank", "orthogonality"),
    "adapter": ("adapter_size", "placement"),
    "prefix": ("prefix_length", "prefix_hidden"),
    "prompt": ("prompt_length",),
}


@dataclass(frozen=True)
class TuningConfig:
    """Which parameters train, and which are added for it."""

    __pydantic_config__ = STRICT

    method: Literal["full", "freeze", "bitfit", "lora", "adalora", "adapter", "prefix", "prompt"] = "full"
    freeze: tuple[str, ...] = ()  # patterns over parameter paths, such as "embedding/*"
    freeze_layers: int = 0  # the embeddings and so many blocks above them
    targets: tuple[str, ...] = ("*/query/kernel", "*/value/kernel")  # patterns over kernels that get a low-rank part
    rank: int = 8  # of each; adalora: at the beginning
    alpha: float = 16.0  # the low-rank part counts alpha / rank times
    target_rank: float = 4.0  # mean rank at the end
    orthogonality: float = 0.1  # coefficient of the penalty that keeps singular vectors orthogonal
    adapter_size: int = 16  # width of the bottleneck
    placement: Literal["houlsby", "pfeiffer"] = "houlsby"  # after both sublayers of a block, or after the feed-forward
    prefix_length: int = 8  # keys and values before every layer's own
    prefix_hidden: int = 0  # width of the network that makes them in training; 0: they are trained themselves
    prompt_length: int = 8  # vectors before the embedded tokens
    layer_decay: float = 1.0  # a block's learning rate over that of the block above it
    unfreeze_every: int = 0  # steps until one more block trains, from the top; 0: all from the start

    def __post_init__(self):
        for name in ("rank", "adapter_size", "prefix_length", "prompt_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("freeze_layers", "orthogonality", "prefix_hidden", "unfreeze_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not self.alpha > 0.0:
            raise ValueError(f"alpha must be above 0, got {self.alpha}")
        if not 0.0 < self.layer_decay <= 1.0:
            raise ValueError(f"layer_decay must be in (0, 1], got {self.layer_decay}")
        options = TUNING_OPTIONS[self.method]
        for known in fields(self):
            if known.name not in ("method", *options) and getattr(self, known.name) != known.default:
                raise ValueError(f"{known.name} says nothing to the method {self.method!r}: leave it out")
        if "targets" in options and not self.targets:
            raise ValueError("targets must name at least one pattern")
        if "target_rank" in options and not 0.0 < self.target_rank <= self.rank:
            raise ValueError(f"target_rank must be above 0 and at most rank = {self.rank}, got {self.target_rank}")
