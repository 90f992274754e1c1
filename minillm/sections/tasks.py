"""Sections of a config about several tasks: learned at once, or one after the other."""

from dataclasses import dataclass, field
from typing import Literal

from minillm.sections.data import STRICT, DataConfig
from minillm.sections.experiment import ObjectiveConfig


@dataclass(frozen=True)
class TaskConfig:
    """[tasks.NAME]: learned beside the run's own task, with heads of its own; see `experiment/recipes/mixture.py`."""

    __pydantic_config__ = STRICT

    objective: ObjectiveConfig
    data: DataConfig | None = None  # None: the run's own
    strength: float = 1.0  # of its loss; 0 leaves the task out
    rows: int | None = None  # of its own in each batch; None: its share of train.batch_size, by [mixing]

    def __post_init__(self):
        if self.strength < 0.0:
            raise ValueError(f"strength must not be negative, got {self.strength}")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows must be at least 1, got {self.rows}")


@dataclass(frozen=True)
class MixingConfig:
    """How train.batch_size is shared between the run's own task and those of [tasks]; see `data/mixing.py`."""

    __pydantic_config__ = STRICT

    temperature: float = 1.0  # 1: in proportion to the examples; larger: more equally
    limit: int | None = None  # no task counts as larger than so many examples

    def __post_init__(self):
        if not self.temperature > 0.0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")


OPTIONS = {  # method -> the keys of [continual] that it reads
    "plain": (),
    "ewc": ("strength", "buffer"),
    "replay": ("share", "buffer"),
    "distill": ("strength", "temperature"),
}


@dataclass(frozen=True)
class ContinualConfig:
    """[continual]: the base has learned the same classes on other texts, which must not be lost; `experiment/recipes/continual.py`."""

    __pydantic_config__ = STRICT

    method: Literal["plain", "ewc", "replay", "distill"]
    past: tuple[str, ...] = field(default=())  # runs whose texts must not be lost; none: the base and what it had named
    strength: float = 1.0  # ewc: of the penalty; distill: of the old answers' loss
    share: float = 0.25  # replay: of the rows of each batch
    buffer: int = 256  # texts of each past run that are replayed, or that ewc's Fisher information is a mean over
    temperature: float = 2.0  # distill: of both softmaxes

    def __post_init__(self):
        if self.strength < 0.0 or self.buffer < 1 or not self.temperature > 0.0:
            raise ValueError("strength must not be negative, buffer at least 1 and temperature above 0")
        if not 0.0 <= self.share < 1.0:
            raise ValueError(f"share must be in [0, 1), got {self.share}")
        for name in ("strength", "share", "buffer", "temperature"):
            default = ContinualConfig.__dataclass_fields__[name].default
            if name not in OPTIONS[self.method] and getattr(self, name) != default:
                raise ValueError(f"{name} says nothing to the method {self.method!r}: leave it out")
