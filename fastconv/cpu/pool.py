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
from fastconv.cpu import simd, tiles
from fastconv.geometry import AxisWindows as Axis, single_pixels

# Pixels that one partial sum of an average takes: rounding errors grow with the longest chain of additions, so a
# window of any size is summed in three short chains instead of one long one.
SUM_BLOCK = 64
# Vectors of channels that run over a window together: they share the work of finding its pixels.
_VECTORS = 4
# Numbers by which loads are announced in a small window, a page of float32; windows of at least so many pixels announce
# the same pixel of the next vectors of channels instead, which are read only after all their other pixels.
_AHEAD = 1024
_MANY_PIXELS = 16
# float32 numbers in a cache line.
_LINE = 16
# Channels that one task of a scatter owns: a cache line of float32, so that no two tasks write to one line.
CHANNEL_BLOCK = 16
# Fewer output rows than this, over windows with at least so many rows, are pooled in two passes (see `_in_two_passes`).
FEW_ROWS = 16
# Two passes must visit so many times fewer pixels than one; the array between them and its positions cost the rest.
OVERLAP_GAIN = 4


@_jit.inline
def _fetch(x, at, vectors):
    """Ask for the cache lines of some vectors of x."""
    for line in range(0, vectors * simd.lane_count(x), _LINE):
        simd.prefetch_for_read(x, at + line)


# ---- largest pixel ----------------------------------------------------------------------------------------------


def _largest(vectors):
    """The largest of ``sign * x`` in a window, for *vectors* vectors of channels that stay in registers."""

    @_jit.inline
    def block(x, at, row_step, rows, pixel_step, pixels, ahead, sign, out, out_at, lowest):
        signs = tiles.full(x, sign, 1, vectors)
        best = tiles.full(x, lowest, 1, vectors)
        for _ in range(rows):
            here = at
            for _ in range(pixels):
                _fetch(x, here + ahead, vectors)
                best = tiles.larger(tiles.multiply(tiles.load(x, here, 0, 1, vectors), signs), best)
                here += pixel_step
            at += row_step
        tiles.store(tiles.multiply(best, signs), out, out_at, 0)

    return block


_largest_of_many = _largest(_VECTORS)
_largest_of_one = _largest(1)


@_jit.inline
def _largest_and_where(x, at, row_step, rows, pixel_step, pixels, sign, out, indices, out_at, count, lowest, place):
    """The largest of ``sign * x`` in a window and its position, for *count* channels, at most one vector of them.

    A later pixel wins only if it is larger, or NaN: PyTorch's rule.  *place* is (the first position, the distance of
    rows, the distance of pixels).
    """
    lanes = simd.lane_count(x)
    signs = simd.splat(x, sign)
    best = simd.splat(x, lowest)
    first, row_distance, pixel_distance = place
    where = simd.splat_position(x, first)
    for _ in range(rows):
        here, position = at, first
        for _ in range(pixels):
            value = simd.load(x, here) if count == lanes else simd.load_first(x, here, count)
            value = simd.multiply(value, signs)
            better = simd.exceeds(value, best)
            best = simd.select(better, value, best)
            where = simd.select(better, simd.splat_position(x, position), where)
            here += pixel_step
            position += pixel_distance
        at += row_step
        first += row_distance
    if count == lanes:
        simd.store(out, out_at, simd.multiply(best, signs))
    else:
        simd.store_first(out, out_at, simd.multiply(best, signs), count)
    if indices.size:
        simd.store_positions(indices, out_at, where, count)


