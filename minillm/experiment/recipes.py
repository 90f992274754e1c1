"""What a config's recipes put around the parts of a training step: each makes a part out of a part of the same kind.

    make_gradient  ->  the recipes' wrappers, here  ->  accumulate  ->  make_train_step

A wrapper stands before accumulation, so that it sees a shard of the batch with the whole batch's `weights`.
"""

from collections.abc import Callable, Mapping

from minillm.config import Experiment
from minillm.models.contract import Model
from minillm.objectives.contract import Objective
from minillm.training.adversarial import adversarial, perturbable
from minillm.training.step import make_gradient
from minillm.tuning.contract import Tuning


def recipe_gradient(
    experiment: Experiment, objective: Objective, model: Model, tuning: Tuning, coefficients: Mapping[str, float]
) -> Callable:
    """The gradient that the config asks for, of one shard. A recipe of strength 0 is left out: the bits are the plain run's."""
    section = experiment.adversarial
    if section is None or section.strength == 0.0:
        return make_gradient(objective, model, tuning, coefficients)
    plain = make_gradient(objective, model, perturbable(tuning), coefficients)
    return adversarial(plain, section.method, section.strength, section.steps, section.step_size)
