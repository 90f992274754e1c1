"""Who is told how a run goes: TensorBoard, Weights & Biases, or whatever else becomes a sink.

A sink is two functions. It gets the lines of metrics.jsonl, which stays the record, then the summary. The names of what it
gets are train/..., validation/... and summary/...; "time" is seconds of training.
"""

import contextlib
import importlib.util
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from minillm import config as configs
from minillm import hosts
from minillm.config import Experiment
from minillm.errors import UserError
from minillm.experiment import folder as folders
from minillm.experiment.folder import RunFolder
from minillm.experiment.job import Run
from minillm.params import flatten
from minillm.sections.run import TrackingConfig

SUMMARY = "summary/"


class Sink(NamedTuple):
    """What tracks a run."""

    log: Callable[[int, Mapping[str, float]], None]  # (step, name -> value)
    close: Callable[[], None]


def refuse_missing(section: TrackingConfig) -> None:
    """Raises: UserError where a package is not installed."""
    packages = {"tensorboard": section.tensorboard, "wandb": section.wandb is not None}
    for name, wanted in packages.items():
        if wanted and importlib.util.find_spec(name) is None:
            mend = f"pip install {name}, or leave tracking.{name} out"
            raise UserError(f"the package {name} is not installed", f"tracking.{name}", mend)


@contextlib.contextmanager
def tracked(job: Run) -> Iterator[tuple[Run, Callable[[Mapping[str, Any]], None]]]:
    """(the run, whose sinks hear of every line that it shows; what tells them its summary)."""
    sinks = open_sinks(job.experiment, job.folder) if hosts.writes() else []

    def tell(step: int, line: Mapping[str, Any]) -> None:
        for sink in sinks:
            sink.log(step, named(line))

    def show(step: int, line: dict) -> None:
        tell(step, line)
        job.show(step, line)

    def tell_summary(summary: Mapping[str, Any]) -> None:
        tell(summary["steps"], {f"{SUMMARY}{path}": value for path, value in flatten(summary).items()})

    try:
        yield job._replace(show=show), tell_summary
    finally:
        for sink in sinks:
            sink.close()


def open_sinks(experiment: Experiment, folder: RunFolder) -> list[Sink]:
    """The sinks of the [tracking] section, which know all lines of the run so far."""
    section = experiment.tracking
    wanted = {open_tensorboard: section.tensorboard, open_wandb: section.wandb is not None}
    with folders.system_errors(folder.root):
        return [opens(experiment, folder) for opens, is_wanted in wanted.items() if is_wanted]


def named(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line by the names that sinks have for them."""
    numbers = {name: float(value) for name, value in line.items() if isinstance(value, int | float)}
    left_out = ("step", "seconds_left")  # the step goes beside them; the other is a guess
    return {_name(name): value for name, value in numbers.items() if name not in left_out}


def settings(experiment: Experiment) -> dict[str, Any]:
    """section.key -> value, lists as text."""
    flat = {path.replace("/", "."): value for path, value in flatten(configs.plain(experiment)).items()}
    return {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in flat.items()}


def open_tensorboard(experiment: Experiment, folder: RunFolder) -> Sink:
    """Event files, always made anew from metrics.jsonl: after a kill no step is there twice, and a branch has its trunk's.

    Where the run goes back, a new start lets TensorBoard forget what it had from that step on. The time of an event is such
    that TensorBoard's relative time is seconds of training, over all sessions.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    history = folders.read_lines(folder.metrics)
    for old in folder.tensorboard.glob("events.out.tfevents.*"):
        old.unlink()
    writer = EventFileWriter(str(folder.tensorboard), flush_secs=10)
    clock = {"time": max((line["time"] for line in history if "time" in line), default=0.0)}
    start = time.time() - clock["time"]
    clock["time"], newest = 0.0, {}

    def log(step: int, values: Mapping[str, float]) -> None:
        clock["time"] = values.get("time", clock["time"])
        found = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if tag != "time"]
        if any(newest.get(value.tag, -1) >= step for value in found):
            newest.clear()
            again = SessionLog(status=SessionLog.START)
            writer.add_event(Event(step=step, wall_time=start + clock["time"], session_log=again))
        newest.update({value.tag: step for value in found})
        writer.add_event(Event(step=step, wall_time=start + clock["time"], summary=Summary(value=found)))

    hyperparameters = hparams_pb(settings(experiment), experiment.name, start)
    writer.add_event(Event(step=0, wall_time=start, summary=hyperparameters))
    for line in history:
        log(line["step"], named(line))
    return Sink(log, writer.close)


def open_wandb(experiment: Experiment, folder: RunFolder) -> Sink:
    """A run of Weights & Biases, one for all sessions: wandb.json keeps its name there.

    Steps that a kill had the run repeat come with the same values, and are left out there, since its steps only grow. Where
    the run goes back to leave batches out, it therefore shows what was first.
    """
    import wandb

    known = folder.tracking.exists()
    if not known:
        folders.write_json(folder.tracking, {"id": uuid.uuid4().hex})
    identity = folders.read_json(folder.tracking)["id"]
    try:
        run = wandb.init(project=experiment.tracking.wandb, id=identity, resume="allow", name=experiment.name,
                         dir=str(folder.root), config=settings(experiment))  # fmt: skip
    except Exception as error:  # of its own kinds: no login, no network
        mend = "log in with `wandb login`, or set WANDB_MODE=offline, then go on with --resume"
        raise UserError(f"Weights & Biases does not begin: {error}", "tracking.wandb", mend) from error
    log = lambda step, values: run.log(dict(values), step=step)
    for line in () if known else folders.read_lines(folder.metrics):
        log(line["step"], named(line))
    return Sink(log, run.finish)


def _name(name: str) -> str:
    if name == "time" or name.startswith(SUMMARY):
        return name
    return f"validation/{name.removeprefix('validation_')}" if name.startswith("validation_") else f"train/{name}"
