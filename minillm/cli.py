"""The command line. jax and its friends are imported inside the commands: `minillm --help` answers at once."""

import contextlib
import importlib.metadata
import signal
import sys
from typing import Annotated

import typer

# isort: off
from minillm.commands import runs, language, labs, exchange, lessons  # noqa: F401  (each registers its commands, listed in this order)

# isort: on
from minillm.commands.shared import SAID, app, interrupt
from minillm.errors import UserError, out_of_memory


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"minillm {importlib.metadata.version('minillm')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say it and exit")
    ] = False,
) -> None:
    """Transformers from scratch in JAX: read it, run it, prove it."""


def main() -> None:
    """Entry point: what a user did wrong is one line on stderr and exit code 2, or 3 where training diverged."""
    with contextlib.suppress(ValueError):  # not the main thread: signals are somebody else's
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGALRM, interrupt)  # that of a moment ago
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"minillm: {error}\n")
        raise SystemExit(error.code) from None
    except (KeyboardInterrupt, SystemExit) as stop:  # typer makes the one into the other
        if isinstance(stop, SystemExit) and (stop.code != 130 or SAID):
            raise
        resumed = sys.argv[1:2] in (["run"], ["branch"])
        goes_on = "; a run goes on from its last checkpoint with --resume" if resumed else ""
        sys.stderr.write(f"minillm: stopped{goes_on}\n")
        raise SystemExit(130) from None
    except Exception as error:
        if (plain := out_of_memory(error)) is None:
            raise
        sys.stderr.write(f"minillm: {plain}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
