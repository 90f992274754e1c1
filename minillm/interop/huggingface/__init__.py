"""Hugging Face checkpoints, read into our parameters and written from them: one readable name table per model.

    found = read(folder)                                    config.json + safetensors -> Config, parameters
    write(folder, found.kind, found.config, found.params)   and back, for `transformers` to load

Weights come in float32 (exactly: float16 and bfloat16 are parts of it) and go out as what `dtype` says.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minillm.errors import UserError
from minillm.interop.huggingface import bert, gpt2, llama, names, settings, t5, tensors, vit
from minillm.models import MODELS
from minillm.params import Params, Specs, flatten, unflatten

PAGES = {"bert": bert, "gpt2": gpt2, "llama": llama, "t5": t5, "vit": vit}  # by their model_type


class Pretrained(NamedTuple):
    """A model from elsewhere: kind and config are ours, source is their config.json, dtypes counts their tensors."""

    kind: str
    config: Any
    params: Params
    source: dict[str, Any]
    dtypes: dict[str, int]


def read(folder: Path) -> Pretrained:
    """Raises: UserError for a setting, a tensor or a file that is not as it should be, by its name."""
    source = settings.read(folder)
    page, where = _page(source, str(folder / settings.FILE)), str(folder / settings.FILE)
    with tensors.opened(folder) as found:
        try:
            config = page.read_config(settings.Settings(source, where), set(found))
        except ValueError as error:
            raise UserError(str(error), where, "take the file as it was published") from None
        specs, table = MODELS[page.KIND].param_specs(config), page.table(config)
        _refuse_size(specs, found, where)
        where = str(next(iter({tensor.path for tensor in found.values()}), folder))
        matched, copies = names.match(table, specs, found, where)
        places = names.places(table, specs)
        load = lambda name: tensors.read(matched[name], found[matched[name]], places[name].shape)
        flat = names.to_params(table, specs, load)
        for copy, original in copies.items():
            _refuse_difference(copy, original, tensors.read(copy, found[copy], places[original].shape), load(original))
        dtypes = Counter(tensors.TYPES[found[name].dtype] for name in matched.values())
    return Pretrained(page.KIND, config, unflatten(flat), source, dict(dtypes))


def write(
    folder: Path, kind: str, config: Any, params: Params, *, dtype: str = "float32", extra: Mapping[str, Any] = {}
) -> dict[str, Any]:
    """config.json (with the keys of `extra` over it) and model.safetensors into a folder; returns the former.

    Raises: UserError where no class of transformers computes what the config says.
    """
    page, settled = settle(kind, config)
    specs, table, flat = MODELS[kind].param_specs(config), page.table(config), flatten(params)
    for path, spec in specs.items():
        if path not in flat or flat[path].shape != spec.shape:
            raise UserError(
                f"the parameter {path} is not there as {list(spec.shape)}", "export", "pass the model's own"
            )
    bare = settled["architectures"] == [page.BARE]
    short = lambda name: name.removeprefix(table.prefix) if bare else name
    named = {short(name): array for name, array in names.to_tensors(table, specs, flat)}
    settled |= {"dtype": dtype, **extra}
    tensors.write(folder / tensors.FILE, named, dtype)
    (folder / settings.FILE).write_text(json.dumps(settled, indent=2, sort_keys=True) + "\n", encoding="utf8")
    return settled


def settle(kind: str, config: Any) -> tuple[Any, dict[str, Any]]:
    """(page, config.json) of a model of ours. Raises: UserError where no class of transformers computes it."""
    pages = [page for page in PAGES.values() if kind == page.KIND]
    if not pages:
        known = sorted({page.KIND for page in PAGES.values()})
        raise UserError(f"{kind!r} has no counterpart in transformers", "export", f"export one of {', '.join(known)}")
    page = pages[0] if len(pages) == 1 else llama if config.norm == "rms" else gpt2
    return page, page.write_config(config)


def _page(source: Mapping[str, Any], where: str) -> Any:
    kind = source.get("model_type")
    if not isinstance(kind, str) or kind not in PAGES:
        raise UserError(
            f"model_type = {kind!r} is not supported, only {', '.join(PAGES)}", where, "choose another model"
        )
    return PAGES[kind]


def _refuse_size(specs: Specs, found: Mapping[str, tensors.Tensor], where: str) -> None:
    """Before anything is made of that size."""
    held = sum(math.prod(tensor.shape) for tensor in found.values())
    for path, spec in specs.items():
        if spec.size > held:
            raise UserError(f"says that {path} has {spec.size} numbers, the files hold {held} in all", where,
                            "config.json and the weights must be of one model")  # fmt: skip


def _refuse_difference(copy: str, original: str, found: np.ndarray, expected: np.ndarray) -> None:
    if not np.array_equal(found, expected):
        raise UserError(f"the tensor {copy!r} should repeat {original!r} (tied weights) and differs from it",
                        tensors.FILE, "set tie_word_embeddings to what the model was trained with")  # fmt: skip
