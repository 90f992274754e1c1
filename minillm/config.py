"""An experiment is a TOML file of strict sections, whose keys stand in `sections/experiment.py`.

The model's own section is `models/<kind>.py:Config`, the optimizer's is `training/optimizer.py:OptimizerConfig`. Unknown
keys, wrong types and impossible values are errors that name the file, the key and the mend. Below `experiment`, no
function sees this config: each gets only its own part.
"""

import contextlib
import dataclasses
import json
import os
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from minillm.errors import UserError
from minillm.models import MODELS
from minillm.sections.adversarial import AdversarialConfig, AttackConfig
from minillm.sections.augment import AugmentConfig, located
from minillm.sections.data import DataConfig
from minillm.sections.experiment import (
    IMAGES,
    STRICT,
    BaseConfig,
    BaselineConfig,
    MeshConfig,
    ObjectiveConfig,
    SampleConfig,
    TokenizerConfig,
    TrainConfig,
    TuningConfig,
    tasks_of,
)
from minillm.sections.few import AnnotationConfig, ConsistencyConfig, ContrastiveConfig, PseudoConfig
from minillm.sections.invariance import InvarianceConfig
from minillm.sections.mismatch import refuse_mismatch as refuse_mismatch
from minillm.sections.pairs import PairsConfig
from minillm.sections.prompt import PromptConfig
from minillm.sections.run import ForkConfig, TrackingConfig
from minillm.sections.strict import validate as validate  # beside the others for who asks
from minillm.sections.tasks import ContinualConfig, MixingConfig, TaskConfig
from minillm.training.optimizer import OptimizerConfig

DIGITS = {"image": (8, 8), "channels": 1, "shape": (8, 8, 1), "labels": 10}  # what a model of them must be told


