"""Depthwise convolution, each channel with its own kernel: forward, grad_x and grad_weight.

One product needs one number of x and one of the weight, so there is no matrix product to win from; what counts is that
every number is loaded in full vectors of neighbouring channels and that memory never waits.

Ladder: PyTorch's time (2.13, oneDNN, the faster of its two layouts) over ours, one AVX2 core (Zen 3), batch 8, mean of
the nine depthwise layers of MobileNet:

                                                                  forward   grad_x   grad_weight
    one vector of channels of 8 pixels, every load masked           0.48     0.38       0.98
    whole vectors without masks, 4 pixels x 2 vectors; all phases
    of a stride in one pass over rows of grad_x; 3 taps of
    grad_weight in registers                                        0.93     1.05       1.07
    the rows that the next one needs are fetched meanwhile          1.17     1.36       1.09

    fastconv bench --net mobilenet_dw --pass forward,grad_x,grad_weight --against torch --threads 1

Rows of x copied to a window in the L1 cache, strip by strip, measured slower (forward 0.86): the copy costs more than
the conflicts it avoids.

Every output element is one chain of fused multiply-adds over (kh, kw), or over pixels (n, oh, ow) for grad_weight.
Taps that fall on padding are left out, so a chain has at most KH * KW links: the error is below ``eps * KH * KW``
times the sum of the absolute products.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import simd, tiles
from fastconv.cpu.activation import activate
from fastconv.cpu.epilogue import RELU, finish_vector
from fastconv.geometry import Conv2dGeometry

# A register tile: neighbouring output pixels times vectors of channels.  8 sums hide the latency of a multiply-add, and
# two AVX2 vectors are a cache line.
_PIXELS = 4
_VECTORS = 2
# Channels of a task of the forward pass, at least: runs of memory long enough for the hardware to fetch ahead.
_CHANNELS = 64
# Rows are cut into blocks of channels only where there are fewer rows than this for each thread.
_TASKS_PER_WORKER = 8
# float32 numbers in a cache line.
_LINE = 16
# grad_weight: taps of a kernel row whose sums are in registers together.
_TAPS = 3
# Channels of a task of grad_weight, and the least number of tasks into which the rows of all images are split for it;
# at most _SPLITS parts, whatever the number of threads.
_CHANNELS_OF_SUMS = 128
_TASKS = 32
_SPLITS = 16


# ---- which taps an output pixel sees ----------------------------------------------------------------------------


class _Axis(NamedTuple):
    """One axis of a depthwise pass, read from *source* pixels into *target* pixels.

    ``runs`` has a row (target, pixels, source, tap, taps) for each run of target pixels that see the same taps of the
    kernel: its pixels lie at ``target + j * target_step``; the taps are ``tap + k * tap_step`` for k < taps, and pixel
    j reads the source at ``source + j * source_step + k * dilation`` for tap k.
    """

    runs: NDArray[np.int64]
    source_step: int
    target_step: int
    dilation: int
    tap_step: int


class Plan(NamedTuple):
    """A depthwise pass: ``lines[row] = (source row, tap, taps)`` for each row of the target, and runs of columns.

    Flat, because Numba takes no tuple inside a tuple into a parallel loop.
    """

    N: int
    SOURCE_H: int
    SOURCE_W: int
    TARGET_H: int
    TARGET_W: int
    C: int
    KH: int
    KW: int
    lines: NDArray[np.int64]
    dilation_h: int
    tap_step_h: int
    runs: NDArray[np.int64]
    source_step: int
    target_step: int
    dilation_w: int
    tap_step_w: int


Row = tuple[int, int, int, int, int]


def _runs(
    first: int, step: int, pixels: int, source: int, stride: int, extent: int, taps: range, dilation: int
) -> Iterator[Row]:
    """Runs of the *pixels* from *first* on; pixel j reads tap number k at ``source + j * stride + k * dilation``."""

    def seen(j: int) -> tuple[int, int]:
        start = source + j * stride
        low = max(0, -(start // dilation))
        return low, max(low, min(len(taps), -(-(extent - start) // dilation)))

    for (low, high), group in groupby(range(pixels), seen):
        run = list(group)
        tap = taps[low] if high > low else 0
        yield first + run[0] * step, len(run), source + run[0] * stride + low * dilation, tap, high - low


def _forward_axis(source: int, target: int, kernel: int, stride: int, dilation: int, pad: int) -> _Axis:
    runs = list(_runs(0, 1, target, -pad, stride, source, range(kernel), dilation))
    return _Axis(_table(runs), stride, 1, dilation, 1)


def _grad_x_axis(source: int, target: int, kernel: int, stride: int, dilation: int, pad: int) -> _Axis:
    """Pixel i of x receives tap k from pixel o = (i + pad - k * dilation) / stride of grad_out, where that is whole.

    All pixels of one phase, i = phase + stride * j, have the same taps, every stride / gcd(stride, dilation)-th one:
    a convolution of stride 1 over grad_out with these taps in reverse order.
    """
    runs: list[Row] = []
    common = gcd(stride, dilation)
    for phase in range(min(stride, target)):
        met = [k for k in range(kernel) if (phase + pad - k * dilation) % stride == 0]
        taps = range(met[-1], -1, -(stride // common)) if met else range(0)
        first_read = (phase + pad - taps[0] * dilation) // stride if met else 0
        pixels = -(-(target - phase) // stride)
        runs += _runs(phase, stride, pixels, first_read, 1, source, taps, dilation // common)
    return _Axis(_table(runs), 1, stride, dilation // common, -(stride // common))


def _table(rows: Any) -> NDArray[np.int64]:
    table = np.array(rows, np.int64)
    table.setflags(write=False)
    return table


def _lines(axis: _Axis) -> NDArray[np.int64]:
    """(source, tap, taps) for each target pixel of an axis in turn."""
    lines = {
        target + j * axis.target_step: (source + j * axis.source_step, tap, taps)
        for target, pixels, source, tap, taps in axis.runs.tolist()
        for j in range(pixels)
    }
    return _table([lines[target] for target in sorted(lines)])


@lru_cache(maxsize=1024)
def forward_plan(geometry: Conv2dGeometry) -> Plan:
    """x is the source, out the target."""
    g = geometry
    rows = _forward_axis(g.IH, g.OH, g.KH, g.stride[0], g.dilation[0], g.padding[0][0])
    columns = _forward_axis(g.IW, g.OW, g.KW, g.stride[1], g.dilation[1], g.padding[1][0])
    sizes = g.N, g.IH, g.IW, g.OH, g.OW, g.OC, g.KH, g.KW
    return Plan(*sizes, _lines(rows), rows.dilation, rows.tap_step, *columns)


@lru_cache(maxsize=1024)
def grad_x_plan(geometry: Conv2dGeometry) -> Plan:
    """grad_out is the source, grad_x the target."""
    g = geometry
    rows = _grad_x_axis(g.OH, g.IH, g.KH, g.stride[0], g.dilation[0], g.padding[0][0])
    columns = _grad_x_axis(g.OW, g.IW, g.KW, g.stride[1], g.dilation[1], g.padding[1][0])
    sizes = g.N, g.OH, g.OW, g.IH, g.IW, g.OC, g.KH, g.KW
    return Plan(*sizes, _lines(rows), rows.dilation, rows.tap_step, *columns)


# ---- forward and grad_x -----------------------------------------------------------------------------------------


@_jit.inline
def _list_taps(taps, plan, rows, columns):
    """Write where *rows* x *columns* taps from the given ones on lie, in the source and in the weight; how many.

    A list, because loops over kh and kw of two or three turns each would spend their time on setting up addresses.
    """
    p = plan
    (row_tap, row_taps), (column_tap, column_taps) = rows, columns
    count = 0
    for kh in range(row_taps):
        for kw in range(column_taps):
            taps[2 * count] = (kh * p.dilation_h * p.SOURCE_W + kw * p.dilation_w) * p.C
            tap = (row_tap + kh * p.tap_step_h) * p.KW + column_tap + kw * p.tap_step_w
            taps[2 * count + 1] = tap * p.C
            count += 1
    return count


def _register_tile(pixels):
    """The sums of *pixels* output pixels and _VECTORS vectors of channels."""

    @_jit.inline
    def sum_taps(x, weight, out, taps, tap_count, x_at, x_step, channel, out_at, out_step):
        tile = tiles.zeros(out, pixels, _VECTORS)
        for number in range(tap_count):
            tap = taps[2 * number + 1] + channel
            tile = tiles.multiply_add(tile, x, x_at + taps[2 * number], x_step, weight, tap)
        tiles.store(tile, out, out_at, out_step)

    return sum_taps


_many_pixels = _register_tile(_PIXELS)
_one_pixel = _register_tile(1)


@_jit.inline
def _store(out, at, value, count):
    """Store *count* lanes; a masked store is slow on many CPUs, so only where it must be."""
    if count == simd.lane_count(out):
        simd.store(out, at, value)
    else:
        simd.store_first(out, at, value, count)


@_jit.inline
def _few_channels(x, weight, out, taps, tap_count, x_at, channel, out_at, count):
    """The sums of one output pixel and *count* channels, at most one vector of them."""
    total = simd.zeros(out)
    for number in range(tap_count):
        tap = simd.load_first(weight, taps[2 * number + 1] + channel, count)
        total = simd.fma(simd.load_first(x, x_at + taps[2 * number], count), tap, total)
    _store(out, out_at, total, count)


@_jit.inline
def _finish(bias, residual, out, out_at, out_step, pixels, first, last, activation):
    """Bias, residual and ReLU for channels [first, last) of a run of pixels that has just been written."""
    lanes = simd.lane_count(out)
    for pixel in range(pixels):
        at = out_at + pixel * out_step - first
        for channel in range(first, last, lanes):
            here = at + channel
            if channel + lanes <= last:
                value = finish_vector(simd.load(out, here), bias, channel, residual, here, lanes, activation)
                simd.store(out, here, value)
            else:
                count = last - channel
                value = simd.load_first(out, here, count)
                value = finish_vector(value, bias, channel, residual, here, count, activation)
                simd.store_first(out, here, value, count)


@_jit.inline
def _fetch(x, out, ahead, lines, out_at, out_step, width):
    """Ask for *lines* cache lines of x, which the next row reads, and for those of the tile two further in out.

    Without this the loop waits for memory: 1.4 times as fast for the nine layers of the ladder.
    """
    for line in range(lines):
        simd.prefetch_for_read(x, ahead + line * _LINE)
    for pixel in range(_PIXELS):
        for line in range(0, width, _LINE):
            simd.prefetch_for_write(out, out_at + (pixel + 2 * _PIXELS) * out_step + line)


@_jit.inline
def _run(x, weight, out, taps, tap_count, x_at, x_step, out_at, out_step, pixels, first, last, ahead, lines):
    """Sums of a run of *pixels* that see the same taps, for channels [first, last): four pixels at a time.

    The last tile of channels is moved back to end with the last channel: what it computes twice has the same bits.
    Returns how far x has been fetched ahead.
    """
    lanes = simd.lane_count(out)
    width = _VECTORS * lanes
    done = 0
    while done < pixels:
        together = 1
        if last - first < width:
            for c in range(first, last, lanes):
                count = min(lanes, last - c)
                _few_channels(x, weight, out, taps, tap_count, x_at + c, c, out_at + c, count)
        elif done + _PIXELS <= pixels:
            together = _PIXELS
            for channel in range(first, last, width):
                c = min(channel, last - width)
                _fetch(x, out, ahead, lines, out_at + c, out_step, width)
                ahead += lines * _LINE
                _many_pixels(x, weight, out, taps, tap_count, x_at + c, x_step, c, out_at + c, out_step)
        else:
            for channel in range(first, last, width):
                c = min(channel, last - width)
                _one_pixel(x, weight, out, taps, tap_count, x_at + c, x_step, c, out_at + c, out_step)
        x_at += together * x_step
        out_at += together * out_step
        done += together
    return ahead


@_jit.inline
def _end_of_window(plan, line):
    """The source row behind the last one that a row of the target reads."""
    return plan.lines[line, 0] + (plan.lines[line, 2] - 1) * plan.dilation_h + 1


@_jit.flushing_tasks
def _forward_tasks(x, weight, bias, residual, out_array, taps, plan, activation, blocks, first_task, last_task):
    """Tasks [first_task, last_task) of a forward pass; a task is a block of channels of one row of out.

    Runs of pixels that see the same taps outermost, then four pixels, then channels, then taps: memory is read in
    order, and which taps lie inside is found out once for all channels.  Each output element has one writer.
    """
    p = plan
    x, weight, bias, residual = simd.span(x), simd.span(weight), simd.span(bias), simd.span(residual)
    out, taps = simd.span(out_array), simd.span(taps)
    width = _VECTORS * simd.lane_count(out)
    tiles_of_row = max(p.C // width, 1)
    x_step, out_step = p.source_step * p.C, p.target_step * p.C
    unfinished = bias.size > 0 or residual.size > 0 or activation > 0
    for task in range(first_task, last_task):
        row, block = task // blocks, task % blocks
        first = tiles_of_row * block // blocks * width
        last = p.C if block + 1 == blocks else tiles_of_row * (block + 1) // blocks * width
        n, line = row // p.TARGET_H, row % p.TARGET_H
        row_taps = p.lines[line, 1], p.lines[line, 2]
        # the part of the next row's window that is not in this one, evenly over the tiles of this task
        end = _end_of_window(p, line)
        next_end = _end_of_window(p, line + 1) if line + 1 < p.TARGET_H else end + _end_of_window(p, 0)
        new = max(0, next_end - end) * p.SOURCE_W * p.C
        ahead = (n * p.SOURCE_H + end) * p.SOURCE_W * p.C + new * block // blocks
        tiles_of_task = max(p.TARGET_W // _PIXELS * (last - first) // width, 1)
        lines = (new // blocks // _LINE + tiles_of_task - 1) // tiles_of_task
        for number in range(p.runs.shape[0]):
            target, pixels = p.runs[number, 0], p.runs[number, 1]
            source, tap, tap_count = p.runs[number, 2], p.runs[number, 3], p.runs[number, 4]
            tap_count = _list_taps(taps, p, row_taps, (tap, tap_count))
            x_at = ((n * p.SOURCE_H + p.lines[line, 0]) * p.SOURCE_W + source) * p.C
            out_at = (row * p.TARGET_W + target) * p.C
            ahead = _run(
                x, weight, out, taps, tap_count, x_at, x_step, out_at, out_step, pixels, first, last, ahead, lines
            )
            if unfinished:
                _finish(bias, residual, out, out_at + first, out_step, pixels, first, last, activation)
        if activation > RELU:
            for column in range(p.TARGET_W):
                activate(out_array, (row * p.TARGET_W + column) * p.C + first, last - first, activation)


@_jit.kernel
def conv2d_forward_depthwise_serial(x, weight, bias, residual, out, plan, activation, blocks, tasks):
    """All rows of the forward pass; arrays are flat."""
    taps = np.empty(2 * plan.KH * plan.KW, np.int64)
    _forward_tasks(x, weight, bias, residual, out, taps, plan, activation, blocks, 0, tasks)


@_jit.parallel_kernel
def conv2d_forward_depthwise_parallel(workers, x, weight, bias, residual, out, plan, activation, blocks, tasks):
    """The same rows, an equal share for each worker."""
    for worker in prange(workers):
        first_task = tasks * worker // workers
        last_task = tasks * (worker + 1) // workers
        taps = np.empty(2 * plan.KH * plan.KW, np.int64)
        _forward_tasks(x, weight, bias, residual, out, taps, plan, activation, blocks, first_task, last_task)


# ---- grad_weight ------------------------------------------------------------------------------------------------


def _tap_sums(taps):
    """Sums over a run of pixels for *taps* neighbouring taps of a kernel row and _VECTORS vectors of channels."""

    @_jit.inline
    def add_pixels(x, grad_out, sums, x_at, grad_at, sums_at, x_step, grad_step, dilation, pixels):
        tile = tiles.load(sums, sums_at, _CHANNELS_OF_SUMS, taps, _VECTORS)
        for _ in range(pixels):
            tile = tiles.multiply_add(tile, x, x_at, dilation, grad_out, grad_at)
            x_at += x_step
            grad_at += grad_step
        tiles.store(tile, sums, sums_at, _CHANNELS_OF_SUMS)

    return add_pixels


_many_taps = _tap_sums(_TAPS)
_one_tap = _tap_sums(1)


@_jit.inline
def _few_channels_of_tap(x, grad_out, sums, x_at, grad_at, sums_at, x_step, grad_step, pixels, count):
    """The same for one tap and *count* channels, at most one vector of them."""
    total = simd.load(sums, sums_at)
    for _ in range(pixels):
        a = simd.load_first(x, x_at, count)
        total = simd.fma(a, simd.load_first(grad_out, grad_at, count), total)
        x_at += x_step
        grad_at += grad_step
    simd.store(sums, sums_at, total)


@_jit.inline
def _add_row(x, grad_out, sums, plan, x_row, grad_row, kh, first, last):
    """Add what one row of grad_out and one row of x give to the sums of row *kh* of the kernel.

    Channels innermost: neighbouring tiles have nothing to do with each other, so the CPU works on several at once.
    """
    p = plan
    lanes = simd.lane_count(sums)
    width = _VECTORS * lanes
    x_step, dilation = p.source_step * p.C, p.dilation_w * p.C
    for number in range(p.runs.shape[0]):
        target, pixels = p.runs[number, 0], p.runs[number, 1]
        source, tap, taps = p.runs[number, 2], p.runs[number, 3], p.runs[number, 4]
        x_at, grad_at = (x_row + source) * p.C, (grad_row + target) * p.C
        sums_at = (kh * p.KW + tap) * _CHANNELS_OF_SUMS - first
        while taps > 0:
            together = _TAPS if taps >= _TAPS and p.C >= width else 1
            if together == _TAPS:
                for channel in range(first, last, width):
                    # the last tile of channels is moved back to end with the last channel; its sums are its own
                    c = min(channel, p.C - width)
                    _many_taps(
                        x, grad_out, sums, x_at + c, grad_at + c, sums_at + channel, x_step, p.C, dilation, pixels
                    )
            elif p.C >= width:
                for channel in range(first, last, width):
                    c = min(channel, p.C - width)
                    _one_tap(x, grad_out, sums, x_at + c, grad_at + c, sums_at + channel, x_step, p.C, dilation, pixels)
            else:
                for c in range(0, p.C, lanes):
                    count = min(lanes, p.C - c)
                    _few_channels_of_tap(
                        x, grad_out, sums, x_at + c, grad_at + c, sums_at + c, x_step, p.C, pixels, count
                    )
            x_at += together * dilation
            sums_at += together * _CHANNELS_OF_SUMS
            taps -= together


@_jit.inline
def _prefetch_pixels(array, at, pixels, step, channels):
    """Ask for *channels* of a row of pixels."""
    for pixel in range(pixels):
        for channel in range(0, channels, _LINE):
            simd.prefetch_for_read(array, at + pixel * step + channel)


@_jit.flushing_tasks
def _grad_weight_tasks(x, grad_out, partial, sums, plan, splits, blocks, first_task, last_task):
    """Tasks of grad_weight; a task is a split of the rows (n, oh) times a block of channels.

    Row by row, so that a row of grad_out serves all taps from the cache; the sums of a block wait in ``sums`` between
    rows.  Each element of ``partial[split]`` has one writer, and pixels are added in rising order (n, oh, ow).
    """
    p = plan
    x, grad_out, partial, sums = simd.span(x), simd.span(grad_out), simd.span(partial), simd.span(sums)
    lanes = simd.lane_count(sums)
    width = _VECTORS * lanes
    for task in range(first_task, last_task):
        split = task // blocks
        first = task % blocks * _CHANNELS_OF_SUMS
        last = min(first + _CHANNELS_OF_SUMS, p.C)
        for at in range(0, p.KH * p.KW * _CHANNELS_OF_SUMS, lanes):
            simd.store(sums, at, simd.zeros(sums))
        for row in range(p.N * p.TARGET_H * split // splits, p.N * p.TARGET_H * (split + 1) // splits):
            n = row // p.TARGET_H
            line = row % p.TARGET_H
            _prefetch_pixels(grad_out, (row + 1) * p.TARGET_W * p.C + first, p.TARGET_W, p.C, last - first)
            x_row = (n * p.SOURCE_H + p.lines[line, 0]) * p.SOURCE_W
            for k in range(p.lines[line, 2]):
                x_line = x_row + k * p.dilation_h * p.SOURCE_W
                if k + 1 == p.lines[line, 2]:
                    _prefetch_pixels(x, (x_line + p.SOURCE_W) * p.C + first, p.SOURCE_W, p.C, last - first)
                _add_row(x, grad_out, sums, p, x_line, row * p.TARGET_W, p.lines[line, 1] + k, first, last)
        for tap in range(p.KH * p.KW):
            source, target = tap * _CHANNELS_OF_SUMS - first, (split * p.KH * p.KW + tap) * p.C
            whole = last - (last - first) % width
            for channel in range(first, whole, lanes):
                simd.store(partial, target + channel, simd.load(sums, source + channel))
            moved = whole - max(p.C - width, 0) if whole < last else 0
            for channel in range(whole, last):
                partial[target + channel] = sums[source + channel + moved]


@_jit.inline
def _grad_weight_workspace(out, plan):
    """Memory of one thread: the sums of a block of channels, for all taps."""
    return np.empty(plan.KH * plan.KW * _CHANNELS_OF_SUMS, out.dtype)


@_jit.kernel
def conv2d_grad_weight_depthwise_serial(x, grad_out, partial, plan, splits, blocks):
    """All tasks of grad_weight; arrays are flat."""
    sums = _grad_weight_workspace(partial, plan)
    _grad_weight_tasks(x, grad_out, partial, sums, plan, splits, blocks, 0, splits * blocks)


@_jit.parallel_kernel
def conv2d_grad_weight_depthwise_parallel(workers, x, grad_out, partial, plan, splits, blocks):
    """The same tasks, an equal share for each worker."""
    for worker in prange(workers):
        first_task = splits * blocks * worker // workers
        last_task = splits * blocks * (worker + 1) // workers
        sums = _grad_weight_workspace(partial, plan)
        _grad_weight_tasks(x, grad_out, partial, sums, plan, splits, blocks, first_task, last_task)


# ---- from a geometry to the kernels ---------------------------------------------------------------------------------


def forward(
    geometry: Conv2dGeometry,
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    residual: NDArray[Any] | None,
    out: NDArray[Any],
    activation: int,
) -> None:
    """``out = activation(conv2d(x, weight) + bias + residual)``."""
    _run_forward(geometry, forward_plan(geometry), _repeated(geometry, x), weight, bias, residual, out, activation)


def grad_x(geometry: Conv2dGeometry, grad_out: NDArray[Any], weight: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = the gradient with respect to x``: one depthwise convolution of grad_out for each phase of the stride."""
    g = geometry
    multiplier = g.OC // g.IC
    of_each_output = out if multiplier == 1 else np.empty((*out.shape[:3], g.OC), out.dtype)
    _run_forward(g, grad_x_plan(g), grad_out, weight, None, None, of_each_output, 0)
    if multiplier > 1:
        np.add.reduce(of_each_output.reshape(*out.shape, multiplier), axis=-1, out=out)


