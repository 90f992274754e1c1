"""An experiment is a TOML file of strict sections; every key, with its type and default, stands on this page.

The model's own section is `models/<kind>.py:Config`, the optimizer's is `training/optimizer.py:OptimizerConfig`. Unknown
keys, wrong types and impossible values are errors that name the file, the key and the mend. Below `experiment`, no
function sees this config: each gets only its own part.
"""

import dataclasses
import difflib
import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pydantic
import tomli_w

from minillm.errors import UserError
from minillm.models import MODELS
from minillm.training.optimizer import OptimizerConfig

LEFT_TO_RIGHT = ("gpt", "rnn", "lstm", "transformer_xl")  # what the causal objective trains; BERT would see the answer
STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from, how it is cleaned, split and cut into examples."""

    __pydantic_config__ = STRICT

    source: str  # "text", "jsonl", "csv", "tsv" with `path`; a package corpus such as "python-docs"; or "copy"
    path: str | None = None
    text_key: str = "text"  # the field of jsonl, the column of csv and tsv
    separator: str | None = None  # what parts the documents inside a text file; None: one file is one document
    normalization: Literal["none", "NFC", "NFKC"] = "none"
    drop_duplicates: bool = True
    drop_repeated_lines: bool = False
    validation: float = 0.1  # share of the documents
    test: float = 0.0
    packing: Literal["stream", "packed"] = (
        "stream"  # windows over everything, or whole documents that cannot see each other
    )
    length: int | None = None  # tokens per example; None: the model's context
    limit: int | None = None  # characters of text to use at most; None: all
    split_seed: int = 0
    symbols: int = 10  # copy task: alphabet
    copy_length: int = 8  # copy task: symbols to remember

    def __post_init__(self):
        if not 0.0 < self.validation < 1.0 or not 0.0 <= self.test < 1.0 or self.validation + self.test >= 1.0:
            raise ValueError("validation must be in (0, 1), test in [0, 1), and their sum below 1")
        for name in ("length", "limit", "copy_length"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.source == "copy" and self.length is not None:
            raise ValueError("length follows from copy_length in the copy task: leave it out")
        if self.symbols < 4:  # held-out strings are told from the others by a sum modulo 4
            raise ValueError(f"symbols must be at least 4, got {self.symbols}")


@dataclass(frozen=True)
class TokenizerConfig:
    """SentencePiece, trained on the training part and stored in the run."""

    __pydantic_config__ = STRICT

    kind: Literal["bpe", "unigram", "char"] = "bpe"
    vocabulary: int = 1024
    byte_fallback: bool = True

    def __post_init__(self):
        if self.vocabulary < 8:
            raise ValueError(f"vocabulary must be at least 8, got {self.vocabulary}")


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised."""

    __pydantic_config__ = STRICT

    name: Literal["causal"] = "causal"
    label_smoothing: float = 0.0
    z_loss: float = 0.0  # coefficient of log^2 Z

    def __post_init__(self):
        if not 0.0 <= self.label_smoothing < 1.0 or self.z_loss < 0.0:
            raise ValueError("label_smoothing must be in [0, 1) and z_loss not negative")


@dataclass(frozen=True)
class TuningConfig:
    """Which parameters train."""

    __pydantic_config__ = STRICT

    method: Literal["full", "freeze"] = "full"
    freeze: tuple[str, ...] = ()  # patterns over parameter paths, such as "embedding/*"


@dataclass(frozen=True)
class TrainConfig:
    """The loop: how long, how large, what is measured and kept."""

    __pydantic_config__ = STRICT

    steps: int = 1000
    batch_size: int = 16  # examples per update
    shards: int = 1  # parts of the batch whose gradients are added in fixed order (gradient accumulation)
    seed: int = 0
    log_every: int = 10
    evaluate_every: int = 100
    evaluate_batches: int | None = None  # of the fixed validation set; None: all of it
    checkpoint_every: int | None = None  # None: at every evaluation
    keep_last: int = 2
    keep_best: bool = True
    patience: int | None = None  # evaluations without a better validation loss before stopping; None: never
    hash_every: int = 100  # steps between hashes of every parameter in the provenance log; 0: none

    def __post_init__(self):
        for name in ("steps", "batch_size", "shards", "log_every", "evaluate_every", "keep_last", "patience",
                     "checkpoint_every", "evaluate_batches"):  # fmt: skip
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.hash_every < 0:
            raise ValueError(f"hash_every must not be negative, got {self.hash_every}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2^32), got {self.seed}")
        if self.patience is not None and not self.keep_best:
            raise ValueError("patience needs keep_best = true: early stopping goes back to the best checkpoint")
        if self.batch_size % self.shards:
            raise ValueError(f"shards must divide batch_size: {self.batch_size} % {self.shards} is not 0")


@dataclass(frozen=True)
class MeshConfig:
    """How many devices, and what is split over them; see `sharding.py`."""

    __pydantic_config__ = STRICT

    data: int = 1
    model: int = 1
    rules: Literal["data", "fsdp"] = "data"

    def __post_init__(self):
        if self.data < 1 or self.model < 1:
            raise ValueError(f"data and model must be at least 1, got {self.data} and {self.model}")


