"""The largest or smallest pixel of each window, and where it is.

The smallest pixel is the largest one of ``-x``, and changing a sign is exact.  Positions are kept beside the maxima, in
lanes of the same width, and become int64 when they are stored: one comparison then serves both.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from fastconv import _jit
from fastconv.cpu import positions, simd, tiles
from fastconv.cpu.pool_average import AHEAD, FIRST, PIXELS, goes_in_order
from fastconv.cpu.product import fetch

# Vectors of channels that run over a window together: they share the work of finding its pixels.
_VECTORS = 4
# Windows of at least so many pixels announce the same pixel of the next vectors of channels, which are read only after
# all their other pixels; small ones what lies AHEAD.
_MANY_PIXELS = 16


def _largest(vectors):
    """The largest of ``sign * x`` in a window, for *vectors* vectors of channels that stay in registers."""

    @_jit.inline
    def block(x, at, row_step, rows, pixel_step, pixels, ahead, sign, out, out_at, lowest, stream):
        signs = tiles.full(x, sign, 1, vectors)
        best = tiles.full(x, lowest, 1, vectors)
        for _ in range(rows):
            here = at
            for _ in range(pixels):
                fetch(x, here + ahead, vectors * simd.lane_count(x))
                best = tiles.larger(tiles.multiply(tiles.load(x, here, 0, 1, vectors), signs), best)
                here += pixel_step
            at += row_step
        tiles.put(tiles.multiply(best, signs), out, out_at, 0, stream)

    return block


_largest_of_many = _largest(_VECTORS)
_largest_of_one = _largest(1)


def _largest_and_where(vectors):
    """The same, and the position of the pixel taken: *place* for the first one of the window.

    Positions are counted from the first pixel, in lanes as wide as those of the pixels: one comparison serves both.
    """

    @_jit.inline
    def block(
        x, at, row_step, rows, pixel_step, pixels, ahead, sign, out, indices, out_at, lowest, place, row_distance,
        pixel_distance, stream,
    ):  # fmt: skip
        signs = tiles.full(x, sign, 1, vectors)
        best = tiles.full(x, lowest, 1, vectors)
        where = tiles.zeros(x, 1, vectors)
        distance_of_row = 0
        for _ in range(rows):
            here, distance = at, distance_of_row
            for _ in range(pixels):
                fetch(x, here + ahead, vectors * simd.lane_count(x))
                value = tiles.multiply(tiles.load(x, here, 0, 1, vectors), signs)
                best, where = positions.larger_and_where(value, best, where, distance)
                here += pixel_step
                distance += pixel_distance
            at += row_step
            distance_of_row += row_distance
        tiles.put(tiles.multiply(best, signs), out, out_at, 0, stream)
        positions.store(where, place, indices, out_at)

    return block


_largest_and_where_of_many = _largest_and_where(_VECTORS)
_largest_and_where_of_one = _largest_and_where(1)


@_jit.inline
def _largest_in_order(
    x, at, row_step, rows, pixel_step, pixels, sign, out, indices, out_at, channels, place, row_distance,
    pixel_distance, stream, held,
):  # fmt: skip
    """Both for all channels of a window, one pixel after the other; *held* are the largest so far and their places."""
    signs, width = tiles.full(x, sign, 1, _VECTORS), _VECTORS * simd.lane_count(x)
    for pixel in range(rows * pixels):
        row, column = pixel // pixels, pixel % pixels
        here, distance = at + row * row_step + column * pixel_step, row * row_distance + column * pixel_distance
        for c in range(0, channels, width):
            fetch(x, here + c + 2 * AHEAD, width)
            value = tiles.multiply(tiles.load(x, here + c, 0, 1, _VECTORS), signs)
            best, where = value, tiles.zeros(x, 1, _VECTORS)
            if pixel > 0:
                best = tiles.load(held, c, 0, 1, _VECTORS)
                where = tiles.load(held, channels + c, 0, 1, _VECTORS)
            best, where = positions.larger_and_where(value, best, where, distance)
            if pixel + 1 < rows * pixels:
                tiles.store(best, held, c, 0)
                tiles.store(where, held, channels + c, 0)
            else:
                tiles.put(tiles.multiply(best, signs), out, out_at + c, 0, stream)
                if indices.size:
                    positions.store(where, place, indices, out_at + c)


@_jit.inline
def _largest_of_few(
    x, at, row_step, rows, pixel_step, pixels, sign, out, indices, out_at, count, lowest, place, row_distance,
    pixel_distance,
):  # fmt: skip
    """Both for *count* channels, less than a vector of them; no positions where *indices* are empty."""
    signs = simd.splat(x, sign)
    best = simd.splat(x, lowest)
    where = simd.splat_position(x, place)
    for _ in range(rows):
        here, position = at, place
        for _ in range(pixels):
            value = simd.multiply(simd.load_first(x, here, count), signs)
            better = simd.exceeds(value, best)
            best = simd.select(better, value, best)
            where = simd.select(better, simd.splat_position(x, position), where)
            here += pixel_step
            position += pixel_distance
        at += row_step
        place += row_distance
    simd.store_first(out, out_at, simd.multiply(best, signs), count)
    if indices.size:
        simd.store_positions(indices, out_at, where, count)


@_jit.tasks
def extreme_tasks(x, rows, columns, row_distance, column_distance, sign, out, indices, first, last):
    """Output rows [first, last) of all N * OH: the largest of ``sign * x`` in each window, and where it is.

    The pixels of a window are *row_distance* rows and *column_distance* columns apart.
    Vectors of channels run over the pixels of their window in reading order and stay in registers; the windows of a
    row follow one another, so that rows of x shared by neighbours come from the cache.  A later pixel wins only if it
    is larger, or NaN: PyTorch's rule.  The first position is a pixel of the image, so an index is valid even where all
    pixels are -inf.  The last vector of channels is moved back to end with the last channel: what it computes twice
    has the same bits.  Windows that share no pixels of a large image go over it in order instead, all channels of a
    pixel before the next.  Each output element has one writer.
    """
    _, IH, IW, C = x.shape
    _, OH, OW, _ = out.shape
    source, target, places = simd.span(x), simd.span(out), simd.span(indices)
    lanes = simd.lane_count(source)
    width = _VECTORS * lanes
    lowest = x.dtype.type(-np.inf)
    row_step, pixel_step = row_distance * IW * C, column_distance * C
    stream = simd.streams(out, C)
    in_order = goes_in_order(x, width)
    held = simd.span(np.empty(2 * C if in_order else 0, x.dtype))
    for task in range(first, last):
        oh = task % OH
        top, height = rows[FIRST, oh], rows[PIXELS, oh]
        apart = in_order and (oh + 1 == OH or top + (height - 1) * row_distance < rows[FIRST, oh + 1])
        for ow in range(OW):
            left, pixels = columns[FIRST, ow], columns[PIXELS, ow]
            place = top * IW + left
            at = (task // OH * IH * IW + place) * C
            out_at = (task * OW + ow) * C
            ahead = width if height * pixels >= _MANY_PIXELS else AHEAD
            c = 0
            if C < lanes:
                _largest_of_few(
                    source, at, row_step, height, pixel_step, pixels, sign, target, places, out_at, C, lowest, place,
                    row_distance * IW, column_distance,
                )  # fmt: skip
            elif apart:
                _largest_in_order(
                    source, at, row_step, height, pixel_step, pixels, sign, target, places, out_at, C, place,
                    row_distance * IW, column_distance, stream, held,
                )  # fmt: skip
            elif indices.size:
                while c + width <= C:
                    _largest_and_where_of_many(
                        source, at + c, row_step, height, pixel_step, pixels, ahead, sign, target, places, out_at + c,
                        lowest, place, row_distance * IW, column_distance, stream,
                    )  # fmt: skip
                    c += width
                while c < C:
                    c = min(c, C - lanes)
                    _largest_and_where_of_one(
                        source, at + c, row_step, height, pixel_step, pixels, ahead, sign, target, places, out_at + c,
                        lowest, place, row_distance * IW, column_distance, stream,
                    )  # fmt: skip
                    c += lanes
            else:
                while c + width <= C:
                    _largest_of_many(
                        source, at + c, row_step, height, pixel_step, pixels, ahead, sign, target, out_at + c, lowest,
                        stream,
                    )  # fmt: skip
                    c += width
                while c < C:
                    c = min(c, C - lanes)
                    _largest_of_one(
                        source, at + c, row_step, height, pixel_step, pixels, ahead, sign, target, out_at + c, lowest,
                        stream,
                    )  # fmt: skip
                    c += lanes


@_jit.kernel
def extreme_serial(x, rows, columns, row_distance, column_distance, sign, out, indices, tasks):
    extreme_tasks(x, rows, columns, row_distance, column_distance, sign, out, indices, 0, tasks)


@_jit.parallel_kernel
def extreme_parallel(workers, x, rows, columns, row_distance, column_distance, sign, out, indices, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        extreme_tasks(x, rows, columns, row_distance, column_distance, sign, out, indices, first, last)
