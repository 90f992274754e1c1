"""A process of several, watched: when one is lost, jax ends the others at once, and they cannot say why themselves."""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

MARK = "MINILLM_WATCHED"  # in the environment of the child
PARENT_DIES = 1  # prctl's PR_SET_PDEATHSIG


def watched() -> bool:
    """Whether somebody watches this process already."""
    return MARK in os.environ


def watch(root: Path, lost_after: int) -> int:
    """Runs this very command in a process of its own and waits for it; returns its exit code.

    Ctrl-C and SIGTERM are handed on, and the child saves and stops; so it does where this process is killed.
    """
    command = [sys.executable, "-m", "minillm.cli", *sys.argv[1:]]
    # a group of its own: a terminal's Ctrl-C then reaches the child once, from here
    child = subprocess.Popen(command, env=os.environ | {MARK: "1"}, preexec_fn=_follow, process_group=0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: child.send_signal(number))
    code = child.wait()
    if code >= 0:
        return code
    sys.stderr.write(
        f"minillm: this process of the run in {root} was ended by {signal.Signals(-code).name}: it was killed, or another "
        f"one has given no sign of life for {lost_after} s; the last checkpoint stays; start all processes again with --resume\n"
    )
    return 1


def _follow() -> None:
    """In the child: SIGTERM when the parent dies, which Linux offers and others do not."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DIES, signal.SIGTERM)
