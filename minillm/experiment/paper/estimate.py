"""How long a step takes at least: the roofline (Williams, Waterman and Patterson 2009), with communication as a third roof.

    compute        products per device                  / peak rate
    memory         bytes that must be read or written   / memory bandwidth
    communication  bytes that must be sent              / link bandwidth

All three at once take the longest of them, one after the other their sum; a real step lies above the first, and above the
second too where it does not reach the peaks.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minillm.experiment.paper.collectives import Collective, sent
from minillm.experiment.paper.hardware import Hardware


class Work(NamedTuple):
    """What one device does in a step."""

    flops: float  # of matrix products
    dtype: str  # that they are computed in
    memory: Mapping[str, float]  # bytes, as `describe.memory_of` names them
    collectives: Sequence[Collective]


def estimate(work: Work, machine: Hardware) -> dict[str, Any]:
    """Seconds of a step on a mesh of such devices, and whether it fits into their memory."""
    seconds = {
        "compute": work.flops / getattr(machine, work.dtype),
        "memory": moved(work.memory) / machine.memory_bandwidth,
        "communication": sum(one.times * exchange_seconds(one, machine) for one in work.collectives),
    }
    return {
        "name": machine.name,
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "overlapped_seconds": max(seconds.values()),
        "in_turn_seconds": sum(seconds.values()),
        "binds": max(seconds, key=seconds.get),
        "memory_bytes": machine.memory,
        "fits": work.memory["total"] <= machine.memory,
        "source": machine.source,
    }


def moved(memory: Mapping[str, float]) -> float:
    """Bytes: arguments are read, outputs written, temporary ones both, once each at least."""
    return memory["arguments"] + memory["outputs"] + 2.0 * memory["temporaries"]


def exchange_seconds(one: Collective, machine: Hardware) -> float:
    """Seconds of one exchange: among devices that hang together first, then each sends its share of the rest to the others.

    A reduction of n = g k devices, g together, reduce-scatters among g, reduces size / g among k, and gathers among g.
    """
    homes = np.array(one.group) // machine.together
    if one.kind == "collective-permute":
        return one.bytes / (machine.link if len(set(homes.tolist())) == 1 else machine.network)
    near = int((homes == homes[0]).sum())
    far = math.ceil(len(one.group) / near)
    return sent(one.kind, one.bytes, near) / machine.link + sent(one.kind, one.bytes / near, far) / machine.network
