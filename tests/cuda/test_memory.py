"""The pool of device memory, with a driver that counts: which blocks are used again, and which are freed."""

import gc
from typing import Any
from weakref import finalize

import pytest

from fastconv.cuda.memory import Pool, block_size


class Driver:
    """Memory of a limited size; a block is free when it is collected."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.in_use = 0
        self.allocations = 0

    def allocate(self, nbytes: int) -> Any:
        if self.in_use + nbytes > self.capacity:
            raise MemoryError("out of memory")
        self.allocations += 1
        self.in_use += nbytes
        return _Block(self, nbytes)

    def free(self, nbytes: int) -> None:
        self.in_use -= nbytes


class _Block:
    """Freed as Numba frees memory: by a weak reference, which the garbage collector calls before any ``__del__``."""

    def __init__(self, driver: Driver, nbytes: int) -> None:
        self.address = 0x1000 * driver.allocations
        finalize(self, driver.free, nbytes)


def test_sizes_of_blocks() -> None:
    assert [block_size(n) for n in (1, 512, 513, 640, 641, 768, 896, 1024, 1025)] == [
        *(512, 512, 640, 640, 768, 768, 896, 1024, 1280)
    ]
    for nbytes in range(513, 100_000, 7):
        size = block_size(nbytes)
        assert nbytes <= size < 1.25 * nbytes
        assert size % 128 == 0
        assert block_size(size) == size


def test_a_freed_block_is_used_again() -> None:
    driver = Driver(10_000)
    pool = Pool(driver.allocate, 5_000)
    first = pool.take(1000, stream=0)
    address = first.address
    second = pool.take(1000, stream=0)
    assert second.address != address
    del first
    assert pool.kept == 1024
    assert pool.take(896, stream=0).address != address  # a smaller class
    assert pool.take(1024, stream=0).address == address
    assert driver.allocations == 3


def test_another_stream_never_gets_it() -> None:
    driver = Driver(10_000)
    pool = Pool(driver.allocate, 5_000)
    lease = pool.take(512, stream=1)
    address = lease.address
    del lease
    assert pool.take(512, stream=2).address != address
    assert pool.take(512, stream=1).address == address


def test_arrays_that_die_in_a_circle_leave_their_memory_whole() -> None:
    """A model, say, whose layers refer to it: what goes back to the pool is not freed."""
    driver = Driver(10_000)
    pool = Pool(driver.allocate, 5_000)
    circle: list[Any] = [pool.take(1024, stream=0)]
    circle.append(circle)
    del circle
    gc.collect()
    assert pool.kept == driver.in_use == 1024
    pool.take(1024, stream=0)
    assert driver.allocations == 1


def test_what_is_kept_is_bounded() -> None:
    driver = Driver(100_000)
    pool = Pool(driver.allocate, 2_000)
    leases = [pool.take(1024, stream=0) for _ in range(5)]
    del leases
    gc.collect()
    assert pool.kept == driver.in_use == 1024


def test_empty() -> None:
    driver = Driver(100_000)
    pool = Pool(driver.allocate, 50_000)
    kept = pool.take(2048, stream=0)
    pool.take(1024, stream=0)
    pool.empty()
    assert (pool.kept, driver.in_use) == (0, 2048)
    assert kept.size == 2048


def test_free_blocks_make_room_for_another_size() -> None:
    driver = Driver(4096)
    pool = Pool(driver.allocate, 4096)
    pool.take(2048, stream=0)
    whole = pool.take(4096, stream=0)
    assert whole.size == driver.in_use == 4096
    with pytest.raises(MemoryError):
        pool.take(512, stream=0)
