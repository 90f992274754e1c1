"""What a config's recipes put around the parts of a training step: each makes a part out of a part of the same kind.

    make_gradient  ->  the recipes' wrappers, here  ->  accumulate  ->  make_train_step

A wrapper stands before accumulation, so that it sees a shard of the batch with the whole batch's `weights`.
"""

from collections.abc import Callable, Mapping

from minillm.config import Experiment
from minillm.experiment.recipes.domains import over_domains
from minillm.models.contract import Model
from minillm.objectives.contract import Objective
from minillm.objectives.distill import distilled, with_old_scores
from minillm.objectives.supervised import head_scores
from minillm.sections.tasks import ContinualConfig
from minillm.training.adversarial import adversarial, perturbable
from minillm.training.step import make_gradient
from minillm.tuning.contract import Tuning
from minillm.tuning.elastic import ANCHOR, anchored, elastic


def recipe_gradient(
    experiment: Experiment, objective: Objective, model: Model, tuning: Tuning, coefficients: Mapping[str, float]
) -> Callable:
    """The gradient that the config asks for, of one shard. A recipe of strength 0 is left out: the bits are the plain run's."""
    if (section := _held(experiment, "distill")) is not None:
        old = lambda frozen, batch: head_scores(
            tuning.wrap(model), tuning.attach(frozen[ANCHOR], frozen), batch, None, "classify"
        )
        return with_old_scores(make_gradient(objective, model, tuning, coefficients), old)
    section = experiment.adversarial
    if section is None or section.strength == 0.0:
        return make_gradient(objective, model, tuning, coefficients)
    plain = make_gradient(objective, model, perturbable(tuning), coefficients)
    return adversarial(plain, section.method, section.strength, section.steps, section.step_size)


def recipe_objective(
    experiment: Experiment, objective: Objective, coefficients: dict[str, float]
) -> tuple[Objective, dict[str, float]]:
    """The objective that the config asks for, with a coefficient per term."""
    section = _held(experiment, "distill")
    if section is None:
        return over_domains(experiment, objective, coefficients)
    return distilled(objective, section.temperature), coefficients | {"distill": section.strength}


def recipe_tuning(experiment: Experiment, tuning: Tuning) -> Tuning:
    """The tuning that the config asks for."""
    if (section := _held(experiment, "ewc")) is not None:
        return elastic(tuning, section.strength)
    return anchored(tuning) if _held(experiment, "distill") is not None else tuning


def _held(experiment: Experiment, method: str) -> ContinualConfig | None:
    section = experiment.continual
    return section if section is not None and section.method == method and section.strength > 0.0 else None
