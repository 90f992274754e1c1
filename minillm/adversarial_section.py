"""The sections of a config that harm the model on purpose: in training [adversarial], and when it is judged [attack]."""

from dataclasses import dataclass
from typing import Literal

from minillm.data_section import STRICT
from minillm.errors import UserError

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
