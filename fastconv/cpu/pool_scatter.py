"""Numbers to stored positions: the gradient of a maximum, and max_unpool.

Two ways with the same bits: cell by cell where windows lie side by side, anywhere in the image otherwise.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from fastconv import _jit
from fastconv.cpu import positions, simd, tiles

# Indices that a scatter looks at before it uses them: both times they should come from the nearest cache.
_LOOK_AHEAD = 1024
# Channels that one task of a scatter owns: a cache line of float32, so that no two tasks write to one line.
CHANNEL_BLOCK = 16
# Vectors of channels that share the work of finding the pixels of a cell.
_VECTORS = 4


@_jit.inline
def _clear(out, start, pixels, pixel_step, channels):
    """Zeros for some channels of some pixels."""
    if channels == pixel_step:
        pixels, channels = 1, pixels * channels
    for pixel in range(pixels):
        for c in range(channels):
            out[start + pixel * pixel_step + c] = 0


@_jit.tasks
def scatter_tasks(values, indices, accumulate, out, rejected, worker, first, last):
    """Blocks of channels [first, last) of all images: every value goes to its stored pixel of ``out``, zero elsewhere.

    With *accumulate* the values of one pixel are added, in the order of the outputs; otherwise the last one stays.  An
    index outside the plane ends the work on its image and is noted in ``rejected``.
    ``out`` (N, IH * IW, C) is filled with zeros just before it is needed: a few outputs at a time say how far their
    indices reach, and since those of the next outputs lie near them, the zeros are still in the cache.  Neighbouring
    blocks of one image are swept together, so that memory is read in order.
    Each channel of an image has one writer, so there is no race whatever the indices are.
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
        task = end
        channels = stop - start
        chunk = max(1, _LOOK_AHEAD // channels)
        image = n * pixels * C + start
        cleared = 0
        for begin in range(n * outputs, (n + 1) * outputs, chunk):
            finish = min(begin + chunk, (n + 1) * outputs)
            reach, signs = 0, 0
            for output in range(begin, finish):
                for at in range(output * C + start, output * C + stop):
                    reach = max(reach, places[at])
                    signs |= places[at]
            if signs < 0 or reach >= pixels:
                rejected[worker] = 1
                break
            if reach >= cleared:
                _clear(target, image + cleared * C, reach + 1 - cleared, C, channels)
                cleared = reach + 1
            for output in range(begin, finish):
                here = output * C + start
                if accumulate:
                    for c in range(channels):
                        at = image + places[here + c] * C + c
                        target[at] = target[at] + source[here + c]
                else:
                    for c in range(channels):
                        target[image + places[here + c] * C + c] = source[here + c]
        _clear(target, image + cleared * C, pixels - cleared, C, channels)


@_jit.kernel
def scatter_serial(values, indices, accumulate, out, rejected, tasks):
    scatter_tasks(values, indices, accumulate, out, rejected, 0, 0, tasks)


@_jit.parallel_kernel
def scatter_parallel(workers, values, indices, accumulate, out, rejected, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        # a prange counts without a sign: as an argument that would be one more kernel to compile
        scatter_tasks(values, indices, accumulate, out, rejected, np.int64(worker), first, last)


# ---- one window for each pixel ----------------------------------------------------------------------------------


def _give(vectors):
    """Every pixel of a cell: *values* where it is the stored one, zero elsewhere; whether all values found a pixel."""

    @_jit.inline
    def block(values, indices, at, zero, first, rows, row_distance, pixels, out, out_at, row_step, pixel_step, stream):
        value = tiles.add(tiles.load(values, at, 0, 1, vectors), tiles.full(values, zero, 1, vectors))
        where = positions.load(values, indices, at, first, vectors)
        found = tiles.zeros(values, 1, 1)
        distance_of_row = 0
        for _ in range(rows):
            here, distance = out_at, distance_of_row
            for _ in range(pixels):
                given, found = positions.where_equal(value, where, found, distance)
                tiles.put(given, out, here, 0, stream)
                here += pixel_step
                distance += 1
            out_at += row_step
            distance_of_row += row_distance
        return positions.all_equal(found, vectors)

    return block


_give_many = _give(_VECTORS)
_give_one = _give(1)


@_jit.tasks
def give_tasks(values, indices, zero, out, elsewhere, worker, first, last):
    """Output rows [first, last) of all N * OH: `scatter_tasks` where an image is cut into one cell for each window.

    Pooling windows mostly lie side by side: then the image of ``out`` (N, IH, IW, C) falls into cells of
    ``IH // OH`` rows and ``IW // OW`` columns, more at the end, and each pixel can only be the one that the window of
    its cell took.  So every pixel is written once, vector by vector, and none is cleared before.  Where an index lies
    outside its cell, this is noted in ``elsewhere`` and the work ends.  *zero* is added to the values.
    Each element of ``out`` has one writer.
    """
    _, IH, IW, C = out.shape
    _, OH, OW, _ = values.shape
    source, places, target = simd.span(values), simd.span(indices), simd.span(out)
    lanes = simd.lane_count(source)
    width = _VECTORS * lanes
    high, wide = IH // OH, IW // OW
    stream = simd.streams(out, C)
    for task in range(first, last):
        oh = task % OH
        top = oh * high
        height = high if oh < OH - 1 else IH - top
        for ow in range(OW):
            left = ow * wide
            pixels = wide if ow < OW - 1 else IW - left
            place = top * IW + left
            at, out_at = (task * OW + ow) * C, (task // OH * IH * IW + place) * C
            inside = True
            c = 0
            while c + width <= C:
                inside &= _give_many(
                    source, places, at + c, zero, place, height, IW, pixels, target, out_at + c, IW * C, C, stream
                )
                c += width
            while c < C:
                c = min(c, C - lanes)
                inside &= _give_one(
                    source, places, at + c, zero, place, height, IW, pixels, target, out_at + c, IW * C, C, stream
                )
                c += lanes
            if not inside:
                elsewhere[worker] = 1
                return


@_jit.kernel
def give_serial(values, indices, zero, out, elsewhere, tasks):
    give_tasks(values, indices, zero, out, elsewhere, 0, 0, tasks)


@_jit.parallel_kernel
def give_parallel(workers, values, indices, zero, out, elsewhere, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        # a prange counts without a sign: as an argument that would be one more kernel to compile
        give_tasks(values, indices, zero, out, elsewhere, np.int64(worker), first, last)
