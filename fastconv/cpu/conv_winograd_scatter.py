"""Winograd's gradient of x for small images without padding: tiles of grad_out become tiles of grad_x that overlap.

`conv_winograd` computes grad_x as the forward convolution of grad_out, in tiles of grad_x.  Without padding, grad_x has
two rows and columns more than grad_out, and tiles at the border see mostly zeros: 3x3 numbers of grad_out make 5x5,
100 products, and 11 x 11 make 13 x 13, 441.  Here the forward pass is read backwards.  A tile of 4x4 numbers of
grad_out, or in the end of 3, is brought to the points, multiplied with the weight there, and brought back to the 6x6
pixels that the outputs of the tile have seen, where neighbours overlap and are added.  So only what is there is
multiplied: 25 products and 289.

Ladder: the time of tiles of grad_x, and of the direct sum, over that of this, 3x3, one thread, 32 images:

                            5 x 5 x 64  9 x 9 x 64  13 x 13 x 32  18 x 18 x 64  22 x 22 x 64    8 images,  1 image,
                              from 64     from 64      from 64       from 64       from 64       5 x 5 x 64, from 64
    AVX-512  tiles of grad_x    2.6         1.6          1.4           1.2           1.0            1.8       0.9
             direct             2.2         2.6          2.5           2.6           2.5            1.4       0.7
    AVX2     tiles of grad_x    2.9         1.6          1.6           1.2           1.2            1.8       1.0
             direct             1.8         2.2          2.2           2.1           2.3            1.1       0.6

    fastconv bench --shape 13x13x32,3x3x64 --pass grad_x --batch 32 --threads 1 --against torch --algorithm direct
    # or winograd

Every element is zero and to that the parts of at most four tiles, in the order of the tiles; a part is the same few
sums of 36 chains of fused multiply-adds over oc.  So bits depend neither on threads nor on the batch.

Error: `winograd.error_bound`.  The coefficients on the way of a product add up to 28 on an axis, where tiles overlap,
too; to 31 in the other passes.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import codegen, product, simd
from fastconv.cpu.elementary import ZERO
from fastconv.cpu.product import TILE_ROWS, TILE_VECTORS, ceil_div
from fastconv.cpu.shape import Forms, forward_shape, numbers_of, phases, round_up
from fastconv.cpu.transpose import swap_channels
from fastconv.cpu.winograd import INPUTS, KINDS, OUTPUTS, PLANES, TAPS, transform_pixels
from fastconv.cpu.winograd_plan import DEPTH, ROW, Blocks, Job, Workspace, arrays_of, named, parts_of, products_of
from fastconv.cpu.winograd_taps import transform_tasks
from fastconv.cpu.winograd_tiles import (
    Points,
    images_of,
    lines_behind,
    next_tile,
    plane_size,
    shifts_of,
    start_of,
    tile_at,
    transform_grad_out_tiles,
)
from fastconv.geometry import Conv2dGeometry

# Tiles of a task, in whole images, and input channels of a block.
_TILES_OF_TASK, _COLUMNS_OF_BLOCK = 28, 64

_TAPS_IN_ORDER = np.arange(TAPS)
_KEY = "winograd grad_x backwards"

_multiply = product.tile_product(ROW, 1)


@_jit.inline
def _line_behind(blocks):
    """The line of sums behind those of all tiles, which register tiles fill up."""
    return ceil_div(blocks.tiles, TILE_ROWS) * TILE_ROWS


@_jit.inline
def _add_tiles(sums, blocks, values, grad_x, s, images, first_tile, count, first_column, columns):
    """Transform the sums of a block back to pixels and add them to grad_x, tile by tile.

    A tile does without the points at infinity where it has an output less: it finds zeros there, in the line behind
    those of all tiles.
    """
    lanes, plane, behind = simd.lane_count(grad_x), blocks.sums_plane, _line_behind(blocks)
    n, grid_row, grid_column = tile_at(first_tile, images)
    lines = (0, 0, 0, 0)
    for _ in range(count):
        down, across = grid_row < images.whole_h, grid_column < images.whole_w
        found = (
            lines[0], lines[1] if across else behind, lines[2] if down else behind,
            lines[3] if down and across else behind,
        )  # fmt: skip
        shifts = shifts_of(found, blocks.columns)
        h = start_of(grid_row, 1, OUTPUTS, images.whole_h) + s.pad_top - (TAPS - 1)
        w = start_of(grid_column, 1, OUTPUTS, images.whole_w) + s.pad_left - (TAPS - 1)
        first_row, last_row = max(-h, 0), min(INPUTS - 1 + down, s.OH - h)
        first_pixel, last_pixel = max(-w, 0), min(INPUTS - 1 + across, s.OW - w)
        image = ((n * s.OH + h) * s.OW + w) * s.OC + first_column
        for column in range(0, columns, lanes):
            at = lines[0] * blocks.columns + column
            transform_pixels(sums, at, INPUTS * plane, plane, values, 0, lanes, shifts)
            left = min(columns - column, lanes)
            for row in range(first_row, last_row):
                for pixel in range(first_pixel, last_pixel):
                    part = simd.load(values, (row * INPUTS + pixel) * lanes)
                    to = image + (row * s.OW + pixel) * s.OC + column
                    if left == lanes:
                        simd.store(grad_x, to, simd.add(simd.load(grad_x, to), part))
                    else:
                        simd.store_first(grad_x, to, simd.add(simd.load_first(grad_x, to, left), part), left)
        lines = lines_behind(lines, grid_row, grid_column, images)
        n, grid_row, grid_column = next_tile(n, grid_row, grid_column, images)


@_jit.flushing_tasks
def _scatter_tasks(
    grad_out, taps, grad_x, memory, memory_at, s, images, points, blocks, workspace, first_task, last_task
):
    """Tasks [first_task, last_task); a task is a block of whole images times a share of their input channels.

    The tiles of grad_out are transformed once.  Then blocks of input channels; in each, blocks of output channels; in
    these the 36 products one after the other, as in the forward pass.  Each element of grad_x has one writer, which
    adds the tiles in rising order.
    """
    grad_out, taps, grad_x, memory = simd.span(grad_out), simd.span(taps), simd.span(grad_x), simd.span(memory)
    transformed, sums, _, padded, values = parts_of(memory, memory_at, workspace)
    width = TILE_VECTORS * simd.lane_count(grad_x)
    tiles_of_image = images.grid_h * images.grid_w
    images_of_block = blocks.tiles // tiles_of_image
    shares, depth_blocks = ceil_div(s.OC, blocks.share), ceil_div(s.IC, DEPTH)
    panel_stride = depth_blocks * PLANES * blocks.taps_plane
    block_before, lines = -1, (0, 0, 0, 0)
    for plane in range(PLANES):
        product.fill_zeros(sums, plane * blocks.sums_plane + _line_behind(blocks) * blocks.columns, blocks.columns)
    for task in range(first_task, last_task):
        block = task // shares
        first_image, last_image = block * images_of_block, min((block + 1) * images_of_block, s.N)
        first_tile, count = first_image * tiles_of_image, (last_image - first_image) * tiles_of_image
        if block != block_before:
            lines = transform_grad_out_tiles(grad_out, images, first_tile, count, 0, s.IC, padded, transformed, points)
            block_before = block
        share_start = task % shares * blocks.share
        share_stop = min(share_start + blocks.share, s.OC)
        for pixel in range(first_image * s.OH * s.OW, last_image * s.OH * s.OW):
            for channel in range(share_start, share_stop):
                grad_x[pixel * s.OC + channel] = ZERO
        for first_column in range(share_start, share_stop, blocks.columns):
            columns = min(blocks.columns, share_stop - first_column)
            for depth_block in range(depth_blocks):
                depths = min(DEPTH, s.IC - depth_block * DEPTH)
                factor_at = first_column // width * panel_stride + depth_block * PLANES * blocks.taps_plane
                for plane in range(PLANES):
                    line, last_line = 0, lines[KINDS[plane]]
                    while line < last_line:
                        rows = product.rows_of_tile(last_line - line)
                        left_at = depth_block * points.block + plane * points.plane + line * ROW
                        sums_at = plane * blocks.sums_plane + line * blocks.columns
                        for column in range(0, columns, width):
                            right_at = factor_at + column // width * panel_stride + plane * blocks.taps_plane
                            _multiply(
                                transformed, left_at, taps, right_at, sums, sums_at + column, blocks.columns,
                                depths, depth_block == 0, rows, columns - column, 0, 0,
                            )  # fmt: skip
                        line += rows
            _add_tiles(sums, blocks, values, grad_x, s, images, first_tile, count, first_column, columns)


@_jit.kernel
def conv2d_grad_x_winograd_serial(grad_out, weight, taps, grad_x, memory, numbers):
    """All tasks; arrays are flat, and an empty weight has been transformed before."""
    shape, images, points, blocks, workspace = named(numbers)
    if weight.size > 0:
        transform_tasks(weight, taps, memory, 0, shape, images, blocks.taps_plane, 0, blocks.panels)
    _scatter_tasks(grad_out, taps, grad_x, memory, 0, shape, images, points, blocks, workspace, 0, blocks.tasks)


@_jit.parallel_kernel
def conv2d_grad_x_winograd_parallel(workers, grad_out, weight, taps, grad_x, memory, numbers):
    """The same tasks, an equal share for each worker; the weight is all there before the first one."""
    if weight.size > 0:
        for worker in prange(workers):
            shape, images, _, blocks, _ = named(numbers)
            first_panel, last_panel = blocks.panels * worker // workers, blocks.panels * (worker + 1) // workers
            memory_at = worker * (memory.size // workers)
            transform_tasks(weight, taps, memory, memory_at, shape, images, blocks.taps_plane, first_panel, last_panel)
    for worker in prange(workers):
        shape, images, points, blocks, workspace = named(numbers)
        _scatter_tasks(
            grad_out, taps, grad_x, memory, worker * (memory.size // workers), shape, images, points, blocks, workspace,
            blocks.tasks * worker // workers, blocks.tasks * (worker + 1) // workers,
        )  # fmt: skip


def grad_x(
    geometry: Conv2dGeometry,
    grad_out: NDArray[Any],
    weight: NDArray[Any],
    out: NDArray[Any],
    forms: Forms | None = None,
) -> None:
    """``out = the gradient with respect to x`` where `winograd_plan.reads_backwards`; the weight is kept in *forms*."""
    # two operations for each of the products
    job = _job(geometry, out.itemsize, threads.worker_count(2 * geometry.N * _products(geometry)))
    swapped = partial(swap_channels, weight, _TAPS_IN_ORDER, _TAPS_IN_ORDER, 1)
    weight, taps, memory = arrays_of(job, swapped, forms, _KEY, out.dtype)
    threads.run(
        conv2d_grad_x_winograd_serial,
        conv2d_grad_x_winograd_parallel,
        job.workers,
        grad_out.ravel(),
        weight,
        taps,
        out.ravel(),
        memory,
        job.numbers,
    )
    if forms is not None:
        forms[_KEY] = taps


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes of memory of one thread."""
    return itemsize * _job(geometry, itemsize, 1).workspace


