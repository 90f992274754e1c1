"""Where a run's parameters come from, other than chance: another run, ours or imported, or pretraining of its own.

    [base]      run = "runs/bert"            take its parameters, its tokenizer and its [model]; the heads are new
    [pretrain]  objective, optimizer, ...    first a run of its own, in OUT/pretrain, on the same training part

With both, pretraining goes on from the base (domain-adaptive pretraining: Gururangan et al. 2020).
"""

import difflib
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minillm import config as configs
from minillm.config import Experiment
from minillm.data import fetch
from minillm.errors import UserError
from minillm.experiment import exchange
from minillm.experiment import folder as folders
from minillm.experiment.folder import RunFolder
from minillm.experiment.recipes import continual, tasks
from minillm.params import Specs, flatten
from minillm.sections.experiment import OWN as OWN
from minillm.sections.experiment import TASK_HEADS
from minillm.training import provenance

PRETRAIN = "pretrain"  # the folder of the stage before, in the run's own
FREE = (*OWN, "context", "dropout", "dtype", "init_scale", "kernel", "remat", "scan")  # may differ from the base's
HEADS = (*TASK_HEADS, "pooler", "masked", "next_sentence")  # may be new

ADDING = ("adapter", "prefix", "prompt")  # tuning methods whose rows do not become weights


class Base(NamedTuple):
    """What a run begins with."""

    arrays: dict[str, np.ndarray]  # path -> parameter: those that the run's own table has too
    about: dict[str, Any]  # for the manifest: where from, at which step, what was taken, left and is new


def load(path: Path, overrides: tuple[str, ...] | list[str] = ()) -> Experiment:
    """A config whose [model] is completed from its base. Raises: UserError."""
    raw = configs.read_toml(path, overrides)
    with configs.blaming(overrides):
        return check(raw, str(path))


def check(raw: dict[str, Any], where: str, below: dict[str, Any] | None = None) -> Experiment:
    """Sections as plain data -> the experiment; see `config.check`. A base that `minillm fetch` knows is fetched.

    `below`: the sections of the run that a lab will begin it with, which is not there yet.
    """
    section = raw.get("base")
    if not isinstance(section, dict) or not isinstance(section.get("run"), str):
        return _settle(configs.check(raw, where), below, where)
    root = locate(section["run"])
    if "tokenizer" in raw:
        raise UserError("the base brings its tokenizer", f"{where}: tokenizer", "leave the section out")
    model = {key: value for key, value in exchange.read_model(root).items() if key not in OWN}
    own = raw.get("model", {})
    if isinstance(own, dict) and own.get("kind", model["kind"]) != model["kind"]:
        raise UserError(
            f"the base is a {model['kind']}", f"{where}: model.kind", "leave it out, or choose another base"
        )
    for key, value in own.items() if isinstance(own, dict) else ():
        if key not in FREE and key in model and model[key] != value:
            mend = "leave it out: the base's weights were trained with that"
            raise UserError(f"the base has {model[key]!r}, got {value!r}", f"{where}: model.{key}", mend)
    base = section | {"run": str(root.absolute()), "vocabulary": exchange.read_rows(root)}
    return _settle(configs.check(raw | {"base": base, "model": model | own}, where), exchange.read_config(root), where)


def _settle(experiment: Experiment, base: dict[str, Any] | None, where: str) -> Experiment:
    """What several tasks need, written out; `base`: its config."""
    return continual.resolve(tasks.resolve(experiment, where), base, where)


def locate(name: str) -> Path:
    """A run's folder; a model of `minillm fetch` is imported into the cache at first use. Raises: UserError."""
    root = Path(name)
    if root.exists() or name not in fetch.MODELS:
        if not root.exists() and (close := difflib.get_close_matches(name, fetch.MODELS, 1)):
            mend = f"did you mean {close[0]}? It is a model of `minillm fetch`"
            raise UserError("this is not a run: there is no such folder", name, mend)
        folders.existing(root)
        return root
    root = fetch.cache_folder() / "imported" / name
    if not root.exists():
        exchange.import_run(Path(name), root)
    return root


