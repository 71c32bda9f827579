"""The kernels of pooling: one thread for neighbouring channels of a pixel of the result.

Threads of a warp read neighbouring channels of the same pixel, four at a time where they can, so every load is one of
whole lines of memory; those of a row of a window are on their way together.  The order of a sum or of a comparison is
that of `cpu.pool`: so are the bits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fastconv.cpu.pool_average import SUM_BLOCK
from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import NUMBERS, POSITIONS, TABLE, element, kernel_of_elements, split_in_three, told
from fastconv.cuda.kernels.intrinsics import divide, load, store, zeros
from fastconv.cuda.kernels.windows import (
    add_at,
    add_each,
    larger,
    load_columns,
    load_places,
    places,
    quotients,
    same,
    store_places,
    there,
    times,
)

cuda = target()
float32, int32, int64 = cuda.types.float32, cuda.types.int32, cuda.types.int64
_LOWEST = float("-inf")
#: Columns of a window that are loaded together, where it may have any number of them.
RUN = 8


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
def extreme(lanes: int, width: int) -> Kernel:
    """The kernel that finds the largest of ``sign * x`` in each window, and where it is, for *lanes* channels.

    Columns are loaded *width* at a time; unless that is RUN, no window has more of them.
    """
    WHOLE = width < RUN
    places_of, there_of, load_columns_of = places(width), there(width), load_columns(lanes)
    lowest, first_places = (float32(_LOWEST),) * lanes, same(lanes)

    def pool2d_extreme(x, rows, columns, sign, out, indices, problem):
        """A later pixel wins only if it is larger, or NaN; an empty *indices* is none.

        *rows* and *columns* hold the first pixel of each window, then where each ends.
        """
        p = problem
        i = int32(element() * lanes)
        if i < out.size:
            pixel = divide(i, p.C)
            channel = int32(i - pixel * p.C)
            n, oh, ow = split_in_three(pixel, p.OH, p.OW)
            row, last_row, first, last = rows[oh], rows[p.OH + oh], columns[ow], columns[p.OW + ow]
            image = int32(int32(n * p.IH * p.IW * p.C) + channel)
            best, where = lowest, first_places(int32(row * p.IW + first))
            run, inside = places_of(first, p.column_step, p.IW, p.C), there_of(first, p.column_step, last)
            while row < last_row:
                pixel = int32(row * p.IW)
                line = int32(image + pixel * p.C)
                if WHOLE:
                    numbers = load_columns_of(x, line, run)
                    best, where = larger(best, where, numbers, sign, int32(pixel + first), p.column_step, inside)
                else:
                    column = first
                    while column < last:
                        run = places_of(column, p.column_step, p.IW, p.C)
                        numbers = load_columns_of(x, line, run)
                        inside = there_of(column, p.column_step, last)
                        best, where = larger(best, where, numbers, sign, int32(pixel + column), p.column_step, inside)
                        column = int32(column + RUN * p.column_step)
                row = int32(row + p.row_step)
            store(out, i, times(best, sign))
            if indices.size > 0:
                store_places(indices, i, where)

    return kernel_of_elements(pool2d_extreme, NUMBERS, TABLE, TABLE, float32, NUMBERS, POSITIONS, told(Problem))


@lru_cache
def average(lanes: int, width: int) -> Kernel:
    """The kernel that sums each window and divides by the product of its two counts, for *lanes* channels.

    As for `extreme`, columns are loaded *width* at a time.
    """
    WHOLE = width < RUN
    places_of, there_of, load_columns_of = places(width), there(width), load_columns(lanes)
    nothing, add_columns = zeros(lanes), add_each(False)

    def pool2d_average(x, rows, columns, out, problem):
        """Runs of SUM_BLOCK pixels, rows of runs, bands of SUM_BLOCK rows: short chains for windows of any size.

        *rows* and *columns* hold the first pixel of each window, then where each ends, then the counts.
        """
        p = problem
        i = int32(element() * lanes)
        if i < out.size:
            pixel = divide(i, p.C)
            channel = int32(i - pixel * p.C)
            n, oh, ow = split_in_three(pixel, p.OH, p.OW)
            row, last_row, first, last = rows[oh], rows[p.OH + oh], columns[ow], columns[p.OW + ow]
            line = int32(int32(int32(n * p.IH) + row) * p.IW * p.C + channel)
            run, inside = places_of(first, 1, p.IW, p.C), there_of(first, 1, last)
            total = nothing()
            while row < last_row:
                band = nothing()
                band_end = min(int32(row + SUM_BLOCK), last_row)
                while row < band_end:
                    row_sum = nothing()
                    if WHOLE:
                        sums = add_columns(nothing(), load_columns_of(x, line, run), inside)
                        row_sum = add_columns(row_sum, sums, 1)
                    else:
                        column = first
                        while column < last:
                            sums = nothing()
                            run_end = min(int32(column + SUM_BLOCK), last)
                            while column < run_end:
                                numbers = load_columns_of(x, line, places_of(column, 1, p.IW, p.C))
                                sums = add_columns(sums, numbers, there_of(column, 1, run_end))
                                column = int32(column + RUN)
                            column = run_end
                            row_sum = add_columns(row_sum, sums, 1)
                    band = add_columns(band, row_sum, 1)
                    row, line = int32(row + 1), int32(line + p.IW * p.C)
                total = add_columns(total, band, 1)
            store(out, i, quotients(total, float32(int32(rows[2 * p.OH + oh] * columns[2 * p.OW + ow]))))

    return kernel_of_elements(pool2d_average, NUMBERS, TABLE, TABLE, NUMBERS, told(Problem))


@lru_cache
def extreme_backward(lanes: int) -> Kernel:
    """The kernel in which each pixel of x, *lanes* channels of it, collects from the windows whose extreme it is."""
    nothing, load_numbers, load_indices = zeros(lanes), load(lanes), load_places(lanes)

    def pool2d_extreme_backward(grad_out, indices, rows, columns, grad_x, problem):
        """The windows that hold a pixel in reading order, and of those the ones that point to it: no atomics.

        *rows* and *columns* hold, for each pixel of x, the first window that may hold it, then where they end.
        """
        p = problem
        i = int32(element() * lanes)
        if i < grad_x.size:
            pixel = divide(i, p.C)
            channel = int32(i - pixel * p.C)
            n, ih, iw = split_in_three(pixel, p.IH, p.IW)
            position = int64(ih * p.IW + iw)
            total = nothing()
            oh, last_row, first, last = rows[ih], rows[p.IH + ih], columns[iw], columns[p.IW + iw]
            line = int32(int32(int32(int32(n * p.OH) + oh) * p.OW + first) * p.C + channel)
            while oh < last_row:
                ow, at = first, line
                while ow < last:
                    total = add_at(total, load_numbers(grad_out, at), load_indices(indices, at), position)
                    ow, at = int32(ow + 1), int32(at + p.C)
                oh, line = int32(oh + 1), int32(line + p.OW * p.C)
            store(grad_x, i, total)

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