@dataclass(frozen=True)
class SampleConfig:
    """What the run writes when it has learned."""

    __pydantic_config__ = STRICT

    prompts: tuple[str, ...] = ("",)
    tokens: int = 100  # new ones per prompt, or fewer where the context ends
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self):
        if not self.prompts or self.tokens < 1:
            raise ValueError(
                f"at least one prompt and one token, got {len(self.prompts)} prompts, {self.tokens} tokens"
            )
        if self.temperature < 0.0:
            raise ValueError(f"temperature must not be negative (0 is greedy), got {self.temperature}")
        if self.top_k is not None and not 1 <= self.top_k < 2**31:
            raise ValueError(f"top_k must be in [1, 2^31), got {self.top_k}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2^32), got {self.seed}")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")


@dataclass(frozen=True)
class BaselineConfig:
    """Classical models of the same text, in the same run."""

    __pydantic_config__ = STRICT

    orders: tuple[int, ...] = (1, 3, 5)  # n-gram orders; 1 is the unigram
    xz: bool = True

    def __post_init__(self):
        if any(order < 1 for order in self.orders):
            raise ValueError("orders must be at least 1")


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

    def __post_init__(self):
        if not self.name or Path(self.name).name != self.name:
            raise ValueError(f"name must be one folder's name, got {self.name!r}")


def load(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Reads a TOML file, applies `section.key=value` overrides and checks everything. Raises: UserError."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise UserError("no such config", str(path), "name a TOML file, for example configs/quickstart.toml") from None
    except IsADirectoryError:
        raise UserError("this is a folder", str(path), "name a TOML file in it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"cannot be read as TOML: {error}", str(path), "mend that line") from None
    for override in overrides:
        _override(raw, override)
    found = validate(Experiment, raw, str(path))
    place = found.data.path if found.data.path is None else os.path.abspath(found.data.path)
    data = dataclasses.replace(found.data, path=place)  # the run is read again from other folders
    return dataclasses.replace(found, data=data, model=_resolve_model(found.model, str(path)))


def model_config(section: dict[str, Any], vocabulary: int, where: str = "config") -> tuple[Any, Any]:
    """The [model] section -> the named model's module and its own Config. Raises: UserError."""
    section = dict(section)
    kind = section.pop("kind", "gpt")
    if kind not in MODELS:
        raise UserError(f"unknown model {kind!r}", f"{where}: model.kind", f"known models: {', '.join(MODELS)}")
    if kind not in LEFT_TO_RIGHT:
        mend = f"the experiments of this version train {', '.join(LEFT_TO_RIGHT)}"
        raise UserError(
            f"{kind} does not read from left to right, as the causal objective needs", f"{where}: model.kind", mend
        )
    if "vocabulary" in section:
        raise UserError("the tokenizer decides it", f"{where}: model.vocabulary", "set tokenizer.vocabulary")
    module = MODELS[kind]
    return module, validate(module.Config, section | {"vocabulary": vocabulary}, where, "model")


def _resolve_model(section: dict[str, Any], where: str) -> dict[str, Any]:
    """The section with every default written out: a default that changes later must not change a run."""
    _, config = model_config(section, 1, where)
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name != "vocabulary"}
    return {"kind": section.get("kind", "gpt")} | settings


def _override(raw: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    sections = key.strip().split(".")
    if not equals or not all(sections):
        raise UserError(f"expected section.key=value, got {override!r}", "--set", "for example --set train.steps=10")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    for section in sections[:-1]:
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise UserError(f"{section} is a value, not a section", f"--set {override}", "name section.key")
    raw[sections[-1]] = value


def validate(kind: type, raw: dict, where: str, prefix: str = "") -> Any:
    """raw -> an instance of the dataclass `kind`; a pydantic error becomes one line that names file and key."""
    try:  # through JSON, where strict types still let an array be a tuple
        return pydantic.TypeAdapter(kind).validate_json(json.dumps(raw, default=str))
    except pydantic.ValidationError as failure:
        errors = failure.errors(include_url=False)  # a name misspelt is also a name missing: say the former
        error = min(errors, key=lambda found: found["type"] != "unexpected_keyword_argument")
        key = ".".join([prefix, *map(str, error["loc"])] if prefix else map(str, error["loc"]))
        message, mend = error["msg"].removeprefix("Value error, "), "mend that key in the config"
        if error["type"] == "unexpected_keyword_argument":
            known = _known_keys(kind, error["loc"])
            close = difflib.get_close_matches(str(error["loc"][-1]), known, 1)
            message = "unknown key"
            mend = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        elif error["type"] in ("missing", "missing_argument"):
            message, mend = "this key is missing", "add it to the config"
        elif error["type"] != "value_error":
            message = f"{message}, got {error['input']!r}"
        raise UserError(message, f"{where}: {key}" if key else where, mend) from None


def _known_keys(kind: type, location: Sequence) -> list[str]:
    for name in location[:-1]:
        kind = {f.name: f.type for f in dataclasses.fields(kind)}[name]
    return [f.name for f in dataclasses.fields(kind) if f.init]


def to_dict(config: Any) -> dict:
    """A dataclass as plain data without the keys that are None (TOML has no null)."""
    strip = lambda value: {k: strip(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value
    return strip(dataclasses.asdict(config))


def to_toml(config: Experiment) -> str:
    """The resolved config, every default written out."""
    plain = json.loads(json.dumps(to_dict(config)))  # tuples become arrays
    scalars = {key: value for key, value in plain.items() if not isinstance(value, dict)}
    return tomli_w.dumps(scalars | plain)


def changed_keys(old: Experiment, new: Experiment) -> list[str]:
    """Names of the keys that differ, as section.key."""
    from minillm.params import flatten

    a, b = flatten(to_dict(old)), flatten(to_dict(new))
    return sorted(key.replace("/", ".") for key in a.keys() | b.keys() if a.get(key) != b.get(key))
