"""The run's folder: what lies where, who may write into it, and what it remembers of its surroundings."""

import contextlib
import difflib
import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minillm import config as configs
from minillm.allocator import usable_cores
from minillm.bits import replace_file
from minillm.data import fetch
from minillm.errors import UserError
from minillm.training import checkpoint

PACKAGES = ("minillm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "sentencepiece", "numpy")
MAY_CHANGE = (
    "train.steps",
    "train.log_every",
    "train.on_non_finite",
    "train.spike",
    "train.on_spike",
    "train.bad_steps",
    "mesh.",
    "name",
    "sample.",
    "tracking.",
    "data.path",
    "tests.",
)  # on resume; the rest would change the bits


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
    evaluation = property(lambda self: self.root / "evaluation.json")
    tensorboard = property(lambda self: self.root / "tensorboard")
    tracking = property(lambda self: self.root / "wandb.json")
    pseudo = property(lambda self: self.root / "pseudo.json")
    branch = property(lambda self: self.root / "branch.png")
    classes = property(lambda self: self.root / "classes.png")
    report = property(lambda self: self.root / "report.html")
    lock = property(lambda self: self.root / ".lock")


def existing(root: Path) -> RunFolder:
    """A folder that must hold a run already. Raises: UserError."""
    folder = RunFolder(root)
    if not root.exists():
        near = (
            [path.name for path in root.parent.iterdir() if RunFolder(path).config.is_file()]
            if root.parent.is_dir()
            else []
        )
        close = difflib.get_close_matches(root.name, near, 1)
        if str(root) in fetch.MODELS:
            mend = "`minillm search`, `minillm import hf` and base.run know it by name; here name a run's folder"
            raise UserError("this is a model of `minillm fetch`, not a run", str(root), mend)
        mend = f"did you mean {root.parent / close[0]}?" if close else "name the folder that `minillm run` wrote"
        raise UserError("this is not a run: there is no such folder", str(root), mend)
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
    if root.exists() and not root.is_dir():
        raise UserError("this is a file, a folder was expected", str(root), "choose another --out")
    made = not root.exists()
    if not made:
        _refuse_folder(folder, experiment, resume)
    with system_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            _refuse_folder(folder, experiment, resume)  # once more: another process may have been quicker
            replace_file(folder.config, configs.to_toml(experiment).encode())
            folder.summary.unlink(missing_ok=True)  # it says that the run is complete
            yield folder
    finally:
        if made and not any(root.iterdir()):
            root.rmdir()


def _refuse_folder(folder: RunFolder, experiment: configs.Experiment, resume: bool) -> None:
    with system_errors(folder.root):
        others = {path.name for path in folder.root.iterdir()} - {folder.lock.name}
    where = str(folder.root)
    if others and not folder.config.is_file():
        raise UserError("the folder is not empty and not a run", where, "choose an empty or new folder with --out")
    if others and not resume:
        raise UserError("the folder holds a run already", where, "add --resume to go on, or choose another --out")
    if others:
        _refuse_changes(configs.load(folder.config), experiment, folder.root)


@contextlib.contextmanager
def undone_on_failure(folder: RunFolder) -> Iterator[None]:
    """A run that cannot even begin leaves no trace: if it was new, what was written into its folder goes again."""
    new = {path.name for path in folder.root.iterdir()} == {folder.config.name, folder.lock.name}
    try:
        yield
    except BaseException:
        for path in folder.root.iterdir() if new else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _refuse_changes(old: configs.Experiment, new: configs.Experiment, root: Path) -> None:
    changed = [key for key in configs.changed_keys(old, new) if not key.startswith(MAY_CHANGE)]
    if changed:
        raise UserError(
            f"the config differs from the run's in {', '.join(changed)}",
            str(root / "config.toml"),
            f"resume with the run's own values, or start anew with another --out ({', '.join(MAY_CHANGE)} may change)",
        )
    done = checkpoint.latest(root / "checkpoints") or 0
    if done > new.train.steps:
        mend = f"resume with train.steps of {done} or more, or `minillm branch` from an earlier step"
        raise UserError(f"the run has {done} steps already, {new.train.steps} are asked for", "train.steps", mend)


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
    except BrokenPipeError:  # the output's reader, not the folder
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        mend = "free some space" if full else "choose a folder that you may write to"
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
        "threads": int(os.environ.get("NPROC") or usable_cores()),
        "flags": {name: os.environ[name] for name in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES") if name in os.environ},
        "git_commit": _git_commit(),
        "command": command,
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words, what the bits depend on and is not as before; empty where all is."""
    flat = lambda found: {
        **found["versions"], "processor": found["processor"], "threads": found["threads"], "mesh": found["mesh"],
        "device": found["device"]["kind"], "flags": found["flags"],
    }  # fmt: skip
    old, new = flat(before), flat(now)
    return ", ".join(f"{name} {old[name]} -> {new[name]}" for name in new if old.get(name) != new[name])


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
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise UserError(f"a line is not JSON: {error}", str(path), "delete that line") from None


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
