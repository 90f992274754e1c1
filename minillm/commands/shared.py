"""What all commands share: the groups that they belong to, their common options, and how they stop."""

import importlib.util
import json
import os
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="markdown",
                  pretty_exceptions_enable=False, help="Transformers from scratch in JAX: read it, run it, prove it.")  # fmt: skip

lessons = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="The course: list it, run a lesson, check your exercises.",
                      epilog="Example: `minillm lessons check 02 --hints`")  # fmt: skip
app.add_typer(lessons, name="lessons")
imports = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Make a run of somebody else's model.")
app.add_typer(imports, name="import")
exports = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Write a run's model for other programs.")
app.add_typer(exports, name="export")

Config = Annotated[Path, typer.Argument(help="A TOML file, for example configs/quickstart.toml")]
RunPath = Annotated[Path, typer.Argument(help="The folder of a run")]
Set = Annotated[list[str], typer.Option("--set", help="section.key=value, over the file's value; may be repeated")]
Number = Annotated[str, typer.Argument(metavar="N", help="The number of a lesson, 2 or 02")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON")]

# Ctrl-C so far: Python swallows the exception where it falls into a callback of the collector
INTERRUPTS: list[int] = []


ORDER = "xla_gpu_deterministic_ops"

SAID: list[str] = []  # how the stopped command goes on


SWALLOWING = ("_xla_gc_callback", "__del__")  # functions out of which no exception gets


def interrupt(number: int, frame: Any) -> None:
    """Ctrl-C: raises KeyboardInterrupt, a little later where it would be lost now."""
    INTERRUPTS.append(number)
    while frame is not None:
        if frame.f_code.co_name in SWALLOWING:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def prepare() -> None:
    """Before jax is imported: the allocator, the compilation cache and the GPU's order of addition of this process."""
    from minillm import allocator

    allocator.tune()
    fix_order()
    from minillm.data.fetch import cache_folder

    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's remarks are not for a user


def fix_order() -> None:
    """Where jax may find an NVIDIA GPU: sums are added in the same order each time.

    XLA there adds up the rows of an embedding's gradient as they come, so that two runs of a config differ from the first
    step on. The user's own XLA_FLAGS go before.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)) and ORDER not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{ORDER}=true".strip()


def output(result: Any, as_json: bool, show: Any) -> None:
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, indent=2))
    else:
        show()
