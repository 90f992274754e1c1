"""Runs as processes, one after the other or several at once, each with its share of the cores."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from minillm.errors import Diverged, UserError
from minillm.experiment import folder as folders

POLL = 0.1  # seconds between looks at several processes
DIVERGED = "diverged.json"  # in the folder of a run that ended so: the same bits would bring it there again


class Job(NamedTuple):
    """One run of a lab."""

    member: str
    seed: int
    config: Path
    run: Path


class Workers(NamedTuple):
    """How the runs of a lab are run."""

    parallel: int = 1  # at once
    environment: dict[str, str] | None = None  # where it is not this process's


ONE = Workers()


def shares(parallel: int) -> list[set[int] | None]:
    """The cores of each of `parallel` processes, None for all of them. Raises: UserError where there are too few."""
    if parallel == 1 or not hasattr(os, "sched_getaffinity"):
        return [None] * parallel
    cores = sorted(os.sched_getaffinity(0))
    if parallel > len(cores):
        message, mend = f"{parallel} runs at once, on {len(cores)} cores", f"ask for {len(cores)} at most"
        raise UserError(message, "--parallel", mend)
    size = len(cores) // parallel
    return [set(cores[number * size : (number + 1) * size]) for number in range(parallel)]


def diverged(job: Job) -> bool:
    """Whether the run ended without a result since training diverged."""
    return (job.run / DIVERGED).exists() and not (job.run / "summary.json").exists()


def train_all(jobs: Sequence[Job], workers: Workers, say: Callable[[str], None]) -> None:
    """Runs the jobs, in their order, `workers.parallel` at once. Raises: UserError where one of them fails.

    One that diverges is no failure: that is noted in its folder, and the others go on.
    What stops this stops those under way, which save and are waited for. Several at once write to `logs/` beside `runs/`.
    """
    free, pending, running = shares(workers.parallel), list(enumerate(jobs, start=1)), {}
    try:
        while pending or running:
            while pending and free:
                number, job = pending.pop(0)
                say(f"Run {number} of {len(jobs)}: {job.member}, seed {job.seed}")
                cores = free.pop(0)
                running[_start(job, workers, cores)] = job, cores
            process = _wait(list(running))
            job, cores = running.pop(process)
            free.append(cores)
            _judge(job, process.returncode, workers, say)
    except BaseException:
        for process in running:
            process.terminate()  # a terminal's Ctrl-C has reached it already, a signal to the lab alone has not
        for process in running:
            process.wait()
        raise


def _start(job: Job, workers: Workers, cores: set[int] | None) -> subprocess.Popen:
    command = [sys.executable, "-m", "minillm.cli", "run", str(job.config), "--out", str(job.run), "--resume"]
    if workers.parallel == 1:
        return subprocess.Popen(command, env=workers.environment)
    log = _log(job)
    with folders.system_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output, _on(cores):
            return subprocess.Popen(command, env=workers.environment, stdout=output, stderr=subprocess.STDOUT)


@contextlib.contextmanager
def _on(cores: set[int] | None) -> Iterator[None]:
    """On these cores, as a process that is started meanwhile is from its first moment, before it asks how many there are."""
    before = cores and os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores) if cores else None
        yield
    finally:
        os.sched_setaffinity(0, before) if cores else None


def _wait(processes: list[subprocess.Popen]) -> subprocess.Popen:
    """The first one that has ended."""
    if len(processes) == 1:
        processes[0].wait()
    while True:
        for process in processes:
            if process.poll() is not None:
                return process
        time.sleep(POLL)


def _judge(job: Job, code: int, workers: Workers, say: Callable[[str], None]) -> None:
    if code in (130, 143, -signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt
    where = "above" if workers.parallel == 1 else f"at the end of {_log(job)}"
    if code == Diverged.code:
        folders.write_json(job.run / DIVERGED, {"code": code})
        say(f"The run of {job.member}, seed {job.seed}, diverged, as it says {where}")
    elif code:
        mend = f"mend what it says {where}, then give the same command again"
        raise UserError(f"the run of {job.member}, seed {job.seed}, ended with code {code}", str(job.run), mend)


def _log(job: Job) -> Path:
    return job.config.parent.with_name("logs") / f"{job.run.name}.txt"
