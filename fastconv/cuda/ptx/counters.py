"""What a launch cost: instructions, bank conflicts, and how well global memory is used.

Shared memory has 32 banks of 4 bytes.  A request of a warp takes as many *wavefronts* as the busiest bank has
different words; accesses of 8 and 16 bytes go in halves and quarters of the warp.  Global memory moves in sectors of 32
bytes: *sector efficiency* is the share of the bytes moved that the threads asked for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from fastconv.cuda.ptx.operations import Array

SECTOR = 32
_BANKS = 32
_WORD = 4


@dataclass
class Counters:
    """Totals over all CTAs of a launch.

    Attributes
    ----------
    warp_instructions : int
        Instructions issued, one per warp that has a thread executing it.
    opcodes : Counter
        The same by opcode.
    shared_requests, shared_wavefronts, shared_ideal : int
        Shared accesses of a warp, the wavefronts they took, and the fewest possible.
    conflicts : Counter
        Wavefronts above the ideal, by line of PTX.
    global_requests, global_sectors, global_bytes : int
        Global accesses of a warp, the sectors they touched, and the bytes the threads asked for.

    The shared and global figures are counted only with ``launch(..., traffic=True)``.
    """

    warp_instructions: int = 0
    opcodes: Counter[str] = field(default_factory=Counter)
    shared_requests: int = 0
    shared_wavefronts: int = 0
    shared_ideal: int = 0
    conflicts: Counter[str] = field(default_factory=Counter)
    global_requests: int = 0
    global_sectors: int = 0
    global_bytes: int = 0

    @property
    def sector_efficiency(self) -> float:
        """Bytes asked for, as a share of the bytes of the sectors moved (above 1 where threads read the same bytes)."""
        return self.global_bytes / max(1, SECTOR * self.global_sectors)

    @property
    def bank_conflicts(self) -> int:
        """Wavefronts above the ideal."""
        return self.shared_wavefronts - self.shared_ideal

    def count_shared(self, addresses: Array, size: int, warp: Array, lane: Array, text: str) -> None:
        """One request per warp: *addresses* of the threads with these warps and lanes."""
        words = max(1, size // _WORD)
        phase = warp * words + lane * words // _BANKS  # a warp moves 128 bytes at a time
        word = (addresses // _WORD)[:, None] + np.arange(words)
        distinct = np.unique((phase[:, None] << 32) + word)
        phases, index = np.unique(distinct >> 32, return_inverse=True)
        per_bank = np.bincount(index * _BANKS + distinct % _BANKS, minlength=len(phases) * _BANKS)
        wavefronts = int(per_bank.reshape(-1, _BANKS).max(axis=1).sum())
        ideal = int((-(-np.bincount(index) // _BANKS)).sum())
        self.shared_requests += len(np.unique(warp))
        self.shared_wavefronts += wavefronts
        self.shared_ideal += ideal
        if wavefronts > ideal:
            self.conflicts[text] += wavefronts - ideal

    def count_global(self, addresses: Array, size: int, warp: Array) -> None:
        """One request per warp; accesses are aligned, so none of up to 32 bytes crosses a sector."""
        self.global_requests += len(np.unique(warp))
        self.global_sectors += len(np.unique((warp << 48) + addresses // SECTOR))
        self.global_bytes += len(addresses) * size

    def __str__(self) -> str:
        lines = [f"{self.warp_instructions} warp instructions"]
        if self.shared_requests:
            lines.append(
                f"shared: {self.shared_requests} requests, {self.shared_wavefronts} wavefronts"
                f" ({self.shared_ideal} without bank conflicts)"
            )
        if self.global_requests:
            lines.append(
                f"global: {self.global_requests} requests, {self.global_sectors} sectors,"
                f" {self.sector_efficiency:.0%} of their bytes used"
            )
        return "\n".join(lines)
