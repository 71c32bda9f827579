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
from fastconv.cpu.activation import ACTIVATIONS, activate
from fastconv.cpu.shape import ConvShape, forward_shape, phases
from fastconv.geometry import Conv2dGeometry

_RELU = ACTIVATIONS["relu"]

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


def _pixel_run(pixels):
    """The forward pass for *pixels* neighbouring output pixels and one vector of channels."""

    @_jit.inline
    def run(x, weight, bias, residual, out, shape, n, ih, iw, out_at, channel, count, rows, columns, activation):
        """Sum over the taps in *rows* x *columns*, which lie inside the image for all these pixels, and finish."""
        s = shape
        tile = tiles.zeros(out, pixels, 1)
        for kh in range(rows[0], rows[1]):
            for kw in range(columns[0], columns[1]):
                tap = simd.load_first(weight, (kh * s.KW + kw) * s.OC + channel, count)
                at = ((n * s.IH + ih + kh * s.dilation_h) * s.IW + iw + kw * s.dilation_w) * s.IC + channel
                tile = tiles.multiply_add(tile, x, at, s.stride_w * s.IC, tap, count)
        for pixel in range(pixels):
            value = tiles.row(tile, pixel)
            if bias.size > 0:
                value = simd.add(value, simd.load_first(bias, channel, count))
            at = out_at + pixel * s.step_w * s.OC + channel
            if residual.size > 0:
                value = simd.add(value, simd.load_first(residual, at, count))
            if activation == _RELU:
                value = simd.relu(value)
            simd.store_first(out, at, value, count)

    return run


_many_pixels = _pixel_run(_PIXELS)
_one_pixel = _pixel_run(1)


@_jit.inline
def _forward_tasks(x, weight, bias, residual, out_array, shape, activation, first_task, last_task):
    """Tasks [first_task, last_task) of the forward pass; a task is one output row (n, oh).

    Pixels outermost, eight at a time where the kernel lies inside the image, then channels, a vector at a time: memory
    is read in order, and what part of the kernel lies inside is found out once for all channels.  Each output element
    has one writer.
    """
    s = shape
    x, weight, bias, residual = simd.span(x), simd.span(weight), simd.span(bias), simd.span(residual)
    out = simd.span(out_array)
    lanes = simd.lane_count(out)
    for task in range(first_task, last_task):
        n = task // s.OH
        oh = task % s.OH
        ih = oh * s.stride_h - s.pad_top
        rows = _inside(ih, s.dilation_h, s.KH, s.IH)
        row_at = (n * s.OUT_H + s.start_h + s.step_h * oh) * s.OUT_W + s.start_w
        ow = 0
        while ow < s.OW:
            iw = ow * s.stride_w - s.pad_left
            out_at = (row_at + s.step_w * ow) * s.OC
            last_read = iw + (_PIXELS - 1) * s.stride_w + (s.KW - 1) * s.dilation_w
            if iw >= 0 and last_read < s.IW and ow + _PIXELS <= s.OW:
                for channel in range(0, s.OC, lanes):
                    count = min(lanes, s.OC - channel)
                    _many_pixels(
                        x,
                        weight,
                        bias,
                        residual,
                        out,
                        s,
                        n,
                        ih,
                        iw,
                        out_at,
                        channel,
                        count,
                        rows,
                        (0, s.KW),
                        activation,
                    )
                ow += _PIXELS
            else:
                columns = _inside(iw, s.dilation_w, s.KW, s.IW)
                for channel in range(0, s.OC, lanes):
                    count = min(lanes, s.OC - channel)
                    _one_pixel(
                        x, weight, bias, residual, out, s, n, ih, iw, out_at, channel, count, rows, columns, activation
                    )
                ow += 1
        if activation > _RELU:
            for ow in range(s.OW):
                activate(out_array, (row_at + s.step_w * ow) * s.OC, s.OC, activation)


@_jit.kernel
def conv2d_forward_depthwise_serial(x, weight, bias, residual, out, shape, activation):
    """All rows of the forward pass; arrays are flat."""
    _forward_tasks(x, weight, bias, residual, out, shape, activation, 0, shape.N * shape.OH)


@_jit.parallel_kernel
def conv2d_forward_depthwise_parallel(workers, x, weight, bias, residual, out, shape, activation):
    """The same rows, an equal share for each worker."""
    tasks = shape.N * shape.OH
    for worker in prange(workers):
        first_task = tasks * worker // workers
        last_task = tasks * (worker + 1) // workers
        _forward_tasks(x, weight, bias, residual, out, shape, activation, first_task, last_task)


@_jit.inline
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


@_jit.inline
def _add_row(x, grad_out, partial, x_at, grad_at, sums_at, x_stride, grad_stride, pixels, channels):
    """``partial[sums_at + c] += sum over pixels of x * grad_out`` for up to _CHAINS vectors of channels."""
    lanes = simd.lane_count(partial)
    if channels == _CHAINS * lanes:
        tile = tiles.load(partial, sums_at, lanes, _CHAINS, 1)
        for pixel in range(pixels):
            tile = tiles.multiply_add_rows(tile, x, x_at + pixel * x_stride, grad_out, grad_at + pixel * grad_stride)
        tiles.store(tile, partial, sums_at, lanes)
    else:
        for channel in range(0, channels, lanes):
            count = min(lanes, channels - channel)
            sums = simd.load_first(partial, sums_at + channel, count)
            for pixel in range(pixels):
                a = simd.load_first(x, x_at + pixel * x_stride + channel, count)
                b = simd.load_first(grad_out, grad_at + pixel * grad_stride + channel, count)
                sums = simd.fma(a, b, sums)
            simd.store_first(partial, sums_at + channel, sums, count)


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
    """Bytes of memory of one thread: none."""
    return 0


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
