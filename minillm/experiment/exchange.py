"""`minillm import hf` and `minillm export hf`: a run's folder made of somebody else's model, and the way back.

An imported run has a config, a manifest and a checkpoint of step 0 like any other; their tokenizer's files lie in
`tokenizer/`, byte for byte. Either command writes into a folder beside the wanted one and renames it when all is there.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tomli_w

from minillm import config as configs
from minillm import sharding
from minillm.bits import sync_tree
from minillm.data import fetch, tokenizer
from minillm.errors import UserError
from minillm.experiment import folder as folders
from minillm.experiment.folder import RunFolder
from minillm.experiment.saved import judged_step
from minillm.experiment.supervised import tag_names
from minillm.interop import huggingface
from minillm.interop.huggingface import pieces, vocabulary
from minillm.models import MODELS
from minillm.params import Params, decay_mask, flatten, unflatten
from minillm.sections.experiment import TuningConfig
from minillm.training import checkpoint, loop
from minillm.training.optimizer import OptimizerConfig, make_optimizer
from minillm.training.step import init_state
from minillm.tuning import make_tuning
from minillm.tuning.lora import merge

TOKENIZER = "tokenizer"  # the folder of an imported run with the files of `vocabulary.FILES`
SOURCE = "huggingface"  # its data.source: the text that it was trained on is not known
WITHOUT_TOKENIZER = ("vit",)  # kinds without a tokenizer
DTYPES = ("float32", "float16", "bfloat16")  # that an export may have
KEPT = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "id2label", "label2id")

PROBLEMS = {"classify": "single_label_classification", "multi_label": "multi_label_classification",
            "regression": "regression", "tag": None}  # fmt: skip


class Trained(NamedTuple):
    """A model of a run, without what it takes to train it. Its parameters are numpy arrays."""

    folder: RunFolder
    kind: str
    config: Any
    params: Params
    step: int
    manifest: dict[str, Any]


def import_run(source: Path, root: Path) -> dict[str, Any]:
    """DIR of Hugging Face files -> a run's folder; returns what there is to say. Raises: UserError, having written nothing.

    `source` may also be the name of a model that `minillm fetch` knows, where no such folder exists.
    """
    if str(source) in fetch.MODELS and not source.exists():
        source = fetch.unpack(str(source))
    with _appearing(root) as temporary:
        found = huggingface.read(source)
        kind, rows = found.source["model_type"], getattr(found.config, "vocabulary", None)
        names = [*_copy_tokenizer(source, temporary / TOKENIZER)] if found.kind not in WITHOUT_TOKENIZER else []
        text = vocabulary.load(temporary / TOKENIZER, kind, rows) if found.kind not in WITHOUT_TOKENIZER else None
        optimizer = OptimizerConfig(name="sgd", schedule="constant")  # no moments: nothing is trained here
        _write_config(temporary, root.absolute().name, source, found, optimizer)
        specs = MODELS[found.kind].param_specs(found.config)
        state = init_state(found.params, {}, make_optimizer(optimizer, 1, decay_mask(specs)))
        checkpoint.save(RunFolder(temporary).checkpoints, 0, state, loop.Progress()._asdict())
        mesh, weights = sharding.make_mesh(1, 1), sorted(source.glob("*.safetensors"))
        manifest = folders.surroundings(mesh, folders.command_line()) | {
            "data_sha256": None,
            "tokenizer_sha256": None if text is None else text.sha256,
            "imported": {
                "config": found.source, "dtypes": found.dtypes, "vocabulary": rows, "tokenizer": names,
                "sha256": {path.name: _sha256(path) for path in weights},
            },
        }  # fmt: skip
        folders.write_json(RunFolder(temporary).manifest, manifest)
    return {
        "run": str(root), "kind": found.kind, "architecture": (found.source.get("architectures") or [None])[0],
        "parameters": sum(spec.size for spec in specs.values()), "vocabulary": rows, "source_dtypes": found.dtypes,
        "note": _note_import(found.dtypes),
    }  # fmt: skip


def export_run(root: Path, target: Path, dtype: str = "float32") -> dict[str, Any]:
    """A run's folder -> DIR that `transformers` loads. Raises: UserError, having written nothing."""
    if dtype not in DTYPES:
        raise UserError(f"unknown type {dtype!r}", "--dtype", f"use one of {', '.join(DTYPES)}")
    found = open_model(root)
    huggingface.settle(found.kind, found.config)
    imported, text = found.manifest.get("imported"), None
    if imported is not None or found.folder.tokenizer.exists():
        text = None if found.kind in WITHOUT_TOKENIZER else load_tokenizer(found.folder)
    with _appearing(target) as temporary:
        if imported is not None:
            extra = {key: value for key, value in imported["config"].items() if key in KEPT}
            _copy_tokenizer(root / TOKENIZER, temporary)
        elif text is not None:
            extra = {"bos_token_id": text.bos, "eos_token_id": text.eos, "pad_token_id": text.pad}
            kind = read_config(found.folder).get("tokenizer", {}).get("kind", "bpe")
            model = pieces.Target(found.kind, found.config.vocabulary, found.config.context)
            pieces.write(found.folder.tokenizer, kind, model, temporary)
        else:
            extra = {}
        extra = _name_classes(extra, read_config(found.folder))
        settled = huggingface.write(temporary, found.kind, found.config, found.params, dtype=dtype, extra=extra)
        files = sorted(path.name for path in temporary.iterdir())
    dtypes = {} if imported is None else imported["dtypes"]
    return {
        "folder": str(target), "architecture": settled["architectures"][0], "step": found.step, "dtype": dtype,
        "source_dtypes": dtypes, "files": files, "note": _note_export(dtypes, dtype),
    }  # fmt: skip