def pretraining(experiment: Experiment, where: str = "pretrain") -> Experiment | None:
    """The stage before as an experiment of its own, or None.

    Data, tokenizer, base and mesh are the run's own; so is the model, but for its heads. Objective, optimizer and training
    are what [pretrain] says, and the seed the run's own. Raises: UserError.
    """
    if not experiment.pretrain:
        return None
    raw = configs.plain(experiment)
    model = {key: value for key, value in raw["model"].items() if key not in OWN}
    shared = {name: raw[name] for name in ("data", "tokenizer", "mesh", "base", "pairs") if name in raw}
    stage = {
        "name": PRETRAIN,
        "model": model,
        "train": {"seed": experiment.train.seed, "shards": experiment.train.shards},
        **shared,
    }
    for name, section in experiment.pretrain.items():
        stage[name] = {**stage.get(name, {}), **section} if isinstance(section, dict) else section
    found = configs.check(stage, where)
    if found.tuning.method in ADDING:
        message = f"{found.tuning.method} trains rows that the run itself has not"
        raise UserError(
            message, f"{where}: tuning.method", "leave it out, or use one that trains or merges into the model"
        )
    return found


def begins_with(experiment: Experiment, root: Path) -> Path | None:
    """The run whose parameters the run in `root` takes over, or None."""
    if experiment.pretrain:
        return root / PRETRAIN
    return None if experiment.base.run is None else Path(experiment.base.run)


def read(experiment: Experiment, root: Path, specs: Specs) -> Base:
    """The parameters that the run in `root` takes over; empty where it begins by chance. Raises: UserError.

    A path that both tables have must have the same shape; heads that the base lacks are new, and those of tasks too,
    unless the same task goes on ([continual]).
    """
    source = begins_with(experiment, root)
    if source is None:
        return Base({}, {})
    found = exchange.open_model(source)
    arrays = flatten(found.params)
    part = lambda path: path.partition("/")[0]
    origin = lambda path: path.split("/", 2)[2] if path.startswith("tasks/") else path  # what a task beside adds
    taken = {path: arrays[origin(path)] for path in specs
             if origin(path) in arrays and (part(origin(path)) not in TASK_HEADS or experiment.continual)}  # fmt: skip
    for path, array in taken.items():
        if array.shape != specs[path].shape:
            message = f"{path} is {list(array.shape)} in the base and {list(specs[path].shape)} here"
            raise UserError(message, f"base: {source}", "leave the key of [model] out that makes the difference")
    new = sorted(set(specs) - set(taken))
    if experiment.objective.name == "pattern" and any(part(path) == "masked" for path in new):
        message = "the base has no masked-LM head, so that it knows no words to fill in"
        raise UserError(message, f"base: {source}", "choose a base that was pretrained on masks, or classify")
    if strange := [path for path in new if part(origin(path)) not in HEADS]:
        raise UserError(f"the base has no {strange[0]}", f"base: {source}", "choose a base of the same architecture")
    return Base(taken, {
        "run": str(source), "step": found.step, "parameter_sha256": provenance.hash_arrays(taken),
        "taken": len(taken), "new": new, "left": sorted(set(arrays) - set(taken)),
    })  # fmt: skip


def copy_tokenizer(source: Path, folder: RunFolder) -> None:
    """The base's tokenizer, byte for byte, into a run's folder."""
    with folders.system_errors(folder.root):
        if (source / exchange.TOKENIZER).is_dir():
            shutil.copytree(source / exchange.TOKENIZER, folder.root / exchange.TOKENIZER, dirs_exist_ok=True)
        else:
            shutil.copyfile(RunFolder(source).tokenizer, folder.tokenizer)
