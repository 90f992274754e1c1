"""LoRA: the pretrained kernels stay, and a matrix of low rank is learned beside each.

    y = x W + (alpha / r) (x A) B        A [inputs, r] normal, B [r, outputs] zero       Hu et al. 2021, equation 3

so that training starts at the pretrained model. The rows of "blocks/attention/query/kernel" are
"blocks/attention/query/lora/down" (A) and ".../up" (B). For inference the product can be added to the kernel.
"""

import fnmatch
from collections.abc import Sequence

import jax

from minillm.errors import UserError
from minillm.nn.linear import LowRank, low_rank_product
from minillm.params import Params, ParamSpec, Specs, flatten, unflatten
from minillm.tuning.adding import adding, matching
from minillm.tuning.contract import Tuning


def lora(targets: Sequence[str], rank: int = 8, alpha: float = 16.0, heads: Sequence[str] = ()) -> Tuning:
    """Tuning by low-rank parts of the kernels whose path matches one of `targets`; `heads` train wholly.

    Raises: UserError where a pattern matches no kernel, or where a kernel has no such rank.
    """

    def added(specs: Specs) -> Specs:
        rows = {}
        for path, kernel in target_kernels(specs, targets, rank).items():
            *_, inputs, _ = kernel.shape
            # the standard deviation of the authors' code, whose distribution is uniform
            rows |= low_rank_rows(path, kernel, rank, down=(3 * inputs) ** -0.5, up=0.0)
        return rows

    init, specs = adding(added, heads)
    return Tuning(init, specs, lambda trainable, frozen: attach_low_rank(trainable, frozen, alpha / rank))


def target_kernels(specs: Specs, targets: Sequence[str], rank: int) -> Specs:
    """The rows of the kernels that are meant. Raises: UserError where a pattern matches none, or the rank is too high."""
    kernels = {path: spec for path, spec in specs.items() if path.endswith("/kernel")}
    for pattern in targets:
        if not fnmatch.filter(kernels, pattern):
            mend = f"there are: {', '.join(kernels)}"
            raise UserError(f"the pattern {pattern!r} matches no kernel", "tuning.targets", mend)
    found = matching(kernels, targets)
    for path, spec in found.items():
        if rank > min(spec.shape[-2:]):
            message = f"{path} has shape {list(spec.shape)} and so no rank of {rank}"
            raise UserError(message, "tuning.rank", f"use at most {min(spec.shape[-2:])}, or other tuning.targets")
    return found


def low_rank_rows(path: str, kernel: ParamSpec, rank: int, down: float, up: float) -> Specs:
    """The rows beside one kernel: down [*layers, inputs, rank] and up [*layers, rank, outputs].

    Both are drawn normally, with `down` and `up` as standard deviations; 0 makes zeros.
    """
    *layers, inputs, outputs = kernel.shape
    *names, input_axis, output_axis = kernel.axes
    place, born = path.removesuffix("kernel") + "lora", lambda scale: ("normal", scale) if scale else ("zeros",)
    return {
        f"{place}/down": ParamSpec((*layers, inputs, rank), (*names, input_axis, None), *born(down)),
        f"{place}/up": ParamSpec((*layers, rank, outputs), (*names, None, output_axis), *born(up)),
    }


def attach_low_rank(trainable: Params, frozen: Params, scale: float) -> Params:
    """The model's parameters, in which every kernel with low-rank rows is a `LowRank` leaf."""
    flat, rows = flatten(frozen), flatten(trainable)
    for path in [path for path in rows if path.endswith("/lora/down")]:
        place = path.removesuffix("/lora/down")
        own = {name: rows.pop(f"{place}/lora/{name}", None) for name in ("down", "up", "values")}
        flat[f"{place}/kernel"] = LowRank(flat[f"{place}/kernel"], **own, scale=scale)
    return unflatten(flat | rows)


def merge(params: Params) -> Params:
    """Attached parameters -> plain ones of the same function: every low-rank leaf becomes one kernel, for inference."""
    return jax.tree.map(
        lambda leaf: leaf.base + low_rank_product(leaf).astype(leaf.base.dtype) if isinstance(leaf, LowRank) else leaf,
        params,
        is_leaf=lambda leaf: isinstance(leaf, LowRank),
    )


def unmerge(merged: Params, params: Params) -> Params:
    """Undoes `merge`: the low-rank leaves of `params` again, beside the merged kernels less their products."""

    def part(leaf, plain):
        if not isinstance(leaf, LowRank):
            return plain
        base = plain - low_rank_product(leaf).astype(plain.dtype)
        return LowRank(base, leaf.down, leaf.up, leaf.values, leaf.scale)

    return jax.tree.map(part, params, merged, is_leaf=lambda leaf: isinstance(leaf, LowRank))
