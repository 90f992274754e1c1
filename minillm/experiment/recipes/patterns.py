"""[prompt] -> a pattern of ids, and rows to learn from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minillm.config import Experiment
from minillm.data import prompts, rows
from minillm.data.tokenizer import BOS, EOS, PAD, UNK
from minillm.experiment.examples import text_ids
from minillm.experiment.vocabulary import vocabulary_size
from minillm.sections.experiment import LEFT_TO_RIGHT

Ids = Sequence[int]


def make_pattern(experiment: Experiment, pieces: Any) -> prompts.Pattern:
    """The template and words of [prompt] as ids. Raises: UserError."""
    mask, prompt = None, experiment.prompt
    if experiment.model.get("kind", "gpt") not in LEFT_TO_RIGHT:
        mask = text_ids(experiment, vocabulary_size(experiment, pieces.vocabulary), pieces).mask
    return prompts.encode(prompts.parse(prompt.template), prompt.words, prompt.separator, pieces, mask)


def made_up_pattern(experiment: Experiment) -> prompts.Pattern:
    """One of the same slots whose ids say nothing: for `describe`, which has no tokenizer."""
    template = prompts.parse(experiment.prompt.template)
    mask = None if experiment.model.get("kind", "gpt") in LEFT_TO_RIGHT else UNK
    words = tuple((UNK,) for _ in experiment.prompt.words)
    return prompts.Pattern(((), (), ()), template.slots, words, (), rows.Frame(BOS, EOS, PAD), mask)


def pattern_rows(
    experiment: Experiment, pattern: prompts.Pattern, texts: Sequence[Ids], labels: np.ndarray, length: int
) -> rows.RowDataset:
    """A question per text, without demonstrations. Raises: UserError where a word is more than one token."""
    words = prompts.single_tokens(pattern.words, experiment.prompt.words)
    found = [prompts.prompt(pattern, (), text, length) for text in texts]
    ids, places, cut = zip(*found, strict=True)
    made = rows.pattern_rows(ids, places, cut, labels, words, length, pattern.frame)
    return rows.to_the_right(made) if pattern.mask is None else made
