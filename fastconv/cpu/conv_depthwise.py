"""Depthwise convolution, each channel with its own kernel: forward, grad_x and grad_weight.

One product needs one number of x and one of the weight, so there is no matrix product to win from; what counts is that
every number is loaded in full vectors of neighbouring channels and that x passes through the cache once.

Every output element is one chain of fused multiply-adds over (kh, kw), or over pixels (n, oh, ow) for grad_weight.
Taps that fall on padding are left out, so a chain has at most KH * KW links: the error is below ``eps * KH * KW``
times the sum of the absolute products.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import codegen, simd, tiles
from fastconv.cpu.activation import activate
from fastconv.cpu.epilogue import RELU, finish_vector
from fastconv.cpu.shape import ConvShape, forward_shape, phases
from fastconv.geometry import Conv2dGeometry

# Neighbouring output pixels that share each loaded weight vector.
_PIXELS = 8
# Vectors of channels whose sums grad_weight keeps in registers: enough independent chains to hide the latency of one.
_CHAINS = 4
# grad_weight is summed over at most this many parts of the rows of all images, whatever the number of threads.
_SPLITS = 16


@_jit.inline
def _inside(start, step, taps, extent):
    """The range of taps k with 0 <= start + k * step < extent."""
    first = 0
    if start < 0:
        first = (-start + step - 1) // step
    last = min(taps, (extent - start + step - 1) // step)
    return first, max(last, first)


@_jit.inline
def _list_taps(taps, shape, rows, columns):
    """Write where the taps in *rows* x *columns* lie, in x and in the weight, and return how many there are.

    A list, because loops over kh and kw of two or three turns each would spend their time on setting up addresses.
    """
    s = shape
    count = 0
    for kh in range(rows[0], rows[1]):
        for kw in range(columns[0], columns[1]):
            taps[2 * count] = (kh * s.dilation_h * s.IW + kw * s.dilation_w) * s.IC
            taps[2 * count + 1] = (kh * s.KW + kw) * s.OC
            count += 1
    return count


def _pixel_run(pixels):
    """The forward pass for *pixels* neighbouring output pixels and all channels."""

    @_jit.inline
    def run(x, weight, bias, residual, out, sums, taps, tap_count, shape, x_at, out_at, activation):
        """Sum over the listed taps, which lie inside the image for all these pixels, and finish, vector by vector."""
        s = shape
        lanes = simd.lane_count(out)
        for channel in range(0, s.OC, lanes):
            count = min(lanes, s.OC - channel)
            tile = tiles.zeros(out, pixels, 1)
            for number in range(tap_count):
                tap = simd.load_first(weight, taps[2 * number + 1] + channel, count)
                at = x_at + taps[2 * number] + channel
                tile = tiles.multiply_add(tile, x, at, s.stride_w * s.IC, tap, count)
            tiles.store(tile, sums, 0, lanes)
            for pixel in range(pixels):
                at = out_at + pixel * s.step_w * s.OC + channel
                value = simd.load(sums, pixel * lanes)
                value = finish_vector(value, bias, channel, residual, at, count, activation)
                # the memory is fetched while the next run is computed: up to 1.1 times as fast on large images
                simd.prefetch_for_write(out, at + 2 * pixels * s.step_w * s.OC)
                simd.store_first(out, at, value, count)

    return run


_many_pixels = _pixel_run(_PIXELS)
_one_pixel = _pixel_run(1)


@_jit.inline
def _forward_workspace(out, shape):
    """Memory of one thread: the sums of a run of pixels for a vector of channels, and the list of taps."""
    return np.empty(_PIXELS * codegen.VECTOR_BYTES // 4, out.dtype), np.empty(2 * shape.KH * shape.KW, np.int64)


@_jit.flushing_tasks
def _forward_tasks(x, weight, bias, residual, out_array, workspace, shape, activation, first_task, last_task):
    """Tasks [first_task, last_task) of the forward pass; a task is one output row (n, oh).

    Pixels outermost, eight at a time where the kernel lies inside the image, then channels, a vector at a time: memory
    is read in order, and which taps lie inside is found out once for all channels.  Each output element has one writer.
    """
    s = shape
    x, weight, bias, residual = simd.span(x), simd.span(weight), simd.span(bias), simd.span(residual)
    out, sums, taps = simd.span(out_array), simd.span(workspace[0]), simd.span(workspace[1])
    for task in range(first_task, last_task):
        n = task // s.OH
        oh = task % s.OH
        ih = oh * s.stride_h - s.pad_top
        rows = _inside(ih, s.dilation_h, s.KH, s.IH)
        out_at = ((n * s.OUT_H + s.start_h + s.step_h * oh) * s.OUT_W + s.start_w) * s.OC
        ow = 0
        while ow < s.OW:
            iw = ow * s.stride_w - s.pad_left
            x_at = ((n * s.IH + ih) * s.IW + iw) * s.IC
            last_read = iw + (_PIXELS - 1) * s.stride_w + (s.KW - 1) * s.dilation_w
            at = out_at + ow * s.step_w * s.OC
            if iw >= 0 and last_read < s.IW and ow + _PIXELS <= s.OW:
                tap_count = _list_taps(taps, s, rows, (0, s.KW))
                _many_pixels(x, weight, bias, residual, out, sums, taps, tap_count, s, x_at, at, activation)
                ow += _PIXELS
            else:
                tap_count = _list_taps(taps, s, rows, _inside(iw, s.dilation_w, s.KW, s.IW))
                _one_pixel(x, weight, bias, residual, out, sums, taps, tap_count, s, x_at, at, activation)
                ow += 1
        if activation > RELU:
            for ow in range(s.OW):
                activate(out_array, out_at + ow * s.step_w * s.OC, s.OC, activation)


@_jit.kernel
def conv2d_forward_depthwise_serial(x, weight, bias, residual, out, shape, activation):
    """All rows of the forward pass; arrays are flat."""
    workspace = _forward_workspace(out, shape)
    _forward_tasks(x, weight, bias, residual, out, workspace, shape, activation, 0, shape.N * shape.OH)


@_jit.parallel_kernel
def conv2d_forward_depthwise_parallel(workers, x, weight, bias, residual, out, shape, activation):
    """The same rows, an equal share for each worker."""
    tasks = shape.N * shape.OH
    for worker in prange(workers):
        first_task = tasks * worker // workers
        last_task = tasks * (worker + 1) // workers
        workspace = _forward_workspace(out, shape)
        _forward_tasks(x, weight, bias, residual, out, workspace, shape, activation, first_task, last_task)


def _row_sum(chains):
    """Sums over a run of pixels for *chains* whole vectors of channels."""

    @_jit.inline
    def add_row(x, grad_out, partial, x_at, grad_at, sums_at, x_stride, grad_stride, pixels):
        """``partial[sums_at + c] += sum over pixels of x * grad_out``, one chain of multiply-adds for each channel."""
        lanes = simd.lane_count(partial)
        tile = tiles.load(partial, sums_at, lanes, chains, 1)
        for pixel in range(pixels):
            tile = tiles.multiply_add_rows(tile, x, x_at + pixel * x_stride, grad_out, grad_at + pixel * grad_stride)
        tiles.store(tile, partial, sums_at, lanes)

    return add_row


_add_row_of_many = _row_sum(_CHAINS)
_add_row_of_two = _row_sum(2)


@_jit.inline
def _add_row(x, grad_out, partial, x_at, grad_at, sums_at, x_stride, grad_stride, pixels, channels):
    """The same for any number of channels: in fours of vectors, in twos, and the rest one by one."""
    lanes = simd.lane_count(partial)
    channel = 0
    while channel + _CHAINS * lanes <= channels:
        _add_row_of_many(
            x, grad_out, partial, x_at + channel, grad_at + channel, sums_at + channel, x_stride, grad_stride, pixels
        )
        channel += _CHAINS * lanes
    while channel + 2 * lanes <= channels:
        _add_row_of_two(
            x, grad_out, partial, x_at + channel, grad_at + channel, sums_at + channel, x_stride, grad_stride, pixels
        )
        channel += 2 * lanes
    while channel < channels:
        count = min(lanes, channels - channel)
        sums = simd.load_first(partial, sums_at + channel, count)
        for pixel in range(pixels):
            a = simd.load_first(x, x_at + pixel * x_stride + channel, count)
            b = simd.load_first(grad_out, grad_at + pixel * grad_stride + channel, count)
            sums = simd.fma(a, b, sums)
        simd.store_first(partial, sums_at + channel, sums, count)
        channel += lanes


@_jit.flushing_tasks
def _grad_weight_tasks(x, grad_out, partial, shape, splits, first_task, last_task):
    """Tasks of grad_weight; a task is a split of the rows (n, oh) times a block of channels.

    Row by row, so that a row of grad_out serves all taps from the L1 cache; the sums of a tap wait in ``partial``
    between rows.  Each element of ``partial[split]`` has one writer, and pixels are added in rising order (n, oh, ow).
    """
    s = shape
    x, grad_out, partial = simd.span(x), simd.span(grad_out), simd.span(partial)
    lanes = simd.lane_count(partial)
    width = _CHAINS * lanes
    blocks = (s.OC + width - 1) // width
    for task in range(first_task, last_task):
        split = task // blocks
        block = task % blocks * width
        start = split * s.KH * s.KW * s.OC
        for row in range(s.N * s.OH * split // splits, s.N * s.OH * (split + 1) // splits):
            n = row // s.OH
            oh = row % s.OH
            ih = oh * s.stride_h - s.pad_top
            first_kh, last_kh = _inside(ih, s.dilation_h, s.KH, s.IH)
            for kh in range(first_kh, last_kh):
                for kw in range(s.KW):
                    first_iw = kw * s.dilation_w - s.pad_left
                    first_ow, last_ow = _inside(first_iw, s.stride_w, s.OW, s.IW)
                    x_at = ((n * s.IH + ih + kh * s.dilation_h) * s.IW + first_iw + first_ow * s.stride_w) * s.IC
                    grad_at = (row * s.OW + first_ow) * s.OC
                    sums_at = start + (kh * s.KW + kw) * s.OC
                    _add_row(
                        x, grad_out, partial, x_at + block, grad_at + block, sums_at + block,
                        s.stride_w * s.IC, s.OC, last_ow - first_ow, min(width, s.OC - block),
                    )  # fmt: skip


@_jit.kernel
def conv2d_grad_weight_depthwise_serial(x, grad_out, partial, shape, splits, tasks):
    """All tasks of grad_weight; arrays are flat."""
    _grad_weight_tasks(x, grad_out, partial, shape, splits, 0, tasks)


@_jit.parallel_kernel
def conv2d_grad_weight_depthwise_parallel(workers, x, grad_out, partial, shape, splits, tasks):
    """The same tasks, an equal share for each worker."""
    for worker in prange(workers):
        first_task = tasks * worker // workers
        last_task = tasks * (worker + 1) // workers
        _grad_weight_tasks(x, grad_out, partial, shape, splits, first_task, last_task)


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
    _run_forward(
        _same_channels(forward_shape(geometry)), _repeated(geometry, x), weight, bias, residual, out, activation
    )


def grad_x(geometry: Conv2dGeometry, grad_out: NDArray[Any], weight: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = the gradient with respect to x``: one depthwise convolution of grad_out for each phase of the stride."""
    g = geometry
    multiplier = g.OC // g.IC
    of_each_output = out if multiplier == 1 else np.empty((*out.shape[:3], g.OC), out.dtype)
    for phase in phases(g):
        taps = np.ascontiguousarray(weight[phase.rows][:, phase.columns])
        _run_forward(_same_channels(phase.shape, g.OC), grad_out, taps, None, None, of_each_output, 0)
    if multiplier > 1:
        np.add.reduce(of_each_output.reshape(*out.shape, multiplier), axis=-1, out=out)


