"""The [prompt] section of a config: every key with its type, default and limits."""

from dataclasses import dataclass
from typing import Any, Literal

from minillm.data import prompts
from minillm.errors import UserError
from minillm.sections.data import STRICT


@dataclass(frozen=True)
class PromptConfig:
    """How a language model is asked for a label: see `data/prompts.py`."""

    __pydantic_config__ = STRICT

    template: str  # with {text} and {label}; without the latter the word comes last
    words: tuple[str, ...]  # one for each of data.labels, in that order
    # numbers of demonstrations with which the base is asked before it is tuned; each is a baseline of the run
    shots: tuple[int, ...] = ()
    # drawn by the run's seed; the nearest by TF-IDF, the nearest last
    demonstrations: Literal["random", "similar"] = "random"
    separator: str = "\n"  # between demonstrations
    content_free: tuple[str, ...] = ("N/A", "")  # texts that say nothing, for calibration; none: no calibration
    mean: bool = False  # divide a word's log-probability by its number of tokens

    def __post_init__(self):
        prompts.parse(self.template)
        if not self.words or any(not word.strip() or word != word.strip() for word in self.words):
            raise ValueError(f"words must be one for each class, without blanks around them, got {self.words}")
        if len(set(self.words)) < len(self.words):
            raise ValueError(f"words must be different, got {self.words}")
        if any(shots < 0 for shots in self.shots) or len(set(self.shots)) < len(self.shots):
            raise ValueError(f"shots are different numbers from 0, got {self.shots}")


def refuse_prompt(experiment: Any, where: str) -> None:
    """A prompt without its objective, or one that does not fit the other sections. Raises: UserError."""
    prompt, objective = experiment.prompt, experiment.objective.name
    if (prompt is None) == (objective == "pattern"):
        what = "asks by a template and words" if prompt is None else "asks by no template"
        mend = "name template and words" if prompt is None else "leave it out, or set objective.name to pattern"
        raise UserError(f"{objective} {what}", f"{where}: prompt", mend)
    if prompt is None:
        return
    if len(prompt.words) != len(experiment.data.labels):
        message = f"{len(prompt.words)} words for {len(experiment.data.labels)} classes"
        raise UserError(message, f"{where}: prompt.words", f"give one for each of {', '.join(experiment.data.labels)}")
    if experiment.data.pair_key is not None:
        raise UserError("a template has one text, not a pair", f"{where}: data.pair_key", "leave it out")
    if prompt.shots and experiment.base.run is None and not experiment.pretrain:
        message = "the model begins by chance, so that there is nothing to ask before it is trained"
        raise UserError(message, f"{where}: prompt.shots", "leave it out, or name base.run or [pretrain]")
