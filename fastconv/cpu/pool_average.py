"""The average of each window; read the other way, its tables give the gradient."""

from __future__ import annotations

import numpy as np
from numba import prange

from fastconv import _jit, memory
from fastconv.cpu import codegen, simd, tiles
from fastconv.cpu.product import fetch

# Rows of a table of windows.
FIRST, PIXELS, COUNT = range(3)
# Pixels that one partial sum of an average takes: rounding errors grow with the longest chain of additions, so a
# window of any size is summed in three short chains instead of one long one.
SUM_BLOCK = 64
# Vectors of channels that run over a window together, four cache lines: the memory behind a window of many pixels is
# then read from end to end, which the CPU foresees better than any prefetch.
_VECTORS = max(1, 256 // codegen.VECTOR_BYTES)
# Numbers by which loads are announced in small windows, a page of float32; twice as many where they go over x in order.
# A row of 2x2 windows is read as two streams, each a window long, which the CPU does not foresee where they come from
# memory.  8 images, one thread (Zen 5), one page and two, times as fast: maxima of 256 channels at 56 x 56 1.8, 1.5; of
# 512 at 28 x 28 2.1, 2.3; of 64 at 224 x 224 2.1, 1.8; averages of 256 1.6, 1.6; of 128 1.2, 1.1.  Two threads: 1.4,
# 1.4; 1.35, 1.5; 1.2, 1.3; 1.2, 1.3; .9, 1.0.
AHEAD = 1024
# Windows of at least so many pixels are summed row by row where they have more channels than that.
_MANY_PIXELS = 16
# Bytes of a pixel up to which windows that share no pixels are read in registers, a block of channels after the other.
# One after the other, pixels of 768 to 2048 bytes are 1.3 to 2.4 times as fast, those of 512 bytes .7 to 1.1 times, in
# 13 to 26 MB that come from memory; where the last cache holds them all, they are .6 to .9 times as fast.
_FEW_BYTES = 512


def _window_sum(vectors):
    """The sum of a window, divided by *divisor*, for *vectors* vectors of channels, which stay in registers."""

    @_jit.inline
    def add_rows(band, x, at, row_step, rows, pixel_step, pixels, announced):
        """Rows of at most SUM_BLOCK pixels each; so many numbers that lie AHEAD of each pixel are asked for."""
        for _ in range(rows):
            run = tiles.zeros(x, 1, vectors)
            here = at
            for _ in range(pixels):
                fetch(x, here + AHEAD, announced)
                run = tiles.add(run, tiles.load(x, here, 0, 1, vectors))
                here += pixel_step
            band = tiles.add(band, run)
            at += row_step
        return band

    @_jit.inline
    def block(x, at, row_step, rows, pixel_step, pixels, begun, divisor, out, out_at, outputs, stream):
        total = tiles.load(out, out_at, 0, 1, vectors) if begun else tiles.zeros(x, 1, vectors)
        if rows <= SUM_BLOCK and pixels <= SUM_BLOCK:
            announced = vectors * simd.lane_count(x) if rows * pixels < _MANY_PIXELS else 0
            total = add_rows(total, x, at, row_step, rows, pixel_step, pixels, announced)
        else:
            for top in range(0, rows, SUM_BLOCK):
                band = tiles.zeros(x, 1, vectors)
                for row in range(top, min(top + SUM_BLOCK, rows)):
                    row_sum = tiles.zeros(x, 1, vectors)
                    for left in range(0, pixels, SUM_BLOCK):
                        start = at + row * row_step + left * pixel_step
                        count = min(SUM_BLOCK, pixels - left)
                        row_sum = add_rows(row_sum, x, start, row_step, 1, pixel_step, count, 0)
                    band = tiles.add(band, row_sum)
                total = tiles.add(total, band)
        if divisor != 1:
            total = tiles.divide(total, tiles.full(x, divisor, 1, vectors))
        for _ in range(outputs):
            tiles.put(total, out, out_at, 0, stream)
            out_at += pixel_step

    return block


_sum_of_many = _window_sum(_VECTORS)
_sum_of_one = _window_sum(1)


@_jit.inline
def _sum_of_last(x, at, row_step, rows, channels, pixels, divisor, out, out_at, outputs, stream):
    """The sums of the channels that `_sum_of_many` leaves over; the last vector is moved back to end with the last."""
    lanes = simd.lane_count(x)
    c = channels // (_VECTORS * lanes) * (_VECTORS * lanes)
    while c < channels:
        c = min(c, channels - lanes)
        _sum_of_one(x, at + c, row_step, rows, channels, pixels, False, divisor, out, out_at + c, outputs, stream)
        c += lanes


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


@_jit.inline
def goes_in_order(x, width):
    """Whether windows that share no pixels go over x in the order of memory, *width* channels at a time.

    The CPU foresees that.  It pays for pixels of many channels where what computed x has written it past the caches.
    """
    C = x.shape[3]
    return x.size * x.itemsize >= memory.LARGE and C * x.itemsize > _FEW_BYTES and C % width == 0


@_jit.inline
def _sum_in_order(x, at, row_step, rows, pixel_step, pixels, divisor, out, out_at, channels, stream, held):
    """The sum of all channels of a window, one pixel after the other; *held* are those of a row and of rows before."""
    width = _VECTORS * simd.lane_count(x)
    for row in range(rows):
        for pixel in range(pixels):
            here = at + row * row_step + pixel * pixel_step
            for c in range(0, channels, width):
                fetch(x, here + c + 2 * AHEAD, width)
                run = tiles.zeros(x, 1, _VECTORS)
                if pixel > 0:
                    run = tiles.load(held, c, 0, 1, _VECTORS)
                run = tiles.add(run, tiles.load(x, here + c, 0, 1, _VECTORS))
                if pixel + 1 < pixels:
                    tiles.store(run, held, c, 0)
                    continue
                total = tiles.zeros(x, 1, _VECTORS)
                if row > 0:
                    total = tiles.load(held, channels + c, 0, 1, _VECTORS)
                total = tiles.add(total, run)
                if row + 1 < rows:
                    tiles.store(total, held, channels + c, 0)
                else:
                    total = tiles.divide(total, tiles.full(x, divisor, 1, _VECTORS))
                    tiles.put(total, out, out_at + c, 0, stream)


@_jit.inline
def _alike(table, first, step, windows):
    """How many of *windows* from *first* on begin *step* pixels apart, and hold and divide by as many pixels."""
    count = 1
    while (
        count < windows
        and table[FIRST, first + count] == table[FIRST, first] + count * step
        and table[PIXELS, first + count] == table[PIXELS, first]
        and table[COUNT, first + count] == table[COUNT, first]
    ):
        count += 1
    return count


@_jit.tasks
def average_tasks(x, rows, columns, out, first, last):
    """Output rows [first, last) of all N * OH: the sum of each window, divided by the product of its two counts.

    As in `pool_max`, vectors of channels run over their window in registers.  Where a window has many pixels of
    many channels, they do so one row of it at a time, and the output keeps their sums meanwhile: memory is then read
    as few streams, one for each pixel of the row.  The sum is one of bands of SUM_BLOCK rows, a band one of rows, a
    row one of runs of SUM_BLOCK pixels: an order that the window alone decides, and that pooling along the rows first
    does not change.  Windows that share no pixels of a large image go over it in order, all channels of a pixel before
    the next.  Each output element has one writer.
    """
    _, IH, IW, C = x.shape
    _, OH, OW, _ = out.shape
    source, target = simd.span(x), simd.span(out)
    lanes = simd.lane_count(source)
    width = _VECTORS * lanes
    stream = simd.streams(out, C)
    in_order = goes_in_order(x, width)
    held = simd.span(np.empty(2 * C if in_order else 0, x.dtype))
    for task in range(first, last):
        oh = task % OH
        top, height = rows[FIRST, oh], rows[PIXELS, oh]
        apart = in_order and height <= SUM_BLOCK and (oh + 1 == OH or top + height <= rows[FIRST, oh + 1])
        ow = 0
        while ow < OW:
            left, pixels = columns[FIRST, ow], columns[PIXELS, ow]
            whole = x.dtype.type(rows[COUNT, oh] * columns[COUNT, ow])
            at = (task // OH * IH * IW + top * IW + left) * C
            out_at = (task * OW + ow) * C
            if C < lanes:
                _sum_of_few(source, at, IW * C, height, C, pixels, whole, target, out_at, C)
                ow += 1
                continue
            outputs = _alike(columns, ow, 0, OW - ow)
            ow += outputs
            if apart and outputs == 1 and pixels <= SUM_BLOCK:
                _sum_in_order(source, at, IW * C, height, C, pixels, whole, target, out_at, C, stream, held)
                continue
            if outputs == 1 and height * pixels < _MANY_PIXELS:
                # what is the same for all of these windows takes as long as the sum of one
                step = columns[FIRST, ow] - left if ow < OW else 0
                alike = _alike(columns, ow - 1, step, OW - ow + 1)
                ow += alike - 1
                for window in range(alike):
                    here, there = at + window * step * C, out_at + window * C
                    for c in range(0, C // width * width, width):
                        _sum_of_many(
                            source, here + c, IW * C, height, C, pixels, False, whole, target, there + c, 1, stream
                        )
                    _sum_of_last(source, here, IW * C, height, C, pixels, whole, target, there, 1, stream)
                continue
            by_rows = C > width and height * pixels >= _MANY_PIXELS and height <= SUM_BLOCK and pixels <= SUM_BLOCK
            steps = height if by_rows else 1
            for step in range(steps):
                divisor = whole if step == steps - 1 else x.dtype.type(1)
                here = at + step * IW * C
                for c in range(0, C // width * width, width):
                    _sum_of_many(
                        source, here + c, IW * C, height // steps, C, pixels, step > 0, divisor, target, out_at + c,
                        outputs, stream and steps == 1,
                    )  # fmt: skip
            _sum_of_last(source, at, IW * C, height, C, pixels, whole, target, out_at, outputs, stream)


@_jit.kernel
def average_serial(x, rows, columns, out, tasks):
    average_tasks(x, rows, columns, out, 0, tasks)


@_jit.parallel_kernel
def average_parallel(workers, x, rows, columns, out, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        average_tasks(x, rows, columns, out, first, last)
