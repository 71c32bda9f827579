"""Who touched which shared memory since the last barrier: races, uninitialised reads, ``cp.async`` in flight.

Two threads of different warps race when both touch a location between the same two barriers and at least one writes.
That does not depend on the order in which the interpreter happens to run them, so a race is found whether or not it
spoils the result in this run.  Threads of one warp are ordered by the program here, except that two of them must not
write one location in one instruction; the memory model's demand for ``bar.warp.sync`` between them is not checked.

Locations are *granules*: as many bytes as the smallest shared access of the kernel.  For every granule of every CTA
there is a stamp of the last write and of the last read, ``epoch * stride + thread``, where the epoch counts the CTA's
barriers.  A stamp below the current epoch's first is old news.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy as np

from fastconv.cuda.ptx.faults import AsyncHazard, Fault, Race, Uninitialised
from fastconv.cuda.ptx.operations import Array
from fastconv.cuda.ptx.threads import Lanes, Threads
from fastconv.cuda.ptx.types import WARP_SIZE

# report(class, rule, lane, granule within the CTA)
Report = Callable[[type[Fault], str, int, int], NoReturn]


def _other_warp(stamps: Array, start: Array, mine: Array) -> Array:
    """Where a stamp is of this epoch and of another warp; stamps of one warp differ in the low bits only."""
    return ((stamps ^ mine) >= WARP_SIZE) & (stamps >= start)


class SharedHistory:
    """Stamps for the shared memory of a batch of CTAs."""

    def __init__(self, threads: Threads, granules_per_cta: int, atomics: bool) -> None:
        self.threads = threads
        self.granules_per_cta = granules_per_cta
        size = granules_per_cta * threads.ctas
        self.many = threads.warps_per_cta * WARP_SIZE  # the reader of a granule that several warps read
        self.stride = self.many + WARP_SIZE
        self.written = np.full(size, -1, np.int32)
        self.read = np.full(size, -1, np.int32)
        self.atomic = np.full(size, -1, np.int32) if atomics else None
        self.in_flight = np.full(size, -1, np.int32)
        self.flying = 0
        self.start = np.zeros(threads.count, np.int32)  # the stamp at which each thread's epoch began
        self.mine = threads.tid.astype(np.int32)
        self.unsorted_reads: list[tuple[Array, Array, Array]] = []

    def reset(self) -> None:
        """A new batch: nothing is initialised."""
        for stamps in (self.written, self.read, self.in_flight):
            stamps.fill(-1)
        if self.atomic is not None:
            self.atomic.fill(-1)
        self.flying = 0
        self.start = np.zeros_like(self.start)
        self.mine = self.threads.tid.astype(np.int32)
        self.unsorted_reads.clear()

    def barrier(self, ctas: Array | None) -> None:
        """The threads of these CTAs (None: of all) have met: what they did before is ordered before what follows."""
        if ctas is None:
            step: Array | int = self.stride
            self.unsorted_reads.clear()
        else:
            step = np.where(np.isin(self.threads.cta, ctas), self.stride, 0).astype(np.int32)
        # new arrays: the logged reads keep views of the old ones
        self.start = self.start + step
        self.mine = self.mine + step

    # ------------------------------------------------------------------ accesses
    def on_read(self, granules: Array, lanes: Lanes, report: Report) -> None:
        """*granules* has one column per thread of the set, as in all that follows."""
        written = self.written.take(granules)
        start, mine = self.start[lanes], self.mine[lanes]
        self._forbid_in_flight(granules, lanes, report, "reads")
        if written.min() < 0:
            row, column = np.argwhere(written < 0)[0]
            self._report(
                Uninitialised, "reads shared memory that no thread has written", granules, lanes, row, column, report
            )
        if written.max() >= start.min():
            self._forbid(written, start, mine, granules, lanes, report, "reads what {} wrote")
        if self.atomic is not None:
            self._forbid(self.atomic.take(granules), start, mine, granules, lanes, report, "reads what {} changed")
        # recorded when somebody writes before the next barrier, which is rarer than reading
        self.unsorted_reads.append((granules, start, mine))

    def on_write(self, granules: Array, lanes: Lanes, report: Report) -> None:
        start, mine = self.start[lanes], self.mine[lanes]
        self._forbid_in_flight(granules, lanes, report, "writes")
        self._forbid_write(granules, start, mine, lanes, report, "writes")
        self.written[granules] = mine
        again = self.written.take(granules)
        if (again != mine).any():
            row, column = np.argwhere(again != mine)[0]
            other = int(again[row, column] - start[column])
            rule = f"writes the shared memory that thread {other} writes in the same instruction"
            self._report(Race, rule, granules, lanes, row, column, report)

    def on_atomic(self, granules: Array, lanes: Lanes, report: Report) -> None:
        """Atomics are ordered among themselves, not with plain accesses."""
        assert self.atomic is not None
        start, mine = self.start[lanes], self.mine[lanes]
        self._forbid_in_flight(granules, lanes, report, "changes")
        if self.written.take(granules).min() < 0:
            rule = "changes shared memory that no thread has written"
            row, column = np.argwhere(self.written.take(granules) < 0)[0]
            self._report(Uninitialised, rule, granules, lanes, row, column, report)
        self._forbid_write(granules, start, mine, lanes, report, "changes", atomic=True)
        self._stamp(self.atomic, granules, start, mine)

    def on_copy_issued(self, granules: Array, lanes: Lanes, report: Report) -> None:
        """From now until its wait, nobody may touch the destination of a ``cp.async``."""
        start, mine = self.start[lanes], self.mine[lanes]
        self._forbid_in_flight(granules, lanes, report, "starts another copy to")
        self._forbid_write(granules, start, mine, lanes, report, "starts a cp.async to")
        self.in_flight[granules] = mine
        self.flying += granules.size

    def on_copy_done(self, granules: Array, lanes: Lanes) -> None:
        """The issuing threads have waited: to the others, this is their write."""
        self.in_flight[granules] = -1
        self.flying -= granules.size
        self.written[granules] = self.mine[lanes]

    # ------------------------------------------------------------------ rules
    def _forbid_in_flight(self, granules: Array, lanes: Lanes, report: Report, verb: str) -> None:
        if not self.flying:
            return
        flights = self.in_flight.take(granules)
        if flights.max() >= 0:
            row, column = np.argwhere(flights >= 0)[0]
            owner = int(flights[row, column] % self.stride)
            rule = f"{verb} shared memory while a cp.async of thread {owner} to it is in flight"
            self._report(AsyncHazard, rule, granules, lanes, row, column, report)

    def _forbid_write(
        self, granules: Array, start: Array, mine: Array, lanes: Lanes, report: Report, verb: str, atomic: bool = False
    ) -> None:
        """No other warp may have read or written these granules in this epoch."""
        self._sort_reads()
        self._forbid(self.written.take(granules), start, mine, granules, lanes, report, verb + " what {} wrote")
        self._forbid(self.read.take(granules), start, mine, granules, lanes, report, verb + " what {} read")
        if self.atomic is not None and not atomic:
            self._forbid(self.atomic.take(granules), start, mine, granules, lanes, report, verb + " what {} changed")

    def _forbid(
        self, stamps: Array, start: Array, mine: Array, granules: Array, lanes: Lanes, report: Report, rule: str
    ) -> None:
        """No stamp of this epoch by another warp."""
        recent = _other_warp(stamps, start, mine)
        if recent.any():
            row, column = np.argwhere(recent)[0]
            other = int(stamps[row, column] - start[column])
            who = "several warps" if other == self.many else f"thread {other} (linear)"
            text = rule.format(who) + ", with no barrier between"
            self._report(Race, text, granules, lanes, row, column, report)

    def _sort_reads(self) -> None:
        for granules, start, mine in self.unsorted_reads:
            self._stamp(self.read, granules, start, mine)
        self.unsorted_reads.clear()

    def _stamp(self, stamps: Array, granules: Array, start: Array, mine: Array) -> None:
        """Leave the thread's stamp, or that of *many* where another warp's is there already."""
        many = start + self.many
        shared = _other_warp(stamps.take(granules), start, mine)
        new = np.where(shared, many, mine) if shared.any() else mine
        stamps[granules] = new
        # several warps in this very instruction: one of the stamps won
        lost = _other_warp(stamps.take(granules), start, new)
        if lost.any():
            stamps[granules[lost]] = np.broadcast_to(many, granules.shape)[lost]

    def _report(
        self, fault: type[Fault], rule: str, granules: Array, lanes: Lanes, row: int, column: int, report: Report
    ) -> NoReturn:
        lane = int(self.threads.numbers[lanes][column])
        report(fault, rule, lane, int(granules[row, column] % self.granules_per_cta))
