"""Winograd convolution F(4x4, 3x3), of kernels in pieces of 3x3 taps (`winograd_tiles`): forward and grad_x.

Ladder: PyTorch's time (2.13, oneDNN, the faster of its two layouts) over ours, one AVX2 core, batch 8:

                                                      64 channels,   512 channels,   64 channels,
                                                        56 x 56         7 x 7          11 x 11
    direct convolution                                    0.80           0.70            0.88
    transforms in vectors, 36 products in the L2 cache    2.0             --             1.2
    a large weight transformed part by part               2.0            1.5             1.2
    its next rows asked for ahead                         2.0            1.9             1.2
    memory kept from call to call                         2.0            1.9             1.6

    fastconv bench --net resnet_50_v1_5 --layer res2a_branch2b --pass forward --threads 1 --against torch

and one AVX-512 core (Zen 4), milliseconds, the weight kept:
                                    512 channels,   256 channels,   64 channels,   512 channels,
                                      one, 7 x 7     one, 14 x 14    one, 56 x 56   8, 7 x 7
    14 rows in every register tile        3.77            1.43           0.72          9.2
    4 in those of the last tiles          1.33            1.14           0.70          7.3
    (four tiles have a way of their own now, `winograd_few`)

A kept weight that the L2 cache does not hold, its next panel asked for between the steps of the products (`product`),
times as fast, one thread, an AVX-512 core (Zen 5) and the same one with AVX2:

               512 channels,  512 channels,  512 channels,  256 channels,  256 channels,
                8, 28 x 28     8, 14 x 14     one, 14 x 14   8, 14 x 14     one, 14 x 14
    AVX-512         1.65           1.7            1.8            1.6            1.8
    AVX2            1.4            1.5            2.1            1.4            2.0

Pieces, the time of the direct sum over that of this, 8 images, one thread:

                  3x3 taps,     5x5 taps,     7x7 taps,     15x15 taps,   5x5, stride 2,   11x11, stride 4,
                  dilation 2    28 x 28 x 48  28 x 28 x 32  32 x 32 x 16  56 x 56 x 64     112 x 112 x 3
                  28 x 28 x 64  to 64         to 32         to 16         to 64            to 64
    AVX-512           2.1           2.0           1.7           2.1           1.9               2.1
    AVX2              2.0           1.9           1.6           1.9           2.0               1.6

    fastconv bench --shape 28x28x48,5x5x64,padding=same --threads 1 --against torch --algorithm direct   # or winograd

Without the products at infinity of tiles of three outputs and pieces of two taps, beside 4x4 tiles and 3x3 pieces that
are filled up, 8 images, one thread, times as fast:

                          512 channels,  256 channels,  5x5 taps,  7x7 taps,  4x4 taps,
                             7 x 7         14 x 14       28 x 28    28 x 28    25 x 25
    AVX-512  forward          1.19           1.18          1.06       1.16       1.28
             grad_weight      1.12           1.18          1.15       1.24       1.38
    AVX2     forward          1.23           1.13          1.16       1.22       1.34
             grad_weight      1.09           1.22          1.13       1.17       1.55

and 64 channels, 32 images of 3x3 outputs, which are 25 products each, 1.23 to 1.34.

With 12 tiles in a block in place of 48, where the weight is small, and pixels asked for between the products of the
block before: 56 x 56 x 64, 8 images, 1.13 times as fast on the AVX-512 core and 1.07 times on an AVX2 core, 112 x 112 x
64 1.2 times.  Arrays that the L2 cache holds lose by it, so nothing is asked for of them.  To ask for the pixels of the
next tile while one is transformed changed nothing.

A call for one image of 16 x 16 x 16, 16 channels out, takes 23 us, and PyTorch's 40; 45 as two kernels, one for the
weight, with shape and plan as tuples.

The products of whole tiles are a quarter as many as those of the direct sum and run at 85% of its speed; the rest goes
into the transforms, which read each pixel of x 2.25 times and write 36 numbers for 16.

Tried and not kept: tiles of 6x6 outputs from 64 products, at the points 0, infinity, +-1/2, +-1 and +-2, 36 tiles in a
block.  The time of 4x4 over theirs, VGG-19, batch 4 on a busy machine, beside the ratio of the vector operations that
products and transforms count, with the outputs of tiles that lie outside the image:

               conv1_2   conv2_1   conv2_2   conv3_1   conv3_2   conv4_1   conv4_2
    counted      1.17      1.19      1.20      1.07      1.07      1.07      1.08
    measured     1.13      1.09      1.05      1.00      0.97      0.99      0.94

Sides of 224 and 112 waste 4% of such tiles, 56 and 28 waste 15%, and 14 all that was won.  The three layers that gain
are about a quarter of the network's time: 2% in all, for ten times the error bound, and 5 to 8 times the error
on random data.

Every output element is the same few sums of the same 36 chains of fused multiply-adds over ic, wherever its tile lies
in a block, so the result has the same bits for any number of threads, any batch and any vector width.

Error: `winograd.error_bound`; on random data within 5e-6 of the largest result, 1.5e-6 with 64 channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import conv_direct, conv_winograd_scatter, conv_winograd_weight, product, simd, tiles
from fastconv.cpu.activation import activate
from fastconv.cpu.conv_winograd_weight import grad_weight as grad_weight
from fastconv.cpu.epilogue import RELU, finish_vector, tile_finisher
from fastconv.cpu.product import STEPS_OF_FETCHING, TILE_ROWS, TILE_VECTORS, ceil_div
from fastconv.cpu.shape import Forms, forward_shape, phases
from fastconv.cpu.transpose import swap_channels
from fastconv.cpu.winograd import INPUTS, KINDS, OUTPUTS, PLANES, TAPS, transform_output
from fastconv.cpu.winograd_few import pack_weight, sum_few_tiles
from fastconv.cpu.winograd_plan import (
    DEPTH,
    ROW,
    Job,
    arrays_of,
    forward_job,
    job_of,
    named,
    parts_of,
    reads_backwards,
)
from fastconv.cpu.winograd_taps import transform_block, transform_tasks
from fastconv.cpu.winograd_tiles import (
    count_of,
    depths_of,
    lines_behind,
    next_depths,
    next_tile,
    share_of,
    shifts_of,
    start_of,
    tile_at,
    transform_input_tiles,
)
from fastconv.geometry import Conv2dGeometry

# Multiplications of the direct sum for one of the products here.
_SAVING = (OUTPUTS * TAPS) ** 2 // PLANES
# Rows of pixels that the last tile of a block sees beyond its outputs.
_ROWS_BELOW = 2

# Numbers of a transformed weight that the L2 cache holds: 1 MB of float32.
_TAPS_IN_L2 = 1 << 18

_multiply = product.tile_product(ROW, 1)


_finish_pixel = tile_finisher(1, TILE_VECTORS)


@_jit.inline
def _finish_tiles(
    sums, blocks, values, bias, residual, out, out_array, s, images, activation,
    first_tile, count, first_column, columns, stream,
):  # fmt: skip
    """Transform the sums of a block back and write them to out, with bias, residual and activation.

    Tiles outside, so that memory is written in order; of a tile at the end of a row only what lies inside the image.
    """
    lanes = simd.lane_count(out)
    width, plane = TILE_VECTORS * lanes, blocks.sums_plane
    n, grid_row, grid_column = tile_at(first_tile, images)
    lines = (0, 0, 0, 0)
    for _ in range(count):
        shifts = shifts_of(lines, blocks.columns)
        oh = start_of(grid_row, images.dilation_h, OUTPUTS, images.whole_h)
        ow = start_of(grid_column, images.dilation_w, OUTPUTS, images.whole_w)
        rows = count_of(oh, grid_row, images.dilation_h, OUTPUTS, images.whole_h, s.OH)
        pixels = count_of(ow, grid_column, images.dilation_w, OUTPUTS, images.whole_w, s.OW)
        row_stride, pixel_stride = images.dilation_h * s.OW * s.OC, images.dilation_w * s.OC
        out_at = ((n * s.OH + oh) * s.OW + ow) * s.OC + first_column
        for column in range(0, columns, width):
            rest = min(columns - column, width)
            for lane in range(0, rest, lanes):
                at = lines[0] * blocks.columns + column + lane
                transform_output(sums, at, INPUTS * plane, plane, values, lane, width, shifts)
            for row in range(rows):
                for pixel in range(pixels):
                    at = (row * OUTPUTS + pixel) * width
                    to = out_at + row * row_stride + pixel * pixel_stride + column
                    if rest == width:
                        result = tiles.load(values, at, 0, 1, TILE_VECTORS)
                        _finish_pixel(result, bias, first_column + column, residual, out, to, 0, activation, stream)
                    else:
                        for lane in range(0, rest, lanes):
                            left = min(rest - lane, lanes)
                            value = simd.load(values, at + lane)
                            place = first_column + column + lane
                            value = finish_vector(value, bias, place, residual, to + lane, left, activation)
                            if left == lanes:
                                simd.store(out, to + lane, value)
                            else:
                                simd.store_first(out, to + lane, value, left)
        if activation > RELU:
            for row in range(rows):
                for pixel in range(pixels):
                    activate(out_array, out_at + row * row_stride + pixel * pixel_stride, columns, activation)
        lines = lines_behind(lines, grid_row, grid_column, images)
        n, grid_row, grid_column = next_tile(n, grid_row, grid_column, images)


@_jit.flushing_tasks
def _forward_tasks(
    x, weight, taps, bias, residual, out_array, memory, memory_at, s, images, points, blocks, workspace, activation,
    first_task, last_task,
):  # fmt: skip
    """Tasks [first_task, last_task) of the forward pass; a task is a block of tiles times a share of output channels.

    The tiles are transformed once.  Then blocks of output channels; in each, blocks of depths; in these the 36
    products one after the other, so that the tiles and weights of one lie in the L1 cache; in a product, tiles outside,
    because they are the smaller part.  At infinity there are the lines and depths that count, and no others.  Between
    products, pixels for the transforms that follow are asked for: x a row of tiles ahead, and out; during them, what
    the next product reads of a large weight.  Each output element has one writer.
    """
    x, weight, bias, residual = simd.span(x), simd.span(weight), simd.span(bias), simd.span(residual)
    out, taps, memory = simd.span(out_array), simd.span(taps), simd.span(memory)
    transformed, sums, own_taps, padded, values = parts_of(memory, memory_at, workspace)
    width = TILE_VECTORS * simd.lane_count(out)
    total = s.N * images.grid_h * images.grid_w
    shares = ceil_div(s.OC, blocks.share)
    total_depths = depths_of(images)
    depth_blocks = ceil_div(total_depths, DEPTH)
    block_before, lines = -1, (0, 0, 0, 0)
    stream = activation <= RELU and simd.streams(out_array, s.OC)
    # lines up to which the next panel is not asked for: one register tile reads it as fast as memory gives it
    most_unasked = TILE_ROWS if taps.size > _TAPS_IN_L2 else blocks.tiles
    for task in range(first_task, last_task):
        block = task // shares
        first_tile = block * blocks.tiles
        count = min(blocks.tiles, total - first_tile)
        if block != block_before:
            lines = transform_input_tiles(x, images, first_tile, count, 0, total_depths, padded, transformed, points)
            block_before = block
        ahead = first_tile + max(count, images.grid_w)
        steps = ceil_div(blocks.share, blocks.columns) * depth_blocks * PLANES
        x_at, x_step = share_of(x, ahead, count, total, steps)
        x_at += _ROWS_BELOW * s.IW * s.IC
        out_at, out_step = share_of(out, ahead - count, count, total, steps)
        share_start = task % shares * blocks.share
        share_stop = min(share_start + blocks.share, s.OC)
        for first_column in range(share_start, share_stop, blocks.columns):
            columns = min(blocks.columns, share_stop - first_column)
            for depth_block in range(depth_blocks):
                first_depth = depth_block * DEPTH
                last_depth = min(first_depth + DEPTH, total_depths)
                if taps.size > 0:
                    factor, panel_stride = taps, depth_blocks * PLANES * blocks.taps_plane
                    factor_at = first_column // width * panel_stride + depth_block * PLANES * blocks.taps_plane
                else:
                    factor, panel_stride = own_taps, PLANES * blocks.taps_plane
                    factor_at = 0
                    transform_block(
                        weight, first_depth, first_column, s, images, last_depth - first_depth, columns, padded,
                        own_taps, 0, panel_stride, blocks.taps_plane,
                    )  # fmt: skip
                for plane in range(PLANES):
                    product.fetch(x, x_at, x_step)
                    x_at += x_step
                    if not stream:
                        product.fetch(out, out_at, out_step)
                        out_at += out_step
                    kind = KINDS[plane]
                    first, done = depth_block == 0, first_depth
                    while done < last_depth:
                        start, done = next_depths(done, last_depth, kind, images)
                        line, last_line = 0, lines[kind] if start < done or first else 0
                        at = start - first_depth
                        while line < last_line:
                            rows = product.rows_of_tile(last_line - line)
                            left_at = depth_block * points.block + plane * points.plane + line * ROW + at
                            sums_at = plane * blocks.sums_plane + line * blocks.columns
                            next_rows = ceil_div(STEPS_OF_FETCHING * rows, last_line) if last_line > most_unasked else 0
                            for column in range(0, columns, width):
                                right_at = factor_at + column // width * panel_stride + plane * blocks.taps_plane
                                next_at = right_at + blocks.taps_plane + line * blocks.taps_plane // last_line
                                _multiply(
                                    transformed, left_at, factor, right_at + at * width, sums, sums_at + column,
                                    blocks.columns, done - start, first, rows, columns - column, next_at, next_rows,
                                )  # fmt: skip
                            line += rows
                        first = False
            _finish_tiles(
                sums, blocks, values, bias, residual, out, out_array, s, images, activation,
                first_tile, count, first_column, columns, stream,
            )  # fmt: skip


@_jit.kernel
def conv2d_forward_winograd_serial(x, weight, taps, bias, residual, out, memory, numbers, activation):
    """All tasks of the forward pass; arrays are flat, and an empty weight has been transformed before."""
    shape, images, points, blocks, workspace = named(numbers)
    if weight.size > 0 and blocks.panels > 0:
        transform_tasks(weight, taps, memory, 0, shape, images, blocks.taps_plane, 0, blocks.panels)
    _forward_tasks(
        x, weight, taps, bias, residual, out, memory, 0, shape, images, points, blocks, workspace, activation,
        0, blocks.tasks,
    )  # fmt: skip


@_jit.parallel_kernel
def conv2d_forward_winograd_parallel(workers, x, weight, taps, bias, residual, out, memory, numbers, activation):
    """The same tasks, an equal share for each worker; a weight transformed ahead is all there before the first one."""
    _, _, _, blocks, _ = named(numbers)
    if weight.size > 0 and blocks.panels > 0:
        for worker in prange(workers):
            shape, images, _, blocks, _ = named(numbers)
            first_panel, last_panel = blocks.panels * worker // workers, blocks.panels * (worker + 1) // workers
            memory_at = worker * (memory.size // workers)
            transform_tasks(weight, taps, memory, memory_at, shape, images, blocks.taps_plane, first_panel, last_panel)
    for worker in prange(workers):
        shape, images, points, blocks, workspace = named(numbers)
        _forward_tasks(
            x, weight, taps, bias, residual, out, memory, worker * (memory.size // workers),
            shape, images, points, blocks, workspace, activation,
            blocks.tasks * worker // workers, blocks.tasks * (worker + 1) // workers,
        )  # fmt: skip


@_jit.flushing_tasks
def _few_tasks(
    x, weight, taps, bias, residual, out_array, memory, memory_at, s, images, points, blocks, workspace, activation,
    first_task, last_task,
):  # fmt: skip
    """Tasks [first_task, last_task) for few tiles and a large weight; a task is all tiles and a share of the channels.

    As `_forward_tasks`, with the products of `winograd_few`, a block of output channels after the other.  Each output
    element has one writer.
    """
    x, weight, bias, residual = simd.span(x), simd.span(weight), simd.span(bias), simd.span(residual)
    out, taps, memory = simd.span(out_array), simd.span(taps), simd.span(memory)
    transformed, sums, own_taps, padded, values = parts_of(memory, memory_at, workspace)
    total = s.N * images.grid_h * images.grid_w
    transform_input_tiles(x, images, 0, total, 0, s.IC, padded, transformed, points)
    for first_column in range(first_task * blocks.share, min(last_task * blocks.share, s.OC), blocks.columns):
        columns = min(blocks.columns, s.OC - first_column)
        sum_few_tiles(weight, taps, own_taps, transformed, points, sums, s, blocks, first_column, columns)
        _finish_tiles(
            sums, blocks, values, bias, residual, out, out_array, s, images, activation,
            0, total, first_column, columns, False,
        )  # fmt: skip


@_jit.kernel
def conv2d_forward_winograd_few_serial(x, weight, taps, bias, residual, out, memory, numbers, activation):
    """All tasks for few tiles; arrays are flat, and an empty weight has been packed before."""
    shape, images, points, blocks, workspace = named(numbers)
    if weight.size > 0 and taps.size > 0:
        pack_weight(weight, taps, shape)
    _few_tasks(
        x, weight, taps, bias, residual, out, memory, 0, shape, images, points, blocks, workspace, activation,
        0, blocks.tasks,
    )  # fmt: skip


@_jit.parallel_kernel
def conv2d_forward_winograd_few_parallel(workers, x, weight, taps, bias, residual, out, memory, numbers, activation):
    """The same tasks, an equal share for each worker."""
    if weight.size > 0 and taps.size > 0:
        shape, _, _, _, _ = named(numbers)
        pack_weight(weight, taps, shape)
    for worker in prange(workers):
        shape, images, points, blocks, workspace = named(numbers)
        _few_tasks(
            x, weight, taps, bias, residual, out, memory, worker * (memory.size // workers),
            shape, images, points, blocks, workspace, activation,
            blocks.tasks * worker // workers, blocks.tasks * (worker + 1) // workers,
        )  # fmt: skip


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
    """``out = activation(conv2d(x, weight) + bias + residual)``; the transformed weight is kept in *forms*."""
    job = forward_job(geometry, out.itemsize, threads.worker_count(geometry.flops / _SAVING), forms is not None)
    _run(job, x, lambda: weight, forms, "winograd", bias, residual, out, activation)


def grad_x(
    geometry: Conv2dGeometry,
    grad_out: NDArray[Any],
    weight: NDArray[Any],
    out: NDArray[Any],
    forms: Forms | None = None,
) -> None:
    """``out = the gradient with respect to x``: the forward convolution of grad_out with the kernel turned around.

    With a stride it is that of `conv_direct`, for small images without padding that of `conv_winograd_scatter`.
    """
    if geometry.stride != (1, 1):
        conv_direct.grad_x(geometry, grad_out, weight, out, forms)
        return
    if reads_backwards(geometry):
        conv_winograd_scatter.grad_x(geometry, grad_out, weight, out, forms)
        return
    (phase,) = phases(geometry)
    turned = partial(swap_channels, weight, phase.rows, phase.columns, 1)
    job = job_of(phase.shape, out.itemsize, threads.worker_count(phase.shape.flops / _SAVING), forms is not None)
    _run(job, grad_out, turned, forms, "winograd grad_x", None, None, out, 0)


def kernels_of(job: Job) -> tuple[Any, Any]:
    """The kernel that runs a job in one thread, and the one for several."""
    if job.few:
        return conv2d_forward_winograd_few_serial, conv2d_forward_winograd_few_parallel
    return conv2d_forward_winograd_serial, conv2d_forward_winograd_parallel


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes of memory of one thread: the largest of what the three passes need."""
    s = forward_shape(geometry)
    of_forward = itemsize * job_of(s, itemsize, 1, False).workspace
    of_grad_x = conv_winograd_scatter.workspace(geometry, itemsize) if reads_backwards(geometry) else 0
    return max(of_forward, of_grad_x, conv_winograd_weight.workspace(geometry, itemsize))


def _run(
    job: Job,
    x: NDArray[Any],
    weight: Callable[[], NDArray[Any]],
    forms: Forms | None,
    key: str,
    bias: NDArray[Any] | None,
    residual: NDArray[Any] | None,
    out: NDArray[Any],
    activation: int,
) -> None:
    """Run a job with what *forms* has under *key*, or else with *weight*, whose transform is kept there."""
    absent = job.absent
    key += ", few tiles" if job.few else ""
    in_parts, taps, memory = arrays_of(job, weight, forms, key, out.dtype)
    threads.run(
        *kernels_of(job),
        job.workers,
        x.ravel(),
        in_parts,
        taps,
        absent if bias is None else bias,
        absent if residual is None else residual.ravel(),
        out.ravel(),
        memory,
        job.numbers,
        activation,
    )
    if forms is not None:
        forms[key] = taps