def _name_classes(extra: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The keys of a config.json, with the classes and the kind of task of a run that learned from labels."""
    name, labels = config.get("objective", {}).get("name"), config.get("data", {}).get("labels", ())
    if name not in PROBLEMS:
        return extra
    kept = {key: value for key, value in extra.items() if key not in ("id2label", "label2id")}  # the base's
    classes = tag_names(labels) if name == "tag" else labels
    if classes:
        kept["id2label"] = {str(number): kind for number, kind in enumerate(classes)}
        kept["label2id"] = {kind: number for number, kind in enumerate(classes)}
    return kept | ({"problem_type": PROBLEMS[name]} if PROBLEMS[name] else {})


def open_model(root: Path) -> Trained:
    """The model of a run, of any kind that has one, at the step that the run is judged by; low-rank parts are merged.

    Raises: UserError where it is no run, is damaged, or has parameters that its model's table has not.
    """
    folder = folders.existing(root)
    section = dict(read_config(folder).get("model", {}))
    kind = section.pop("kind", "gpt")
    if kind not in MODELS:
        raise UserError(f"unknown model {kind!r}", f"{folder.config}: model.kind", f"known models: {', '.join(MODELS)}")
    step = judged_step(folder)
    trained = read_arrays(folder.checkpoints, step, "trainable/")
    flat = _merged(folder, trained, read_arrays(folder.frozen, 0, "") if folder.frozen.exists() else {})
    rows = {"vocabulary": len(flat["embedding/table"])} if "embedding/table" in flat else {}
    module = MODELS[kind]
    config = configs.validate(module.Config, section | rows, str(folder.config), "model")
    specs = module.param_specs(config)
    flat = {
        path: array for path, array in flat.items() if not path.startswith("tasks/")
    }  # heads of tasks beside its own
    if strange := sorted(set(flat) - set(specs)):
        raise UserError(
            f"the parameter {strange[0]} is not one of a plain {kind}",
            str(root),
            "only LoRA and AdaLoRA merge into one",
        )
    if missing := sorted(set(specs) - set(flat)):
        raise UserError(f"the parameter {missing[0]} is not there", str(root), "put the run's own files back")
    for path, spec in specs.items():
        if flat[path].shape != spec.shape:
            what = f"the config wants {path} as {list(spec.shape)}, the checkpoint has {list(flat[path].shape)}"
            raise UserError(what, str(folder.config), "put the run's own config back")
    return Trained(folder, kind, config, unflatten(flat), step, folders.read_json(folder.manifest))


def _merged(folder: RunFolder, trained: dict[str, Any], frozen: dict[str, Any]) -> dict[str, Any]:
    """Path -> parameter of the whole model: split stacks are joined, low-rank rows added to their kernels."""
    if any(path.startswith("anchor/") for path in frozen):  # of a run that held on to its base
        frozen = {path.removeprefix("model/"): leaf for path, leaf in frozen.items() if path.startswith("model/")}
    if not frozen:
        return trained
    raw = read_config(folder).get("tuning", {})
    section = configs.validate(TuningConfig, raw, str(folder.config), "tuning")
    tuning = make_tuning(section, heads=(), steps=1)
    params = merge(tuning.attach(unflatten(trained), unflatten(frozen)))
    return {path: np.asarray(leaf) for path, leaf in flatten(params).items()}


def load_tokenizer(folder: RunFolder) -> Any:
    """The tokenizer of a run, ours or an imported one. Raises: UserError where it is missing, damaged or another's."""
    manifest = folders.read_json(folder.manifest)
    imported, place = manifest.get("imported"), folder.tokenizer
    if imported is None:
        found = tokenizer.load(place)
    else:
        place = folder.root / TOKENIZER
        found = vocabulary.load(place, imported["config"]["model_type"], imported["vocabulary"])
    if found.sha256 != manifest["tokenizer_sha256"]:
        raise UserError("this is not the run's tokenizer", str(place), "put the run's own file back")
    return found


def read_model(root: Path) -> dict[str, Any]:
    """The [model] section of a run, with its kind. Raises: UserError."""
    return {"kind": "gpt"} | read_config(folders.existing(root)).get("model", {})


def read_rows(root: Path) -> int:
    """How many rows the embedding table of a run has: its ids. Raises: UserError where it has none, or no checkpoint."""
    folder = folders.existing(root)
    leaves = checkpoint.verify(folder.checkpoints, judged_step(folder))["leaves"]
    if folder.frozen.exists():
        leaves |= {f"trainable/{name}": leaf for name, leaf in checkpoint.verify(folder.frozen, 0)["leaves"].items()}
    if "trainable/embedding/table" not in leaves:
        raise UserError("this run's model reads no text", str(root), "choose another base")
    return leaves["trainable/embedding/table"]["shape"][0]


def refuse_silent(folder: RunFolder) -> None:
    """Raises: UserError for an imported model that does not write text from left to right."""
    found = read_config(folder)
    kind = found.get("model", {}).get("kind") if found.get("data", {}).get("source") == SOURCE else None
    if kind not in (None, "gpt"):
        message = f"an imported {kind} has no experiment of its own to go on with"
        raise UserError(message, str(folder.root), "export it, or open it with minillm.experiment.exchange.open_model")


def read_arrays(checkpoints: Path, step: int, beginning: str) -> dict[str, np.ndarray]:
    """Path -> array of all leaves, less `beginning`: the record of a checkpoint says what is in it."""
    leaves = checkpoint.verify(checkpoints, step)["leaves"]
    blank = lambda leaf: np.broadcast_to(np.zeros((), np.dtype(leaf["dtype"])), leaf["shape"])
    tree, _ = checkpoint.restore(checkpoints, step, unflatten({name: blank(leaf) for name, leaf in leaves.items()}))
    flat = flatten(tree)
    return {name.removeprefix(beginning): array for name, array in flat.items() if name.startswith(beginning)}


def read_config(folder: RunFolder | Path) -> dict[str, Any]:
    """The config of a run as plain data. Raises: UserError."""
    folder = folders.existing(folder) if isinstance(folder, Path) else folder
    try:
        return tomllib.loads(folder.config.read_text(encoding="utf8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read as TOML: {error}", str(folder.config), "mend that line") from None


def _write_config(
    root: Path, name: str, source: Path, found: huggingface.Pretrained, optimizer: OptimizerConfig
) -> None:
    model = {key: value for key, value in configs.to_dict(found.config).items() if key != "vocabulary"}
    plain = {
        "name": name,
        "data": {"source": SOURCE, "path": str(source.absolute())},
        "model": {"kind": found.kind} | model,
        "optimizer": configs.to_dict(optimizer),
    }
    RunFolder(root).config.write_text(tomli_w.dumps(json.loads(json.dumps(plain))), encoding="utf8")


def _copy_tokenizer(source: Path, target: Path) -> list[str]:
    names = [path.name for path in vocabulary.present(source)]
    target.mkdir(exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, target / name)
    return names


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextlib.contextmanager
def _appearing(root: Path) -> Iterator[Path]:
    """A folder that is filled beside `root` and takes its name at the end, or vanishes. Raises: UserError."""
    if root.exists() and not root.is_dir():
        raise UserError("this is a file, a folder was expected", str(root), "choose another folder")
    temporary = root.absolute().with_name(f".{root.absolute().name}.tmp-{os.getpid()}")
    with folders.system_errors(root):
        if root.exists() and any(root.iterdir()):
            raise UserError("the folder is not empty", str(root), "choose a new or an empty folder")
        temporary.mkdir(parents=True)
        try:
            yield temporary
            sync_tree(temporary)
            os.replace(temporary, root.absolute())
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def in_words(found: dict[str, Any]) -> str:
    """A line per fact, for a person."""
    plain = lambda value: ", ".join(f"{v} {k}" for k, v in value.items()) if isinstance(value, dict) else value
    plain_list = lambda value: ", ".join(value) if isinstance(value, list) else plain(value)
    return "\n".join(f"{name:14} {plain_list(value)}" for name, value in found.items() if value not in ("", None, {}))


def _note_import(dtypes: dict[str, int]) -> str:
    narrow = ", ".join(sorted(set(dtypes) - {"float32"}))
    return f"the source is in {narrow}; it is read into float32, which holds every such number" if narrow else ""


def _note_export(dtypes: dict[str, int], dtype: str) -> str:
    narrow = sorted(set(dtypes) - {"float32"})
    if not narrow or dtype in narrow:
        return ""
    return f"the source was in {', '.join(narrow)}; this is in {dtype}, --dtype {narrow[0]} narrows it again"
