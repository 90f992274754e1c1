"""How many ids a model has."""

from minillm.config import Experiment
from minillm.data import synthetic
from minillm.experiment.examples import extra_ids
from minillm.sections.experiment import IMAGES, SYNTHETIC


def vocabulary_size(experiment: Experiment, pieces: int | None = None) -> int:
    """Known before any text is read, 0 for images; `pieces` is the tokenizer's own count, where there is one already."""
    if experiment.data.source in IMAGES:
        return 0
    if experiment.data.source in SYNTHETIC:
        return synthetic.vocabulary_size(experiment.data.symbols)
    if experiment.base.vocabulary is not None:
        return experiment.base.vocabulary
    return (pieces or experiment.tokenizer.vocabulary) + extra_ids(experiment)
