"""The measurements: sides take turns, and every ratio compares times of the same round."""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from minillm.bench.client import Worker
from minillm.bench.sizes import SIZES, usable_cores

SIDES = {"jax": "minillm", "eager": "GPT-2 torch eager", "sdpa": "GPT-2 torch sdpa"}  # sdpa: fused attention
HINT = "not installed: pip install -e '.[parity]'"


class Case(NamedTuple):
    """One thing that every side does."""

    title: str
    do: str
    arguments: dict
    bar: float | None = None  # how many times faster than the peer with eager attention we mean to be


def cases(tokens: int) -> list[Case]:
    """All that are compared."""
    return [
        Case("training step", "step", {}, 1.2),
        Case("evaluation step", "evaluate", {}),
        Case(f"generate {tokens}, batch 1", "generate", {"rows": 1}, 2.0),
        Case(f"generate {tokens}, batch 16", "generate", {"rows": 16}, 1.6),
    ]


def measure(size: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Runs the whole bench; plain data."""
    sizes = SIZES[size]
    with contextlib.ExitStack() as stack:
        say("starting the sides")
        workers = {name: stack.enter_context(Worker(name, size)) for name in SIDES}
        present = {name: worker for name, worker in workers.items() if worker.missing is None}
        ours, rows, limits, memory = workers["jax"], [], [], {}
        for case in cases(sizes.tokens):
            say(case.title)
            first = {name: worker.ask(case.do, **case.arguments) for name, worker in present.items()}
            again: dict[str, list[dict]] = {name: [] for name in present}
            for _ in range(sizes.generate_rounds if case.do == "generate" else sizes.step_rounds):
                for name, worker in present.items():
                    again[name].append(worker.ask(case.do, **case.arguments))
                limits.append(ours.ask("matmul")["flops_per_second"])
            rows += [compare(case, name, first, again) for name in SIDES]
            memory |= {name: worker.ask("memory")["bytes"] for name, worker in present.items() if case.do == "step"}
        work, bandwidth = ours.ask("work"), ours.ask("read")["bytes_per_second"]
        versions = {key: value for worker in present.values() for key, value in worker.versions.items()}
    step = next(row["seconds"] for row in rows if row["do"] == "step" and row["side"] == "minillm")
    return {
        "machine": {"cores": usable_cores(), "python": sys.version.split()[0], **versions},
        "size": size,
        "cases": rows,
        "matmul_flops_per_second": max(limits),
        "step_flops": work["step_flops"],
        "step_share_of_matmul_limit": work["step_flops"] / step / max(limits),
        "read_bytes_per_second": bandwidth,
        "generation_seconds_at_bandwidth": sizes.tokens * work["model_bytes"] / bandwidth,
        "step_peak_memory_bytes": {SIDES[name]: value for name, value in memory.items()},
        "start_up": start_up(),
    }


def compare(case: Case, name: str, first: dict, again: dict) -> dict[str, Any]:
    """One row: a side's median time, and the median over rounds of its time / ours."""
    row = {"case": case.title, "do": case.do, "side": SIDES[name]}
    if name not in again:
        return row | {"missing": HINT}
    seconds, ours = ([answer["seconds"] for answer in again[side]] for side in (name, "jax"))
    row |= {"seconds": statistics.median(seconds), "fastest": min(seconds), "first_seconds": first[name]["seconds"]}
    if name != "jax":
        ratio = statistics.median(theirs / own for theirs, own in zip(seconds, ours, strict=True))
        row |= {"ratio": ratio} | ({"bar": case.bar} if case.bar and name == "eager" else {})
    for key in ("loss", "tokens"):
        row |= {key: again[name][-1][key]} if key in again[name][-1] else {}
    if "compilations" in first[name]:
        row["compilations"] = compilations = _compilations(case, first[name], again[name])
        if compilations != 1:
            raise RuntimeError(f"{case.title}: compiled {compilations} times, should be once")
    return row


def _compilations(case: Case, first: dict, again: list[dict]) -> int:
    """The step answers with its count so far, generation with what a call added."""
    if case.do == "step":
        return again[-1]["compilations"]
    return first["compilations"] + sum(answer["compilations"] for answer in again)


def start_up(repeats: int = 3) -> dict[str, float]:
    """A fresh process that imports `minillm.cli` and prints its help: fastest seconds, peak bytes."""
    seconds, peak = [], 0
    for _ in range(repeats):
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "minillm.cli", "--help"], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - start)
        process.returncode = os.waitstatus_to_exitcode(status)
        peak = max(peak, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
    return {"help_seconds": min(seconds), "help_peak_memory_bytes": peak}
