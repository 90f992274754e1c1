"""What the methods share that add rows beside a frozen model: which leaves train, and how the new ones are born."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence

from minillm.params import Params, ParamSpec, Specs, flatten, init_params, unflatten


def matching(rows: Mapping, patterns: Sequence[str]) -> dict:
    """The rows whose path matches a pattern."""
    return {path: row for path, row in rows.items() if any(fnmatch.fnmatchcase(path, p) for p in patterns)}


def table_of(params: Params) -> Specs:
    """The table of a tree as far as its arrays tell it: shapes, and "layers" where a row is stacked (under "blocks")."""
    table = {}
    for path, leaf in flatten(params).items():
        stacked = "blocks" in path.split("/")
        table[path] = ParamSpec(
            leaf.shape, (("layers",) if stacked else (None,))[: leaf.ndim] + (None,) * (leaf.ndim - 1)
        )
    return table


def adding(added: Callable[[Specs], Specs], heads: Sequence[str] = ()) -> tuple[Callable, Callable]:
    """`init` and `specs` of a method that trains new rows beside a frozen model, and the model's heads.

    Args:
        added: table of the model without its heads -> table of the new rows.
        heads: patterns over paths of the rows that train whatever the method.
    """

    def split(rows: Mapping) -> tuple[dict, dict]:
        trained = matching(rows, heads)
        return trained, {path: row for path, row in rows.items() if path not in trained}

    def init(params: Params, key):
        trained, frozen = split(flatten(params))
        new = init_params(added(table_of(unflatten(frozen))), key)
        return unflatten(trained | flatten(new)), unflatten(frozen), {}

    def specs(model_specs: Specs) -> Specs:
        trained, frozen = split(model_specs)
        return trained | added(frozen)

    return init, specs
