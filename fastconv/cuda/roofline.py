"""How fast a kernel can be at most on a GPU, from its data sheet: no GPU, no CUDA and no measurement is needed.

A launch is as fast as the slower of two things.  Memory brings its arrays once, no faster than the data sheet says.
The multiprocessors compute its blocks, and four things keep them from their peak:

- tiles: a block computes whole tiles, also where the problem ends within one;
- waves: blocks are whole; all wait for the multiprocessor that has the most of them;
- issue: a scheduler starts one instruction a cycle, and not all of them are multiply-adds.  Where it has 16 lanes
  (Turing, A100), a multiply-add keeps them for two cycles, in which another instruction is free;
- occupancy: a multiprocessor has four schedulers, which have nothing to do without warps of their own.

What is left out makes a kernel slower still: latency that too few warps do not hide, caches, clocks that fall under
load, and the microseconds of a launch.  So the times here are the least possible ones, and predictions.

Sources: NVIDIA's data sheets and architecture papers of T4, A100 (40 GB SXM), H100 and H200 (SXM); limits of a
multiprocessor from the CUDA C++ programming guide ("technical specifications per compute capability"); units of
allocation from ``cuda_occupancy.h`` of the toolkit, with whose answers a test compares `occupancy`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

WARP = 32
SCHEDULERS = 4
#: Registers are handed out to warps in units of so many, and to warps in groups of one for each scheduler.
_REGISTER_UNIT = 256
_KIB = 1024


class Gpu(NamedTuple):
    """What a data sheet says; of a multiprocessor unless it says otherwise."""

    name: str
    architecture: str
    multiprocessors: int
    #: 10**9 cycles a second, the boost clock.
    clock: float
    #: float32 multiply-adds a cycle.
    lanes: int
    #: 10**9 bytes a second, of the GPU's memory, and of PCI Express in one direction.
    bandwidth: float
    bus: float
    registers: int
    warps: int
    blocks: int
    #: Bytes of shared memory, of which a block takes what it needs and *shared_reserved*, in units.
    shared: int
    shared_unit: int
    shared_reserved: int

    @property
    def peak(self) -> float:
        """float32 operations a second."""
        return 2e9 * self.multiprocessors * self.lanes * self.clock

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.architecture}): {self.multiprocessors} multiprocessors at {self.clock} GHz, "
            f"{self.peak / 1e12:.1f} TFLOP/s of float32, {self.bandwidth:.0f} GB/s"
        )


GPUS = (
    Gpu("T4", "sm_75", 40, 1.59, 64, 320, 16, 65536, 32, 16, 64 * _KIB, 256, 0),
    Gpu("A100", "sm_80", 108, 1.41, 64, 1555, 32, 65536, 64, 32, 164 * _KIB, 128, _KIB),
    Gpu("H100", "sm_90", 132, 1.98, 128, 3350, 64, 65536, 64, 32, 228 * _KIB, 128, _KIB),
    Gpu("H200", "sm_90", 132, 1.98, 128, 4800, 64, 65536, 64, 32, 228 * _KIB, 128, _KIB),
)
#: What a device is called before its name: "cuda:H100".
PREFIX = "cuda:"


def gpu(name: str) -> Gpu:
    """The GPU of this name, or the first of this architecture: "H100", "cuda:sm_90"; capital letters or not.

    Raises
    ------
    ValueError
        If it is none of `GPUS`.

    Examples
    --------
    >>> gpu("cuda:sm_90").name
    'H100'
    """
    wanted = name.lower().removeprefix(PREFIX)
    for candidate in GPUS:
        if wanted in (candidate.name.lower(), candidate.architecture):
            return candidate
    known = dict.fromkeys(part for one in GPUS for part in (one.name, one.architecture))
    names = ", ".join(f'"{PREFIX}{part}"' for part in known)
    raise ValueError(f"device must be one of {names}. Received: {name!r}")


class Launch(NamedTuple):
    """One launch of a kernel: what it computes, and what a block of it takes of a multiprocessor."""

    kernel: str
    blocks: int
    threads: int
    registers: int
    shared: int
    #: Multiply-adds among the instructions of the main loop.
    share: float
    #: Operations of the plain sum, and with those that tiles compute in vain.
    flops: int
    executed: int
    #: Bytes of its arrays, moved once.
    bytes: int


class Occupancy(NamedTuple):
    """Blocks that a multiprocessor holds at the same time, their share of its warps, and what there is no more of."""

    blocks: int
    share: float
    limit: str


def occupancy(device: Gpu, threads: int, registers: int, shared: int) -> Occupancy:
    """How many blocks of a kernel fit on a multiprocessor.

    Examples
    --------
    >>> occupancy(gpu("H100"), threads=256, registers=126, shared=16640)
    Occupancy(blocks=2, share=0.25, limit='registers')
    """
    warps = -(-threads // WARP)
    of_warp = _round_up(registers * WARP, _REGISTER_UNIT)
    by_registers = device.registers // of_warp // SCHEDULERS * SCHEDULERS // warps
    by_shared = device.shared // _round_up(shared + device.shared_reserved, device.shared_unit) if shared else None
    limits = {"registers": by_registers, "warps": device.warps // warps, "blocks": device.blocks}
    if by_shared is not None:
        limits["shared memory"] = by_shared
    limit = min(limits, key=limits.__getitem__)
    return Occupancy(limits[limit], limits[limit] * warps / device.warps, limit)


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


class Bound(NamedTuple):
    """Why a launch cannot be faster; shares are of 1."""

    occupancy: Occupancy
    #: Of the FLOPs that tiles compute, those of the problem.
    tiles: float
    #: Rounds in which the blocks run, all places taken; and blocks over places up to the last block.
    waves: float
    fill: float
    #: Of the cycles, those in which a multiply-add can start.
    issue: float
    #: Seconds at least, for arithmetic alone and for memory alone.
    arithmetic: float
    memory: float

    @property
    def seconds(self) -> float:
        """The least time of the launch."""
        return max(self.arithmetic, self.memory)

    @property
    def limit(self) -> str:
        """What takes longer."""
        return "arithmetic" if self.arithmetic > self.memory else "memory"


def bound(device: Gpu, launch: Launch) -> Bound:
    """The least time of a launch on a GPU, and what it is made of.

    Examples
    --------
    One block of 256 threads for each multiprocessor of an H100, 128 x 128 sums of 576 products each:

    >>> flops = 132 * 2 * 128 * 128 * 576
    >>> one = Launch("product", 132, 256, 126, 16640, share=0.84, flops=flops, executed=flops, bytes=10**6)
    >>> 1e6 * bound(gpu("H100"), one).arithmetic  # doctest: +ELLIPSIS
    44.3...
    """
    fit = occupancy(device, launch.threads, launch.registers, launch.shared)
    of_fullest = -(-launch.blocks // device.multiprocessors)
    warps = min(of_fullest, fit.blocks) * -(-launch.threads // WARP)
    issue = min(1.0, launch.share * SCHEDULERS * WARP / device.lanes) * min(1.0, warps / SCHEDULERS)
    fill = launch.blocks / (of_fullest * device.multiprocessors) if launch.blocks else 1.0
    return Bound(
        occupancy=fit,
        tiles=launch.flops / launch.executed if launch.executed else 1.0,
        waves=launch.blocks / (fit.blocks * device.multiprocessors),
        fill=fill,
        issue=issue,
        arithmetic=launch.executed / (device.peak * issue * fill) if launch.executed else 0.0,
        memory=launch.bytes / (1e9 * device.bandwidth),
    )


def seconds(device: Gpu, launches: Iterable[Launch]) -> float:
    """The least time of several launches, one after the other."""
    return sum(bound(device, launch).seconds for launch in launches)


def transfer_seconds(device: Gpu, moved: int) -> float:
    """The least time of so many bytes between the memories of CPU and GPU."""
    return moved / (1e9 * device.bus)
