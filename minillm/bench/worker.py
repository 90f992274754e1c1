"""One side in a process of its own: `python -m minillm.bench.worker jax|eager|sdpa full|quick`.

A line of JSON on stdin asks, a line of JSON on stdout answers. The first answer, unasked, says that the side stands
({"versions": ...}) or which package it lacks ({"missing": "torch"}); the end of stdin ends the worker.
"""

import json
import os
import resource
import sys

from minillm import allocator
from minillm.bench.sizes import SIZES


def main(name: str, size: str) -> None:
    """Serves until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    say = lambda answer: print(json.dumps(answer), file=answers, flush=True)
    allocator.tune()  # the same for every side, before its runtime is imported
    try:
        side = make_side(name, size)
    except ModuleNotFoundError as error:
        return say({"missing": error.name})
    say({"versions": side.versions})
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "memory":
            say({"bytes": peak_memory()})
        else:
            say(getattr(side, request.pop("do"))(**request))


def make_side(name: str, size: str):
    """Imports one runtime, and never the other."""
    if name == "jax":
        from minillm.bench import ours

        return ours.Side(SIZES[size])
    from minillm.bench import peer

    return peer.Side(SIZES[size], name)


def peak_memory() -> int:
    """Bytes that this process has had resident at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
