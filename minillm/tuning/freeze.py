"""Full fine-tuning, and freezing parts of the tree by patterns over paths, or from the bottom up to a layer."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp

from minillm.errors import UserError
from minillm.params import Params, ParamSpec, Specs, flatten, unflatten
from minillm.tuning.adding import matching
from minillm.tuning.contract import Tuning
from minillm.tuning.layers import is_stacked, layer_rates, split_bottom


def freeze(
    patterns: Sequence[str] = (), layers: int = 0, *, layer_decay: float = 1.0, unfreeze_every: int = 0
) -> Tuning:
    """Everything trains but the leaves whose path matches a pattern ("embedding/*"); no pattern is full training.

    With `layers`, the embeddings and the bottom so many blocks are frozen too: stacked leaves are split, and `attach`
    joins them again. Where layers are unrolled, XLA drops the backward pass below the lowest one that trains; under a
    scan it cannot. For layer_decay and unfreeze_every see `layers.layer_rates`.
    Raises: UserError where a pattern matches nothing, there are fewer blocks, or nothing is left to train.
    """

    def split(rows: Mapping) -> tuple[dict, dict]:
        for pattern in patterns:
            if not fnmatch.filter(rows, pattern):
                raise UserError(
                    f"the pattern {pattern!r} matches no parameter", "tuning.freeze", "see `minillm describe`"
                )
        frozen = matching(rows, patterns)
        trainable = {path: row for path, row in rows.items() if path not in frozen}
        if layers:
            trainable, bottom = split_bottom(trainable, layers, _part)
            frozen |= bottom
        if not trainable:
            raise UserError("every parameter is frozen", "tuning.freeze", "leave something to train")
        return trainable, frozen

    def init(params, key):
        trainable, frozen = split(flatten(params))
        return unflatten(trainable), unflatten(frozen), {}

    def specs(model_specs: Specs) -> Specs:
        return split(model_specs)[0]

    def attach(trainable, frozen):
        top, bottom = flatten(trainable), flatten(frozen)
        return unflatten(bottom | {path: _join(bottom.get(path), row) for path, row in top.items()})

    return Tuning(init, specs, attach, scale=layer_rates(layer_decay, unfreeze_every))


def full(*, layer_decay: float = 1.0, unfreeze_every: int = 0) -> Tuning:
    """Every parameter trains, at the rates of `layers.layer_rates`."""
    return freeze(layer_decay=layer_decay, unfreeze_every=unfreeze_every)


def attach_apart(trainable: Params, frozen: Params) -> Params:
    """The same parameters with each stack as a list of blocks, as models take it too where layers are unrolled.

    No array then holds both frozen and trained numbers, so that a gradient's program has no product that XLA would drop.
    """
    bottom, top = flatten(frozen), flatten(trainable)
    rows, stacks = {}, {}
    for path in bottom | top:
        if not is_stacked(path):
            rows[path] = top[path] if path in top else bottom[path]
            continue
        place, _, name = path.partition("blocks/")
        for layer, part in enumerate(part for side in (bottom, top) if path in side for part in side[path]):
            stacks.setdefault(f"{place}blocks", {}).setdefault(layer, {})[name] = part
    lists = {place: [unflatten(block) for block in blocks.values()] for place, blocks in stacks.items()}
    return unflatten(rows | lists)


def _part(row: jax.Array | ParamSpec, start: int, stop: int):
    if isinstance(row, ParamSpec):
        return replace(row, shape=(stop - start, *row.shape[1:]))
    return row[start:stop]


def _join(bottom: jax.Array | None, top: jax.Array) -> jax.Array:
    return top if bottom is None else jnp.concatenate([bottom, top])
