"""The threads of a batch of CTAs: who is in which CTA and warp, and the special registers that say so.

Every per-thread quantity is an array with one element per thread of the batch, called a *lane array* here: CTA after
CTA, and inside a CTA in the order of ``tid`` (x fastest), so that 32 neighbours are a warp.  A set of threads is a
slice where they are neighbours, so that indexing a lane array copies nothing, and else a sorted array of lane numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastconv.cuda.ptx.operations import Array
from fastconv.cuda.ptx.types import WARP_SIZE

Lanes = slice | NDArray[np.intp]
Extent = tuple[int, int, int]


class Threads:
    """Geometry of ``ctas`` CTAs of ``block`` threads that run side by side."""

    def __init__(self, grid: Extent, block: Extent, ctas: int, shared_bytes: int) -> None:
        self.grid, self.block = grid, block
        self.per_cta = block[0] * block[1] * block[2]
        self.ctas = ctas
        self.count = self.per_cta * ctas
        self.warps_per_cta = -(-self.per_cta // WARP_SIZE)
        self.numbers = np.arange(self.count)
        self.tid = np.tile(np.arange(self.per_cta), ctas)
        self.cta = np.repeat(np.arange(ctas), self.per_cta)
        self.warp = self.cta * self.warps_per_cta + self.tid // WARP_SIZE
        self.lane = self.tid % WARP_SIZE
        self.first = 0  # the batch's first thread, counted over the grid
        self.special = self._special_registers(shared_bytes)

    def _special_registers(self, shared_bytes: int) -> dict[str, Array]:
        def same(value: int) -> Array:
            return np.broadcast_to(np.array([value & 0xFFFFFFFF], np.uint32), self.count)

        bit = np.uint64(1) << self.lane.astype(np.uint64)
        registers: dict[str, Array] = {
            "%tid.x": self.tid % self.block[0],
            "%tid.y": self.tid // self.block[0] % self.block[1],
            "%tid.z": self.tid // (self.block[0] * self.block[1]),
            "%laneid": self.lane,
            "%warpid": self.tid // WARP_SIZE,
            "%lanemask_eq": bit,
            "%lanemask_lt": bit - 1,
            "%lanemask_le": 2 * bit - 1,
            "%lanemask_ge": ~(bit - 1),
            "%lanemask_gt": ~(2 * bit - 1),
        }
        registers = {name: value.astype(np.uint32) for name, value in registers.items()}
        for axis, threads, ctas in zip("xyz", self.block, self.grid, strict=True):
            registers[f"%ntid.{axis}"] = same(threads)
            registers[f"%nctaid.{axis}"] = same(ctas)
            registers[f"%ctaid.{axis}"] = np.zeros(self.count, np.uint32)
        registers["%nwarpid"] = same(self.warps_per_cta)
        registers["WARP_SZ"] = same(WARP_SIZE)
        registers["%dynamic_smem_size"] = same(shared_bytes)
        for name in ("%smid", "%nsmid", "%gridid", "%clock", "%clock_hi"):
            registers[name] = same(0)
        return registers

    def place(self, first: int, ctas: int) -> Lanes:
        """Let the batch be the CTAs ``first`` ... ``first + ctas - 1`` of the grid; the threads that take part."""
        self.first = first * self.per_cta
        linear = first + self.cta
        self.special["%ctaid.x"][:] = linear % self.grid[0]
        self.special["%ctaid.y"][:] = linear // self.grid[0] % self.grid[1]
        self.special["%ctaid.z"][:] = linear // (self.grid[0] * self.grid[1])
        return slice(0, ctas * self.per_cta)

    def size(self, lanes: Lanes) -> int:
        """How many threads are in the set."""
        return lanes.stop - lanes.start if isinstance(lanes, slice) else len(lanes)

    @staticmethod
    def compact(numbers: NDArray[np.intp]) -> Lanes:
        """A sorted array of lane numbers as a set."""
        if len(numbers) and numbers[-1] - numbers[0] == len(numbers) - 1:
            return slice(int(numbers[0]), int(numbers[-1]) + 1)
        return numbers

    def thread_of(self, lane: int) -> tuple[Extent, Extent]:
        """(tid, ctaid) of a lane, for messages."""
        tid, cta = (tuple(int(self.special[f"%{name}.{axis}"][lane]) for axis in "xyz") for name in ("tid", "ctaid"))
        return tid, cta  # type: ignore[return-value]

    def warps(self, lanes: Lanes) -> int:
        """How many warps have a thread in the set."""
        warp = self.warp[lanes]  # sorted, as the lanes are
        return 1 + int(np.count_nonzero(warp[1:] != warp[:-1])) if len(warp) else 0
