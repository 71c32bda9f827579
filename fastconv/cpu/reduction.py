"""Sums over the rows of a (rows, C) matrix: bias gradients, batch statistics.

Rows come in blocks of a fixed number.  Each block is summed in float64 into its own row of partial sums, and those are
added in order, so the bits do not depend on the number of threads.

A row of few channels would leave most of a vector empty.  So a block is read in longer rows: several rows side by side,
each with its own sums, which are folded together at the end of the block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads

# Rows of one block, and so of one task.
ROWS_OF_BLOCK = 512
# A row of fewer numbers than this is joined with its neighbours: a few vectors of any CPU.
_SHORTEST_ROW = 64


def repeats(C: int) -> int:
    """How many rows of C channels are treated as one."""
    return max(1, _SHORTEST_ROW // C)


@_jit.inline
def fold(sums, C, partials, block):
    """``partials[block, c]`` is the sum of ``sums[c], sums[c + C], ...``."""
    for c in range(C):
        total = 0.0
        for at in range(c, sums.size, C):
            total += sums[at]
        partials[block, c] = total


@_jit.inline
def add_blocks(partials, out):
    """``out[c]`` is the sum of the partial sums of all blocks, in their order; 0 where there are none."""
    for c in range(out.size):
        total = 0.0
        for block in range(partials.shape[0]):
            total += partials[block, c]
        out[c] = total


# ---- sums ---------------------------------------------------------------------------------------------------------


@_jit.tasks
def sums_tasks(x, width, partials, first, last):
    """Blocks *first* to *last* of the sums over the rows of flat *x*, in rows of *width* numbers.

    The inner loop runs along memory, one accumulator per number of the row.  Each partial sum has one writer.
    """
    C = partials.shape[1]
    sums = np.empty(width, np.float64)
    for block in range(first, last):
        sums[:] = 0.0
        stop = min((block + 1) * ROWS_OF_BLOCK * C, x.size)
        for start in range(block * ROWS_OF_BLOCK * C, stop, width):
            row = x[start : min(start + width, stop)]
            for j in range(row.size):
                sums[j] += row[j]
        fold(sums, C, partials, block)


@_jit.kernel
def column_sums_serial(x, width, partials, out):
    sums_tasks(x, width, partials, 0, len(partials))
    add_blocks(partials, out)


@_jit.parallel_kernel
def column_sums_parallel(workers, x, width, partials, out):
    tasks = len(partials)
    for worker in prange(workers):
        sums_tasks(x, width, partials, tasks * worker // workers, tasks * (worker + 1) // workers)
    add_blocks(partials, out)


def column_sums(matrix: Any) -> NDArray[Any]:
    """Sums over the rows of a contiguous (rows, C) matrix, in its dtype."""
    rows, C = matrix.shape
    partials = np.empty((-(-rows // ROWS_OF_BLOCK), C), np.float64)
    out = np.empty(C, matrix.dtype)
    arguments = (matrix.reshape(-1), C * repeats(C), partials, out)
    threads.run(column_sums_serial, column_sums_parallel, threads.worker_count(matrix.size), *arguments)
    return out


# ---- sums of products ---------------------------------------------------------------------------------------------


@_jit.tasks
def products_tasks(a, b, a_shift, b_shift, partials, first, last):
    """Blocks *first* to *last* of the sums over the rows of ``(a - a_shift) * (b - b_shift)``; a and b are flat.

    The shifts are rows of the joined length.  Differences, products and sums are float64: with the mean as shift,
    nothing cancels.  Each partial sum has one writer.
    """
    C = partials.shape[1]
    width = a_shift.size
    sums = np.empty(width, np.float64)
    for block in range(first, last):
        sums[:] = 0.0
        stop = min((block + 1) * ROWS_OF_BLOCK * C, a.size)
        for start in range(block * ROWS_OF_BLOCK * C, stop, width):
            a_row, b_row = a[start : min(start + width, stop)], b[start : min(start + width, stop)]
            for j in range(a_row.size):
                sums[j] += (np.float64(a_row[j]) - a_shift[j]) * (np.float64(b_row[j]) - b_shift[j])
        fold(sums, C, partials, block)


@_jit.kernel
def column_products_serial(a, b, a_shift, b_shift, partials, out):
    products_tasks(a, b, a_shift, b_shift, partials, 0, len(partials))
    add_blocks(partials, out)


@_jit.parallel_kernel
def column_products_parallel(workers, a, b, a_shift, b_shift, partials, out):
    tasks = len(partials)
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        products_tasks(a, b, a_shift, b_shift, partials, first, last)
    add_blocks(partials, out)


def column_products(a: Any, b: Any, a_shift: Any, b_shift: Any) -> NDArray[Any]:
    """Sums over the rows of ``(a - a_shift) * (b - b_shift)``: matrices (rows, C) and shifts (C,) of one dtype."""
    rows, C = a.shape
    partials = np.empty((-(-rows // ROWS_OF_BLOCK), C), np.float64)
    shifts = (np.tile(a_shift, repeats(C)), np.tile(b_shift, repeats(C)))
    out = np.empty(C, a.dtype)
    arguments = (a.reshape(-1), b.reshape(-1), *shifts, partials, out)
    threads.run(column_products_serial, column_products_parallel, threads.worker_count(a.size), *arguments)
    return out