def grad_weight(geometry: Conv2dGeometry, x: NDArray[Any], grad_out: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = the gradient with respect to weight``: partial sums over a fixed split of the rows, added in order."""
    g = geometry
    blocks = -(-g.OC // _CHANNELS_OF_SUMS)
    splits = min(_SPLITS, -(-_TASKS // blocks), g.N * g.OH)
    partial = np.empty((splits, out.size), out.dtype) if splits > 1 else out
    threads.run(
        conv2d_grad_weight_depthwise_serial,
        conv2d_grad_weight_depthwise_parallel,
        min(threads.worker_count(g.flops), splits * blocks),
        _repeated(g, x).reshape(-1),
        grad_out.reshape(-1),
        partial.reshape(-1),
        forward_plan(g),
        splits,
        blocks,
    )
    if splits > 1:
        np.add.reduce(partial, axis=0, out=out.reshape(-1))


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes of memory of one thread: the list of taps, or the sums of grad_weight for a block of channels."""
    return geometry.KH * geometry.KW * (_CHANNELS_OF_SUMS * itemsize + 2 * np.dtype(np.int64).itemsize)


def _repeated(geometry: Conv2dGeometry, x: NDArray[Any]) -> NDArray[Any]:
    """x with each channel as often as it has kernels, so that channel oc of x meets channel oc of the weight."""
    multiplier = geometry.OC // geometry.IC
    return x if multiplier == 1 else np.repeat(x, multiplier, axis=-1)


def _run_forward(
    geometry: Conv2dGeometry,
    plan: Plan,
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    residual: NDArray[Any] | None,
    out: NDArray[Any],
    activation: int,
) -> None:
    absent = np.empty(0, out.dtype)
    workers = threads.worker_count(geometry.flops)
    rows = plan.N * plan.TARGET_H
    blocks = min(-(-_TASKS_PER_WORKER * workers // rows), max(plan.C // _CHANNELS, 1)) if workers > 1 else 1
    tasks = rows * blocks
    threads.run(
        conv2d_forward_depthwise_serial,
        conv2d_forward_depthwise_parallel,
        min(workers, tasks),
        x.reshape(-1),
        weight.reshape(-1),
        absent if bias is None else bias,
        absent if residual is None else residual.reshape(-1),
        out.reshape(-1),
        plan,
        activation,
        blocks,
        tasks,
    )
