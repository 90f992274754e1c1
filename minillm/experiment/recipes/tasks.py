"""Several tasks in one model: the parts of [tasks] as experiments of their own, their heads, and their joint loss.

    [tasks.topics]   objective, data, strength, rows        beside the run's own [data] and [objective], "main"

The body is shared; what a task adds to the table stands under tasks/NAME: its head, and what the run's own task lacks.
Each task has rows of its own in every batch, so that shapes stay fixed and `objectives/joint.py` adds means:

    L = sum over tasks k of  share_k * strength_k * mean loss of k's rows

share_k is 1 where `rows` says how many rows a task has, else p_k of `data/mixing.py`: an example counts the same whatever
its task, as in T5's mixture.
"""

import dataclasses
from collections.abc import Callable, Mapping

from minillm import config as configs
from minillm.config import Experiment
from minillm.errors import UserError
from minillm.experiment.examples import extra_ids
from minillm.objectives.joint import joint, own_part
from minillm.params import Specs, prefix
from minillm.sections.experiment import IMAGES, NEEDS, OWN, SYNTHETIC, TASK_HEADS

MAIN = "main"  # the run's own task


def active(experiment: Experiment) -> list[str]:
    """The tasks beside the run's own."""
    return [name for name, task in (experiment.tasks or {}).items() if task.strength > 0.0]


def part(experiment: Experiment, name: str, where: str = "config") -> Experiment:
    """One task as an experiment of its own. Raises: UserError where its sections do not fit."""
    if name == MAIN:
        return dataclasses.replace(experiment, tasks=None, mixing=None)
    task = experiment.tasks[name]
    model = {key: value for key, value in experiment.model.items() if key not in OWN}
    data = configs.located_data(task.data or experiment.data)
    # what a recipe asks for is asked of the run's own task
    alone = {field.name: None for field in dataclasses.fields(Experiment) if field.default is None} | {"pretrain": {}}
    found = dataclasses.replace(experiment, data=data, objective=task.objective, model=model, **alone)
    configs.refuse_mismatch(found, f"{where}: tasks.{name}")
    return dataclasses.replace(found, model=configs.resolve_model(found, f"{where}: tasks.{name}"))


def resolve(experiment: Experiment, where: str) -> Experiment:
    """The experiment with the data of every task written out. Raises: UserError where tasks do not go together."""
    _refuse_stray(experiment, where)
    if not experiment.tasks:
        return experiment
    given = {name: task.rows is not None for name, task in experiment.tasks.items()}
    if len(set(given.values())) > 1:
        without = next(name for name, has in given.items() if not has)
        message = f"it is not set, and tasks.{next(name for name, has in given.items() if has)}.rows is"
        mend = "set rows for every task, or for none: they then share train.batch_size"
        raise UserError(message, f"{where}: tasks.{without}.rows", mend)
    if experiment.mixing and all(given.values()):
        message = "mixing says nothing where tasks have rows of their own"
        raise UserError(message, f"{where}: mixing", "leave it out, or leave out rows in [tasks]")
    tasks = {}
    for name, task in experiment.tasks.items():
        found = part(experiment, name, where)
        if extra_ids(found) != extra_ids(experiment):
            message = f"{found.objective.name} needs other ids behind the tokenizer's than {experiment.objective.name}"
            raise UserError(message, f"{where}: tasks.{name}.objective", "choose another objective")
        marks = [one.model.get("marks", 0) for one in (experiment, found)]
        if "classify" in NEEDS[found.objective.name].tasks and len(set(marks)) > 1:
            message = f"one model reads {marks[1]} marked words for this task, and {marks[0]} for the run's own"
            raise UserError(message, f"{where}: tasks.{name}.objective.markers", "name as many in both, or none")
        tasks[name] = dataclasses.replace(task, data=found.data)
    return dataclasses.replace(experiment, tasks=tasks)


def _refuse_stray(experiment: Experiment, where: str) -> None:
    """What [tasks] and [mixing] cannot stand beside."""
    if experiment.mixing and not experiment.tasks:
        raise UserError("there is nothing to mix", f"{where}: mixing", "name tasks in [tasks.NAME], or leave it out")
    for name in experiment.tasks or ():
        place = f"{where}: tasks.{name}"
        if name == MAIN or not name.replace("_", "").replace("-", "").isalnum():
            message = f"a task's name is letters, digits, _ and -, and not {MAIN!r}"
            raise UserError(message, place, "choose another name")
        data = experiment.tasks[name].data or experiment.data
        if data.source in (*IMAGES, *SYNTHETIC) or experiment.data.source in (*IMAGES, *SYNTHETIC):
            raise UserError("tasks beside each other read texts", f"{place}.data.source", "use sources of text")
        if "continued" in (data.packing, experiment.data.packing):
            message = "tasks beside each other have no state that goes on from row to row"
            raise UserError(message, f"{where}: data.packing", "use another")
    others = {
        "several processes": experiment.mesh.distributed,
        "[continual]": experiment.continual,
        **{
            f"[{name}]": getattr(experiment, name)
            for name in ("adversarial", "pseudo", "consistency", "contrastive", "invariance")
        },
    }
    for what in (name for name, there in others.items() if there and experiment.tasks):
        raise UserError(f"{what} and [tasks] do not go together", f"{where}: tasks", "leave one of them out")


def task_specs(experiment: Experiment, specs: Specs, vocabulary: int) -> Specs:
    """The rows that the tasks add to the table."""
    rows: Specs = {}
    for name in active(experiment):
        module, config = configs.model_config(part(experiment, name).model, vocabulary)
        own = {path: spec for path, spec in module.param_specs(config).items()
               if path not in specs or path.partition("/")[0] in TASK_HEADS}  # fmt: skip
        rows |= prefix(own, f"tasks/{name}")
    return rows


def mixes(experiment: Experiment) -> bool:
    """Whether the tasks share train.batch_size."""
    return any(experiment.tasks[name].rows is None for name in active(experiment))


def joint_objective(
    experiment: Experiment, shares: Mapping[str, float] | None, make: Callable[[Experiment], tuple]
) -> tuple[Callable, dict[str, float]]:
    """The joint objective, and a coefficient per term; `make` gives those of one task.

    `shares`: p_k by task, where they mix; None: equal ones, for what trains nothing.
    """
    names = [MAIN, *active(experiment)]
    if not mixes(experiment):
        shares = dict.fromkeys(names, 1.0)
    shares = shares or dict.fromkeys(names, 1.0 / len(names))
    parts, coefficients = {}, {}
    for name in names:
        objective, factors, terms = make(part(experiment, name))
        weight = shares[name] * (1.0 if name == MAIN else experiment.tasks[name].strength)
        parts[name] = objective if name == MAIN else own_part(name, objective)
        coefficients |= {f"{name}/{term}": weight * factors.get(term, 1.0) for term in terms}
    return joint(parts), coefficients
