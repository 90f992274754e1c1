"""Sums over parts of a batch, with the same bits on any number of devices.

Floats do not add associatively: (a + b) + c and a + (b + c) differ in the last bit, and an ordinary all-reduce adds in an
order that depends on the devices. Here the batch is cut into V virtual shards, V a power of two. Each is computed whole on
one device, and a fixed tree says who is added to whom:

    V = 8    ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))

A device that holds V / D shards in a row adds up its own branch of the tree; the devices then add branch to branch as a
butterfly: in round k, device i exchanges its sum with device i XOR 2^k (recursive doubling: Thakur, Rabenseifner and Gropp
2005, section 4.3). Both partners then hold the same bits, since a + b and b + a are equal.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

AXIS = "data"  # of the mesh; rows of a batch are split over it
NOTHING = -0.0  # the one float that changes no other when it is added: 0.0 would make 0.0 of -0.0


def over_parts(function: Callable, shards: int, mesh: Mesh | None = None) -> Callable:
    """(part of a batch, *others) -> tree becomes (batch, *others) -> the sum over `shards` parts of its rows.

    `others` (parameters, a key) are the same for all parts. `shards` is a power of two that mesh.data divides; without a
    mesh all parts are computed where the batch is. Memory for activations falls by `shards`; of the sums a device keeps
    one per level of its branch.
    """
    devices = 1 if mesh is None else mesh.shape[AXIS]

    def on_device(parts, *others):
        return _butterfly(_branch(lambda part: _apart(function, part, *others), parts), devices)

    def summed(batch, *others):
        parts = jax.tree.map(lambda leaf: leaf.reshape(shards, leaf.shape[0] // shards, *leaf.shape[1:]), batch)
        if mesh is None:
            return on_device(parts, *others)
        copies = [PartitionSpec()] * len(others)
        places = {"in_specs": (PartitionSpec(AXIS), *copies), "out_specs": PartitionSpec()}
        return jax.shard_map(on_device, mesh=mesh, axis_names={AXIS}, check_vma=False, **places)(parts, *others)

    return summed


def _apart(function: Callable, *arguments):
    """The function as a program of its own: what stands around it, a loop or none, must not change how it is compiled."""
    return jax.lax.optimization_barrier(function(*jax.lax.optimization_barrier(arguments)))


def _branch(function: Callable, parts):
    """The sum of function(part) over the leading axis, as a balanced tree. Loops of two keep the program small."""
    count = len(jax.tree.leaves(parts)[0])
    if count == 1:
        return function(jax.tree.map(lambda leaf: leaf[0], parts))
    halves = jax.tree.map(lambda leaf: leaf.reshape(2, count // 2, *leaf.shape[1:]), parts)
    shapes = jax.eval_shape(lambda half: _branch(function, half), jax.tree.map(lambda leaf: leaf[0], halves))
    nothing = jax.tree.map(lambda leaf: jnp.full(leaf.shape, NOTHING, leaf.dtype), shapes)
    add = lambda total, half: (jax.tree.map(jnp.add, total, _branch(function, half)), None)
    return jax.lax.scan(add, nothing, halves)[0]


def _butterfly(tree, devices: int):
    """The sum over the devices of a mesh axis, on each of them."""
    distance = 1
    while distance < devices:
        swap = [(device, device ^ distance) for device in range(devices)]
        tree = jax.tree.map(lambda leaf, swap=swap: leaf + jax.lax.ppermute(leaf, AXIS, swap), tree)
        distance *= 2
    return tree
