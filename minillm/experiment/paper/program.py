"""A compiled program as the compiler prints it (HLO text): its parts, how often each runs, and who reads what.

%while_body.3 (arg: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %all-reduce.1 = f32[8,4]{1,0} all-reduce(%fusion.7), replica_groups={{0,1},{2,3}}, to_apply=%add
"""

import contextlib
import math
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\(([^)]*)")
CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|true_computation|false_computation|called_computations)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)
SHAPE = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
TRIPS = re.compile(r'known_trip_count[\\"]*:\{[\\"]*n[\\"]*:[\\"]*(\d+)')
SAME = ("bitcast", "reshape", "copy", "transpose", "convert")  # all numbers, in another order or type


PARTITIONING = "spmd-partitioning"


def compile_partitioned(lowered: jax.stages.Lowered) -> tuple[Any, str]:
    """(the compiled program, its text as it was when it had just been cut into one device's part).

    The CPU's compiler then widens bfloat16 to float32, also in what devices exchange; accelerators do not.
    """
    with _uncached(), tempfile.TemporaryDirectory() as folder:
        options = {"xla_dump_to": folder, "xla_dump_hlo_pass_re": PARTITIONING, "xla_dump_hlo_as_text": True}
        compiled = lowered.compile(compiler_options=options)
        (text,) = (path.read_text() for path in Path(folder).glob(f"*.after_{PARTITIONING}.*.txt"))
    return compiled, text


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """A program that is found in the cache passes through no compiler, which would write it down."""
    before = jax.config.jax_enable_compilation_cache
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


class Instruction(NamedTuple):
    """One line."""

    name: str
    result: str  # type and shape, or several in brackets
    operation: str
    operands: tuple[str, ...]
    line: str


class Program(NamedTuple):
    """Parts by name, each with its instructions by name, and the part that begins."""

    parts: dict[str, dict[str, Instruction]]
    entry: str


def parse(text: str) -> Program:
    """The text of a compiled program."""
    parts: dict[str, dict[str, Instruction]] = {}
    part: dict[str, Instruction] = {}
    entry = ""
    for line in text.splitlines():
        if line and not line[0].isspace() and line.endswith("{"):
            name = line.removeprefix("ENTRY ").split()[0].lstrip("%")
            entry = name if line.startswith("ENTRY ") else entry
            part = parts.setdefault(name, {})
        elif found := INSTRUCTION.match(line):
            name, result, operation, operands = found.groups()
            part[name] = Instruction(name, result, operation, tuple(re.findall(r"%([\w.\-]+)", operands)), line)
    return Program(parts, entry)


def executed(program: Program, part: str = "", times: int = 1) -> Iterator[tuple[str, Instruction, int]]:
    """(part, instruction, how often it runs); of two branches both. A loop of unknown length counts once."""
    part = part or program.entry
    for instruction in program.parts.get(part, {}).values():
        yield part, instruction, times
        loops = trips(program, instruction) if instruction.operation == "while" else 1
        for key, called in CALLED.findall(instruction.line):
            for name in re.findall(r"[\w.\-]+", called):
                yield from executed(program, name, times * loops if key == "body" else times)


def trips(program: Program, loop: Instruction) -> int:
    """How often a loop runs: as the compiler notes, or before it has, the one number that the condition compares with."""
    if noted := TRIPS.search(loop.line):
        return int(noted.group(1))
    condition = next((called for key, called in CALLED.findall(loop.line) if key == "condition"), "").lstrip("%")
    lines = (one.line for one in program.parts.get(condition, {}).values())
    numbers = [int(found.group(1)) for line in lines if (found := re.search(r" constant\((\d+)\)", line))]
    return numbers[0] if len(numbers) == 1 else 1


def only_sliced(program: Program, part: str, name: str, size: float) -> bool:
    """Whether all that is ever read of an array is slices of `size` elements."""
    readers = [one for one in program.parts[part].values() if name in one.operands]
    return bool(readers) and all(_slices(program, part, name, reader, size) for reader in readers)


def _slices(program: Program, part: str, name: str, reader: Instruction, size: float) -> bool:
    if reader.operation == "dynamic-slice":
        return reader.operands[0] == name and elements(reader.result) == size
    if reader.operation in SAME:
        return only_sliced(program, part, reader.name, size)
    if reader.operation == "fusion":
        inside = next(called for key, called in CALLED.findall(reader.line) if key == "calls").lstrip("%")
        given = [f" parameter({number})" for number, operand in enumerate(reader.operands) if operand == name]
        inputs = [one.name for one in program.parts[inside].values() if any(text in one.line for text in given)]
        return all(only_sliced(program, inside, one, size) for one in inputs)
    return False


def elements(shape: str) -> int:
    """f32[2,32] -> 64."""
    return math.prod(int(size) for size in SHAPE.search(shape).group(2).split(",") if size)


def sizes(result: str) -> list[float]:
    """Bytes of each array of a result: f32[2,32] -> 256; pred is a byte."""
    return [
        (int(bits.group()) / 8 if (bits := re.search(r"\d+", kind)) else 1.0)
        * math.prod(int(size) for size in shape.split(",") if size)
        for kind, shape in SHAPE.findall(result)
    ]
