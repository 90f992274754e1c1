"""`minillm prompt`: what a pretrained run answers to labelled texts in a template, with and without demonstrations."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minillm import config as configs
from minillm.config import Experiment
from minillm.data.document import Document
from minillm.errors import UserError
from minillm.evaluation.intervals import over_seeds
from minillm.experiment import judging
from minillm.experiment.ask.reopen import Opened, open_run
from minillm.experiment.data import split_documents
from minillm.experiment.recipes import prompting
from minillm.experiment.recipes.annotation import annotate
from minillm.experiment.saved import judged_step, restore
from minillm.sections.data import DataConfig
from minillm.sections.experiment import IMAGES, LEFT_TO_RIGHT, SYNTHETIC, BaseConfig, ObjectiveConfig
from minillm.sections.prompt import PromptConfig

LANGUAGE = (
    "causal",
    "masked",
    "masked_next_sentence",
    "structural",
    "pattern",
)  # objectives that leave a model of words


class Wanted(NamedTuple):
    """What is asked, besides the prompt: which part of the data, of how many texts at most, with which draws."""

    split: str = "test"
    limit: int | None = None
    seeds: tuple[int, ...] = (0, 1, 2)


USUAL = Wanted()


def read_config(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The [data] and [prompt] of a config; of a lab's config those that its members share. Raises: UserError."""
    raw = configs.read_toml(path, overrides)
    shared = raw.get("shared", {})
    found = {name: raw.get(name, shared.get(name)) for name in ("data", "prompt")}
    if not isinstance(found["data"], dict):
        raise UserError("this config names no data", f"{path}: data", "name a config with labelled data")
    return found


def with_options(sections: dict[str, Any], said: dict[str, str]) -> dict[str, Any]:
    """The sections with what the command line says of the prompt; words are class=word, with commas. Raises: UserError."""
    if not said:
        return sections
    section = dict(sections.get("prompt") or {}) | {name: said[name] for name in said if name not in ("shots", "words")}
    if "shots" in said:
        section["shots"] = numbers(said["shots"], "--shots")
    if "words" in said:
        pairs = [part.partition("=") for part in said["words"].split(",")]
        if not all(equals for _, equals, _ in pairs):
            raise UserError(
                f"expected class=word, got {said['words']!r}", "--words", "for example --words neg=差,pos=好"
            )
        section["words"] = {name.strip(): word.strip() for name, _, word in pairs}
    return sections | {"prompt": section, "options": said}


