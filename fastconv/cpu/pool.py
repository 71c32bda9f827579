"""Pooling: largest, smallest and average pixel of a window, and moving pixels to and from stored positions.

Two tables (`geometry.AxisWindows`) say which rows and which columns a window holds, so one kernel serves plain,
dilated, ceil_mode, adaptive and global pooling.  One more idea each:

- the smallest pixel is the largest one of ``-x``, and changing a sign is exact;
- the gradient of an average is again a sum over windows, read the other way: a pixel of ``x`` collects from the range
  of windows that hold it (`geometry.covering_windows`);
- the gradient of a maximum goes to one stored position for each output, and so do the pixels of max_unpool.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from fastconv import _jit, threads
from fastconv.cpu import simd
from fastconv.geometry import AxisWindows as Axis, single_pixels

# Pixels that one partial sum of an average takes: rounding errors grow with the longest chain of additions, so a
# window of any size is summed in three short chains instead of one long one.
SUM_BLOCK = 64
# Channels that one task of a scatter owns: a cache line of float32, so that no two tasks write to one line.
CHANNEL_BLOCK = 16
# Fewer output rows than this, over windows with at least so many rows, are pooled in two passes (see `_in_two_passes`).
FEW_ROWS = 16
# Two passes must visit so many times fewer pixels than one; the array between them and its positions cost the rest.
OVERLAP_GAIN = 4


# ---- largest pixel ----------------------------------------------------------------------------------------------


@_jit.tasks
def extreme_tasks(x, rows, columns, sign, out, indices, first, last):
    """Output rows [first, last) of all N * OH: the largest of ``sign * x`` in each window, and where it is.

    A vector of channels runs over the pixels of its window in reading order and stays in registers; the windows of a
    row follow one another, so that rows of x shared by neighbours come from the cache.  A later pixel wins only if it
    is larger, or NaN: PyTorch's rule.  The first position is a pixel of the image, so an index is valid even where all
    pixels are -inf.
    Each output element has one writer.
    """
    _, IH, IW, C = x.shape
    _, OH, OW, _ = out.shape
    source, target, places = simd.span(x), simd.span(out), simd.span(indices)
    lanes = simd.lane_count(source)
    signs = simd.splat(source, sign)
    for task in range(first, last):
        image = task // OH * IH * IW
        oh = task % OH
        top, bottom = rows.start[oh], rows.stop[oh]
        for ow in range(OW):
            left, right = columns.start[ow], columns.stop[ow]
            for c in range(0, C, lanes):
                count = min(lanes, C - c)
                best = simd.splat(source, x.dtype.type(-np.inf))
                where = simd.splat_position(source, top * IW + left)
                # not range(start, stop, step): that divides by the step, which costs more than a small window
                ih = top
                while ih < bottom:
                    pixel, end = ih * IW + left, ih * IW + right
                    while pixel < end:
                        if count == lanes:
                            value = simd.load(source, (image + pixel) * C + c)
                        else:
                            value = simd.load_first(source, (image + pixel) * C + c, count)
                        value = simd.multiply(value, signs)
                        better = simd.exceeds(value, best)
                        best = simd.select(better, value, best)
                        where = simd.select(better, simd.splat_position(source, pixel), where)
                        pixel += columns.step
                    ih += rows.step
                at = (task * OW + ow) * C + c
                simd.store_first(target, at, simd.multiply(best, signs), count)
                if indices.size:
                    simd.store_positions(places, at, where, count)


@_jit.kernel
def extreme_serial(x, rows, columns, sign, out, indices, tasks):
    extreme_tasks(x, rows, columns, sign, out, indices, 0, tasks)


@_jit.parallel_kernel
def extreme_parallel(workers, x, rows, columns, sign, out, indices, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        extreme_tasks(x, rows, columns, sign, out, indices, first, last)


# ---- average ----------------------------------------------------------------------------------------------------


@_jit.tasks
def average_tasks(x, rows, columns, out, first, last):
    """Output rows [first, last) of all N * OH: the sum of each window, divided by the product of its two counts.

    As in the kernel above, a vector of channels runs over its window in registers.  The sum is one of bands of
    SUM_BLOCK rows, a band one of rows, a row one of runs of SUM_BLOCK pixels: an order that the window alone decides,
    and that pooling along the rows first does not change.  Each output element has one writer.
    """
    _, IH, IW, C = x.shape
    _, OH, OW, _ = out.shape
    source, target = simd.span(x), simd.span(out)
    lanes = simd.lane_count(source)
    zeros = simd.splat(source, x.dtype.type(0))
    for task in range(first, last):
        image = task // OH * IH * IW
        oh = task % OH
        top, bottom = rows.start[oh], rows.stop[oh]
        for ow in range(OW):
            left, right = columns.start[ow], columns.stop[ow]
            divisor = simd.splat(source, x.dtype.type(rows.counts[oh] * columns.counts[ow]))
            for c in range(0, C, lanes):
                count = min(lanes, C - c)
                total = zeros
                for band_top in range(top, bottom, SUM_BLOCK):
                    band = zeros
                    for ih in range(band_top, min(band_top + SUM_BLOCK, bottom)):
                        row = zeros
                        for run_left in range(left, right, SUM_BLOCK):
                            run = zeros
                            for iw in range(run_left, min(run_left + SUM_BLOCK, right)):
                                at = (image + ih * IW + iw) * C + c
                                if count == lanes:
                                    run = simd.add(run, simd.load(source, at))
                                else:
                                    run = simd.add(run, simd.load_first(source, at, count))
                            row = simd.add(row, run)
                        band = simd.add(band, row)
                    total = simd.add(total, band)
                simd.store_first(target, (task * OW + ow) * C + c, simd.divide(total, divisor), count)


@_jit.kernel
def average_serial(x, rows, columns, out, tasks):
    average_tasks(x, rows, columns, out, 0, tasks)


@_jit.parallel_kernel
def average_parallel(workers, x, rows, columns, out, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        average_tasks(x, rows, columns, out, first, last)


# ---- scatter ----------------------------------------------------------------------------------------------------


@_jit.tasks
def scatter_tasks(values, indices, accumulate, out, rejected, first, last):
    """Blocks of channels [first, last) of all images: every value goes to its stored pixel of ``out``.

    ``out`` (N, IH * IW, C) holds zeros.  With *accumulate* the values of one pixel are added, in the order of the
    outputs; otherwise the last one stays.  An index outside the plane is counted in ``rejected`` and moves nothing.
    Neighbouring blocks of one image are swept together, so that memory is read in order.  Each channel of an image has
    one writer, so there is no race whatever the indices are.
    """
    _, outputs, C = values.shape
    pixels = out.shape[1]
    source, places, target = simd.span(values), simd.span(indices), simd.span(out)
    blocks = (C + CHANNEL_BLOCK - 1) // CHANNEL_BLOCK
    task = first
    while task < last:
        n = task // blocks
        end = min(last, (n + 1) * blocks)
        start, stop = (task - n * blocks) * CHANNEL_BLOCK, min((end - n * blocks) * CHANNEL_BLOCK, C)
        outside = 0
        for output in range(n * outputs, (n + 1) * outputs):
            for c in range(start, stop):
                pixel = places[output * C + c]
                at = (n * pixels + pixel) * C + c
                if pixel < 0 or pixel >= pixels:
                    outside += 1
                elif accumulate:
                    target[at] = target[at] + source[output * C + c]
                else:
                    target[at] = source[output * C + c]
        rejected[task] = outside
        task = end


@_jit.kernel
def scatter_serial(values, indices, accumulate, out, rejected):
    scatter_tasks(values, indices, accumulate, out, rejected, 0, rejected.size)


@_jit.parallel_kernel
def scatter_parallel(workers, values, indices, accumulate, out, rejected):
    tasks = rejected.size
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        scatter_tasks(values, indices, accumulate, out, rejected, first, last)


# ---- the calls from Python --------------------------------------------------------------------------------------

Array = np.ndarray[Any, Any]
# Stands for "no positions wanted": the kernel has one type of argument, looks at its size, and stores none.
NO_INDICES = np.empty((0, 0, 0, 0), np.int64)


def extreme(x: Array, rows: Axis, columns: Axis, sign: int, out: Array, indices: Array = NO_INDICES) -> None:
    """Write the largest (``sign=1``) or smallest (``sign=-1``) pixel of each window into *out*, and where it is."""
    if not _in_two_passes(x, rows, columns):
        _extreme_pass(x, rows, columns, sign, out, indices)
        return
    N, IH, _, C = x.shape
    _, OH, OW, _ = out.shape
    along_rows = np.empty((N, IH, OW, C), x.dtype)
    positions = np.empty(along_rows.shape, np.int64) if indices.size else NO_INDICES
    _extreme_pass(x, single_pixels(IH), columns, sign, along_rows, positions)
    _extreme_pass(along_rows, rows, single_pixels(OW), sign, out, indices)
    if indices.size:
        chosen = indices.reshape(N, OH * OW, C)
        chosen[...] = np.take_along_axis(positions.reshape(N, IH * OW, C), chosen, axis=1)


def average(x: Array, rows: Axis, columns: Axis, out: Array) -> None:
    """Write the sum of each window, divided by the product of its two counts, into *out*."""
    if not _in_two_passes(x, rows, columns):
        _average_pass(x, rows, columns, out)
        return
    N, IH, _, C = x.shape
    OW = out.shape[2]
    along_rows = np.empty((N, IH, OW, C), x.dtype)
    one_column = single_pixels(OW)
    _average_pass(x, single_pixels(IH), columns._replace(counts=one_column.counts), along_rows)
    _average_pass(along_rows, rows, one_column._replace(counts=columns.counts), out)


def scatter(values: Array, indices: Array, accumulate: bool, out: Array) -> int:
    """Move *values* (N, outputs, C) to their pixels in the zeros of *out*; return how many indices lie outside."""
    N, _, C = values.shape
    rejected = np.zeros(N * -(-C // CHANNEL_BLOCK), np.int64)
    workers = threads.worker_count(values.size)
    threads.run(scatter_serial, scatter_parallel, workers, values, indices, accumulate, out, rejected)
    return int(rejected.sum())


def _extreme_pass(x: Array, rows: Axis, columns: Axis, sign: int, out: Array, indices: Array) -> None:
    workers, tasks = threads.worker_count(_work(x, rows, columns)), out.shape[0] * out.shape[1]
    arguments = x, rows, columns, x.dtype.type(sign), out, indices, tasks
    threads.run(extreme_serial, extreme_parallel, workers, *arguments)


def _average_pass(x: Array, rows: Axis, columns: Axis, out: Array) -> None:
    workers, tasks = threads.worker_count(_work(x, rows, columns)), out.shape[0] * out.shape[1]
    threads.run(average_serial, average_parallel, workers, x, rows, columns, out, tasks)


def _in_two_passes(x: Array, rows: Axis, columns: Axis) -> bool:
    """Whether to pool along the rows of x first and then down the columns of the result: bits and indices are the same.

    It helps in two cases.  The tasks of one pass are output rows, so global pooling of one large image would be a
    single task; the first of two passes has a task for every row of x.  And large windows that overlap share their
    rows: 13 + 13 pixels instead of 13 * 13.  The price is an array of IH x OW pixels between the passes.
    """
    few_tall_windows = x.shape[0] * rows.start.size < FEW_ROWS and rows.largest >= FEW_ROWS
    pixels, pixels_in_two = rows.total * columns.total, x.shape[1] * columns.total + rows.total * columns.start.size
    return few_tall_windows or pixels > OVERLAP_GAIN * pixels_in_two


def _work(x: Array, rows: Axis, columns: Axis) -> int:
    """Pixels that all windows hold together."""
    return x.shape[0] * x.shape[3] * rows.total * columns.total
