"""The kernels that add up whole arrays: a sum for each block of threads."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastconv.cpu.total import BLOCK
from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import NUMBERS, POSITIONS, SUMS, TABLE, element, kernel_of_elements
from fastconv.cuda.kernels.intrinsics import divide, product

cuda = target()
types = cuda.types
float64, int32, int64 = types.float64, types.int32, types.int64


@cuda.jit(device=True)
def as_float(number):
    return float64(number)


@cuda.jit(device=True)
def square_of(number):
    return product(float64(number), float64(number))


@cuda.jit(device=True)
def as_integer(number):
    return int64(number)


@cuda.jit(device=True)
def product_of_integers(left, right):
    return left * right


def _block_sums(source: Any, result: Any, kind: Any, value_of: Any, multiply: Any) -> Kernel:
    """The kernel for numbers of *source*, of which *value_of* is added, with sums of a *kind*."""

    def add_up(numbers, out, at, accumulate, times):
        """``out[at + block] = sum * times``, or ``+=``, of the numbers of all threads of a block.

        Each thread adds those that lie as many numbers apart as there are threads, in order.  Then the second half of
        the block's sums is added to the first, the second quarter to the first quarter, and so on.
        """
        sums = cuda.shared.array(BLOCK, kind)
        thread = int32(cuda.threadIdx.x)
        total = kind(0)
        i = element()
        step = int32(cuda.gridDim.x * BLOCK)
        for turn in range(divide(int32(numbers.size - i + step - 1), step)):
            total += value_of(numbers[i + int64(turn) * step])
        sums[thread] = total
        half = int32(BLOCK // 2)
        while half > 0:
            cuda.syncthreads()
            if thread < half:
                sums[thread] += sums[thread + half]
            half >>= 1
        if thread == 0:
            place = at + int64(cuda.blockIdx.x)
            total = multiply(sums[0], times)
            out[place] = out[place] + total if accumulate else total

    return kernel_of_elements(add_up, source, result, int32, types.boolean, kind)


@lru_cache
def numbers() -> Kernel:
    """The kernel for float32 numbers."""
    return _block_sums(NUMBERS, SUMS, float64, as_float, product)


@lru_cache
def squares() -> Kernel:
    """The kernel for the squares of float32 numbers."""
    return _block_sums(NUMBERS, SUMS, float64, square_of, product)


@lru_cache
def sums() -> Kernel:
    """The kernel for the sums of blocks."""
    return _block_sums(SUMS, SUMS, float64, as_float, product)


@lru_cache
def hits() -> Kernel:
    """The kernel for ones and zeros."""
    return _block_sums(TABLE, POSITIONS, int64, as_integer, product_of_integers)


@lru_cache
def counts() -> Kernel:
    """The kernel for the counts of blocks."""
    return _block_sums(POSITIONS, POSITIONS, int64, as_integer, product_of_integers)
