"""The [pairs] section of a config: how pairs of texts are read, and how what is written from them is judged."""

from dataclasses import dataclass
from typing import Any, Literal

from minillm.data.catalogues import PAIRED
from minillm.errors import UserError
from minillm.sections.data import IMAGES, STRICT, SYNTHETIC, is_paired


@dataclass(frozen=True)
class PairsConfig:
    """Of sequence_to_sequence on texts; a config without this section has these defaults."""

    __pydantic_config__ = STRICT

    # bleu, chrf and exact matches beside a word table and a memory; or ROUGE beside the source's beginning and a memory
    judge: Literal["translation", "summary"] = "translation"
    placeholders: bool = False  # %s, {name}, tags and the like become signs of one token each; see data/placeholders.py
    # a text is written with each sign of its source, just as often: see inference/constrained.py. Off where nothing is said,
    # so that what a finished run writes does not change
    exact: bool = False
    longer: Literal["cut", "drop"] = "cut"  # training pairs that do not fit: they lose their ends, or are left out
    longest: int | None = None  # characters of a source and of a target; pairs with more are left out of all parts
    capitals: Literal["keep", "fold"] = "keep"  # fold: "Create" is read as "create", at any place; "URL" stays
    beams: int = 4  # of the search, when a text is written; 1 is greedy
    alpha: float = 0.6  # of its length penalty

    def __post_init__(self):
        if self.exact and not self.placeholders:
            raise ValueError("exact says nothing without placeholders: set placeholders to true, or leave it out")
        if self.longest is not None and self.longest < 1:
            raise ValueError(f"longest must be at least 1, got {self.longest}")
        if self.beams < 1 or self.alpha < 0.0:
            raise ValueError(f"beams must be at least 1 and alpha not negative, got {self.beams} and {self.alpha}")


def refuse_pairs(experiment: Any, where: str) -> None:
    """Raises: UserError where the objective needs pairs of texts and the source has none, or the section says nothing."""
    data = experiment.data
    if is_paired(data):
        return
    if experiment.objective.name == "sequence_to_sequence" and data.source not in SYNTHETIC + IMAGES:
        mend = f"set data.target_key, or use one of {', '.join(PAIRED)}"
        raise UserError("sequence_to_sequence needs pairs of texts", f"{where}: data.source", mend)
    if experiment.pairs is not None:
        raise UserError("pairs says nothing to single texts", f"{where}: pairs", "leave it out, or set data.target_key")
