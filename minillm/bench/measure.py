"""The measurements: sides take turns, and every ratio compares times of the same round."""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from minillm.allocator import usable_cores
from minillm.bench.client import Worker
from minillm.bench.sizes import SIZES
from minillm.errors import UserError

SIDES = {"jax": "minillm", "eager": "torch, eager", "sdpa": "torch, sdpa"}  # transformers; sdpa: fused attention
LORA = {"lora": 0.75, "lora_all": 1.0}  # at most this share of a full step
FIRST_LINE = {"cold": 10.0, "warm": 4.0}  # seconds until the quickstart's first loss line, at most
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
        Case("training step", "step", {"kind": "gpt"}, 1.2),
        Case("BERT tuning step", "step", {"kind": "bert"}, 1.05),
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
            if case.arguments.get("kind") == "gpt":
                memory = {name: worker.ask("memory")["bytes"] for name, worker in present.items()}
        say("LoRA")
        lora = tune(ours, sizes.step_rounds)
        alone = ours.ask("products")["seconds"]
        work, bandwidth, host = ours.ask("work"), ours.ask("read")["bytes_per_second"], ours.ask("host")["seconds"]
        versions = {key: value for worker in present.values() for key, value in worker.versions.items()}
    say("start-up")
    step = rows[0]["seconds"]
    return {
        "machine": {"cores": usable_cores(), "python": sys.version.split()[0], **versions},
        "size": size,
        "cases": rows,
        "matmul_flops_per_second": max(limits),
        "step_flops": work["step_flops"],
        "step_share_of_matmul_limit": work["step_flops"] / step / max(limits),
        "products_seconds": alone,
        "products_share_of_matmul_limit": work["step_flops"] / alone / max(limits),
        "read_bytes_per_second": bandwidth,
        "generation_seconds_at_bandwidth": sizes.tokens * work["model_bytes"] / bandwidth,
        "step_peak_memory_bytes": {SIDES[name]: value for name, value in memory.items()},
        "start_up": start_up(),
        "first_loss": first_loss() if size == "full" else {},
        "lora": lora,
        "host_share_of_step": host / step,
        "step_bytes": work["step_bytes"],
        "token": {"flops": work["token_flops"], "bytes": work["model_bytes"], "count": sizes.tokens},
    }


def tune(ours: Worker, rounds: int) -> dict[str, dict[str, float]]:
    """LoRA's steps beside the full step, in turns: median seconds, ratio, bar, and the optimizer's share of memory."""
    found: dict[str, list[dict]] = {kind: [] for kind in LORA}
    for _ in range(rounds + 1):  # the first one compiles
        full = ours.ask("step", kind="gpt")
        for kind, answers in found.items():
            answer = ours.ask("step", kind=kind)
            share = answer["optimizer_bytes"] / full["optimizer_bytes"]
            answers.append(answer | {"ratio": answer["seconds"] / full["seconds"], "share": share})
    middle = lambda answers, name: statistics.median(answer[name] for answer in answers[1:])
    return {kind: {"seconds": middle(answers, "seconds"), "share_of_full_step": middle(answers, "ratio"),
                   "bar": LORA[kind], "optimizer_share": answers[0]["share"]} for kind, answers in found.items()}  # fmt: skip


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


def first_loss() -> dict[str, float]:
    """Seconds from the command to the first loss line of the quickstart, with an empty cache and with a warm one."""
    config = Path(__file__).parents[2] / "configs/quickstart.toml"
    if not config.exists():  # installed without its configs
        return {}
    with tempfile.TemporaryDirectory() as folder:
        return {name: _first_line(config, Path(folder), name) for name in FIRST_LINE}


def _first_line(config: Path, folder: Path, name: str) -> float:
    environment = os.environ | {"MINILLM_CACHE": str(folder / "cache"), "JAX_PLATFORMS": "cpu"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-m", "minillm.cli", "run", str(config), "--out", str(folder / name)]
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        reached = any(line.startswith("step 1/") for line in process.stdout)
        seconds = time.perf_counter() - start
        process.kill()
    if not reached:
        raise UserError("the quickstart ended before its first loss", str(config), "run it to see why")
    return seconds


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
