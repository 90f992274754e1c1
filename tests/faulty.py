"""A process that runs the command line, forked and befallen by a fault: for `soak.py`.

To be imported before anything of jax: what the process is set up for comes first.
"""

# ruff: noqa: E402
import builtins
import contextlib
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
from minillm.commands.shared import prepare

prepare()  # the cache of compiled programs

from poison import poisoned

from minillm import cli
from minillm.experiment.ask import reopen  # noqa: F401  (imported once, not by every child)
from minillm.experiment.recipes import mixture

COPY = Path(__file__).parents[1] / "configs/copy.toml"
STEPS = 400
SETTINGS = (f"train.steps={STEPS}", "train.evaluate_every=40", "train.checkpoint_every=20", "train.hash_every=50",
            "train.batch_size=4", "model.width=16", "model.heads=2", "model.layers=1",
            "train.on_non_finite=rewind", "optimizer.name=sgd", "optimizer.weight_decay=0.1")  # fmt: skip
POISONED = (133, 261)  # batches
CLOCK = ("time", "tokens_per_second", "step_seconds", "seconds_left")
# what Orbax's threads print, now and then, when a save of theirs has failed and their loop is gone; lines run into each other
ORBAX = r"\A\s*(?:Traceback \(most recent call last\):|self\._check_closed).*Event loop is closed[^\n]*\n(?=minillm: )"
SAID = {0: "ended", 2: "one line", -9: "killed", -15: "killed", 130: "saved", 143: "saved"}
said: dict[int, int] = {}  # process -> the end of its pipe to read from


class Injector:
    """Counts the calls that change the disk, and at one of them kills the process or fails."""

    def __init__(self, call: int, act: Callable[[], None]):
        self.left, self.act = call, act

    def install(self) -> None:
        for name in ("replace", "fsync", "mkdir", "unlink", "rmdir"):
            setattr(os, name, self.counted(getattr(os, name)))
        self.open = builtins.open
        builtins.open = io.open = self.opened

    def due(self) -> bool:
        self.left -= 1
        return self.left == 0

    def counted(self, real):
        def call(*arguments, **named):
            if self.due():
                self.act()
            return real(*arguments, **named)

        return call

    def opened(self, file, mode="r", *arguments, **named):
        handle = self.open(file, mode, *arguments, **named)
        if set(mode) & set("wax+"):
            real = handle.write

            def write(data):
                if self.due():  # the first half gets through
                    real(data[: len(data) // 2])
                    handle.flush()
                    self.act()
                return real(data)

            handle.write = write
        return handle


def start(folder: Path, *, before: Callable[[], None] = lambda: None, command: Sequence[str] = ()) -> int:
    """A process that runs the command, by its id; what it says on stderr goes into a pipe, which no fault reaches."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        said[child] = reader
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return child
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(writer, 2)
        os.close(writer)
        mixture.load_data = poisoned(POISONED)
        sets = [part for setting in SETTINGS for part in ("--set", setting)]
        sys.argv = ["minillm", *(command or ("run", str(COPY), *sets, "--out", str(folder), "--resume"))]
        before()
        app = cli.app
        cli.app = lambda: (signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT]), app())
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def end(child: int) -> tuple[str, str]:
    """Waits for it -> (how it ended, what it said). An end that no user should see is WRONG."""
    with os.fdopen(said.pop(child), errors="replace") as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    text = re.sub(ORBAX, "", text, flags=re.DOTALL)
    plain = text.startswith("minillm: ") and text.count("\n") == 1
    if code not in SAID or (code in (2, 130, 143) and not plain) or (code in (0, -9, -15) and text):
        return "WRONG", f"exit {code}\n{text}"
    return SAID[code], text
