"""What all parts of a run share while it is under way."""

from collections.abc import Callable
from typing import NamedTuple

from minillm.config import Experiment
from minillm.experiment.data import Data
from minillm.experiment.folder import RunFolder
from minillm.experiment.setup import Setup


class Run(NamedTuple):
    """A run that is under way."""

    experiment: Experiment
    folder: RunFolder
    data: Data
    setup: Setup
    say: Callable[[str], None]
    show: Callable[[int, dict], None]  # progress: (step, line)
