"""What a language model answers to [prompt] before it has learned from any label: zero, one or a few demonstrations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minillm.config import Experiment, model_config
from minillm.data import prompts
from minillm.data.document import Document
from minillm.evaluation import demonstrations
from minillm.experiment.job import Run
from minillm.experiment.recipes.patterns import make_pattern
from minillm.experiment.vocabulary import vocabulary_size
from minillm.inference import prompting
from minillm.models.contract import bind
from minillm.params import flatten, init_params, unflatten
from minillm.sections.prompt import PromptConfig

Ids = Sequence[int]


class Asked(NamedTuple):
    """A model that can be asked. score: (prompts, places of their answers) -> log-probabilities [prompts, classes]."""

    pattern: prompts.Pattern
    context: int
    empty: Sequence[Ids]  # texts that say nothing
    score: Callable[[Sequence[Ids], Sequence[int]], np.ndarray]


class Known(NamedTuple):
    """The labelled examples that may be shown."""

    texts: Sequence[str]
    ids: Sequence[Ids]
    labels: Sequence[int]


def make_asked(experiment: Experiment, pieces: Any, params: Any) -> Asked:
    """The experiment's model with these parameters, as it is without a tuning method."""
    module, config = model_config(experiment.model, vocabulary_size(experiment, pieces.vocabulary))
    pattern, mean = make_pattern(experiment, pieces), experiment.prompt.mean
    if pattern.mask is None:

        def score(asked: Sequence[Ids], places: Sequence[int]) -> np.ndarray:
            return prompting.score_words(module, config, params, asked, pattern.words, mean=mean)
    else:
        model = bind(module, config)

        def score(asked: Sequence[Ids], places: Sequence[int]) -> np.ndarray:
            frame = {"pad": pattern.frame.pad, "context": config.context}
            return prompting.score_masks(model.apply, model.logits, params, asked, places, pattern.words, **frame)

    return Asked(pattern, config.context, pieces.encode_many(experiment.prompt.content_free), score)


def ask(
    asked: Asked, section: PromptConfig, known: Known, texts: Known, shots: int, seed: int
) -> dict[str, np.ndarray]:
    """Probabilities [texts, classes] as they come, "", and "calibrated". The labels of `texts` are not read.

    Raises: UserError where there are too few examples, or too little room for so many.
    """
    if section.demonstrations == "similar" and shots:
        shown = demonstrations.nearest_texts(known.texts, texts.texts, shots)
    else:
        shown = [demonstrations.draw(len(known.ids), shots, seed)] * len(texts.ids)
    before = [[(known.ids[i], known.labels[i]) for i in row] for row in shown]
    scores = _score(asked, [_question(asked, *pair) for pair in zip(before, texts.ids, strict=True)])
    found = {"": prompting.answers(scores)}
    if asked.empty:
        empty = _score(asked, [_question(asked, examples, ids) for examples in before for ids in asked.empty])
        found["calibrated"] = prompting.calibrate(scores, empty.reshape(len(before), len(asked.empty), -1))
    return found


def _question(asked: Asked, examples: Sequence[prompts.Demonstration], ids: Ids) -> tuple[tuple[int, ...], int]:
    row, place, _ = prompts.prompt(asked.pattern, examples, ids, asked.context)
    return tuple(row), place


def _score(asked: Asked, questions: Sequence[tuple[tuple[int, ...], int]]) -> np.ndarray:
    """Each different prompt is read once."""
    distinct = {question: number for number, question in enumerate(dict.fromkeys(questions))}
    scores = asked.score(*zip(*distinct, strict=True))
    return scores[[distinct[question] for question in questions]]


def read_known(experiment: Experiment, pieces: Any, documents: Sequence[Document]) -> Known:
    """Labelled documents as texts, ids and places of their classes."""
    texts, classes = [document.text for document in documents], list(experiment.data.labels)
    return Known(texts, pieces.encode_many(texts), [classes.index(document.label) for document in documents])


def shot_answers(job: Run, split: str, base: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the base answers to a split, untuned, by prompt.shots; nothing where there are none."""
    experiment, pieces, found = job.experiment, job.data.tokenizer, {}
    if experiment.prompt is None or not experiment.prompt.shots:
        return {}
    weights = unflatten(flatten(init_params(job.setup.specs, job.setup.key)) | dict(base))
    asked = make_asked(experiment, pieces, weights)
    known, texts = (read_known(experiment, pieces, job.data.documents[name]) for name in ("train", split))
    for shots in experiment.prompt.shots:
        answers = ask(asked, experiment.prompt, known, texts, shots, experiment.train.seed)
        found |= {f"base, {name_shots(shots, form)}": given for form, given in answers.items()}
    return found


def name_shots(shots: int, form: str) -> str:
    """ "4 shots, calibrated"."""
    return ", ".join(filter(None, [f"{shots} shot{'s' * (shots != 1)}", form]))
