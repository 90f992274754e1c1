"""The section [augment] of a config: other wordings of training texts."""

import os
from dataclasses import dataclass, replace
from typing import TypeVar

from minillm.errors import UserError
from minillm.sections.data import STRICT

AUGMENTED = ("classify", "multi_label", "regression")  # objectives whose label belongs to the whole text
THESAURUSES = ("cilin", "base")  # that are no files
Section = TypeVar("Section")
RATES = ("swap", "delete", "synonyms", "paraphrase")


@dataclass(frozen=True)
class AugmentConfig:
    """How training texts are reworded whenever they come up; see `data/augment.py`. All rates 0: not at all.

    What is replayed ([continual]) and the rows of [tasks] are read as they are.
    """

    __pydantic_config__ = STRICT

    share: float = 0.5  # of the rows that are reworded; the others stay as they are
    swap: float = 0.0  # exchanges of two units, as a share of the units (Chinese characters, other words)
    delete: float = 0.0  # probability of each unit to be left out
    synonyms: float = 0.0  # probability of each word of the thesaurus to become a synonym
    thesaurus: str | None = None  # "cilin" (fetched), "base" (neighbours in the base's embeddings), or a file
    paraphrase: float = 0.0  # probability of the whole text to become one of its paraphrases
    paraphrases: str | None = None  # jsonl: {"text": ..., "paraphrases": [...]}, such as back-translations

    def __post_init__(self):
        for name in ("share", *RATES):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for rate, file in (("synonyms", "thesaurus"), ("paraphrase", "paraphrases")):
            if getattr(self, rate) and getattr(self, file) is None:
                raise ValueError(f"{rate} needs {file}: name one, or leave {rate} out")
            if getattr(self, file) is not None and not getattr(self, rate):
                raise ValueError(f"{file} says nothing without {rate}: set it above 0, or leave {file} out")

    @property
    def idle(self) -> bool:
        """Whether nothing is ever changed."""
        return not (self.share and any(getattr(self, name) for name in RATES))

    def refuse_mismatch(self, objective: str, based: bool, where: str) -> None:
        """Raises: UserError where labels do not belong to whole texts, or where there is no base to find synonyms in."""
        if objective not in AUGMENTED:
            message = f"reworded texts keep the label of a whole text, {objective} has no such"
            raise UserError(message, f"{where}: augment", f"leave it out; it serves {', '.join(AUGMENTED)}")
        refuse_baseless(self.thesaurus, based, f"{where}: augment.thesaurus")


def located(section: Section) -> Section:
    """The section with its files by their whole paths: the run is read again from other folders."""
    names = {"thesaurus", "paraphrases"} & set(getattr(section, "__dataclass_fields__", ()))
    found = {name: getattr(section, name) for name in names if getattr(section, name) not in (None, *THESAURUSES)}
    return replace(section, **{name: os.path.abspath(path) for name, path in found.items()}) if found else section


def refuse_baseless(thesaurus: str | None, based: bool, where: str) -> None:
    """Raises: UserError where synonyms are to be found in a base, and there is none."""
    if thesaurus == "base" and not based:
        raise UserError("there is no base to find neighbours in", where, "set base.run or [pretrain], or use 'cilin'")