def numbers(text: str, option: str) -> list[int]:
    """ "0,1,4". Raises: UserError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"expected numbers with commas, got {text!r}", option, f"for example {option} 0,1,4")
    return [int(part) for part in parts]


def prompt(root: Path, sections: dict[str, Any], where: str, wanted: Wanted = USUAL) -> dict[str, Any]:
    """{"texts", "rows": {name: metric -> mean and interval over seeds}}, the most frequent class and TF-IDF among them.

    sections: "data" and "prompt" as plain data; where there is no "data", a run of the objective "pattern" has its own.
    Raises: UserError.
    """
    if wanted.split not in ("validation", "test"):
        raise UserError(f"unknown split {wanted.split!r}", "--split", "use validation or test")
    opened = open_run(root)
    experiment = _asking(opened, sections, where)
    parts = split_documents(experiment)[0]._asdict()
    parts["train"] = annotate(experiment, parts["train"]).labelled
    documents = _take(parts[wanted.split] or parts["validation"], wanted.limit)
    state, frozen, _ = restore(opened.folder, opened.setup, judged_step(opened.folder))
    asked = prompting.make_asked(experiment, opened.tokenizer, opened.setup.tuning.attach(state.trainable, frozen))
    known, texts = (prompting.read_known(experiment, opened.tokenizer, part) for part in (parts["train"], documents))
    found: dict[str, list[Any]] = {}
    for shots in experiment.prompt.shots or (0,):
        drawn = shots > 0 and experiment.prompt.demonstrations == "random"
        for seed in wanted.seeds if drawn else wanted.seeds[:1]:
            for form, answers in prompting.ask(asked, experiment.prompt, known, texts, shots, seed).items():
                found.setdefault(prompting.name_shots(shots, form), []).append(answers)
    for name, answers in judging.text_baselines(experiment, parts["train"], parts["validation"], documents).items():
        found[name] = [answers]
    rows = {name: _over_seeds(experiment, documents, answers) for name, answers in found.items()}
    return {"run": str(root), "texts": len(documents), "examples": len(known.ids), "rows": rows}


def _asking(opened: Opened, sections: dict[str, Any], where: str) -> Experiment:
    """The run's model as one that is asked by the prompt. Raises: UserError."""
    experiment = opened.experiment
    if experiment.objective.name not in LANGUAGE or experiment.data.source in SYNTHETIC + IMAGES:
        message = (
            f"a run of the objective {experiment.objective.name!r} on {experiment.data.source} has no words to say"
        )
        raise UserError(message, str(opened.folder.root), f"name a run of {', '.join(LANGUAGE)}")
    data, section = experiment.data, experiment.prompt
    if sections.get("data") is not None:
        data = configs.validate(DataConfig, sections["data"], where, "data")
    elif experiment.objective.name != "pattern":
        raise UserError("this run has no labelled data of its own", "--data", "name a config with labelled data")
    if sections.get("prompt") is not None:
        with _blaming_options("options" in sections):
            section = configs.validate(PromptConfig, _in_order(sections["prompt"], data.labels), where, "prompt")
    if section is None:
        raise UserError("there is no template", "--template, --words", "name both, or a config with a [prompt]")
    base = BaseConfig(str(opened.folder.root), opened.setup.config.vocabulary)  # whose table it is
    found = dataclasses.replace(experiment, data=data, prompt=section, objective=ObjectiveConfig("pattern"), base=base)
    reads = "gpt" if experiment.model.get("kind", "gpt") in LEFT_TO_RIGHT else "bert"
    configs.refuse_mismatch(
        dataclasses.replace(found, model={"kind": reads}), where
    )  # to be asked it need not be trained
    return found


@contextlib.contextmanager
def _blaming_options(given: bool) -> Iterator[None]:
    """An error in what the command line says of the prompt names its options, not the file."""
    try:
        yield
    except UserError as error:
        if not given or error.where.startswith("--"):
            raise
        mend = error.mend.replace("that key in the config", "that option")
        raise UserError(error.what, "--template, --words, --demonstrations", mend) from None


def _in_order(section: dict[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """The section with its words, by class, in the order of the classes."""
    words = section.get("words")
    if not isinstance(words, dict):
        return section
    if not labels:
        raise UserError("its data has no classes", "--data", "name a config of classify, with data.labels")
    if sorted(labels) != sorted(words):
        message = f"words for {', '.join(words)}, the classes are {', '.join(labels) or 'not named'}"
        raise UserError(message, "--words", "give one word for each class")
    return section | {"words": [words[name] for name in labels]}


def _take(documents: Sequence[Document], limit: int | None) -> list[Document]:
    """So many at most, in the order of a hash of their texts: a file may have its classes in order."""
    order = sorted(documents, key=lambda d: hashlib.sha256(d.text.encode("utf8", "surrogatepass")).digest())
    return order[:limit]


def _over_seeds(experiment: Experiment, documents: list[Document], answers: list[np.ndarray]) -> dict[str, Any]:
    """Metric -> mean over seeds, with its interval where there are several; of one, that over texts."""
    verdicts = [judging.judge(experiment, documents, given) for given in answers]
    rows = {}
    for name in ("macro_f1", "accuracy"):
        values = [verdict.metrics[name] for verdict in verdicts]
        spread = over_seeds(values)
        low, high = verdicts[0].intervals[name] if len(values) == 1 else (spread["low"], spread["high"])
        rows[name] = {"mean": spread["mean"], "low": low, "high": high, "values": values}
    return rows
