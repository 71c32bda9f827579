"""The kernels of sums over rows: a thread for each number of a joined row, then one for each column.

Threads of a warp read neighbouring numbers of the same row.  Threads are few, one for each column in the end, so each
has many loads on their way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastconv.cpu.reduction import ROWS_OF_BLOCK
from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import NUMBERS, SUMS, element, kernel_of_elements, remainder
from fastconv.cuda.kernels.intrinsics import divide, product, store
from fastconv.cuda.kernels.windows import add_each, load_columns, places, there

cuda = target()
#: Numbers that a thread loads together: of the rows of a block, of joined rows, and of blocks.
_ROWS, _JOINED, _BLOCKS = 8, 4, 16

float64, int32, int64 = cuda.types.float64, cuda.types.int32, cuda.types.int64


@cuda.jit(device=True)
def chain_of(i, numbers, C, width):
    """Where the chain of partial sum *i* begins, and its length: every width-th of the *numbers* of a block."""
    block = divide(int32(i), width)
    span = int64(C) * ROWS_OF_BLOCK
    at, stop = block * span + (i - block * width), min((block + 1) * span, int64(numbers))
    return at, divide(int32(stop - at + width - 1), width)


@lru_cache
def sums() -> Kernel:
    """The kernel of the partial sums of each block of rows."""

    places_of, there_of, load_rows, add_rows = places(_ROWS), there(_ROWS), load_columns(1), add_each(False)

    def column_sums(x, partial, C, width):
        """``partial[block, j]``: the sum of every number j of the block's rows of *width* numbers, from 0 up."""
        i = element()
        if i < partial.size:
            at, length = chain_of(i, x.size, C, width)
            total = (float64(0),)
            row = int32(0)
            while row < length:
                numbers = load_rows(x, int32(at), places_of(row, 1, length, width))
                total = add_rows(total, numbers, there_of(row, 1, length))
                row = int32(row + _ROWS)
            store(partial, i, total)

    return kernel_of_elements(column_sums, NUMBERS, SUMS, int32, int32)


@lru_cache
def products() -> Kernel:
    """The kernel of the partial sums of products."""

    def column_products(a, b, a_shift, b_shift, partial, C, width):
        """The same for ``(a - a_shift) * (b - b_shift)``, every operation rounded by itself in float64."""
        i = element()
        if i < partial.size:
            at, length = chain_of(i, a.size, C, width)
            channel = remainder(i, C)
            a_center, b_center = float64(a_shift[channel]), float64(b_shift[channel])
            total = float64(0)
            for _ in range(length):
                total += product(float64(a[at]) - a_center, float64(b[at]) - b_center)
                at += width
            partial[i] = total

    return kernel_of_elements(column_products, NUMBERS, NUMBERS, NUMBERS, NUMBERS, SUMS, int32, int32)


@lru_cache
def folded_sums() -> Kernel:
    """The kernel that adds the parts of joined rows."""
    return _added(SUMS, _JOINED)


@lru_cache
def total_sums() -> Kernel:
    """The kernel that adds the sums of the blocks."""
    return _added(NUMBERS, _BLOCKS)


def _added(result: Any, together: int) -> Kernel:
    places_of, there_of, load_parts, add_parts = places(together), there(together), load_columns(1), add_each(False)

    def sum_of_parts(partial, out, parts, C):
        """``out[group, c] = 0 + partial[group, 0, c] + partial[group, 1, c] + ...``, in this order."""
        i = element()
        if i < out.size:
            group = divide(int32(i), C)
            at = int32(int64(group) * (parts - 1) * C + i)
            total = (float64(0),)
            part = int32(0)
            while part < parts:
                numbers = load_parts(partial, at, places_of(part, 1, parts, C))
                total = add_parts(total, numbers, there_of(part, 1, parts))
                part = int32(part + together)
            out[i] = total[0]

    return kernel_of_elements(sum_of_parts, SUMS, result, int32, int32)
