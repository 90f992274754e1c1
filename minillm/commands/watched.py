"""A process of several, watched: when one is lost, jax ends the others at once, and they cannot say why themselves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

MARK = "MINILLM_WATCHED"  # in the environment of the child


def watched() -> bool:
    """Whether somebody watches this process already."""
    return MARK in os.environ


def watch(root: Path, lost_after: int) -> int:
    """Runs this very command in a process of its own and waits for it; returns its exit code.

    Ctrl-C reaches the child as well, which saves and stops; SIGTERM is handed on.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    command = [sys.executable, "-m", "minillm.cli", *sys.argv[1:]]
    child = subprocess.Popen(command, env=os.environ | {MARK: "1"}, preexec_fn=_listen)
    signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
    code = child.wait()
    if code >= 0:
        return code
    sys.stderr.write(
        f"minillm: this process of the run in {root} was ended by {signal.Signals(-code).name}: it was killed, or another "
        f"one has given no sign of life for {lost_after} s; the last checkpoint stays; start all processes again with --resume\n"
    )
    return 1


def _listen() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
