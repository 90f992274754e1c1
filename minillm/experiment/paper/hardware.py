"""Figures of hardware that an estimate of time and memory rests on; add a row for your own.

All are peaks of one device (a chip, a GPU, a machine's CPU), from what its maker states: no program reaches them, so that
times computed from them are bounds. `link` and `network` count what a device can send while it receives as much.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

from minillm.errors import UserError


class Hardware(NamedTuple):
    """One kind of device."""

    name: str
    float32: float  # FLOP/s of matrix products, no rounding of their inputs
    bfloat16: float
    memory_bandwidth: float  # bytes/s
    memory: float  # bytes
    link: float  # bytes/s to devices that hang together directly
    together: int  # how many do
    network: float  # bytes/s per device to all others
    source: str


H100 = Hardware(
    "H100 SXM", float32=67e12, bfloat16=989e12, memory_bandwidth=3.35e12, memory=80e9,
    link=450e9, together=8, network=50e9,
    source="NVIDIA's data sheet: dense rates, NVLink 900 GB/s both ways; a 400 Gbit/s adapter per GPU as in a DGX H100. "
    "JAX rounds float32 products to TF32 there unless told not to: up to 495 TFLOP/s",
)  # fmt: skip
TPU_V5E = Hardware(
    "TPU v5e", float32=197e12 / 6, bfloat16=197e12, memory_bandwidth=819e9, memory=16e9,
    link=200e9, together=256, network=3.125e9,
    source="docs.cloud.google.com/tpu/docs/v5e: 400 GB/s both ways over four links, 6.4 Tbit/s per pod of 256; a float32 "
    "product as six in bfloat16 (precision 'highest'), where JAX's default makes one",
)  # fmt: skip
ASSUMED_CPU = Hardware(
    "this CPU", float32=100e9, bfloat16=100e9, memory_bandwidth=10e9, memory=0.0,
    link=1.25e9, together=1, network=1.25e9,
    source="assumed: 100 GFLOP/s and 10 GB/s (`--measured` takes what bench found); bfloat16 computed in float32, each device a "
    "machine of its own on 10 Gbit/s Ethernet",
)  # fmt: skip


def hardware(measured: Path | None = None) -> tuple[Hardware, ...]:
    """All rows. `measured`: a file with what `minillm bench --json` printed on this machine. Raises: UserError."""
    return H100, TPU_V5E, this_cpu(measured)


def this_cpu(measured: Path | None) -> Hardware:
    """This machine: its memory as the system tells it, its rates as `bench` measured them, or assumed."""
    found = ASSUMED_CPU._replace(memory=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    if measured is None:
        return found
    try:
        bench = json.loads(measured.read_text(encoding="utf8"))
        flops, bandwidth = float(bench["matmul_flops_per_second"]), float(bench["read_bytes_per_second"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        mend = "write one with `minillm bench --json > FILE`"
        raise UserError(f"not what bench prints: {error!r}", str(measured), mend) from None
    source = f"measured by `minillm bench`; {found.source.partition('; ')[2]}"
    return found._replace(float32=flops, bfloat16=flops, memory_bandwidth=bandwidth, source=source)
