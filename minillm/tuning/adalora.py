"""AdaLoRA: low-rank parts written as singular value decompositions, whose ranks go where they matter.

    y = x W + (alpha / r) ((x P) * lambda) Q     P [inputs, r], Q [r, outputs] normal, lambda [r] zero
                                                                          Zhang et al. 2023, equation 3
so that training starts at the pretrained model. A penalty keeps P and Q orthogonal. Every triplet of a singular value
and its two vectors has a score; all triplets of all kernels and layers are ranked together, and a budget that falls
over the run says how many values stay. The others are set to zero after each step. They are not masked where the kernel
is used: a masked value would have no gradient, and could never return.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from minillm.params import Params, ParamSpec, Specs, flatten, unflatten
from minillm.tuning.adding import adding
from minillm.tuning.contract import Tuning
from minillm.tuning.lora import attach_low_rank, low_rank_rows, target_kernels

SMOOTHING = 0.85  # beta1 and beta2 of the paper's experiments
FIRST, LAST = 0.1, 0.3  # shares of the run before the budget falls, and after it has fallen, when the ranks stay


class Budget(NamedTuple):
    """How many singular values stay, over the run: `rank` per kernel in the beginning, `target_rank` in the end."""

    rank: int
    target_rank: float
    steps: int

    def after(self, step: Int[Array, ""] | int, kernels: int) -> Int[Array, ""]:
        """Singular values that stay after `step` updates, of `kernels` kernels: equation 12, a cubic schedule.

        As the authors' code has it:
        b(T) + (b(0) - b(T)) (1 - (t - t_i) / (T - t_i - t_f))^3 between the two phases.
        """
        first, last = int(FIRST * self.steps), int(LAST * self.steps)
        start, end = self.rank * kernels, round(self.target_rank * kernels)
        gone = jnp.clip((step - first) / (self.steps - first - last), 0.0, 1.0)
        return end + jnp.floor((start - end) * (1.0 - gone) ** 3).astype(jnp.int32)

    def settled(self, step: Int[Array, ""] | int):
        """Whether the choice of the step before stays."""
        return step > self.steps - int(LAST * self.steps)


def adalora(
    targets: Sequence[str], budget: Budget, alpha: float = 16.0, orthogonality: float = 0.1, heads: Sequence[str] = ()
) -> Tuning:
    """Tuning by singular value decompositions beside the kernels that match one of `targets`; `heads` train wholly.

    extra = {"sensitivity", "uncertainty": of every low-rank row, "live": which singular values stay}.

    Raises: UserError where a pattern matches no kernel, or where a kernel has no such rank.
    """

    def added(specs: Specs) -> Specs:
        rows = {}
        for path, kernel in target_kernels(specs, targets, budget.rank).items():
            *layers, inputs, outputs = kernel.shape
            # vectors of length 1 in the mean, so that the penalty starts low at any width
            rows |= low_rank_rows(path, kernel, budget.rank, down=inputs**-0.5, up=outputs**-0.5)
            place = path.removesuffix("kernel")
            rows[f"{place}lora/values"] = ParamSpec((*layers, budget.rank), (*kernel.axes[:-2], None), "zeros")
        return rows

    init_rows, specs = adding(added, heads)

    def init(params, key):
        trainable, frozen, _ = init_rows(params, key)
        rows = low_rank_leaves(trainable)
        zeros = lambda: unflatten({path: jnp.zeros_like(leaf) for path, leaf in rows.items()})
        live = {path: jnp.ones(leaf.shape, bool) for path, leaf in rows.items() if path.endswith("/values")}
        return trainable, frozen, {"sensitivity": zeros(), "uncertainty": zeros(), "live": unflatten(live)}

    def penalty(trainable, frozen):
        return orthogonality * sum(non_orthogonality(rows) for rows in _by_kernel(low_rank_leaves(trainable)).values())

    def update(trainable, extra, gradients, step):
        extra = score(low_rank_leaves(trainable), low_rank_leaves(gradients), extra)
        values, live = _choose(low_rank_leaves(trainable), extra, budget, step + 1)
        return unflatten(flatten(trainable) | values), extra | {"live": unflatten(live)}

    attach = lambda trainable, frozen: attach_low_rank(trainable, frozen, alpha / budget.rank)
    return Tuning(init, specs, attach, penalty=penalty if orthogonality else None, update=update)


def low_rank_leaves(tree: Params) -> dict[str, Array]:
    """Path -> leaf of the low-rank rows alone."""
    return {path: leaf for path, leaf in flatten(tree).items() if "/lora/" in path}


def non_orthogonality(rows: dict[str, Array]) -> Float[Array, ""]:
    """||P^T P - I||^2 + ||Q Q^T - I||^2, over all layers of one kernel (equation 4)."""
    down, up = rows["down"], rows["up"]
    products = (jnp.swapaxes(down, -1, -2) @ down, up @ jnp.swapaxes(up, -1, -2))
    return sum(jnp.square(product - jnp.eye(product.shape[-1])).sum() for product in products)


def score(rows: dict[str, Array], gradients: dict[str, Array], extra: dict) -> dict:
    """The smoothed sensitivity |w dL/dw| of every weight, and its uncertainty, one step later (equations 8 to 10).

    The weight is that after the step, its gradient that before, as in the authors' code.
    """
    before = {name: flatten(extra[name]) for name in ("sensitivity", "uncertainty")}
    smooth = lambda old, new: SMOOTHING * old + (1.0 - SMOOTHING) * new
    now = {path: jnp.abs(row * gradients[path]) for path, row in rows.items()}
    sensitivity = {path: smooth(before["sensitivity"][path], now[path]) for path in rows}
    uncertainty = {path: smooth(before["uncertainty"][path], jnp.abs(now[path] - sensitivity[path])) for path in rows}
    return extra | {"sensitivity": unflatten(sensitivity), "uncertainty": unflatten(uncertainty)}


def triplet_scores(extra: dict) -> dict[str, Float[Array, "*layers rank"]]:
    """Path of the singular values -> importance of each with its two vectors, whose weights count by their mean.

    Equation 7: S_i = s(lambda_i) + mean_j s(P_ji) + mean_j s(Q_ij), where s = sensitivity * uncertainty.
    """
    weights = jax.tree.map(jnp.multiply, extra["sensitivity"], extra["uncertainty"])
    return {
        f"{place}/values": rows["values"] + rows["down"].mean(-2) + rows["up"].mean(-1)
        for place, rows in _by_kernel(flatten(weights)).items()
    }


def live_ranks(extra: dict) -> dict[str, list[int]]:
    """Path of a kernel -> how many of its singular values stay, per layer: where the budget went."""
    return {
        path.replace("/lora/values", "/kernel"): [int(rank) for rank in jnp.atleast_1d(live.sum(-1))]
        for path, live in flatten(extra["live"]).items()
    }


def _choose(rows: dict[str, Array], extra: dict, budget: Budget, step) -> tuple[dict, dict]:
    """The singular values after pruning, and which of them live: the best of all kernels and layers together."""
    scores, before = triplet_scores(extra), flatten(extra["live"])
    together = jnp.concatenate([scores[path].reshape(-1) for path in sorted(scores)])
    place = jnp.argsort(jnp.argsort(-together))  # of each in the order from the best
    best = place < budget.after(step, together.size // budget.rank)
    values, live, start = {}, {}, 0
    for path in sorted(scores):
        size = rows[path].size
        chosen = best[start : start + size].reshape(rows[path].shape)
        live[path] = jnp.where(budget.settled(step), before[path], chosen)
        values[path], start = jnp.where(live[path], rows[path], 0.0), start + size
    return values, live


def _by_kernel(rows: dict[str, Array]) -> dict[str, dict[str, Array]]:
    """{".../lora/down": leaf} -> {".../lora": {"down": leaf}}."""
    found: dict[str, dict[str, Array]] = {}
    for path, leaf in rows.items():
        place, _, name = path.rpartition("/")
        found.setdefault(place, {})[name] = leaf
    return found
