"""Depthwise convolution: the gradient with respect to the weight.

Every element is a sum of chains of fused multiply-adds over the pixels (n, oh, ow) of a few rows that see its tap: the
chains of a split are added in order, and then the splits.  The ladder is in `conv_depthwise`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import simd, tiles
from fastconv.cpu.chains import add_splits
from fastconv.cpu.depthwise_plan import forward_plan, repeated
from fastconv.cpu.shape import splits_of
from fastconv.geometry import Conv2dGeometry

# Taps of a kernel row, and vectors of channels, whose sums are in registers together.
_TAPS = 3
_VECTORS = 2
# Pixels of grad_out that make a chain of their own, about: whole rows.  Short chains are more exact, and a GPU computes
# them side by side.  It keeps a sum of each for every tap, so large kernels have longer ones: so many pixels for a tap.
_PIXELS_OF_CHAIN = 112
_PIXELS_OF_TAP = 4
# Channels of a task, and the least number of tasks into which the rows of all images are split; at most _SPLITS parts,
# whatever the number of threads.
_CHANNELS_OF_SUMS = 128
_TASKS = 32
_SPLITS = 16


@_jit.inline
def _add_pixels(x, grad_out, sums, sums_at, plan, x_at, grad_at, first_tap, next_grad, next_x):
    """Add a row of pixels to the sums of three neighbouring taps, in registers, and _VECTORS vectors of channels.

    Runs of pixels in the middle of a row see all three taps; those at its ends, most of a small image, see some.
    Meanwhile pixels *next_grad* numbers further in grad_out are fetched, or else, *next_x* further, in x: a fetch for
    each step, because many at once would keep the sums waiting.
    """
    p = plan
    x_step, dilation = p.source_step * p.C, p.dilation_w * p.C
    left = tiles.load(sums, sums_at, 0, 1, _VECTORS)
    middle = tiles.load(sums, sums_at + _CHANNELS_OF_SUMS, 0, 1, _VECTORS)
    right = tiles.load(sums, sums_at + 2 * _CHANNELS_OF_SUMS, 0, 1, _VECTORS)
    for number in range(p.runs.shape[0]):
        low, pixels = p.runs[number, 3] - first_tap, p.runs[number, 1]
        high = low + p.runs[number, 4]
        at, grad = x_at + p.runs[number, 2] * p.C - low * dilation, grad_at + p.runs[number, 0] * p.C
        if next_grad > 0:
            fetched, fetched_at, fetched_step = grad_out, grad + next_grad, p.C
        else:
            fetched, fetched_at, fetched_step = x, at + next_x, x_step
        if low > 0 or high < _TAPS:
            for _ in range(pixels):
                if low <= 0 < high:
                    left = tiles.multiply_add(left, x, at, 0, grad_out, grad)
                if low <= 1 < high:
                    middle = tiles.multiply_add(middle, x, at + dilation, 0, grad_out, grad)
                if low <= 2 < high:
                    right = tiles.multiply_add(right, x, at + 2 * dilation, 0, grad_out, grad)
                at += x_step
                grad += p.C
        elif x_step == dilation:
            # what the middle tap sees of a pixel, the left one sees of the next: x is loaded once, not three times
            under_left = tiles.load(x, at, 0, 1, _VECTORS)
            under_middle = tiles.load(x, at + dilation, 0, 1, _VECTORS)
            for _ in range(pixels):
                simd.prefetch_for_read(fetched, fetched_at)
                fetched_at += fetched_step
                gradient = tiles.load(grad_out, grad, 0, 1, _VECTORS)
                under_right = tiles.load(x, at + 2 * dilation, 0, 1, _VECTORS)
                left = tiles.fused(left, under_left, gradient)
                middle = tiles.fused(middle, under_middle, gradient)
                right = tiles.fused(right, under_right, gradient)
                under_left = under_middle
                under_middle = under_right
                at += x_step
                grad += p.C
        else:
            for _ in range(pixels):
                simd.prefetch_for_read(fetched, fetched_at)
                simd.prefetch_for_read(fetched, fetched_at + fetched_step - p.C)
                fetched_at += fetched_step
                left = tiles.multiply_add(left, x, at, 0, grad_out, grad)
                middle = tiles.multiply_add(middle, x, at + dilation, 0, grad_out, grad)
                right = tiles.multiply_add(right, x, at + 2 * dilation, 0, grad_out, grad)
                at += x_step
                grad += p.C
    tiles.store(left, sums, sums_at, 0)
    tiles.store(middle, sums, sums_at + _CHANNELS_OF_SUMS, 0)
    tiles.store(right, sums, sums_at + 2 * _CHANNELS_OF_SUMS, 0)


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
def _add_row(x, grad_out, sums, plan, x_row, grad_row, kh, first, last, next_grad, next_x):
    """Add what one row of grad_out and one row of x give to the sums of row *kh* of the kernel.

    Channels innermost: neighbouring tiles have nothing to do with each other, so the CPU works on several at once.
    """
    p = plan
    lanes = simd.lane_count(sums)
    width = _VECTORS * lanes
    x_at, grad_at, sums_at = x_row * p.C, grad_row * p.C, kh * p.KW * _CHANNELS_OF_SUMS
    if p.C >= width:
        for tap in range(0, p.KW, _TAPS):
            for channel in range(first, last, width):
                # the last tile of channels is moved back to end with the last channel; its sums are its own
                c = min(channel, p.C - width)
                tap_at = sums_at + tap * _CHANNELS_OF_SUMS + channel - first
                _add_pixels(x, grad_out, sums, tap_at, p, x_at + c, grad_at + c, tap, next_grad, next_x)
    else:
        for number in range(p.runs.shape[0]):
            target, pixels = p.runs[number, 0], p.runs[number, 1]
            source, tap, taps = p.runs[number, 2], p.runs[number, 3], p.runs[number, 4]
            for k in range(taps):
                for c in range(0, p.C, lanes):
                    _few_channels_of_tap(
                        x, grad_out, sums, x_at + (source + k * p.dilation_w) * p.C + c, grad_at + target * p.C + c,
                        sums_at + (tap + k) * _CHANNELS_OF_SUMS + c, p.source_step * p.C, p.C, pixels,
                        min(lanes, p.C - c),
                    )  # fmt: skip


@_jit.inline
def _fill(sums, start, stop, used, number):
    """Write *number* into the first *used* channels of each tap."""
    lanes = simd.lane_count(sums)
    numbers = simd.splat(sums, number)
    for tap in range(start, stop, _CHANNELS_OF_SUMS):
        for at in range(tap, tap + used, lanes):
            simd.store(sums, at, numbers)


@_jit.inline
def _end_chain(sums, totals, used):
    """Add the sums of a chain to those at *totals*, the first *used* channels of each tap, and begin a new one."""
    lanes = simd.lane_count(sums)
    for tap in range(0, totals, _CHANNELS_OF_SUMS):
        for at in range(tap, tap + used, lanes):
            simd.store(sums, totals + at, simd.add(simd.load(sums, totals + at), simd.load(sums, at)))
            simd.store(sums, at, simd.zeros(sums))


@_jit.flushing_tasks
def _grad_weight_tasks(x, grad_out, partial, sums, plan, splits, chain_rows, blocks, first_task, last_task):
    """Tasks of grad_weight; a task is a split of the rows (n, oh) times a block of channels.

    Row by row, so that a row of grad_out serves all taps from the cache; the sums of a block wait in ``sums`` between
    rows.  Every *chain_rows* rows they are added to the totals behind them, and begin anew.  Each element of
    ``partial[split]`` has one writer, and pixels are added in rising order (n, oh, ow).
    """
    p = plan
    x, grad_out, partial, sums = simd.span(x), simd.span(grad_out), simd.span(partial), simd.span(sums)
    totals = p.KH * p.KW * _CHANNELS_OF_SUMS
    lanes = simd.lane_count(sums)
    width = _VECTORS * lanes
    for task in range(first_task, last_task):
        split = task // blocks
        first = task % blocks * _CHANNELS_OF_SUMS
        last = min(first + _CHANNELS_OF_SUMS, p.C)
        used = -(-(last - first) // width) * width
        first_row, last_row = p.N * p.TARGET_H * split // splits, p.N * p.TARGET_H * (split + 1) // splits
        several = last_row - first_row > chain_rows
        _fill(sums, 0, totals, used, 0.0)
        if several:
            # to which -0 is added without being changed, as if the first chain began the total
            _fill(sums, totals, 2 * totals, used, -0.0)
        for row in range(first_row, last_row):
            n = row // p.TARGET_H
            line = row % p.TARGET_H
            x_row = (n * p.SOURCE_H + p.lines[line, 0]) * p.SOURCE_W
            stride = p.lines[min(line + 1, p.TARGET_H - 1), 0] - p.lines[line, 0]
            for k in range(p.lines[line, 2]):
                # with its first row of x a row of grad_out fetches the next one, with the last ones their successors
                next_grad = p.TARGET_W * p.C if k == 0 else 0
                next_x = stride * p.SOURCE_W * p.C if k + stride >= p.lines[line, 2] else 0
                x_line = x_row + k * p.dilation_h * p.SOURCE_W
                _add_row(
                    x, grad_out, sums, p, x_line, row * p.TARGET_W, p.lines[line, 1] + k, first, last, next_grad, next_x
                )
            if several and (row + 1 - first_row) % chain_rows == 0 and row + 1 < last_row:
                _end_chain(sums, totals, used)
        if several:
            _end_chain(sums, totals, used)
        result = totals if several else 0
        for tap in range(p.KH * p.KW):
            source, target = result + tap * _CHANNELS_OF_SUMS - first, (split * p.KH * p.KW + tap) * p.C
            whole = last - (last - first) % width
            for channel in range(first, whole, lanes):
                simd.store(partial, target + channel, simd.load(sums, source + channel))
            moved = whole - max(p.C - width, 0) if whole < last else 0
            for channel in range(whole, last):
                partial[target + channel] = sums[source + channel + moved]


@_jit.inline
def _grad_weight_workspace(out, plan):
    """Memory of one thread: the sums and the totals of a block of channels, for all taps."""
    return np.empty((2 * plan.KH * plan.KW + _TAPS) * _CHANNELS_OF_SUMS, out.dtype)


@_jit.kernel
def conv2d_grad_weight_depthwise_serial(x, grad_out, partial, plan, splits, chain_rows, blocks):
    """All tasks of grad_weight; arrays are flat."""
    sums = _grad_weight_workspace(partial, plan)
    _grad_weight_tasks(x, grad_out, partial, sums, plan, splits, chain_rows, blocks, 0, splits * blocks)


@_jit.parallel_kernel
def conv2d_grad_weight_depthwise_parallel(workers, x, grad_out, partial, plan, splits, chain_rows, blocks):
    """The same tasks, an equal share for each worker."""
    for worker in prange(workers):
        first_task = splits * blocks * worker // workers
        last_task = splits * blocks * (worker + 1) // workers
        sums = _grad_weight_workspace(partial, plan)
        _grad_weight_tasks(x, grad_out, partial, sums, plan, splits, chain_rows, blocks, first_task, last_task)


# ---- from a geometry to the kernels ---------------------------------------------------------------------------------


def split_count(geometry: Conv2dGeometry) -> int:
    """Parts into which the rows (n, oh) are cut; the order of the sums follows."""
    return splits_of(-(-_TASKS // _blocks(geometry)), min(_SPLITS, geometry.N * geometry.OH))


def rows_of_chain(geometry: Conv2dGeometry) -> int:
    """Rows (n, oh) of a split that are one chain; its chains are added in order, and then the splits."""
    pixels = max(_PIXELS_OF_CHAIN, _PIXELS_OF_TAP * geometry.KH * geometry.KW)
    return max(1, pixels // max(geometry.OW, 1))


def _blocks(geometry: Conv2dGeometry) -> int:
    return -(-geometry.OC // _CHANNELS_OF_SUMS)


def grad_weight(geometry: Conv2dGeometry, x: NDArray[Any], grad_out: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = the gradient with respect to weight``: partial sums over a fixed split of the rows, added in order."""
    g = geometry
    blocks, splits = _blocks(g), split_count(g)
    partial = np.empty((splits, out.size), out.dtype) if splits > 1 else out
    threads.run(
        conv2d_grad_weight_depthwise_serial,
        conv2d_grad_weight_depthwise_parallel,
        min(threads.worker_count(g.flops), splits * blocks),
        repeated(g, x).reshape(-1),
        grad_out.reshape(-1),
        partial.reshape(-1),
        forward_plan(g),
        splits,
        rows_of_chain(g),
        blocks,
    )
    if splits > 1:
        add_splits(partial, out)


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes of memory of one thread: the sums and the totals of a block of channels, for all taps."""
    return (2 * geometry.KH * geometry.KW + _TAPS) * _CHANNELS_OF_SUMS * itemsize
