"""Who wrote which byte of global memory: an element with two writers has a value that depends on their order.

Barriers do not reach from one CTA to another, so two threads that store to one element leave whichever value comes
last.  This library's kernels promise that it does not happen (``launch(..., one_writer=True)`` checks it); atomics are
not stores, and a thread may store twice.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from fastconv.cuda.ptx.faults import SecondWriter
from fastconv.cuda.ptx.memory import AccessError
from fastconv.cuda.ptx.operations import Array
from fastconv.cuda.ptx.threads import Lanes, Threads


class Writers:
    """The number of the thread, counted over the whole grid, that last stored to each byte of the heap."""

    def __init__(self, threads: Threads, size: int) -> None:
        self.threads = threads
        self.last = np.full(size, -1, np.int64)

    def note(self, offsets: Array, lanes: Lanes, size: int) -> None:
        """Stores of *size* bytes at these offsets, one per thread of the set."""
        mine = (self.threads.first + self.threads.numbers[lanes])[:, None]
        octets = offsets[:, None] + np.arange(size)
        before = self.last.take(octets)
        self.last[octets] = mine
        after = self.last.take(octets)  # differs where a thread of the same instruction came later
        self._forbid((before >= 0) & (before != mine), before, offsets)
        self._forbid(after != mine, after, offsets)

    def _forbid(self, clash: Array, other: Array, offsets: Array) -> None:
        if clash.any():
            row, column = np.argwhere(clash)[0]
            self._complain(int(other[row, column]), int(row), int(offsets[row]))

    def _complain(self, other: int, row: int, address: int) -> NoReturn:
        cta, thread = divmod(other, self.threads.per_cta)
        rule = f"a second thread stores here, after thread {thread} of CTA {cta} (both linear)"
        raise AccessError(SecondWriter, rule, row, address)
