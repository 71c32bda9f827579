"""Device memory that is used again: freed blocks wait for the next array of their size.

An allocation by the driver waits for the whole device, and every operation needs memory for its result.  So a block
that is no longer needed is kept.  Blocks come in sizes of a quarter of a power of two apart, which wastes a fifth of a
block at most, so that a block fits many shapes.

A block may be handed out while kernels that were launched with its last owner still run: the next owner's kernels come
after them on the same stream, and another stream never gets it.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any

_SMALLEST_BLOCK = 512
_STEPS_OF_A_POWER = 4


def block_size(nbytes: int) -> int:
    """The size of the block for *nbytes*: 512 bytes, or the next of 1, 5/4, 3/2, 7/4 times a power of two."""
    if nbytes <= _SMALLEST_BLOCK:
        return _SMALLEST_BLOCK
    step = (1 << (nbytes - 1).bit_length() - 1) // _STEPS_OF_A_POWER
    return -(-nbytes // step) * step


class Lease:
    """The use of a block: it goes back to its pool when nothing refers to the lease any more."""

    __slots__ = ("block", "pool", "size", "stream")

    def __init__(self, pool: Pool, block: Any, size: int, stream: int) -> None:
        self.pool, self.block, self.size, self.stream = pool, block, size, stream

    def __del__(self) -> None:
        self.pool.give_back(self.block, self.size, self.stream)


class Pool:
    """Blocks of one device.

    Parameters
    ----------
    allocate : callable
        A block of so many bytes from the driver; it is freed when nothing refers to it any more.
    limit : int
        Bytes of free blocks that are kept; a block that would exceed them is freed.
    """

    def __init__(self, allocate: Callable[[int], Any], limit: int) -> None:
        self._allocate = allocate
        self._limit = limit
        self._free: dict[tuple[int, int], list[Any]] = {}
        self._lock = RLock()  # the garbage collector may end a lease while this thread takes one
        self.kept = 0

    def take(self, nbytes: int, stream: int) -> Lease:
        """A block of at least *nbytes* for kernels on *stream*."""
        size = block_size(nbytes)
        with self._lock:
            blocks = self._free.get((size, stream))
            if blocks:
                self.kept -= size
                return Lease(self, blocks.pop(), size, stream)
        try:
            block = self._allocate(size)
        except Exception:  # out of memory, whatever the driver calls it: give it back what is not in use, and try again
            self.empty()
            block = self._allocate(size)
        return Lease(self, block, size, stream)

    def give_back(self, block: Any, size: int, stream: int) -> None:
        """Keep *block* for the next one, or free it where enough is kept."""
        with self._lock:
            if self.kept + size <= self._limit:
                self.kept += size
                self._free.setdefault((size, stream), []).append(block)

    def empty(self) -> None:
        """Free all blocks that are not in use."""
        with self._lock:
            free, self._free, self.kept = self._free, {}, 0
        free.clear()
