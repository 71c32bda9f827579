"""Device memory: arrays of numbers as kernels take them, and blocks that are used again.

Freed blocks wait for the next array of their size.

An allocation by the driver waits for the whole device, and every operation needs memory for its result.  So a block
that is no longer needed is kept.  Blocks come in sizes of a quarter of a power of two apart, which wastes a fifth of a
block at most, so that a block fits many shapes.

A block may be handed out while kernels that were launched with its last owner still run: the next owner's kernels come
after them on the same stream, and another stream never gets it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache, partial
from math import prod
from sys import maxsize
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.cuda import driver

_SMALLEST_BLOCK = 512
_STEPS_OF_A_POWER = 4
#: See `Memory.fields`.
NUMBERS_OF_ARRAY = 7


@lru_cache(maxsize=4096)
def block_size(nbytes: int) -> int:
    """The size of the block for *nbytes*: 512 bytes, or the next of 1, 5/4, 3/2, 7/4 times a power of two."""
    if nbytes <= _SMALLEST_BLOCK:
        return _SMALLEST_BLOCK
    step = (1 << (nbytes - 1).bit_length() - 1) // _STEPS_OF_A_POWER
    return -(-nbytes // step) * step


class Memory:
    """Numbers side by side on a device.

    Attributes
    ----------
    address : int
        Where the first of them lies.
    dtype : numpy.dtype
    shape : tuple of int
    owner : object
        What keeps the memory.
    fields : tuple of int
        What Numba's kernels take for an array of one axis: two pointers of its own, number of elements, bytes of one,
        address, shape and strides.
    """

    __slots__ = ("__weakref__", "address", "dtype", "fields", "owner", "shape", "size")

    def __init__(self, address: int, dtype: np.dtype[Any], shape: tuple[int, ...], owner: Any) -> None:
        self.address, self.dtype, self.shape, self.owner = address, dtype, shape, owner
        self.size = size = prod(shape)
        itemsize = dtype.itemsize
        self.fields = 0, 0, size, itemsize, address, size, itemsize

    def reshape(self, *shape: Any) -> Memory:
        """The same numbers with another shape."""
        wanted = shape[0] if isinstance(shape[0], tuple) else shape
        return self if wanted == self.shape else Memory(self.address, self.dtype, wanted, self.owner)

    def __getitem__(self, part: slice) -> Memory:
        """The same numbers from one place to another of an array of one axis."""
        start, stop, _ = part.indices(self.size)
        return Memory(self.address + start * self.dtype.itemsize, self.dtype, (max(stop - start, 0),), self.owner)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        place = self.address, False
        return {"shape": self.shape, "strides": None, "typestr": self.dtype.str, "data": place, "version": 3}

    def copy_to_device(self, values: NDArray[Any], stream: int = 0) -> None:
        """Copy contiguous *values* of this dtype here; the device's context is current."""
        driver.copy_to_device(values, self.address, stream)

    def copy_to_host(self, values: NDArray[Any], stream: int = 0) -> None:
        """Fill *values* with these numbers, once what was launched on *stream* before has run."""
        driver.copy_to_host(self.address, values, stream)


class Block:
    """Memory of the driver, which frees it when nothing refers to *pointer* any more."""

    __slots__ = ("address", "pointer")

    def __init__(self, pointer: Any) -> None:
        self.pointer, self.address = pointer, int(pointer.device_pointer)


class Lease:
    """The use of a block: it goes back to its pool when nothing refers to the lease any more."""

    __slots__ = ("address", "pool", "size", "stream")

    def __init__(self, pool: Pool, address: int, size: int, stream: int) -> None:
        self.pool, self.address, self.size, self.stream = pool, address, size, stream

    def __del__(self) -> None:
        self.pool.give_back(self.address, self.size, self.stream)


class Pool:
    """Blocks of one device.

    Parameters
    ----------
    allocate : callable
        A block of so many bytes from the driver, with its address; it is freed when nothing refers to it any more.
    limit : int
        Bytes of free blocks that are kept; a block that would exceed them is freed.
    """

    def __init__(self, allocate: Callable[[int], Any], limit: int) -> None:
        self._allocate = allocate
        self._limit = limit
        #: All blocks, by address.  A lease must not hold its own: where objects that refer to each other die together,
        #: the garbage collector frees the block first, and then the lease would give it back.
        self._blocks: dict[int, Any] = {}
        self._free: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        self._lock = RLock()  # the garbage collector may end a lease while this thread takes one
        self.kept = 0

    def take(self, nbytes: int, stream: int) -> Lease:
        """A block of at least *nbytes* for kernels on *stream*."""
        size = block_size(nbytes)
        with self._lock:
            addresses = self._free[size, stream]
            if addresses:
                self.kept -= size
                return Lease(self, addresses.pop(), size, stream)
        try:
            block = self._allocate(size)
        except Exception:  # out of memory, whatever the driver calls it: give it back what is not in use, and try again
            self.empty()
            block = self._allocate(size)
        with self._lock:
            self._blocks[block.address] = block
        return Lease(self, block.address, size, stream)

    def give_back(self, address: int, size: int, stream: int) -> None:
        """Keep a block for the next one, or free it where enough is kept."""
        with self._lock:
            if self.kept + size <= self._limit:
                self.kept += size
                self._free[size, stream].append(address)
            else:
                del self._blocks[address]

    def empty(self) -> None:
        """Free all blocks that are not in use."""
        with self._lock:
            for addresses in self._free.values():
                for address in addresses:
                    del self._blocks[address]
            self._free.clear()
            self.kept = 0


class Reserve(Pool):
    """Blocks of *pool* for kernels on *stream* that will run again: they are nobody else's as long as this lives."""

    def __init__(self, pool: Pool, stream: int) -> None:
        super().__init__(partial(pool.take, stream=stream), maxsize)

    def empty(self) -> None:
        """Keep all blocks: those that are in no use are written to when the kernels run again."""
