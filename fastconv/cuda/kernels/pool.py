"""The kernels of pooling: one thread for each element of the result, channels next to each other.

Threads of a warp read neighbouring channels of the same pixel, so every load is one of whole lines of memory, and the
order of a sum or of a comparison is that of `cpu.pool`: so are the bits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fastconv.cpu.pool_average import SUM_BLOCK
from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import NUMBERS, POSITIONS, TABLE, element, kernel_of_elements, split_in_three, told
from fastconv.cuda.kernels.intrinsics import divide

cuda = target()
float32, int32, int64 = cuda.types.float32, cuda.types.int32, cuda.types.int64
_LOWEST = float("-inf")


class Problem(NamedTuple):
    """Extents of x and of the result, and the distance of neighbours in a window."""

    IH: int
    IW: int
    C: int
    OH: int
    OW: int
    row_step: int
    column_step: int


class ScatterProblem(NamedTuple):
    """Pixels of an image of values and of the result, channels, bands of an image and their pixels; whether to add."""

    sources: int
    targets: int
    C: int
    bands: int
    band_pixels: int
    accumulate: int


@lru_cache
def extreme() -> Kernel:
    """The kernel that finds the largest of ``sign * x`` in each window, and where it is."""

    def pool2d_extreme(x, rows, columns, sign, out, indices, problem):
        """A later pixel wins only if it is larger, or NaN; an empty *indices* is none.

        *rows* and *columns* hold the first pixel of each window, then where each ends.
        """
        p = problem
        i = element()
        if i < out.size:
            pixel = divide(int32(i), p.C)
            channel = int32(i - pixel * p.C)
            n, oh, ow = split_in_three(pixel, p.OH, p.OW)
            best = float32(_LOWEST)
            where = int32(rows[oh] * p.IW + columns[ow])
            row = rows[oh]
            while row < rows[p.OH + oh]:
                column = columns[ow]
                while column < columns[p.OW + ow]:
                    value = x[((int64(n) * p.IH + row) * p.IW + column) * p.C + channel] * sign
                    if value > best or value != value:
                        best = value
                        where = int32(row * p.IW + column)
                    column = int32(column + p.column_step)
                row = int32(row + p.row_step)
            out[i] = best * sign
            if indices.size > 0:
                indices[i] = where

    return kernel_of_elements(pool2d_extreme, NUMBERS, TABLE, TABLE, float32, NUMBERS, POSITIONS, told(Problem))


@lru_cache
def average() -> Kernel:
    """The kernel that sums each window and divides by the product of its two counts."""

    def pool2d_average(x, rows, columns, out, problem):
        """Runs of SUM_BLOCK pixels, rows of runs, bands of SUM_BLOCK rows: short chains for windows of any size.

        *rows* and *columns* hold the first pixel of each window, then where each ends, then the counts.
        """
        p = problem
        i = element()
        if i < out.size:
            pixel = divide(int32(i), p.C)
            channel = int32(i - pixel * p.C)
            n, oh, ow = split_in_three(pixel, p.OH, p.OW)
            last_row, last_column = rows[p.OH + oh], columns[p.OW + ow]
            total = float32(0)
            row = rows[oh]
            while row < last_row:
                band = float32(0)
                band_end = min(int32(row + SUM_BLOCK), last_row)
                while row < band_end:
                    row_sum = float32(0)
                    column = columns[ow]
                    while column < last_column:
                        run = float32(0)
                        run_end = min(int32(column + SUM_BLOCK), last_column)
                        while column < run_end:
                            run += x[((int64(n) * p.IH + row) * p.IW + column) * p.C + channel]
                            column = int32(column + 1)
                        row_sum += run
                    band += row_sum
                    row = int32(row + 1)
                total += band
            out[i] = total / float32(int32(rows[2 * p.OH + oh] * columns[2 * p.OW + ow]))

    return kernel_of_elements(pool2d_average, NUMBERS, TABLE, TABLE, NUMBERS, told(Problem))


@lru_cache
def extreme_backward() -> Kernel:
    """The kernel in which each pixel of x collects from the windows whose extreme it is."""

    def pool2d_extreme_backward(grad_out, indices, rows, columns, grad_x, problem):
        """The windows that hold a pixel in reading order, and of those the ones that point to it: no atomics.

        *rows* and *columns* hold, for each pixel of x, the first window that may hold it, then where they end.
        """
        p = problem
        i = element()
        if i < grad_x.size:
            pixel = divide(int32(i), p.C)
            channel = int32(i - pixel * p.C)
            n, ih, iw = split_in_three(pixel, p.IH, p.IW)
            position = int32(ih * p.IW + iw)
            total = float32(0)
            oh = rows[ih]
            while oh < rows[p.IH + ih]:
                ow = columns[iw]
                while ow < columns[p.IW + iw]:
                    at = ((int64(n) * p.OH + oh) * p.OW + ow) * p.C + channel
                    if indices[at] == position:
                        total += grad_out[at]
                    ow = int32(ow + 1)
                oh = int32(oh + 1)
            grad_x[i] = total

    return kernel_of_elements(pool2d_extreme_backward, NUMBERS, POSITIONS, TABLE, TABLE, NUMBERS, told(Problem))


@lru_cache
def scatter() -> Kernel:
    """The kernel that moves values to stored positions."""

    def pool2d_scatter(values, indices, out, threads, problem):
        """A thread owns one channel of a band of pixels: it clears it, then looks through all values of the image.

        So each pixel has one writer, and receives its values in reading order, as on the CPU, for any number of bands.
        Threads side by side read the same pixel of neighbouring channels.
        """
        p = problem
        i = element()
        if i < threads:
            row = divide(int32(i), p.C)
            channel = int32(i - row * p.C)
            n = divide(row, p.bands)
            first = int32(int32(row - n * p.bands) * p.band_pixels)
            last = min(int32(first + p.band_pixels), p.targets)
            start = int64(n) * p.targets * p.C + channel
            pixel = first
            while pixel < last:
                out[start + pixel * p.C] = float32(0)
                pixel = int32(pixel + 1)
            source = int64(n) * p.sources * p.C + channel
            for _ in range(p.sources):
                index = indices[source]
                if first <= index < last:
                    at = start + index * p.C
                    out[at] = out[at] + values[source] if p.accumulate > 0 else values[source]
                source += p.C

    return kernel_of_elements(pool2d_scatter, NUMBERS, POSITIONS, NUMBERS, int64, told(ScatterProblem))


@lru_cache
def take() -> Kernel:
    """The kernel that reads values from stored positions."""

    def pool2d_take(values, indices, out, sources, targets, C):
        """``out[n, pixel, c] = values[n, indices[n, pixel, c], c]``, or 0 where there is no such pixel; one writer."""
        i = element()
        if i < out.size:
            pixel = divide(int32(i), C)
            channel = int32(i - pixel * C)
            index = indices[i]
            value = float32(0)
            if 0 <= index < sources:
                value = values[(int64(divide(pixel, targets)) * sources + index) * C + channel]
            out[i] = value

    return kernel_of_elements(pool2d_take, NUMBERS, POSITIONS, NUMBERS, int32, int32, int32)
