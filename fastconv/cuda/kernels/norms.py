"""The kernels of norms: chains of squares, their sum, and the factor that shortens."""

from __future__ import annotations

import math
from functools import lru_cache

from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import NUMBERS, SUMS, THREADS, element, kernel_of_elements
from fastconv.cuda.kernels.intrinsics import divide, product

cuda = target()
types = cuda.types
float32, float64, int32, int64 = types.float32, types.float64, types.int32, types.int64

#: Partial sums of an array: threads that fill a large GPU.
CHAINS = 2**16


@lru_cache
def sums_of_squares() -> Kernel:
    """The kernel that adds squares in chains."""

    def add_squares(x, partial):
        """``partial[i]``: the sum of the squares of every number i, i + chains, i + 2 * chains and so on, in order."""
        i = element()
        if i < partial.size:
            chains = int32(partial.size)
            total = float64(0)
            for turn in range(divide(int32(x.size - i + chains - 1), chains)):
                number = float64(x[i + int64(turn) * chains])
                total += product(number, number)
            partial[i] = total

    return kernel_of_elements(add_squares, NUMBERS, SUMS)


@lru_cache
def add_sums() -> Kernel:
    """The kernel that adds the chains to a total."""

    def add_to_total(partial, total):
        """``total[0] += sum(partial)`` by one block: each thread every 256th chain, then one thread all sums."""
        sums = cuda.shared.array(THREADS, float64)
        thread = cuda.threadIdx.x
        chain = float64(0)
        i = int64(thread)
        while i < partial.size:
            chain += partial[i]
            i += THREADS
        sums[thread] = chain
        cuda.syncthreads()
        if thread == 0:
            chain = total[0]
            for other in range(THREADS):
                chain += sums[other]
            total[0] = chain

    return kernel_of_elements(add_to_total, SUMS, SUMS)


@lru_cache
def factor() -> Kernel:
    """The kernel that finds the factor, with one thread."""

    def find_factor(squares, out, longest):
        """``out[0] = longest / norm`` where the norm is larger than *longest*, else 1."""
        if element() == 0:
            norm = math.sqrt(squares[0])
            out[0] = float32(longest / norm) if norm > longest else float32(1)

    return kernel_of_elements(find_factor, SUMS, NUMBERS, float64)
