"""What this machine can do at most: FLOPs from registers, bytes from memory.

A layer whose arithmetic intensity (FLOP per byte moved once) lies below ``gflops / copy_gbs`` cannot run faster than
memory feeds it; above, no faster than the multiply-add units.  Both ceilings are measured, for a clock frequency in a
data sheet says little about a shared machine.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numba
import numpy as np

from fastconv import _jit
from fastconv.bench.record import GIGA
from fastconv.bench.timing import timed
from fastconv.cpu import codegen, product, simd, tiles

# A rank-1 step is 2 FLOPs for each element of the register tile; so many steps take about 20 ms.
STEPS = 10_000_000
# Numbers of a copy for each thread: 128 MB in and out, far more than a cache.
COPY_NUMBERS = 1 << 25
# The largest of so many tries: what slows one down is never the machine itself.
TRIES = 5

TILE_ROWS, TILE_VECTORS = tiles.TILE_ROWS, tiles.TILE_VECTORS


@dataclass(frozen=True)
class Roofline:
    """The two ceilings for a number of threads."""

    threads: int
    #: Of float32 multiply-adds on registers alone.
    gflops: float
    #: Bytes read plus bytes written.
    copy_gbs: float

    def as_dict(self) -> dict[str, Any]:
        """As it is written to a result file."""
        return asdict(self)


@_jit.inline
def _multiply_add_task(steps, factors, sums, task):
    """``steps`` rank-1 updates of one register tile with factors that never change.

    The step is the one of every convolution here, but both factors stay in registers: with a row stride of 0 all rows
    of the tile share one broadcast number, so the loop has no load and no store.  The tile starts from different
    numbers in every register, lest LLVM see that all rows do the same.
    """
    size = TILE_ROWS * TILE_VECTORS * simd.lane_count(sums)
    columns = TILE_VECTORS * simd.lane_count(sums)
    tile = tiles.load(sums, task * size, columns, TILE_ROWS, TILE_VECTORS)
    for _ in range(steps):
        tile = tiles.rank1(tile, factors, 0, 0, factors, 0)
    tiles.store(tile, sums, task * size, columns)


@_jit.kernel
def multiply_adds_serial(steps, factors, sums):
    """`_multiply_add_task` on this thread."""
    _multiply_add_task(steps, simd.span(factors), simd.span(sums), 0)


@_jit.parallel_kernel
def multiply_adds_parallel(workers, steps, factors, sums):
    """`_multiply_add_task` on every thread, each with a tile of its own."""
    factors_span, sums_span = simd.span(factors), simd.span(sums)
    for worker in numba.prange(workers):
        _multiply_add_task(steps, factors_span, sums_span, worker)


def multiply_adds(threads: int = 1) -> tuple[Callable[[int], None], int]:
    """A function that runs a number of steps on each of *threads* threads, and the FLOPs of one step of all."""
    lanes = codegen.VECTOR_BYTES // np.dtype(np.float32).itemsize
    size = TILE_ROWS * TILE_VECTORS * lanes
    factors = np.full(TILE_VECTORS * lanes, 0.5, np.float32)
    sums = np.arange(threads * size, dtype=np.float32)

    def run(steps: int) -> None:
        if threads == 1:
            multiply_adds_serial(steps, factors, sums)
        else:
            multiply_adds_parallel(threads, steps, factors, sums)

    return run, 2 * size * threads


_multiply = product.placed_product(TILE_VECTORS)


@_jit.kernel
def products_serial(count, left, places, panel, sums):
    """*count* products of a register tile of pixels with a panel, always the same, so that both lie in the L1 cache."""
    left, places, panel, sums = simd.span(left), simd.span(places), simd.span(panel), simd.span(sums)
    for _ in range(count):
        tile = tiles.zeros(sums, TILE_ROWS, TILE_VECTORS)
        tile = _multiply(tile, left, places, 0, 0, product.MOST_DEPTH, panel, 0)
        tiles.store(tile, sums, 0, TILE_VECTORS * simd.lane_count(sums))


def products() -> tuple[Callable[[int], None], int]:
    """A function that runs a number of `products_serial`, the inner loop of the direct algorithm, and FLOPs of one."""
    columns = TILE_VECTORS * codegen.VECTOR_BYTES // np.dtype(np.float32).itemsize
    left = np.full(TILE_ROWS * product.PATCH_STRIDE, 0.5, np.float32)
    places = np.arange(TILE_ROWS) * product.PATCH_STRIDE
    panel = np.full(product.MOST_DEPTH * columns, 0.5, np.float32)
    sums = np.empty(TILE_ROWS * columns, np.float32)
    return lambda count: products_serial(count, left, places, panel, sums), 2 * product.MOST_DEPTH * sums.size


def peak_gflops(threads: int = 1) -> float:
    """10**9 float32 operations per second of *threads* threads that multiply and add registers."""
    run, flops = multiply_adds(threads)
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        run(1)  # compiles
        seconds = min(timed(lambda: run(STEPS))[0] for _ in range(TRIES))
    finally:
        numba.set_num_threads(before)
    return flops * STEPS / seconds / GIGA


def copy_gbs(threads: int = 1) -> float:
    """10**9 bytes per second, read and written, of *threads* threads that copy memory with NumPy."""
    arrays = [np.zeros((2, COPY_NUMBERS), np.float32) for _ in range(threads)]
    for array in arrays:
        array[...] = 1  # memory that was never written to is not there yet
    with ThreadPoolExecutor(threads) as pool:

        def copies() -> None:
            list(
                pool.map(lambda array: np.copyto(array[1], array[0]), arrays)
            )  # NumPy lets other threads run meanwhile

        seconds = min(timed(copies)[0] for _ in range(TRIES))
    return sum(array.nbytes for array in arrays) / seconds / GIGA


def roofline(threads: int) -> Roofline:
    """Measure both ceilings; this takes about half a second, and longer the first time."""
    return Roofline(threads, round(peak_gflops(threads), 1), round(copy_gbs(threads), 1))
