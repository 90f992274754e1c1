"""Sections of a config about a run as a whole: where it begins, who is told how it goes."""

from dataclasses import dataclass

from minillm.sections.data import STRICT


@dataclass(frozen=True)
class ForkConfig:
    """The run and the step at which a branch leaves it; see `experiment/fork.py`."""

    __pydantic_config__ = STRICT

    run: str | None = None  # the trunk's folder; None: the run is no branch
    step: int | None = None  # of one of the trunk's checkpoints

    def __post_init__(self):
        if (self.run is None) != (self.step is None):
            raise ValueError("run and step go together: name both or none")


@dataclass(frozen=True)
class TrackingConfig:
    """Who is told how a run goes, besides its folder; see `experiment/tracking.py`."""

    __pydantic_config__ = STRICT

    tensorboard: bool = False  # event files in the run's folder: tensorboard --logdir RUN/tensorboard
    wandb: str | None = None  # a project of Weights & Biases; WANDB_MODE=offline sends nothing

    def __post_init__(self):
        if self.wandb is not None and not self.wandb.strip():
            raise ValueError("wandb names a project: name one, or leave it out")
