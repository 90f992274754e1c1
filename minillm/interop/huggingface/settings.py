"""config.json: each key is taken, held against the one value that we compute with, or known to change no result.

A key that is none of these is refused by name: what it means may change what the model computes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minillm.errors import UserError

FILE = "config.json"
# of no effect on what a model computes from tokens: bookkeeping, beginnings of training, how text is generated
HARMLESS = {
    "_name_or_path", "model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "use_cache",
    "initializer_range", "initializer_factor", "gradient_checkpointing", "pad_token_id", "bos_token_id", "eos_token_id",
    "sep_token_id", "decoder_start_token_id", "id2label", "label2id", "num_labels", "_num_labels", "problem_type",
    "task_specific_params", "output_past", "output_attentions", "output_hidden_states", "return_dict",
    "use_return_dict", "torchscript", "finetuning_task", "_commit_hash", "_attn_implementation_autoset",
    "attn_implementation", "tokenizer_class", "do_sample", "max_length", "min_length", "num_beams", "temperature",
    "top_k", "top_p", "repetition_penalty", "length_penalty", "early_stopping", "no_repeat_ngram_size", "prefix",
}  # fmt: skip
ACTIVATIONS = {"gelu": "gelu_exact", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "relu": "relu", "silu": "silu",
               "swish": "silu"}  # fmt: skip
THEIR_ACTIVATIONS = {"gelu_exact": "gelu", "gelu": "gelu_new", "relu": "relu", "silu": "silu"}
REQUIRED = object()


def read(folder: Path) -> dict[str, Any]:
    """The object in a folder's config.json. Raises: UserError where it is missing or damaged."""
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise UserError(
            "there is no config.json" if folder.is_dir() else "no such folder: nothing is downloaded from a hub",
            str(folder),
            "name the folder that holds the model's files",
        ) from None
    except NotADirectoryError:
        raise UserError("this is a file, a folder was expected", str(folder), "name the model's folder") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read as JSON: {error}", str(path), "take the file as it was published") from None
    if not isinstance(found, dict):
        raise UserError("an object was expected", str(path), "take the file as it was published")
    return found


class Settings:
    """The keys of a config.json, each to be taken once; `finish` refuses those that nobody took."""

    def __init__(self, values: Mapping[str, Any], where: str):
        self.values, self.where = dict(values), where
        self.taken: set[str] = set()

    def take(self, key: str, kind: type | tuple[type, ...] = int, default: Any = REQUIRED) -> Any:
        """The key's value. Raises: UserError where it is missing without a default, or of another type."""
        self.taken.add(key)
        if key not in self.values:
            if default is REQUIRED:
                raise UserError(f"the key {key!r} is missing", self.where, "take the file as it was published")
            return default
        value = self.values[key]
        if value is None and default is None:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise UserError(f"{key} has a value of the wrong type: {value!r}", self.where, "mend that key")
        return value

    def number(self, key: str, default: Any = REQUIRED) -> float:
        """A float."""
        return float(self.take(key, (int, float), default))

    def only(self, key: str, supported: Any, default: Any = None) -> None:
        """Raises: UserError unless the key has the one value that we compute with."""
        self.taken.add(key)
        value = self.values.get(key, default)
        if value is None and default is None:
            return
        if value != supported:
            raise UserError(f"{key} = {value!r} is not supported, only {supported!r}", self.where,
                            "choose another model")  # fmt: skip

    def activation(self, key: str, default: str) -> str:
        """The name of ours that computes the same."""
        value = self.take(key, str, default)
        if value not in ACTIVATIONS:
            raise UserError(f"{key} = {value!r} is not supported, only {', '.join(ACTIVATIONS)}", self.where,
                            "choose another model")  # fmt: skip
        return ACTIVATIONS[value]

    def rate(self, *keys: str, default: float) -> float:
        """One dropout rate from several keys. Raises: UserError where they differ: our models have one."""
        rates = {key: self.number(key, default) for key in keys}
        if len(set(rates.values())) > 1:
            said = ", ".join(f"{key} = {rate}" for key, rate in rates.items())
            raise UserError(f"{said} differ, our models have one rate of dropout", self.where,
                            "set them to one value: it matters only in training")  # fmt: skip
        return next(iter(rates.values()))

    def architecture(self, known: tuple[str, ...]) -> str:
        """Their class. Raises: UserError where it is none of those known."""
        names = self.values.get("architectures") or [known[0]]
        if not isinstance(names, list) or len(names) != 1 or names[0] not in known:
            raise UserError(f"architectures = {names!r} is not supported, only one of {', '.join(known)}", self.where,
                            "choose another model")  # fmt: skip
        return names[0]

    def labels(self) -> int:
        """Number of classes: num_labels, or the size of id2label, or transformers' default of 2."""
        names = self.values.get("id2label")
        found = self.values.get("num_labels", len(names) if isinstance(names, dict) else 2)
        if not isinstance(found, int):
            raise UserError(f"num_labels has a value of the wrong type: {found!r}", self.where, "mend that key")
        return found

    def finish(self, harmless: tuple[str, ...] = ()) -> None:
        """Raises: UserError for a key that nobody took and that is not known to be harmless."""
        strange = sorted(set(self.values) - self.taken - HARMLESS - set(harmless))
        if strange:
            raise UserError(f"the key {strange[0]!r} = {self.values[strange[0]]!r} is not known here", self.where,
                            "choose another model; or, if it changes nothing in the model, delete the key")  # fmt: skip


def refuse(what: str, mend: str) -> None:
    """Raises: UserError for a setting of ours that no class of transformers has."""
    raise UserError(f"no class of transformers computes {what}", "export", mend)


def refuse_classifier(tasks: tuple[str, ...]) -> None:
    """Raises: UserError for a GPT with a head for classes: theirs has no bias, ours has."""
    if tasks:
        refuse(f"a GPT with the head {', '.join(tasks)}, whose scores have a bias",
               "label texts with `minillm predict`, or tune a BERT")  # fmt: skip


def table_of_labels(count: int) -> dict[str, Any]:
    """id2label and label2id, by which transformers knows how many classes there are."""
    return {
        "id2label": {str(i): f"LABEL_{i}" for i in range(count)},
        "label2id": {f"LABEL_{i}": i for i in range(count)},
    }
