"""Hundreds of random faults against one small run: nothing may be lost.  `python tests/soak.py --faults 200 --seed 0`

Each fault befalls a real process that runs `minillm run ... --resume` (forked from this one once everything is imported but
nothing of jax has begun): killed at any moment or in the middle of a write, a disk that is full or fails, a signal, a damaged
checkpoint, a second process. What the process says must be one line or nothing. When a run has reached its end, its
weights, metrics and log must be those of a run without faults, a replay must agree, and another run begins.

The run itself goes back twice, because two of its batches give a loss that is not a number.
"""

import argparse
import collections
import contextlib
import errno
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from faulty import CLOCK, Injector, end, start

from minillm.training import checkpoint

TOO_LATE = "too late"  # the process had ended before; such faults are not counted


def outcome(folder: Path):
    """What must not depend on faults."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]
    summary = json.loads((folder / "summary.json").read_text())
    return summary["parameter_hash"], summary["bad_steps"], metrics, (folder / "provenance.jsonl").read_bytes()


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(number: int) -> Callable[[], None]:
    def act() -> None:
        raise OSError(number, os.strerror(number))

    return act


def limit(size: int) -> Callable[[], None]:
    """No file may grow beyond so many bytes: stands for a full disk where no Python function writes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def newest(folder: Path) -> Path | None:
    step = checkpoint.latest(folder / "checkpoints")
    return None if step is None else folder / "checkpoints" / f"step_{step:08d}"


