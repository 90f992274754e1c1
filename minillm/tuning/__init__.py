"""Tuning methods, by the name that a config gives them; each is made from its [tuning] section."""

from minillm.errors import UserError
from minillm.tuning.adalora import Budget, adalora
from minillm.tuning.adapter import adapter
from minillm.tuning.bitfit import bitfit
from minillm.tuning.contract import Tuning
from minillm.tuning.freeze import freeze, full
from minillm.tuning.lora import lora
from minillm.tuning.prefix import prefix_tuning
from minillm.tuning.prompt import prompt_tuning


def _full(section, heads: tuple[str, ...], steps: int) -> Tuning:
    return full(layer_decay=section.layer_decay, unfreeze_every=section.unfreeze_every)


def _freeze(section, heads: tuple[str, ...], steps: int) -> Tuning:
    if not section.freeze and not section.freeze_layers:
        mend = 'name parameters, for example ["embedding/*"], or set tuning.freeze_layers'
        raise UserError("neither a pattern nor a number of layers is given", "tuning.freeze", mend)
    rates = {"layer_decay": section.layer_decay, "unfreeze_every": section.unfreeze_every}
    return freeze(section.freeze, section.freeze_layers, **rates)


def _lora(section, heads: tuple[str, ...], steps: int) -> Tuning:
    return lora(section.targets, section.rank, section.alpha, heads)


def _adalora(section, heads: tuple[str, ...], steps: int) -> Tuning:
    budget = Budget(section.rank, section.target_rank, steps)
    return adalora(section.targets, budget, section.alpha, section.orthogonality, heads)


METHODS = {  # name -> function(section, heads, steps)
    "full": _full,
    "freeze": _freeze,
    "bitfit": lambda section, heads, steps: bitfit(heads),
    "lora": _lora,
    "adalora": _adalora,
    "adapter": lambda section, heads, steps: adapter(section.adapter_size, section.placement, heads),
    "prefix": lambda section, heads, steps: prefix_tuning(section.prefix_length, section.prefix_hidden, heads),
    "prompt": lambda section, heads, steps: prompt_tuning(section.prompt_length, heads),
}


def make_tuning(section, *, heads: tuple[str, ...], steps: int) -> Tuning:
    """The method that the [tuning] section names.

    Args:
        section: `sections.tuning.TuningConfig`.
        heads: patterns over paths that train whatever the method, such as a new task's head; those that match nothing
            are ignored. `full` and `freeze` train what they say.
        steps: of the whole run, for budgets that change over it.
    """
    return METHODS[section.method](section, heads, steps)
