"""Full fine-tuning, and freezing parts of the tree by patterns over paths."""

import fnmatch
from collections.abc import Sequence

from minillm.errors import UserError
from minillm.params import Specs, flatten, unflatten
from minillm.tuning.contract import Tuning


def freeze(patterns: Sequence[str] = ()) -> Tuning:
    """Everything trains but the leaves whose path matches a pattern ("embedding/*"); no pattern is full training.

    Raises: UserError where a pattern matches nothing, or where nothing is left to train.
    """

    def split(rows: dict) -> tuple[dict, dict]:
        for pattern in patterns:
            if not fnmatch.filter(rows, pattern):
                raise UserError(
                    f"the pattern {pattern!r} matches no parameter", "tuning.freeze", "see `minillm describe`"
                )
        frozen = {path: row for path, row in rows.items() if any(fnmatch.fnmatchcase(path, p) for p in patterns)}
        trainable = {path: row for path, row in rows.items() if path not in frozen}
        if not trainable:
            raise UserError("every parameter is frozen", "tuning.freeze", "leave something to train")
        return trainable, frozen

    def init(params, key):
        trainable, frozen = split(flatten(params))
        return unflatten(trainable), unflatten(frozen), {}

    def specs(model_specs: Specs) -> Specs:
        return split(model_specs)[0]

    def attach(trainable, frozen):
        return unflatten(flatten(trainable) | flatten(frozen))

    return Tuning(init, specs, attach)


def full() -> Tuning:
    """Every parameter trains."""
    return freeze()
