"""The bench for a person."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from minillm.bench.measure import FIRST_LINE

NAMES = {"lora": "LoRA on query, value", "lora_all": "LoRA on all matrices"}


def show(found: dict[str, Any]) -> None:
    """One table of comparisons (a ratio is the peer's time over ours), then what the machine allows."""
    table = Table(title=f"minillm bench, {found['size']} size", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("median", "fastest", "first call", "ratio", "bar"):
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for row in found["cases"]:
        if row["case"] != last:
            table.add_row(f"[bold]{row['case']}[/bold]")
            last = row["case"]
        table.add_row(f"  {row['side']}", *_numbers(row, found["size"] == "full"))
    console = Console()
    console.print(table)
    for name, fact in _facts(found).items():
        console.print(f"{name:28} {fact}", highlight=False, markup=False, soft_wrap=True)


def show_kernels(found: dict[str, Any]) -> None:
    """Attention and its gradient by length, then the whole step."""
    kernel = found["kernel"]
    table = Table(title=f"Causal attention in bfloat16, {found['device']}", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("", "our own", kernel, "ratio", "largest error, own", f"and {kernel}"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for row in found["attention"]:
        own, other = row["own"], row[kernel]
        ratio = f"{own['seconds'] / other['seconds']:.2f}x"
        name = f"with gradient, {row['rows']} x {row['length']}"
        table.add_row(
            name, _time(own["seconds"]), _time(other["seconds"]), ratio, f"{own['error']:.2%}", f"{other['error']:.2%}"
        )
    if kernel in found["step"]:
        own, other = (found["step"][name] for name in ("own", kernel))
        ratio = f"{own['seconds'] / other['seconds']:.2f}x"
        table.add_row("a GPT-2 small's whole step", _time(own["seconds"]), _time(other["seconds"]), ratio)
    console = Console()
    console.print(table)
    for name, row in found["step"].items():
        speed = (
            f"{row['tokens_per_second']:,.0f} tokens/s, {row['temporary_bytes'] / 1e9:.1f} GB of intermediate values"
        )
        console.print(f"step, {name:8} {speed}", highlight=False)


def _numbers(row: dict[str, Any], bars: bool) -> list[str]:
    if "missing" in row:
        return ["not installed"]
    times = [_time(row[name]) for name in ("seconds", "fastest", "first_seconds")]
    ratio = f"{row['ratio']:.2f}x" if "ratio" in row else ""
    return [*times, ratio, f"{row['bar']:.1f}x" if bars and "bar" in row else ""]


def _facts(found: dict[str, Any]) -> dict[str, str]:
    bar = lambda text: f" (bar {text})" if found["size"] == "full" else ""  # bars are for that size
    share = found["step_share_of_matmul_limit"]
    memory = ", ".join(f"{side} {size / 1e6:,.0f} MB" for side, size in found["step_peak_memory_bytes"].items())
    start = found["start_up"]
    missing = {row["side"]: row["missing"] for row in found["cases"] if "missing" in row}
    return missing | {
        "machine": ", ".join(f"{name} {value}" for name, value in found["machine"].items()),
        "matmul limit, float32": f"{found['matmul_flops_per_second'] / 1e9:,.1f} GFLOP/s, the best of this run",
        "the step's share of it": f"{share:.0%} of it ({found['step_flops'] / 1e9:,.1f} GFLOP){bar('80%')}",
        "its products alone": f"{_time(found['products_seconds'])}, {found['products_share_of_matmul_limit']:.0%} of the limit: "
        "what their shapes allow",
        "reading weights from memory": f"{found['read_bytes_per_second'] / 1e9:,.1f} GB/s: generation at batch 1 takes "
        f"{_time(found['generation_seconds_at_bandwidth'])} at least",
        "peak memory after the steps": memory,
        "host work between steps": f"{found['host_share_of_step']:.2%} of a step{bar('2%')}",
        "start-up (minillm --help)": f"{_time(start['help_seconds'])}, {start['help_peak_memory_bytes'] / 1e6:,.0f} MB",
    } | {
        f"first loss line, {name}": f"{_time(seconds)}{bar(f'{FIRST_LINE[name]:.0f} s')}"
        for name, seconds in found["first_loss"].items()
    } | {
        f"step with {NAMES[kind]}": f"{_time(row['seconds'])}: {row['share_of_full_step']:.2f} of the full step"
        f"{bar(format(row['bar'], '.2f'))}, its optimizer {row['optimizer_share']:.1%} of the full one's memory"
        f"{bar('5%')}"
        for kind, row in found["lora"].items()
    }  # fmt: skip


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"
