"""What was freed goes back to the system, and elsewhere than on glibc nothing happens."""

import os
import platform
from pathlib import Path

from minillm import allocator


def resident():
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_trim_gives_small_freed_pieces_back():
    if platform.libc_ver()[0] != "glibc":
        assert allocator.trim() is False
        return
    blocks = [b"x" * 8000 for _ in range(20_000)]
    kept, before = blocks[::100], resident()  # holes between what is kept: nothing at the heap's end to cut off
    del blocks
    assert allocator.trim() is True
    assert before - resident() > 100e6
    assert len(kept) == 200