def _products(geometry: Conv2dGeometry) -> int:
    """Multiplications for one image."""
    return products_of((geometry.OH, geometry.OW)) * geometry.IC * geometry.OC


@lru_cache(maxsize=1024)
def _job(geometry: Conv2dGeometry, itemsize: int, workers: int) -> Job:
    """Blocks of whole images, as many for each thread, or shares of the channels where images are few.

    The weight is transformed before all tasks.  Of a tile of grad_x only a vector of channels is held at a time.
    """
    (phase,) = phases(geometry)
    s, (_, images) = phase.shape, images_of(forward_shape(geometry))
    tiles_of_image = images.grid_h * images.grid_w
    lanes = codegen.VECTOR_BYTES // itemsize
    width = TILE_VECTORS * lanes
    blocks_of_images = min(round_up(-(-s.N * tiles_of_image // _TILES_OF_TASK), workers), s.N)
    images_of_block = -(-s.N // blocks_of_images)
    share = round_up(-(-s.OC // -(-workers // blocks_of_images)), width)
    tasks = -(-s.N // images_of_block) * -(-s.OC // share)
    columns = min(_COLUMNS_OF_BLOCK, share)
    tiles = images_of_block * tiles_of_image
    lines = round_up(tiles, TILE_ROWS)
    depth_blocks = -(-s.IC // DEPTH)
    points = Points(DEPTH, PLANES * plane_size(lines * ROW), ROW, plane_size(lines * ROW))
    panels = depth_blocks * -(-s.OC // width)
    sums_plane, taps_plane = plane_size((lines + 1) * columns), plane_size(DEPTH * width)
    padded = PLANES * round_up(s.IC, lanes)
    workspace = Workspace(depth_blocks * points.block, PLANES * sums_plane, 0, padded, PLANES * lanes)
    blocks = Blocks(tiles, columns, share, tasks, panels, sums_plane, taps_plane)
    return Job(
        numbers_of(s, images, points, blocks, workspace),
        panels * PLANES * taps_plane,
        sum(workspace),
        min(workers, tasks),
        np.empty(0, f"f{itemsize}"),
    )
