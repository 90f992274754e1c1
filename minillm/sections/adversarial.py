"""The sections of a config that harm the model on purpose: in training [adversarial], and when it is judged [attack]."""

from dataclasses import dataclass
from typing import Any, Literal

from minillm.errors import UserError
from minillm.sections.augment import refuse_baseless
from minillm.sections.data import STRICT

EMBEDDING, TEXT = ("fgm", "pgd"), ("swap", "delete", "synonyms")  # attacks on embeddings, on texts
EMBEDDED = ("bert", "gpt", "rnn", "lstm", "transformer_xl", "vit")  # models with one row of embeddings per example


@dataclass(frozen=True)
class AdversarialConfig:
    """Training on embeddings that are changed for the worse; see `training/adversarial.py`."""

    __pydantic_config__ = STRICT

    method: Literal["fgm", "pgd", "freelb"]
    strength: float  # norm of the change of an example's embeddings at the most; 0: the plain gradient
    steps: int = 3  # ascents of pgd and freelb
    step_size: float | None = None  # of each; None: 2.5 * strength / steps, so that the change can reach its bound

    def __post_init__(self):
        if self.strength < 0.0:
            raise ValueError(f"strength must not be negative, got {self.strength}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.step_size is not None and not self.step_size > 0.0:
            raise ValueError(f"step_size must be above 0, got {self.step_size}")
        if self.method == "fgm" and (self.steps, self.step_size) != (3, None):
            raise ValueError(
                "steps and step_size say nothing to fgm, which is a single step of strength: leave them out"
            )

    def refuse_mismatch(self, kind: str, packing: str, where: str) -> None:
        """Raises: UserError where the model's embeddings are not one row per example."""
        if kind not in EMBEDDED:
            message = f"adversarial training changes one row of embeddings per example, which {kind} has not"
            raise UserError(message, f"{where}: adversarial", f"leave it out, or use one of {', '.join(EMBEDDED)}")
        if packing == "continued":
            message = "adversarial training reads each row several times, not on and on"
            raise UserError(message, f"{where}: data.packing", "leave it out, or leave [adversarial] out")


@dataclass(frozen=True)
class AttackConfig:
    """How a classifier of texts is attacked when it is judged; see `experiment/recipes/attack.py`. A rate of 0: not in that way."""

    __pydantic_config__ = STRICT

    strength: float = 0.0  # of fgm and pgd on the embeddings
    steps: int = 10  # of pgd, each of 2.5 * strength / steps
    swap: float = 0.0  # rates of `data/augment.py`, on the texts
    delete: float = 0.0
    synonyms: float = 0.0
    thesaurus: str | None = None  # as in [augment]
    tries: int = 3  # rewordings of each text: it counts as right where the answer to all of them is

    def __post_init__(self):
        for name in ("swap", "delete", "synonyms"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.strength < 0.0:
            raise ValueError(f"strength must not be negative, got {self.strength}")
        if min(self.steps, self.tries) < 1:
            raise ValueError(f"steps and tries must be at least 1, got {self.steps} and {self.tries}")
        if self.synonyms and self.thesaurus is None:
            raise ValueError("synonyms needs thesaurus: name one, or leave synonyms out")
        if self.thesaurus is not None and not self.synonyms:
            raise ValueError("thesaurus says nothing without synonyms: set it above 0, or leave thesaurus out")
        if not (self.strength or any(getattr(self, name) for name in TEXT)):
            rates = ", ".join(TEXT)
            raise ValueError(f"nothing is attacked: set strength or a rate ({rates}) above 0, or leave the section out")

    def refuse_mismatch(self, objective: str, reads: str, based: bool, where: str) -> None:
        """Raises: UserError where it is no classifier of texts, or where there is no base to find synonyms in."""
        if (objective, reads) != ("classify", "text"):
            message = f"attacks are on classifiers of texts, this is {objective} on {reads}"
            raise UserError(message, f"{where}: attack", "leave it out")
        refuse_baseless(self.thesaurus, based, f"{where}: attack.thesaurus")


def chosen_attack(method: str, strength: float, thesaurus: str | None) -> AttackConfig:
    """One attack of a command line. Raises: UserError."""
    if method not in (*EMBEDDING, *TEXT):
        raise UserError(f"unknown attack {method!r}", "--attack", f"use one of {', '.join((*EMBEDDING, *TEXT))}")
    try:
        return AttackConfig(**{"strength" if method in EMBEDDING else method: strength}, thesaurus=thesaurus)
    except ValueError as error:
        raise UserError(str(error), "--strength, --thesaurus", "mend that option") from None


def refuse_robust(experiment: Any, kind: str, reads: str, where: str) -> None:
    """[adversarial], [attack] and [augment] beside the other sections. Raises: UserError where they do not fit."""
    objective, based = experiment.objective.name, bool(experiment.base.run or experiment.pretrain)
    if experiment.adversarial is not None:
        experiment.adversarial.refuse_mismatch(kind, experiment.data.packing, where)
    if experiment.attack is not None:
        experiment.attack.refuse_mismatch(objective, reads, based, where)
    if experiment.augment is not None:
        experiment.augment.refuse_mismatch(objective, based, where)
