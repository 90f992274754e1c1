"""The [invariance] section of a config: what must hold in every domain of data.domains."""

from dataclasses import dataclass
from typing import Any, Literal

from minillm.errors import UserError
from minillm.sections.data import STRICT

ALONE = ("adversarial", "pseudo", "consistency", "contrastive", "continual", "tasks")  # it has no sense beside them


@dataclass(frozen=True)
class InvarianceConfig:
    """Training for all domains, not for their mean; see `objectives/invariance.py`."""

    __pydantic_config__ = STRICT

    method: Literal["irm", "dro"]  # one scale of the scores for all domains; or the worst domain counts most
    strength: float  # irm: of the penalty; dro: of a step of the domains' weights; 0: the plain run
    warmup: int = 0  # irm: updates during which the penalty counts once at the most

    def __post_init__(self):
        if self.strength < 0.0 or self.warmup < 0:
            raise ValueError(f"strength and warmup must not be negative, got {self.strength} and {self.warmup}")
        if self.method == "dro" and self.warmup:
            raise ValueError("warmup says nothing to dro: leave it out")


def refuse_invariance(experiment: Any, where: str) -> None:
    """Raises: UserError where the other sections know no domains, or do not go together with this one."""
    section, place = experiment.invariance, f"{where}: invariance"
    if section is None:
        return
    if experiment.objective.name != "classify":
        raise UserError(f"{experiment.objective.name} has no domains", place, "leave it out, or classify texts")
    if len(experiment.data.domains or ()) < 2:
        message = "what holds in every domain is learned from two domains at least"
        raise UserError(message, f"{where}: data.domains", "name them")
    for name in (name for name in ALONE if getattr(experiment, name)):
        raise UserError(f"[invariance] and [{name}] do not go together", place, "leave one of them out")
    if section.method == "irm" and experiment.objective.label_smoothing:
        message = "irm asks for the scale at which the labels are likeliest, and smoothing asks for another"
        raise UserError(message, f"{where}: objective.label_smoothing", "leave it out")
    if section.method == "irm" and experiment.train.shards > 1:
        message = "in irm's penalty each text meets the others of its domain, which shards would part"
        raise UserError(message, f"{where}: train.shards", "set it to 1: mesh.data may split such a batch")
