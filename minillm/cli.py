"""The command line. jax and its friends are imported inside the commands: `minillm --help` answers at once."""

import contextlib
import signal
import sys

# isort: off
from minillm.commands import runs, labs, exchange, lessons  # noqa: F401  (each registers its commands, listed in this order)

# isort: on
from minillm.commands.shared import SAID, app, interrupt
from minillm.errors import UserError


def main() -> None:
    """Entry point: what a user did wrong is one line on stderr and exit code 2."""
    with contextlib.suppress(ValueError):  # not the main thread: signals are somebody else's
        signal.signal(signal.SIGINT, interrupt)
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"minillm: {error}\n")
        raise SystemExit(2) from None
    except (KeyboardInterrupt, SystemExit) as stop:  # typer makes the one into the other
        if isinstance(stop, SystemExit) and (stop.code != 130 or SAID):
            raise
        sys.stderr.write("minillm: stopped; a run goes on from its last checkpoint with --resume\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
