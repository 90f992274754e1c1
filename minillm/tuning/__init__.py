"""Tuning methods, by the name that a config gives them; each is made from its [tuning] section."""

from minillm.errors import UserError
from minillm.tuning.adalora import Budget, adalora
from minillm.tuning.contract import Tuning
from minillm.tuning.freeze import freeze, full
from minillm.tuning.lora import lora


def _full(section, heads: tuple[str, ...], steps: int) -> Tuning:
    return full()


def _freeze(section, heads: tuple[str, ...], steps: int) -> Tuning:
    if not section.freeze:
        raise UserError("no pattern is given", "tuning.freeze", 'name parameters, for example ["embedding/*"]')
    return freeze(section.freeze)


def _lora(section, heads: tuple[str, ...], steps: int) -> Tuning:
    return lora(section.targets, section.rank, section.alpha, heads)


def _adalora(section, heads: tuple[str, ...], steps: int) -> Tuning:
    budget = Budget(section.rank, section.target_rank, steps)
    return adalora(section.targets, budget, section.alpha, section.orthogonality, heads)


METHODS = {
    "full": _full,
    "freeze": _freeze,
    "lora": _lora,
    "adalora": _adalora,
}  # name -> function(section, heads, steps)


def make_tuning(section, *, heads: tuple[str, ...], steps: int) -> Tuning:
    """The method that the [tuning] section names.

    Args:
        section: `sections.TuningConfig`.
        heads: patterns over paths that train whatever the method, such as a new task's head; those that match nothing
            are ignored. `full` and `freeze` train what they say.
        steps: of the whole run, for budgets that change over it.
    """
    return METHODS[section.method](section, heads, steps)
