"""The run's folder: what lies where, who may write into it, and what it remembers of its surroundings."""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from minillm import config as configs
from minillm.errors import UserError
from minillm.training.integrity import replace_file

PACKAGES = ("minillm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "sentencepiece", "numpy")
MAY_CHANGE = ("train.steps", "train.log_every", "mesh.", "name", "sample.")  # on resume; the rest would change the bits


class RunFolder(NamedTuple):
    """Paths of a run."""

    root: Path

    config = property(lambda self: self.root / "config.toml")
    manifest = property(lambda self: self.root / "manifest.json")
    metrics = property(lambda self: self.root / "metrics.jsonl")
    provenance = property(lambda self: self.root / "provenance.jsonl")
    summary = property(lambda self: self.root / "summary.json")
    tokenizer = property(lambda self: self.root / "tokenizer.model")
    cleaning = property(lambda self: self.root / "cleaning.json")
    checkpoints = property(lambda self: self.root / "checkpoints")
    frozen = property(lambda self: self.root / "frozen")
    samples = property(lambda self: self.root / "samples.txt")
    figure = property(lambda self: self.root / "loss.png")
    report = property(lambda self: self.root / "report.html")
    lock = property(lambda self: self.root / ".lock")


def existing(root: Path) -> RunFolder:
    """A folder that must hold a run already. Raises: UserError."""
    folder = RunFolder(root)
    if not folder.config.is_file():
        raise UserError(
            "this is not a run (no config.toml in it)", str(root), "name the folder that `minillm run` wrote"
        )
    return folder


@contextlib.contextmanager
def writing(root: Path, experiment: configs.Experiment, resume: bool) -> Iterator[RunFolder]:
    """The folder of a run, new or reopened, for one process at a time; its resolved config is written.

    Raises: UserError, having changed nothing.
    """
    folder = RunFolder(root)
    with system_errors(root):
        if root.exists() and not root.is_dir():
            raise UserError("this is a file, a folder was expected", str(root), "choose another --out")
        names = {p.name for p in root.iterdir()} if root.exists() else set()
    known = {name for name in names if not name.startswith(".")}
    if known and not folder.config.is_file():
        raise UserError("the folder is not empty and not a run", str(root), "choose an empty or new folder with --out")
    if known and not resume:
        raise UserError("the folder holds a run already", str(root), "add --resume to go on, or choose another --out")
    with system_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if known:
            _refuse_changes(configs.load(folder.config), experiment, root)
        replace_file(folder.config, configs.to_toml(experiment).encode())
        yield folder


@contextlib.contextmanager
def undone_on_failure(folder: RunFolder) -> Iterator[None]:
    """A run that cannot even begin leaves the disk as it was: what this block wrote into a new folder goes again."""
    before = {path.name for path in folder.root.iterdir()} - {folder.config.name, folder.lock.name}
    try:
        yield
    except BaseException:
        if not before:
            shutil.rmtree(folder.root, ignore_errors=True)
        raise


def _refuse_changes(old: configs.Experiment, new: configs.Experiment, root: Path) -> None:
    changed = [key for key in configs.changed_keys(old, new) if not key.startswith(MAY_CHANGE)]
    if changed:
        raise UserError(
            f"the config differs from the run's in {', '.join(changed)}",
            str(root / "config.toml"),
            "resume with the run's own values, or start anew with another --out (train.steps, mesh and logging may change)",
        )


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """One process at a time in a run's folder; the lock falls with the process. Raises: UserError."""
    with system_errors(folder.root), folder.lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("another process is writing this run", str(folder.root), "wait for it or stop it") from None
        yield


@contextlib.contextmanager
def system_errors(where: Path) -> Iterator[None]:
    """What the system refuses (no permission, no space) becomes one line."""
    try:
        yield
    except OSError as error:
        mend = "free some space" if error.errno == 28 else "choose a folder that you may write to"
        raise UserError(error.strerror or str(error), str(error.filename or where), mend) from None


def surroundings(mesh, command: list[str]) -> dict[str, Any]:
    """What the bits depend on besides the config: versions, devices, mesh, threads."""
    device = mesh.devices.flat[0]
    return {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "device": {"platform": device.platform, "kind": device.device_kind, "count": mesh.devices.size},
        "mesh": dict(mesh.shape),
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "flags": {name: os.environ[name] for name in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES") if name in os.environ},
        "git_commit": _git_commit(),
        "command": command,
    }


def write_json(path: Path, value: Any) -> None:
    """Atomic, readable JSON."""
    replace_file(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Raises: UserError where the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise UserError("this file is missing", str(path), "finish the run with --resume") from None
    except ValueError as error:
        raise UserError(f"not JSON: {error}", str(path), "run the experiment again") from None


def append_line(path: Path, line: dict) -> None:
    """Adds one JSON object to a .jsonl file."""
    with system_errors(path), path.open("a", encoding="utf8") as handle:
        handle.write(json.dumps(line) + "\n")


def read_lines(path: Path) -> list[dict]:
    """The objects of a .jsonl file; a last line torn by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf8")
        return next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    home = Path(__file__).parents[2]
    if not (home / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(home), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def command_line() -> list[str]:
    """The command as typed, the program by its name alone."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]
