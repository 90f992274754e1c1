"""Contract 1: every parameter is declared once, in a table.

A model returns a table `path -> ParamSpec`; initialisation, sharding, counting, weight-decay masks and the table of
`minillm describe` all derive from it. Parameters themselves are nested dicts of arrays, and the path of a leaf
("blocks/attention/query/kernel") is its name everywhere.

Logical axes used by the tables: "layers" (stacked blocks), "model" (width of the residual stream), "attention"
(heads times head size), "hidden" (feed-forward width), "vocab", "position"; None is never split.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

Params = dict  # nested dicts of arrays
Specs = dict  # path -> ParamSpec


@dataclass(frozen=True)
class ParamSpec:
    """One row: a parameter's shape, a logical name per axis, and how it is born."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    init: str = "normal"
    scale: float = 0.02

    def __post_init__(self):
        if len(self.shape) != len(self.axes):
            raise ValueError(f"shape {self.shape} and axes {self.axes} differ in length")
        if self.init not in INITIALIZERS:
            raise ValueError(f"unknown initializer {self.init!r}, known: {', '.join(INITIALIZERS)}")

    @property
    def size(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)

    @property
    def decays(self) -> bool:
        """Whether weight decay applies: matrices and tables yes; scales and biases, one axis per layer, no."""
        return sum(axis != "layers" for axis in self.axes) >= 2


def _normal(key, spec: ParamSpec, dtype):
    return spec.scale * jax.random.normal(key, spec.shape, dtype)


def _uniform(key, spec: ParamSpec, dtype):
    return jax.random.uniform(key, spec.shape, dtype, -spec.scale, spec.scale)


INITIALIZERS: dict[str, Callable] = {
    "normal": _normal,  # standard deviation `scale`
    "uniform": _uniform,  # between -scale and scale
    "zeros": lambda key, spec, dtype: jnp.zeros(spec.shape, dtype),
    "ones": lambda key, spec, dtype: jnp.ones(spec.shape, dtype),
}


def flatten(tree: Mapping) -> dict:
    """Nested dicts -> {path: leaf}."""
    return flatten_dict(tree, sep="/")


def unflatten(flat: Mapping) -> dict:
    """{path: leaf} -> nested dicts."""
    return unflatten_dict(dict(flat), sep="/")


def leaf_key(key, path: str):
    """A leaf's own random key, from its path alone: adding a row never changes another row's numbers."""
    word = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big")
    return jax.random.fold_in(key, word)


def init_params(specs: Specs, key, dtype=jnp.float32) -> Params:
    """Draws every parameter of the table; nested dicts of arrays in `dtype`."""
    return unflatten({p: INITIALIZERS[s.init](leaf_key(key, p), s, dtype) for p, s in specs.items()})


def abstract_params(specs: Specs, dtype=jnp.float32) -> Params:
    """Shapes and types only: what `describe` and checkpoint templates need, without allocating."""
    return unflatten({p: jax.ShapeDtypeStruct(s.shape, dtype) for p, s in specs.items()})


def decay_mask(specs: Specs) -> Params:
    """Nested dicts of bool: where weight decay applies."""
    return unflatten({p: s.decays for p, s in specs.items()})


def count(specs: Specs) -> int:
    """Number of scalar parameters."""
    return sum(s.size for s in specs.values())


def stack(specs: Specs, layers: int) -> Specs:
    """The table of one layer -> the table of `layers` layers, stacked on a leading axis."""
    return {p: ParamSpec((layers, *s.shape), ("layers", *s.axes), s.init, s.scale) for p, s in specs.items()}


def widen(specs: Specs, factor: float) -> Specs:
    """Multiplies the standard deviation of every normally drawn row."""
    return {p: replace(s, scale=factor * s.scale) if s.init == "normal" else s for p, s in specs.items()}


def prefix(specs: Specs, name: str) -> Specs:
    """Puts a table under `name/`."""
    return {f"{name}/{p}": s for p, s in specs.items()}


def unstack(params: Params | list[Params]) -> list[Params]:
    """Stacked layers -> one tree per layer; what is unstacked already stays as it is.

    `lax.split` rather than indexing: its transpose is one concatenation, where the transpose of indexing would pad
    every layer's gradient with zeros to the full stack and add them up.
    """
    if isinstance(params, list):
        return params
    leaves, tree = jax.tree.flatten(params)
    split = [jax.lax.split(leaf, (1,) * leaf.shape[0], axis=0) for leaf in leaves]
    return [
        jax.tree.unflatten(tree, [part.reshape(part.shape[1:]) for part in row]) for row in zip(*split, strict=True)
    ]


def unstack_blocks(params: Params) -> Params:
    """Every "blocks" of a whole model unstacked, for a loop that runs the model many times.

    Inside the loop, as in generation, the split would copy every weight each time around.
    """
    return {
        name: unstack(part) if name == "blocks" else unstack_blocks(part) if isinstance(part, dict) else part
        for name, part in params.items()
    }