@_jit.tasks
def extreme_tasks(x, rows, columns, sign, out, indices, first, last):
    """Output rows [first, last) of all N * OH: the largest of ``sign * x`` in each window, and where it is.

    Vectors of channels run over the pixels of their window in reading order and stay in registers; the windows of a
    row follow one another, so that rows of x shared by neighbours come from the cache.  The first position is a pixel
    of the image, so an index is valid even where all pixels are -inf.  The last vector of channels is moved back to
    end with the last channel: what it computes twice has the same bits.
    Each output element has one writer.
    """
    _, IH, IW, C = x.shape
    _, OH, OW, _ = out.shape
    source, target, places = simd.span(x), simd.span(out), simd.span(indices)
    lanes = simd.lane_count(source)
    width = _VECTORS * lanes
    lowest = x.dtype.type(-np.inf)
    row_step, pixel_step = rows.step * IW * C, columns.step * C
    for task in range(first, last):
        oh = task % OH
        top = rows.start[oh]
        height = (rows.stop[oh] - top + rows.step - 1) // rows.step
        for ow in range(OW):
            left = columns.start[ow]
            pixels = (columns.stop[ow] - left + columns.step - 1) // columns.step
            at = (task // OH * IH * IW + top * IW + left) * C
            out_at = (task * OW + ow) * C
            ahead = width if height * pixels >= _MANY_PIXELS else _AHEAD
            c = 0
            if indices.size or C < lanes:
                place = top * IW + left, rows.step * IW, columns.step
                while c < C:
                    count = min(lanes, C)
                    c = min(c, C - count)
                    _largest_and_where(
                        source, at + c, row_step, height, pixel_step, pixels, sign,
                        target, places, out_at + c, count, lowest, place,
                    )  # fmt: skip
                    c += lanes
            else:
                while c + width <= C:
                    _largest_of_many(
                        source, at + c, row_step, height, pixel_step, pixels, ahead, sign, target, out_at + c, lowest
                    )
                    c += width
                while c < C:
                    c = min(c, C - lanes)
                    _largest_of_one(
                        source, at + c, row_step, height, pixel_step, pixels, ahead, sign, target, out_at + c, lowest
                    )
                    c += lanes


@_jit.kernel
def extreme_serial(x, rows, columns, sign, out, indices, tasks):
    extreme_tasks(x, rows, columns, sign, out, indices, 0, tasks)


@_jit.parallel_kernel
def extreme_parallel(workers, x, rows, columns, sign, out, indices, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        extreme_tasks(x, rows, columns, sign, out, indices, first, last)


# ---- average ----------------------------------------------------------------------------------------------------


def _window_sum(vectors):
    """The sum of a window divided by *divisor*, for *vectors* vectors of channels that stay in registers."""

    @_jit.inline
    def band_sum(x, at, row_step, rows, pixel_step, pixels, ahead):
        """Rows of at most SUM_BLOCK pixels each."""
        band = tiles.zeros(x, 1, vectors)
        for _ in range(rows):
            run = tiles.zeros(x, 1, vectors)
            here = at
            for _ in range(pixels):
                _fetch(x, here + ahead, vectors)
                run = tiles.add(run, tiles.load(x, here, 0, 1, vectors))
                here += pixel_step
            band = tiles.add(band, run)
            at += row_step
        return band

    @_jit.inline
    def block(x, at, row_step, rows, pixel_step, pixels, ahead, divisor, out, out_at):
        if rows <= SUM_BLOCK and pixels <= SUM_BLOCK:
            total = band_sum(x, at, row_step, rows, pixel_step, pixels, ahead)
        else:
            total = tiles.zeros(x, 1, vectors)
            for top in range(0, rows, SUM_BLOCK):
                band = tiles.zeros(x, 1, vectors)
                for row in range(top, min(top + SUM_BLOCK, rows)):
                    row_sum = tiles.zeros(x, 1, vectors)
                    for left in range(0, pixels, SUM_BLOCK):
                        start = at + row * row_step + left * pixel_step
                        run = band_sum(x, start, row_step, 1, pixel_step, min(SUM_BLOCK, pixels - left), ahead)
                        row_sum = tiles.add(row_sum, run)
                    band = tiles.add(band, row_sum)
                total = tiles.add(total, band)
        if divisor != 1:
            total = tiles.divide(total, tiles.full(x, divisor, 1, vectors))
        tiles.store(total, out, out_at, 0)

    return block


_sum_of_many = _window_sum(_VECTORS)
_sum_of_one = _window_sum(1)


@_jit.inline
def _sum_of_few(x, at, row_step, rows, pixel_step, pixels, divisor, out, out_at, count):
    """The same for *count* channels, less than a vector of them."""
    zeros = simd.zeros(x)
    total = zeros
    for band_top in range(0, rows, SUM_BLOCK):
        band = zeros
        for row in range(band_top, min(band_top + SUM_BLOCK, rows)):
            row_sum = zeros
            for left in range(0, pixels, SUM_BLOCK):
                run = zeros
                for pixel in range(left, min(left + SUM_BLOCK, pixels)):
                    value = simd.load_first(x, at + row * row_step + pixel * pixel_step, count)
                    run = simd.add(run, value)
                row_sum = simd.add(row_sum, run)
            band = simd.add(band, row_sum)
        total = simd.add(total, band)
    simd.store_first(out, out_at, simd.divide(total, simd.splat(x, divisor)), count)


@_jit.tasks
def average_tasks(x, rows, columns, out, first, last):
    """Output rows [first, last) of all N * OH: the sum of each window, divided by the product of its two counts.

    As in the kernel above, vectors of channels run over their window in registers.  The sum is one of bands of
    SUM_BLOCK rows, a band one of rows, a row one of runs of SUM_BLOCK pixels: an order that the window alone decides,
    and that pooling along the rows first does not change.  Each output element has one writer.
    """
    _, IH, IW, C = x.shape
    _, OH, OW, _ = out.shape
    source, target = simd.span(x), simd.span(out)
    lanes = simd.lane_count(source)
    width = _VECTORS * lanes
    for task in range(first, last):
        oh = task % OH
        top = rows.start[oh]
        height = rows.stop[oh] - top
        for ow in range(OW):
            left = columns.start[ow]
            pixels = columns.stop[ow] - left
            divisor = x.dtype.type(rows.counts[oh] * columns.counts[ow])
            at = (task // OH * IH * IW + top * IW + left) * C
            out_at = (task * OW + ow) * C
            ahead = width if height * pixels >= _MANY_PIXELS else _AHEAD
            c = 0
            if C < lanes:
                _sum_of_few(source, at, IW * C, height, C, pixels, divisor, target, out_at, C)
                c = C
            while c + width <= C:
                _sum_of_many(source, at + c, IW * C, height, C, pixels, ahead, divisor, target, out_at + c)
                c += width
            while c < C:
                c = min(c, C - lanes)
                _sum_of_one(source, at + c, IW * C, height, C, pixels, ahead, divisor, target, out_at + c)
                c += lanes


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

    ``out`` (N, IH * IW, C) is filled with zeros first, image by image, so that they are still in the cache.  With
    *accumulate* the values of one pixel are added, in the order of the outputs; otherwise the last one stays.  An index
    outside the plane is counted in ``rejected`` and moves nothing.
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
        for pixel in range(n * pixels, (n + 1) * pixels):
            for c in range(start, stop):
                target[pixel * C + c] = 0
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
    """Move *values* (N, outputs, C) to their pixels in *out*, zero elsewhere; return how many indices lie outside."""
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
