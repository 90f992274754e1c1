"""The other end of a worker's pipe."""

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from minillm.errors import UserError

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # both sides on the CPU
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # the first call is reported with its compilation
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "HF_HUB_OFFLINE": "1",  # nothing is downloaded
}


class Worker:
    """A side's process. Use it in a `with` block."""

    def __init__(self, name: str, size: str):
        self.name, self.errors = name, tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "minillm.bench.worker", name, size],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=os.environ | ENVIRONMENT,
        )  # fmt: skip
        try:
            about = self._answer()
        except BaseException:
            self.__exit__()
            raise
        self.missing, self.versions = about.get("missing"), about.get("versions", {})

    def ask(self, do: str, **arguments: Any) -> dict:
        """Has the side do one thing and waits for its answer."""
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        self.errors.seek(0)
        last = (self.errors.read().strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"the worker ended with code {code}: {last}", f"bench, side {self.name!r}", "see its message")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # it holds nothing but numbers already reported
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            stream.close()