def grad_weight(geometry: Conv2dGeometry, x: NDArray[Any], grad_out: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = the gradient with respect to weight``: partial sums over a fixed split of the rows, added in order."""
    g = geometry
    splits = min(_SPLITS, g.N * g.OH)
    partial = np.zeros((splits, out.size), out.dtype)
    tasks = splits * -(-g.OC // (_CHAINS * (codegen.VECTOR_BYTES // out.itemsize)))
    threads.run(
        conv2d_grad_weight_depthwise_serial,
        conv2d_grad_weight_depthwise_parallel,
        min(threads.worker_count(g.flops), tasks),
        _repeated(g, x).reshape(-1),
        grad_out.reshape(-1),
        partial.reshape(-1),
        _same_channels(forward_shape(g)),
        splits,
        tasks,
    )
    np.add.reduce(partial, axis=0, out=out.reshape(-1))


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes of memory of one thread: the sums of a run of pixels and the list of taps."""
    return _PIXELS * codegen.VECTOR_BYTES // 4 * itemsize + 2 * geometry.KH * geometry.KW * np.dtype(np.int64).itemsize


def _repeated(geometry: Conv2dGeometry, x: NDArray[Any]) -> NDArray[Any]:
    """x with each channel as often as it has kernels, so that channel oc of x meets channel oc of the weight."""
    multiplier = geometry.OC // geometry.IC
    return x if multiplier == 1 else np.repeat(x, multiplier, axis=-1)


def _same_channels(shape: ConvShape, channels: int | None = None) -> ConvShape:
    """The shape with as many channels in as out."""
    channels = channels or shape.OC
    return shape._replace(IC=channels, OC=channels)


def _run_forward(
    shape: ConvShape,
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    residual: NDArray[Any] | None,
    out: NDArray[Any],
    activation: int,
) -> None:
    s = shape
    absent = np.empty(0, out.dtype)
    threads.run(
        conv2d_forward_depthwise_serial,
        conv2d_forward_depthwise_parallel,
        min(threads.worker_count(2 * s.N * s.OH * s.OW * s.OC * s.KH * s.KW), s.N * s.OH),
        x.reshape(-1),
        weight.reshape(-1),
        absent if bias is None else bias,
        absent if residual is None else residual.reshape(-1),
        out.reshape(-1),
        shape,
        activation,
    )
