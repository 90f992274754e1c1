"""glibc's allocator, told to keep the memory that XLA frees.

XLA on the CPU allocates a step's temporary buffer anew each step: about 500 MB and 150,000 page faults for a GPT of 6
layers and width 384, 150 ms of a 1 s step. With few arenas and no trimming the faults all but vanish. One arena alone
would make the compiler's threads wait for each other: the quickstart's first step took 7.8 s so, 5.8 s with two. The
setting is the whole process's and freed memory stays resident, so the command line makes it and the library never does;
MINILLM_ALLOCATOR=default leaves the allocator alone.
"""

import ctypes
import os
import sys

SETTINGS = {-8: 2, -4: 0, -1: 2**31 - 1, -2: 1 << 26}  # M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD


def tune() -> bool:
    """Sets it, before jax is imported; whether it was done (Linux with glibc only)."""
    if not sys.platform.startswith("linux") or os.environ.get("MINILLM_ALLOCATOR") == "default":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and all(mallopt(name, value) for name, value in SETTINGS.items())


def trim() -> bool:
    """Gives what was freed back to the system, which glibc keeps in small pieces; whether it could (Linux with glibc only).

    Compiling leaves hundreds of megabytes of them. A script that compiles several large programs one after the other, and
    has let the old one go, calls this in between.
    """
    found = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    return found is not None and bool(found(0))


def usable_cores() -> int:
    """Cores that this process may use: the threads of runtimes that are told nothing else."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
