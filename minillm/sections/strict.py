"""Plain data -> a dataclass whose keys and types are strict: what is wrong is said in one line, by file and key."""

import dataclasses
import difflib
import json
from collections.abc import Sequence
from typing import Any, get_args

import pydantic

from minillm.errors import UserError

RENAMED = {("consistency", "kind"): "method", ("pseudo", "weight"): "strength", ("tasks", "coefficient"): "strength"}


def validate(kind: type, raw: dict, where: str, prefix: str = "", unknown: str = "unknown key") -> Any:
    """raw -> an instance of the dataclass `kind`; a pydantic error becomes one line that names file and key."""
    try:  # through JSON, where strict types still let an array be a tuple
        return pydantic.TypeAdapter(kind).validate_json(json.dumps(raw, default=str))
    except pydantic.ValidationError as failure:
        errors = failure.errors(include_url=False)  # a name misspelt is also a name missing: say the former
        error = min(errors, key=lambda found: found["type"] != "unexpected_keyword_argument")
        key = ".".join([prefix, *map(str, error["loc"])] if prefix else map(str, error["loc"]))
        message, mend = error["msg"].removeprefix("Value error, "), "mend that key in the config"
        if error["type"] == "unexpected_keyword_argument":
            known = [name for name in _known_keys(kind, error["loc"]) if name != "vocabulary" or not prefix]
            close = difflib.get_close_matches(str(error["loc"][-1]), known, 1)
            message = unknown
            now = RENAMED.get((key.split(".")[0], str(error["loc"][-1])))
            close = [now] if now in known else close
            mend = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        elif error["type"] in ("missing", "missing_argument"):
            message, mend = "this key is missing", "add it to the config"
        elif error["type"] != "value_error":
            message = f"{message.replace('Input should be', 'it should be')}, got {error['input']!r}"
        raise UserError(message, f"{where}: {key}" if key else where, mend) from None


def _known_keys(kind: Any, location: Sequence) -> list[str]:
    for name in location[:-1]:
        section = dataclasses.is_dataclass(kind)
        kind = {f.name: f.type for f in dataclasses.fields(kind)}[name] if section else get_args(kind)[1]  # of a table
        if type(None) in (parts := get_args(kind)):  # a section that may be absent
            kind = next(part for part in parts if part is not type(None))
    return [f.name for f in dataclasses.fields(kind) if f.init]
