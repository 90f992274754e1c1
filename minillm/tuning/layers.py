"""What depends on how deep a row lies: freezing the bottom blocks, rates that fall layer by layer, gradual unfreezing.

A row's depth counts from the top: 0 for what stands above the blocks (final norm, heads), 1 for the top block, ...,
L for the bottom one, L + 1 for the embeddings. An encoder-decoder's two stacks are counted in parallel, each from its own
top (Raffel et al. 2020, section 3.5.1). A tied output layer is the embedding, and as deep.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

from minillm.errors import UserError
from minillm.params import flatten, unflatten

EMBEDDINGS = {"embedding", "embedding_norm", "position", "token_type", "patch", "class_token", "mask_token", "distance"}


def is_stacked(path: str) -> bool:
    """Whether the row has a leading axis of layers."""
    return "blocks" in path.split("/")


def is_embedding(path: str) -> bool:
    """Whether the row stands below the blocks; T5's table of distances, which all blocks of a stack read, does."""
    return not is_stacked(path) and not EMBEDDINGS.isdisjoint(path.split("/"))


def depths(rows: Mapping) -> dict[str, np.ndarray]:
    """{path: leaf} -> {path: depth}, for a stacked leaf one per layer in the shape [layers, 1, ...]."""
    stacks = {path: row.shape[0] for path, row in rows.items() if is_stacked(path)}
    found, below = {}, max(stacks.values(), default=0) + 1
    for path, row in rows.items():
        if path in stacks:
            found[path] = np.arange(stacks[path], 0, -1).reshape(-1, *(1,) * (len(row.shape) - 1))
        else:
            found[path] = np.array(below if is_embedding(path) else 0)
    return found


def layer_rates(decay: float = 1.0, every: int = 0) -> Callable | None:
    """`scale` of a method: (trainable, step) -> multipliers of the optimizer's updates; None where all are 1.

    decay: a row of depth d learns decay^d times as fast (discriminative fine-tuning: Howard and Ruder 2018, section
    3.2; by depth as in Bao et al. 2022). every: it begins at step d * every (gradual unfreezing: section 3.3), and
    `every` steps earlier where nothing has depth 0. Only updates are scaled: a row that waits has its gradient computed,
    and the optimizer's moments gather it.
    """
    if decay == 1.0 and every == 0:
        return None

    def scale(trainable, step):
        found = depths(flatten(trainable))
        least = min(int(depth.min()) for depth in found.values())
        factor = lambda depth: jnp.where(step >= (depth - least) * every, (decay**depth).astype(np.float32), 0.0)
        return unflatten({path: factor(depth.astype(np.float32)) for path, depth in found.items()})

    return scale


def split_bottom(rows: Mapping, layers: int, part: Callable) -> tuple[dict, dict]:
    """{path: row} -> (what trains, what is frozen): the embeddings and the bottom `layers` blocks of each stack freeze.

    A stacked row is cut in two, which keep its path: part(row, start, stop) is its layers from start to stop.
    Raises: UserError where a stack has fewer blocks, or there is none.
    """
    stacks = {path: row.shape[0] for path, row in rows.items() if is_stacked(path)}
    if layers > min(stacks.values(), default=0):
        have = f"the model has {min(stacks.values())}" if stacks else "the model is not made of equal blocks"
        raise UserError(f"{layers} blocks to freeze, {have}", "tuning.freeze_layers", "make it smaller")
    frozen = {path: row for path, row in rows.items() if is_embedding(path)}
    trainable = {path: row for path, row in rows.items() if path not in frozen and path not in stacks}
    for path, size in stacks.items():
        frozen[path] = part(rows[path], 0, layers)
        if layers < size:
            trainable[path] = part(rows[path], layers, size)
    return trainable, frozen
