"""Sections of a config about a run as a whole: where it begins, who is told how it goes."""

from dataclasses import dataclass

from minillm.data_section import STRICT


@dataclass(frozen=True)
class ForkConfig:
    """The run and the step at which a branch leaves it; see `experiment/fork.py`."""

    __pydantic_config__ = STRICT

    run: str | None = None  # the trunk's folder; None: the run is no branch
    step: int | None = None  # of one of the trunk's checkpoints

    def __post_init__(self):
        if (self.run is None) != (self.step is None):
            raise ValueError("run and step go together: name both or none")
