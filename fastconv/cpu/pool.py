"""Pooling: largest, smallest and average pixel of a window, and moving pixels to and from stored positions.

Two tables (`geometry.AxisWindows`) say which rows and which columns a window holds, so one kernel serves plain,
dilated, ceil_mode, adaptive and global pooling.  The gradient of an average is again a sum over windows, read the other
way: a pixel of ``x`` collects from the range of windows that hold it (`geometry.covering_windows`).  The gradient of a
maximum goes to one stored position for each output.  This file decides how many threads and passes a pooling takes.

Ladder, microseconds on one core of a shared machine (AVX2, Zen 3), float32, batch 8:

    a kernel call, tables of windows as named tuples of arrays         4.8
        as plain arrays                                                0.8
    gradient of max 2x2 over 26x26x32: clear as far as the next
        indices reach, then pixel by pixel                              84
        cell by cell, every pixel written once                          51
    global average of 7x7x2048: all pixels of a block of channels,
        then the next block                                            283
        row by row of the window                                       122
        four cache lines at a time, no prefetch                         87
    its gradient: one division for each pixel                          296
        neighbours with the same window computed once                  175
        four cache lines at a time, no prefetch                         77

and milliseconds on an AVX-512 core (Zen 4), 2x2 windows of 8 x 56x56x256, which come from memory:

                                                             max    with positions    average
    a block of channels of all pixels, then the next         2.97        3.43           3.27
    pixel by pixel, all channels, in the order of memory     1.58        2.25           1.59

The global average of 112x112x64 takes 1.1 ms there, a row of x at a time.  Two rows together, two streams from memory,
take 1.2, and are 1.25 times as fast on the AVX2 core.  In one pass, without the end of a task at each row, it is 1.1 to
1.3 times as fast, nine other global averages 1 to 1.6 times, maxima 0.9 to 1.2 times.  What is the same for all windows
of a row, worked out once: averages of 2x2 1.0 to 1.7 times as fast, the more the nearer x is.

Two threads, PyTorch's time (2.13, the faster of its two layouts) over ours, geometric mean of the layers but the two
largest maxima, vgg 56 and inception: forward 1.13, gradients 1.49, both 1.44.  Max 2x2 of 8 x 11x11x64, 16 us on one
thread, takes 22 us on two.

    fastconv bench --net pool --pass forward,grad_x,all --against torch --threads 1,2
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import threads
from fastconv.cpu.pool_average import average_parallel, average_serial
from fastconv.cpu.pool_max import extreme_parallel, extreme_serial
from fastconv.cpu.pool_scatter import CHANNEL_BLOCK, give_parallel, give_serial, scatter_parallel, scatter_serial
from fastconv.geometry import AxisWindows as Axis, Pool2dGeometry, single_pixels

# Windows of so many rows are pooled in two passes where threads would have unequal shares (see `_in_two_passes`).
TALL = 16
# Two passes must visit so many times fewer pixels than one; the array between them and its positions cost the rest.
OVERLAP_GAIN = 4
# Channels below which a cell of a scatter does not fill a vector on every CPU: one of float32 with AVX-512.
_CELL_CHANNELS = 16

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
    _average_pass(x, single_pixels(IH), columns.divided_by(one_column.counts), along_rows)
    _average_pass(along_rows, rows, one_column.divided_by(columns.counts), out)


def scatter(values: Array, indices: Array, accumulate: bool, out: Array) -> bool:
    """Move *values* (N, OH, OW, C) to their pixels in *out*, zero elsewhere; the result is whether all lie inside."""
    N, OH, OW, C = values.shape
    _, IH, IW, _ = out.shape
    workers = threads.worker_count(values.nbytes + indices.nbytes + out.nbytes)
    failed = np.zeros(workers, np.int64)
    if 0 < OH <= IH and 0 < OW <= IW and C >= _CELL_CHANNELS:
        # what is added to nothing becomes 0 where it was -0
        zero = values.dtype.type(0 if accumulate else -0.0)
        threads.run(give_serial, give_parallel, workers, values, indices, zero, out, failed, N * OH)
        if not any(failed.tolist()):
            return True
        failed[:] = 0
    tasks = N * -(-C // CHANNEL_BLOCK)
    arguments = values.reshape(N, OH * OW, C), indices, accumulate, out.reshape(N, IH * IW, C), failed, tasks
    threads.run(scatter_serial, scatter_parallel, workers, *arguments)
    return not any(failed.tolist())


def extreme_backward(geometry: Pool2dGeometry, grad_out: Array, indices: Array, grad_x: Array) -> bool:
    """Hand the gradient of each window to the pixel that *indices* names; the result is whether all lie inside."""
    return scatter(grad_out, indices, True, grad_x)


def take(values: Array, indices: Array, out: Array) -> bool:
    """Write the pixels of *values* that *indices* name into *out*, channel by channel; whether all lie inside."""
    N, IH, IW, C = values.shape
    if indices.size and not 0 <= indices.min() <= indices.max() < IH * IW:
        return False
    places = indices.reshape(N, indices.shape[1] * indices.shape[2], C)
    out.reshape(places.shape)[...] = np.take_along_axis(values.reshape(N, IH * IW, C), places, axis=1)
    return True


def _extreme_pass(x: Array, rows: Axis, columns: Axis, sign: int, out: Array, indices: Array) -> None:
    workers, tasks = threads.worker_count(_bytes_read(x, rows, columns)), out.shape[0] * out.shape[1]
    arguments = x, rows.table, columns.table, rows.step, columns.step, x.dtype.type(sign), out, indices, tasks
    threads.run(extreme_serial, extreme_parallel, workers, *arguments)


def _average_pass(x: Array, rows: Axis, columns: Axis, out: Array) -> None:
    workers, tasks = threads.worker_count(_bytes_read(x, rows, columns)), out.shape[0] * out.shape[1]
    threads.run(average_serial, average_parallel, workers, x, rows.table, columns.table, out, tasks)


def _in_two_passes(x: Array, rows: Axis, columns: Axis) -> bool:
    """Whether to pool along the rows of x first and then down the columns of the result: bits and indices are the same.

    It helps in two cases.  The tasks of one pass are output rows, so global pooling of one large image would be a
    single task for all threads; the first of two passes has a task for every row of x.  And large windows that overlap
    share their rows: 13 + 13 pixels instead of 13 * 13.  The price is an array of IH x OW pixels between the passes.
    """
    workers, tasks = threads.worker_count(_bytes_read(x, rows, columns)), x.shape[0] * rows.outputs
    pixels, pixels_in_two = rows.total * columns.total, x.shape[1] * columns.total + rows.total * columns.outputs
    uneven = not threads.even(tasks, workers)
    return (uneven and rows.largest >= TALL) or pixels > OVERLAP_GAIN * pixels_in_two


def _bytes_read(x: Array, rows: Axis, columns: Axis) -> int:
    """The pixels that all windows hold together."""
    return x.itemsize * x.shape[0] * x.shape[3] * rows.total * columns.total