@dataclass(frozen=True)
class Experiment:
    """One run, whole."""

    __pydantic_config__ = STRICT

    data: DataConfig
    model: dict[str, Any]  # `kind` and that model's own Config, less the vocabulary
    name: str = "run"
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    baselines: BaselineConfig = field(default_factory=BaselineConfig)
    base: BaseConfig = field(default_factory=BaseConfig)
    fork: ForkConfig = field(default_factory=ForkConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    adversarial: AdversarialConfig | None = None  # recipes are absent unless asked for
    prompt: PromptConfig | None = None  # of the objective "pattern"
    pairs: PairsConfig | None = None  # of sources with pairs of texts; None: its defaults
    attack: AttackConfig | None = None
    augment: AugmentConfig | None = None
    annotation: AnnotationConfig | None = None
    pseudo: PseudoConfig | None = None
    consistency: ConsistencyConfig | None = None
    contrastive: ContrastiveConfig | None = None
    invariance: InvarianceConfig | None = None
    pretrain: dict[str, Any] = field(default_factory=dict)  # sections of the stage before; see `experiment/base.py`
    tasks: dict[str, TaskConfig] | None = None  # learned beside the run's own; see `experiment/recipes/mixture.py`
    mixing: MixingConfig | None = None
    continual: ContinualConfig | None = None  # None: the base's head is not kept; see `experiment/recipes/continual.py`
    tests: dict[str, DataConfig] | None = None  # other texts of the same classes, to be judged on at the end

    def __post_init__(self):
        if not self.name or Path(self.name).name != self.name:
            raise ValueError(f"name must be one folder's name, got {self.name!r}")
        if self.pretrain and "objective" not in self.pretrain:
            raise ValueError('pretrain needs an objective, such as { name = "masked" }')
        if unknown := sorted(
            set(self.pretrain)
            - {"objective", "optimizer", "train", "data", "tuning", "model", "baselines", "contrastive"}
        ):
            raise ValueError(f"pretrain has no section {unknown[0]!r}")


def load(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Reads a TOML file, applies `section.key=value` overrides and checks everything. Raises: UserError."""
    return check(read_toml(path, overrides), str(path))


@contextlib.contextmanager
def blaming(overrides: Sequence[str]) -> Iterator[None]:
    """An error in a key that an override has set names the override, not the file."""
    try:
        yield
    except UserError as error:
        for override in overrides:
            if error.where.endswith(f": {override.partition('=')[0].strip()}"):
                mend = error.mend.replace("that key in the config", "that option")
                raise type(error)(error.what, f"--set {override}", mend) from None
        raise


def read_toml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The file's sections with `section.key=value` overrides applied. Raises: UserError."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise UserError("no such config", str(path), "name a TOML file, for example configs/quickstart.toml") from None
    except IsADirectoryError:
        raise UserError("this is a folder", str(path), "name a TOML file in it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"cannot be read as TOML: {error}", str(path), "mend that line") from None
    for setting in overrides:
        override(raw, setting)
    return raw


def check(raw: dict[str, Any], where: str) -> Experiment:
    """Sections as plain data -> the experiment, every default of its model written out. Raises: UserError."""
    if "members" in raw:
        raise UserError("this is the config of a lab", where, "use `minillm lab`")
    found = validate(Experiment, raw, where)
    fork = dataclasses.replace(found.fork, run=absolute(found.fork.run))
    data, augment, attack = located_data(found.data), located(found.augment), located(found.attack)
    pseudo = found.pseudo and dataclasses.replace(found.pseudo, run=absolute(found.pseudo.run))
    refuse_mismatch(found, where)
    found = dataclasses.replace(found, data=data, fork=fork, augment=augment, attack=attack, pseudo=pseudo)
    return dataclasses.replace(found, model=resolve_model(found, where))


def absolute(path: str | None) -> str | None:
    """A run is read again from other folders."""
    return None if path is None else os.path.abspath(path)


def located_data(data: DataConfig) -> DataConfig:
    """The section with absolute paths."""
    paths = {key: absolute(getattr(data, key)) for key in ("path", "validation_path", "test_path")}
    return dataclasses.replace(data, **paths)


def model_config(section: dict[str, Any], vocabulary: int, where: str = "config") -> tuple[Any, Any]:
    """The [model] section -> the named model's module and its own Config. Raises: UserError."""
    section = dict(section)
    kind = section.pop("kind", "gpt")
    if not isinstance(kind, str) or kind not in MODELS:
        raise UserError(f"unknown model {kind!r}", f"{where}: model.kind", f"known models: {', '.join(MODELS)}")
    if "vocabulary" in section:
        raise UserError("the tokenizer decides it", f"{where}: model.vocabulary", "set tokenizer.vocabulary")
    module = MODELS[kind]
    if any(known.name == "vocabulary" for known in dataclasses.fields(module.Config)):
        section["vocabulary"] = vocabulary
    return module, validate(module.Config, section, where, "model", f"{kind} has no such key")


def resolve_model(experiment: Experiment, where: str) -> dict[str, Any]:
    """The section with every default written out: a default that changes later must not change a run."""
    section = experiment.model
    tasks = tasks_of(experiment.objective.name, section.get("kind", "gpt"))
    if tasks:
        section = {"tasks": list(tasks)} | _outputs(experiment) | section
    _, config = model_config(section, 1, where)
    if missing := sorted(set(tasks) - set(getattr(config, "tasks", ()))):
        mend = f"name {', '.join(missing)} too, or leave tasks out"
        raise UserError(f"{experiment.objective.name} needs heads that are missing", f"{where}: model.tasks", mend)
    least = 3 if experiment.objective.name == "structural" else 2
    if "next_sentence" in tasks and config.relations < least:
        message = f"{experiment.objective.name} tells {least} relations apart, got {config.relations}"
        raise UserError(message, f"{where}: model.relations", f"set it to {least}, or leave it out")
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name != "vocabulary"}
    wanted = (
        DIGITS
        if experiment.data.source in IMAGES
        else {k: v for k, v in _outputs(experiment).items() if k in ("labels", "marks")}
    )
    for key, right in wanted.items():
        if settings.get(key, right) != right:
            message = f"the source {experiment.data.source!r} needs {right}, got {settings[key]}"
            raise UserError(message, f"{where}: model.{key}", "leave it out")
    return {"kind": section.get("kind", "gpt")} | settings


def _outputs(experiment: Experiment) -> dict[str, int]:
    """How many classes the objective's head tells apart, where that is not the head's default."""
    name, classes = experiment.objective.name, len(experiment.data.labels)
    if name == "structural":
        return {"relations": 3}
    if experiment.data.source in IMAGES:
        return {}
    marks = {"marks": len(experiment.objective.markers)} if experiment.model.get("kind") == "bert" else {}
    return {"classify": {"labels": classes} | marks, "multi_label": {"labels": classes}, "regression": {"labels": 1},
            "tag": {"labels": 1 + 2 * classes}}.get(name, {})  # fmt: skip


def override(raw: dict, setting: str) -> None:
    """Sets one `section.key=value` in the sections. Raises: UserError."""
    key, equals, text = setting.partition("=")
    sections = key.strip().split(".")
    if not equals or not all(sections):
        raise UserError(f"expected section.key=value, got {setting!r}", "--set", "for example --set train.steps=10")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    for section in sections[:-1]:
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise UserError(f"{section} is a value, not a section", f"--set {setting}", "name section.key")
    raw[sections[-1]] = value


def to_dict(config: Any) -> dict:
    """A dataclass as plain data without the keys that are None (TOML has no null)."""
    strip = lambda value: {k: strip(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value
    return strip(dataclasses.asdict(config))


def plain(config: Experiment) -> dict[str, Any]:
    """The resolved config as a TOML file would have it, every default written out."""
    return json.loads(json.dumps(to_dict(config)))  # tuples become arrays


def to_toml(config: Experiment) -> str:
    """`plain` as text."""
    sections = plain(config)
    scalars = {key: value for key, value in sections.items() if not isinstance(value, dict)}
    return tomli_w.dumps(scalars | sections)


def changed_keys(old: Experiment, new: Experiment) -> list[str]:
    """Names of the keys that differ, as section.key."""
    return differing(to_dict(old), to_dict(new))


def differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The same of sections as plain data."""
    from minillm.params import flatten

    a, b = flatten(old), flatten(new)
    return sorted(key.replace("/", ".") for key in a.keys() | b.keys() if a.get(key) != b.get(key))