class Soak:
    """The faults by name, each as (folder) -> how the process ended; `wrong` collects what must not have happened."""

    def __init__(self, seed: int, seconds: float):
        self.chooser, self.seconds, self.wrong = random.Random(seed), seconds, []
        self.faults = {
            "SIGKILL at a moment": lambda folder: self.signalled(folder, signal.SIGKILL),
            "SIGKILL in a write": lambda folder: self.injected(folder, kill_self),
            "SIGTERM": lambda folder: self.signalled(folder, signal.SIGTERM),
            "SIGINT": lambda folder: self.signalled(folder, signal.SIGINT),
            "no space in a write": lambda folder: self.injected(folder, fail(errno.ENOSPC)),
            "input/output error": lambda folder: self.injected(folder, fail(errno.EIO)),
            "read-only in a write": lambda folder: self.injected(folder, fail(errno.EROFS)),
            "files limited in size": self.limited,
            "two processes": self.two,
            "a flipped bit": lambda folder: self.damaged(folder, self.flip),
            "a truncated file": lambda folder: self.damaged(folder, self.truncate),
            "a missing file": lambda folder: self.damaged(folder, Path.unlink),
            "checkpoint removed": self.removed,
            "torn log lines": self.torn,
        }

    def finish(self, child: int, what: str) -> str:
        how, text = end(child)
        if how == "WRONG":
            self.wrong.append(f"{what}: {text}")
        return TOO_LATE if how == "ended" else how

    def moment(self) -> float:
        return self.chooser.uniform(0.0, 0.6 * self.seconds)

    def signalled(self, folder: Path, number: int) -> str:
        child = start(folder)
        time.sleep(self.moment())
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
        return self.finish(child, signal.Signals(number).name)

    def injected(self, folder: Path, act: Callable[[], None]) -> str:
        call = int(math.exp(self.chooser.uniform(0.0, math.log(1500))))
        return self.finish(start(folder, before=Injector(call, act).install), f"{act} at call {call}")

    def limited(self, folder: Path) -> str:
        size = int(math.exp(self.chooser.uniform(math.log(100), math.log(60_000))))
        return self.finish(start(folder, before=limit(size)), f"files of {size} bytes")

    def two(self, folder: Path) -> str:
        """The later one is refused while the other works, and takes over where that was killed."""
        first = start(folder)
        time.sleep(self.moment())
        second = start(folder)
        time.sleep(self.moment())
        with contextlib.suppress(ProcessLookupError):
            os.kill(first, signal.SIGKILL)
        ends = self.finish(first, "first process"), self.finish(second, "second process")
        return TOO_LATE if ends[0] == TOO_LATE else "one line" if "one line" in ends else ends[0]

    def advance(self, folder: Path) -> Path | None:
        """Lets the run work until it has saved once more, and kills it; the newest checkpoint."""
        before, child = newest(folder), start(folder)
        for _ in range(6000):
            if newest(folder) not in (None, before) or (folder / "summary.json").exists():
                break
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        self.finish(child, "a run until its next checkpoint")
        return newest(folder)

    def damaged(self, folder: Path, damage: Callable[[Path], None]) -> str:
        """The run must refuse a damaged checkpoint by its name; its user then removes it."""
        place = self.advance(folder)
        damage(self.chooser.choice(sorted(path for path in place.rglob("*") if path.is_file() and path.stat().st_size)))
        how, text = end(start(folder))
        if how != "one line" or place.name not in text:
            self.wrong.append(f"damage that was not named: {how} {text}")
        shutil.rmtree(place)
        return how

    def flip(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[self.chooser.randrange(len(data))] ^= 1 << self.chooser.randrange(8)
        path.write_bytes(bytes(data))

    def truncate(self, path: Path) -> None:
        path.write_bytes(path.read_bytes()[: self.chooser.randrange(path.stat().st_size)])

    def removed(self, folder: Path) -> str:
        shutil.rmtree(self.advance(folder))
        return self.signalled(folder, signal.SIGKILL)

    def torn(self, folder: Path) -> str:
        self.advance(folder)
        for name in ("provenance.jsonl", "metrics.jsonl"):
            with (folder / name).open("ab") as handle:
                handle.write(b'{"batch":"00ab')
        return self.signalled(folder, signal.SIGKILL)


def check(folder: Path, straight) -> list[str]:
    """What a run that has ended has lost."""
    lost = [] if outcome(folder) == straight else ["the outcome is another than that of the run without faults"]
    lost += [f"left: {path.name}" for path in folder.rglob("*") if path.name.startswith((".tmp-", ".old-"))]
    how, text = end(start(folder, command=("verify", str(folder))))
    return lost + ([] if how == "ended" else [f"verify: {how} {text}"])


def soak(faults: int, seed: int, root: Path) -> int:
    for _ in range(2):  # the second is not the one that compiles
        shutil.rmtree(root / "straight", ignore_errors=True)
        began = time.perf_counter()
        how, text = end(start(root / "straight"))
        assert how == "ended", text
    straight, seconds = outcome(root / "straight"), time.perf_counter() - began
    print(f"A run without faults takes {seconds:.1f} s.", flush=True)
    soak, table, ended, number = Soak(seed, seconds), collections.Counter(), 0, 0
    while (done := sum(count for (_, how), count in table.items() if how != TOO_LATE)) < faults:
        folder = root / f"run-{number}"
        while not (folder / "summary.json").exists() and done < faults:
            name = soak.chooser.choice(list(soak.faults))
            how = soak.faults[name](folder)
            table[name, how] += 1
            done += how != TOO_LATE
        how, text = end(start(folder))
        lost = check(folder, straight) if how == "ended" else [f"{how} {text}"]
        soak.wrong += [f"run {number}: {what}" for what in lost]
        print("".join(f"run {number}: {what}\n" for what in lost), end="", flush=True)
        number, ended = number + 1, ended + (not lost)
        shutil.rmtree(folder)
        print(f"{done} faults, {ended} of {number} runs ended with the bits of the run without", flush=True)
    show(table)
    print("\n".join(soak.wrong) or f"Nothing was lost in {done} faults.")
    return int(bool(soak.wrong))


def show(table: collections.Counter) -> None:
    """Faults down, how their processes ended across."""
    ends = sorted({how for _, how in table})
    print("".join(f"{title:>12}" if place else f"{title:24}" for place, title in enumerate(["fault", *ends])))
    for name in dict.fromkeys(name for name, _ in sorted(table)):
        print(f"{name:24}" + "".join(f"{table[name, how] or '':>12}" for how in ends))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sys.exit(soak(options.faults, options.seed, Path(name)))
