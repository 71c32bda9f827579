"""Depthwise convolution, each channel with its own kernel: forward and grad_x.

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
    large results past the caches, in memory of earlier ones        1.35     1.62       1.10
    the weight as panels; two new rows fetched side by side         1.42     1.50
    grad_weight: ends of rows and x of three taps in registers,
    a fetch for each pixel in place of rows at once                                     1.26

    fastconv bench --net mobilenet_dw --pass forward,grad_x,grad_weight --against torch --threads 1

The last steps, in turns with the state before them: panels are 1.9 times as fast for 7 x 7 and 1024 channels where x
and weight begin a multiple of 4096 bytes apart, two streams 1.1 to 1.2 times for stride 2 and 1.0 for stride 1, the
nine layers of grad_weight 1.1 to 1.5 times.

On an AVX-512 core (Zen 4), two processes in turns, mean of the nine layers, 8 images and one: three or five taps of a
row that read x once (`tiles.slide`), and nothing fetched ahead that the L2 cache holds: forward 1.06 and 1.19 times as
fast, grad_x 1.11 and 1.17.  Tiles of 8 pixels in place of 4: .9.  Taps three at a time in a loop, for kernels of any
width: .85, because sums that pass through two loops do not stay in registers.

    python bench/against.py 98d462a f59e4b9 --net mobilenet_dw --pass forward grad_x --threads 1 --batch 1,8

Rows of x copied to a window in the L1 cache, strip by strip, measured slower (forward 0.86): the copy costs more than
the conflicts it avoids.

Every output element is one chain of fused multiply-adds over (kh, kw).  Taps that fall on padding are left out, so a
chain has at most KH * KW links: the error is below ``eps * KH * KW`` times the sum of the absolute products.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import codegen, conv_depthwise_weight, simd, tiles
from fastconv.cpu.activation import activate
from fastconv.cpu.conv_depthwise_weight import grad_weight as grad_weight
from fastconv.cpu.depthwise_plan import Plan, forward_plan, grad_x_plan, repeated
from fastconv.cpu.epilogue import RELU, finish_vector
from fastconv.cpu.product import LINE
from fastconv.cpu.shape import Forms, round_up
from fastconv.geometry import Conv2dGeometry

# A register tile: neighbouring output pixels times vectors of channels.  8 sums hide the latency of a multiply-add, and
# two AVX2 vectors are a cache line.
_PIXELS = 4
_VECTORS = 2
# Channels of a task of the forward pass, at least: runs of memory long enough for the hardware to fetch ahead.
_CHANNELS = 64
# Bytes of x, or of out, from which on its lines are asked for before they are needed: fewer lie in the L2 cache.
_FAR = 1 << 20
# Rows are cut into blocks of channels only where there are fewer rows than this for each thread.
_TASKS_PER_WORKER = 8


@_jit.inline
def _list_taps(taps, plan, rows, columns):
    """Write where *rows* x *columns* taps from the given ones on lie in the source, and their numbers; how many.

    A list, because loops over kh and kw of two or three turns each would spend their time on setting up addresses.
    """
    p = plan
    (row_tap, row_taps), (column_tap, column_taps) = rows, columns
    count = 0
    for kh in range(row_taps):
        for kw in range(column_taps):
            taps[2 * count] = (kh * p.dilation_h * p.SOURCE_W + kw * p.dilation_w) * p.C
            taps[2 * count + 1] = (row_tap + kh * p.tap_step_h) * p.KW + column_tap + kw * p.tap_step_w
            count += 1
    return count


@_jit.inline
def _panels(weight, plan):
    """The weight as panels: all taps of the channels of a tile, one after the other, from channel * taps on.

    As it lies, the taps of a channel are C numbers apart.  With 1024 channels they share one set of the L1 cache, with
    the pixels of x where that begins at such a distance from the weight: half the speed.
    """
    p = plan
    width = _VECTORS * simd.lane_count(weight)
    taps = p.KH * p.KW
    panels = np.empty((p.C + width - 1) // width * width * taps if p.C >= width else 0, weight.dtype)
    source, target = simd.span(weight), simd.span(panels)
    for at in range(0, panels.size, taps * width):
        channel = min(at // taps, p.C - width)
        for tap in range(taps):
            tile = tiles.load(source, tap * p.C + channel, 0, 1, _VECTORS)
            tiles.store(tile, target, at + tap * width, 0)
    return panels


def _tap_by_tap(pixels):
    """The sums of *pixels* output pixels and _VECTORS vectors of channels, for any list of taps."""

    @_jit.inline
    def sum_taps(x, panels, plan, out, taps, tap_count, rows, columns, x_at, panel_at, out_at, out_step, stream):
        width, x_step = _VECTORS * simd.lane_count(out), plan.source_step * plan.C
        tile = tiles.zeros(out, pixels, _VECTORS)
        for number in range(tap_count):
            tap = panel_at + taps[2 * number + 1] * width
            tile = tiles.multiply_add(tile, x, x_at + taps[2 * number], x_step, panels, tap)
        tiles.put(tile, out, out_at, out_step, stream)

    return sum_taps


def _row_by_row(kernel_columns, step):
    """The same where each row of taps is so many neighbours, for pixels *step* apart: x is read once for a row."""

    @_jit.inline
    def sum_rows(x, panels, plan, out, taps, tap_count, rows, columns, x_at, panel_at, out_at, out_step, stream):
        p = plan
        width = _VECTORS * simd.lane_count(out)
        tap = panel_at + (rows[0] * p.KW + columns[0]) * width
        tile = tiles.zeros(out, _PIXELS, _VECTORS)
        for _ in range(rows[1]):
            tile = tiles.slide(tile, x, x_at, p.C, panels, tap, p.tap_step_w * width, kernel_columns, step)
            x_at += p.dilation_h * p.SOURCE_W * p.C
            tap += p.tap_step_h * p.KW * width
        tiles.put(tile, out, out_at, out_step, stream)

    return sum_rows


@_jit.inline
def _store(out, at, value, count):
    """Store *count* lanes; a masked store is slow on many CPUs, so only where it must be."""
    if count == simd.lane_count(out):
        simd.store(out, at, value)
    else:
        simd.store_first(out, at, value, count)


@_jit.inline
def _few_channels(x, weight, C, out, taps, tap_count, x_at, channel, out_at, count):
    """The sums of one output pixel and *count* channels, at most one vector of them."""
    total = simd.zeros(out)
    for number in range(tap_count):
        tap = simd.load_first(weight, taps[2 * number + 1] * C + channel, count)
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
def _fetch(x, ahead, half, lines):
    """Ask for *lines* cache lines of x, which the next row reads.

    Without this and `_fetch_tile` the loop waits for memory: 1.4 times as fast for the nine layers of the ladder.
    Where the next row reads two new rows of x, *half* a part of it, they are fetched side by side: memory answers two
    streams sooner.
    """
    for line in range(lines):
        simd.prefetch_for_read(x, ahead + line * LINE)
        if half > 0:
            simd.prefetch_for_read(x, ahead + half + line * LINE)


@_jit.inline
def _fetch_tile(out, out_at, out_step, width):
    """Ask for the lines of the tile two further in out."""
    for pixel in range(_PIXELS):
        for line in range(0, width, LINE):
            simd.prefetch_for_write(out, out_at + (pixel + 2 * _PIXELS) * out_step + line)


def _row_of_tiles(pixels, sum_pixels):
    """A row of register tiles, each of so many *pixels*, whose sums *sum_pixels* forms."""

    @_jit.inline
    def run(
        x, panels, plan, out, taps, tap_count, rows, columns, x_at, out_at, out_step, tiles_of_row, first, last, ahead,
        half, lines, far_out, stream,
    ):  # fmt: skip
        """For channels [first, last); the last tile of them is moved back to end with the last channel.

        What it computes twice has the same bits.  Returns how far x has been fetched ahead.
        """
        width = _VECTORS * simd.lane_count(out)
        for _ in range(tiles_of_row):
            for channel in range(first, last, width):
                c = min(channel, last - width)
                _fetch(x, ahead, half, lines)
                ahead += lines * LINE
                if far_out:
                    _fetch_tile(out, out_at + c, out_step, width)
                panel_at = channel * plan.KH * plan.KW
                source = x, panels, plan, out, taps, tap_count, rows, columns
                sum_pixels(*source, x_at + c, panel_at, out_at + c, out_step, stream)
            x_at += pixels * plan.source_step * plan.C
            out_at += pixels * out_step
        return ahead

    return run


_any_taps, _single_pixels = (_row_of_tiles(pixels, _tap_by_tap(pixels)) for pixels in (_PIXELS, 1))
# The most usual kernels; each costs half a second of compilation.
_3_taps, _5_taps = (_row_of_tiles(_PIXELS, _row_by_row(taps, 1)) for taps in (3, 5))
_3_taps_of_every_second = _row_of_tiles(_PIXELS, _row_by_row(3, 2))


@_jit.inline
def _run(
    x, weight, panels, plan, out, taps, tap_count, rows, columns, x_at, out_at, out_step, pixels, first, last, ahead,
    half, lines, far_out, stream,
):  # fmt: skip
    """Sums of a run of *pixels* that see the same taps, for channels [first, last): tiles of pixels, then single ones.

    Returns how far x has been fetched ahead.
    """
    p = plan
    lanes = simd.lane_count(out)
    x_step = p.source_step * p.C
    if last - first < _VECTORS * lanes:
        for pixel in range(pixels):
            for c in range(first, last, lanes):
                count = min(lanes, last - c)
                from_x, to_out = x_at + pixel * x_step + c, out_at + pixel * out_step + c
                _few_channels(x, weight, p.C, out, taps, tap_count, from_x, c, to_out, count)
        return ahead
    whole = pixels // _PIXELS
    neighbours = columns[1] if p.dilation_w == 1 else 0
    source = x, panels, p, out, taps, tap_count, rows, columns
    row = x_at, out_at, out_step, whole, first, last, ahead, half, lines, far_out, stream
    if p.source_step == 1 and neighbours == 3:
        ahead = _3_taps(*source, *row)
    elif p.source_step == 2 and neighbours == 3:
        ahead = _3_taps_of_every_second(*source, *row)
    elif p.source_step == 1 and neighbours == 5:
        ahead = _5_taps(*source, *row)
    else:
        ahead = _any_taps(*source, *row)
    done = whole * _PIXELS
    x_at += done * x_step
    out_at += done * out_step
    return _single_pixels(*source, x_at, out_at, out_step, pixels - done, first, last, ahead, half, 0, False, stream)


@_jit.inline
def _end_of_window(plan, line):
    """The source row behind the last one that a row of the target reads."""
    return plan.lines[line, 0] + (plan.lines[line, 2] - 1) * plan.dilation_h + 1


@_jit.flushing_tasks
def _forward_tasks(
    x, weight, panels, bias, residual, out_array, taps, plan, activation, blocks, first_task, last_task
):  # fmt: skip
    """Tasks [first_task, last_task) of a forward pass; a task is a block of channels of one row of out.

    Runs of pixels that see the same taps outermost, then four pixels, then channels, then taps: memory is read in
    order, and which taps lie inside is found out once for all channels.  Each output element has one writer.
    """
    p = plan
    x, weight, bias, residual = simd.span(x), simd.span(weight), simd.span(bias), simd.span(residual)
    panels, out, taps = simd.span(panels), simd.span(out_array), simd.span(taps)
    width = _VECTORS * simd.lane_count(out)
    tiles_of_row = max(p.C // width, 1)
    out_step = p.target_step * p.C
    unfinished = bias.size > 0 or residual.size > 0 or activation > 0
    stream = not unfinished and simd.streams(out_array, p.C)
    far_x = x.size * out_array.itemsize > _FAR
    far_out = not stream and out.size * out_array.itemsize > _FAR
    for task in range(first_task, last_task):
        row, block = task // blocks, task % blocks
        first = tiles_of_row * block // blocks * width
        last = p.C if block + 1 == blocks else tiles_of_row * (block + 1) // blocks * width
        n, line = row // p.TARGET_H, row % p.TARGET_H
        row_taps = p.lines[line, 1], p.lines[line, 2]
        # the part of the next row's window that is not in this one, evenly over the tiles of this task
        end = _end_of_window(p, line)
        next_end = _end_of_window(p, line + 1) if line + 1 < p.TARGET_H else end + _end_of_window(p, 0)
        new_rows = max(0, next_end - end) if far_x else 0
        new = new_rows * p.SOURCE_W * p.C
        ahead = (n * p.SOURCE_H + end) * p.SOURCE_W * p.C + new * block // blocks
        part = new // blocks
        half = part // 2 if new_rows > 1 else 0
        tiles_of_task = max(p.TARGET_W // _PIXELS * (last - first) // width, 1)
        lines = ((part - half) // LINE + tiles_of_task - 1) // tiles_of_task
        for number in range(p.runs.shape[0]):
            target, pixels = p.runs[number, 0], p.runs[number, 1]
            source, tap, tap_count = p.runs[number, 2], p.runs[number, 3], p.runs[number, 4]
            column_taps = tap, tap_count
            tap_count = _list_taps(taps, p, row_taps, column_taps)
            x_at = ((n * p.SOURCE_H + p.lines[line, 0]) * p.SOURCE_W + source) * p.C
            out_at = (row * p.TARGET_W + target) * p.C
            ahead = _run(
                x, weight, panels, p, out, taps, tap_count, row_taps, column_taps, x_at, out_at, out_step, pixels,
                first, last, ahead, half, lines, far_out, stream,
            )  # fmt: skip
            if unfinished:
                _finish(bias, residual, out, out_at + first, out_step, pixels, first, last, activation)
        if activation > RELU:
            for column in range(p.TARGET_W):
                activate(out_array, (row * p.TARGET_W + column) * p.C + first, last - first, activation)


@_jit.kernel
def conv2d_forward_depthwise_serial(x, weight, bias, residual, out, plan, activation, blocks, tasks):
    """All rows of the forward pass; arrays are flat."""
    taps, panels = np.empty(2 * plan.KH * plan.KW, np.int64), _panels(weight, plan)
    _forward_tasks(x, weight, panels, bias, residual, out, taps, plan, activation, blocks, 0, tasks)


@_jit.parallel_kernel
def conv2d_forward_depthwise_parallel(workers, x, weight, bias, residual, out, plan, activation, blocks, tasks):
    """The same rows, an equal share for each worker, who packs the few weights for himself."""
    for worker in prange(workers):
        first_task = tasks * worker // workers
        last_task = tasks * (worker + 1) // workers
        taps, panels = np.empty(2 * plan.KH * plan.KW, np.int64), _panels(weight, plan)
        _forward_tasks(x, weight, panels, bias, residual, out, taps, plan, activation, blocks, first_task, last_task)


# ---- from a geometry to the kernels ---------------------------------------------------------------------------------


def forward(
    geometry: Conv2dGeometry,
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    residual: NDArray[Any] | None,
    out: NDArray[Any],
    activation: int,
    forms: Forms | None = None,
) -> None:
    """``out = activation(conv2d(x, weight) + bias + residual)``; nothing is packed, so *forms* stays empty."""
    _run_forward(geometry, forward_plan(geometry), repeated(geometry, x), weight, bias, residual, out, activation)


def grad_x(
    geometry: Conv2dGeometry,
    grad_out: NDArray[Any],
    weight: NDArray[Any],
    out: NDArray[Any],
    forms: Forms | None = None,
) -> None:
    """``out = the gradient with respect to x``: one depthwise convolution of grad_out for each phase of the stride."""
    g = geometry
    multiplier = g.OC // g.IC
    of_each_output = out if multiplier == 1 else np.empty((*out.shape[:3], g.OC), out.dtype)
    _run_forward(g, grad_x_plan(g), grad_out, weight, None, None, of_each_output, 0)
    if multiplier > 1:
        np.add.reduce(of_each_output.reshape(*out.shape, multiplier), axis=-1, out=out)


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes of memory of one thread: the list of taps and the weight as panels, or what grad_weight needs."""
    taps = geometry.KH * geometry.KW
    panels = taps * round_up(geometry.OC, _VECTORS * codegen.VECTOR_BYTES // itemsize) * itemsize
    of_forward = 2 * taps * np.dtype(np.int64).itemsize + panels
    return max(of_forward, conv_depthwise_weight.workspace(geometry, itemsize))


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
