"""What the devices of a mesh tell each other in a step, read from the compiler's own program.

    %all-reduce.3 = f32[2,32]{1,0} all-reduce(%fusion.7), replica_groups={{0,1},{2,3}}, to_apply=%add

says that every device has 2 * 32 numbers of 4 bytes, and that 0 and 1 add theirs up, as do 2 and 3. On a mesh
[data, model] of [2, 2] those pairs differ in their place along "model".

A sum of which every device reads one slice alone is a reduce-scatter: compilers for accelerators write it so, the CPU's
leaves an all-reduce. Here it is a reduce-scatter.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from minillm.experiment.paper.program import Instruction, Program, elements, executed, only_sliced, parse, sizes

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
LISTED = re.compile(r"replica_groups=\{\{([\d,]+)\}")
COUNTED = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
MESHED = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}")


class Collective(NamedTuple):
    """One exchange. bytes: of the whole that is reduced, gathered or sent, on one device."""

    kind: str
    axes: tuple[str, ...]  # of the mesh, along which the members of a group differ
    group: tuple[int, ...]  # the first group's devices, counted through the mesh
    bytes: float
    times: int  # per step


def collectives(text: str, mesh: Mapping[str, int]) -> list[Collective]:
    """All exchanges of a compiled program on a mesh {axis: size}, in the program's order."""
    program = parse(text)
    found = []
    for part, instruction, times in executed(program):
        kind = instruction.operation.removesuffix("-start")
        if kind not in KINDS:
            continue
        group = first_group(instruction.line, math.prod(mesh.values()))
        places = np.array(np.unravel_index(group, tuple(mesh.values())))
        axes = tuple(axis for axis, along in zip(mesh, places, strict=True) if len(set(along.tolist())) > 1)
        parts = _parts(program, part, instruction, len(group)) if len(group) > 1 else ()
        found += [Collective(kind, axes, group, size, times) for kind, size in parts]
    return found


def _parts(program: Program, part: str, instruction: Instruction, devices: int) -> Iterator[tuple[str, float]]:
    """(kind, bytes): one, or two of a sum of several arrays of which some are sliced."""
    kind, start, _ = instruction.operation.partition("-start")
    found = sizes(instruction.result)
    if kind == "reduce-scatter":  # the result is one device's share
        yield kind, sum(found) * devices
    elif start and kind == "all-gather":  # its result is a pair: shares, and the whole
        yield kind, sum(found) * devices / (devices + 1)
    elif start and kind == "collective-permute":
        yield kind, found[0]
    elif start or kind != "all-reduce":
        yield kind, sum(found)
    else:
        items = [instruction]
        if instruction.result.startswith("("):
            readers = [one for one in program.parts[part].values() if instruction.name in one.operands]
            places = {int(re.search(r"index=(\d+)", one.line).group(1)): one for one in readers}
            items = [places.get(number) for number in range(len(found))]
        sliced = [
            one is not None and only_sliced(program, part, one.name, elements(one.result) / devices) for one in items
        ]
        for wanted, label in ((False, "all-reduce"), (True, "reduce-scatter")):
            if wanted in sliced:
                yield label, sum(size for size, is_sliced in zip(found, sliced, strict=True) if is_sliced == wanted)


def first_group(line: str, devices: int) -> tuple[int, ...]:
    """The first group's members, in the four ways that they are written; of a permutation its first cycle or chain.

    {{0,1},{2,3}}   [2,4]<=[4,2]T(1,0)   mesh['a'=4,'b'=2] {'b'}   {}: all of them
    """
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", line):
        return _chain([tuple(map(int, pair.split(","))) for pair in re.findall(r"\{([\d,]+)\}", pairs.group(1))])
    if found := LISTED.search(line):
        return _numbers(found.group(1))
    if found := COUNTED.search(line):
        shape, *order = found.groups()
        return tuple(_count(*order).reshape(_numbers(shape))[0].tolist())
    if found := MESHED.search(line):
        names, source, order, chosen = found.groups()
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", names)}
        every = (_count(source, order) if source else np.arange(math.prod(sizes.values()))).reshape(
            list(sizes.values())
        )
        inside = set(re.findall(r"'([^']+)'", chosen))
        if ":" not in chosen:
            return tuple(every[tuple(slice(None) if name in inside else 0 for name in sizes)].ravel().tolist())
    if "replica_groups={}" in line or "replica_groups=" not in line:
        return tuple(range(devices))
    raise ValueError(f"groups of devices that are written in a way unknown here: {line.strip()[:300]}")


def _count(shape: str, order: str | None) -> np.ndarray:
    """0, 1, 2, ... laid out as `shape`, its axes put in another order."""
    every = np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape))
    return every.transpose(_numbers(order)) if order else every


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _chain(pairs: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    nexts = {source: target for source, target in pairs if source != target}
    chain = [min(nexts)] if nexts else [0]
    while chain[-1] in nexts and nexts[chain[-1]] not in chain:
        chain.append(nexts[chain[-1]])
    return tuple(chain)


def summarise(found: Iterable[Collective]) -> list[dict]:
    """A row per kind and axes: how often, bytes per step, and the bytes that a device sends for them."""
    rows: dict[tuple, dict] = {}
    for one in found:
        row = rows.setdefault(
            (one.kind, one.axes),
            {
                "kind": one.kind,
                "axes": ", ".join(one.axes),
                "devices": len(one.group),
                "count": 0,
                "bytes": 0.0,
                "sent": 0.0,
            },
        )
        row["count"] += one.times
        row["bytes"] += one.times * one.bytes
        row["sent"] += one.times * sent(one.kind, one.bytes, len(one.group))
    return sorted(rows.values(), key=lambda row: -row["sent"])


def sent(kind: str, size: float, devices: int) -> float:
    """Bytes that each of `devices` sends in an exchange of `size` bytes, by the ring.

    all-reduce   2 (n - 1) / n * size      a reduce-scatter, then an all-gather (Patarasuk and Yuan 2009, section 3)
    all-gather, reduce-scatter, all-to-all  (n - 1) / n * size           collective-permute  size
    """
    if kind == "collective-permute":
        return size
    return (2.0 if kind == "all-reduce" else 1.0) * (devices - 1) / devices * size
