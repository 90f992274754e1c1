"""What stacks of equal layers share: running them in turn, their key-value caches, and looking inside."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from minillm.params import Params, unstack


def run_layers(
    block: Callable, params: Params | list[Params], x, *, states: Sequence | None = None, scan=False, remat=False
):
    """x -> block(..., block(x)), one after the other: returns (x, new states, captured stacked over layers).

    block(layer_params, x, layer, state) -> (x, new state, {name: captured}); `params` are stacked on a leading axis or,
    without scan, unstacked already. `states` (one per layer, e.g. key-value caches) always unroll, so that each is updated
    in place; without them `scan` compiles one layer for all. `remat` recomputes each in the backward pass.
    """
    block = jax.checkpoint(block) if remat else block
    layers = len(params) if isinstance(params, list) else jax.tree.leaves(params)[0].shape[0]
    if scan and states is None:

        def body(x, row):
            x, _, captured = block(row[0], x, row[1], None)
            return x, captured

        x, captured = jax.lax.scan(body, x, (params, jnp.arange(layers)))
        return x, None, captured
    states = (None,) * layers if states is None else states
    new_states, rows = [], []
    for layer, (layer_params, state) in enumerate(zip(unstack(params), states, strict=True)):
        x, state, captured = block(layer_params, x, layer, state)
        new_states.append(state)
        rows.append(captured)
    return x, tuple(new_states), {name: jnp.stack([row[name] for row in rows]) for name in rows[0]}


def write_cache(
    cache: Float[Array, "batch keys heads head"],
    new: Float[Array, "batch length heads head"],
    start: Int[Array, "batch"],
) -> Float[Array, "batch keys heads head"]:
    """Writes each row's new keys or values into its cache, from that row's `start` on."""
    return jax.vmap(lambda row, piece, at: jax.lax.dynamic_update_slice(row, piece, (at, 0, 0)))(cache, new, start)


def keep(capture: Sequence[str], **found) -> dict:
    """Those of the named intermediates that were asked for."""
    return {name: value for name, value in found.items() if name in capture}
