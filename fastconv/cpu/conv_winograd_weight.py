"""Winograd convolution F(4x4, 3x3), in pieces of 3x3 taps: the gradient with respect to the weight.

The relation of the forward pass read backwards: 36 matrix products of transformed tiles of x and of grad_out, summed
over all tiles, then one transform for each pair of channels.  PyTorch's time (2.13, oneDNN, the faster of its two
layouts) over ours, one AVX2 core, batch 8:

                                    64 channels, 56 x 56    512 channels, 7 x 7    64 channels, 11 x 11
    direct convolution                      1.6                    1.6                     1.2
    this                                    4.0                    2.7                     2.0

    fastconv bench --net resnet_50_v1_5 --layer res2a_branch2b --pass grad_weight --threads 1 --against torch

With register tiles of 4 rows for the last of 64 input channels, where 14 divide them with a rest: 1.04 to 1.11 times as
fast on an AVX-512 core (Zen 4).  With blocks of half the depths where there would be one task for two threads: 64 to 64
channels, 3x3 to 6x6 outputs, 8 to 128 images 1.3 to 1.5 times as fast.

Every element is the same few sums of 36 chains of fused multiply-adds over the tiles (n, th, tw) of a split.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import codegen, product, simd
from fastconv.cpu.chains import add_splits
from fastconv.cpu.product import LINE, TILE_ROWS, TILE_VECTORS, ceil_div
from fastconv.cpu.shape import ConvShape, forward_shape, named_as, numbers_of, splits_of
from fastconv.cpu.winograd import EVERYWHERE, INPUTS, KINDS, PLANES, TAPS, transform_grad_taps
from fastconv.cpu.winograd_tiles import (
    Images,
    Points,
    count_of,
    depths_of,
    images_of,
    next_depths,
    next_piece,
    place_of,
    plane_size,
    start_of,
    tiles_of,
    transform_grad_out_tiles,
    transform_input_tiles,
)
from fastconv.geometry import Conv2dGeometry
from fastconv.memory import scratch

# Depths and output channels of a block: its sums at 36 points are 600 KB of float32, most of an L2 cache.  A block
# transforms its tiles itself; with fewer channels that work would grow beside the products.
_CHANNELS = 64
# Rows of transformed input tiles: a register tile of rows may begin at the last depth.
_ROW = _CHANNELS + LINE
# Tiles of a strip: each adds so many products to a sum between loading and storing it.
_TILES_OF_STRIP = 48
# Tasks for all threads to share, and tiles below which a split is not worth its own sums.  They decide the order of the
# sums, so they do not look at the machine.
_TASKS = 8
_TILES_OF_SPLIT = 96

_accumulate = product.tile_product(1, _ROW)


class Blocks(NamedTuple):
    """How the (depths x output channels x tiles) of a problem are cut into tasks."""

    splits: int
    #: Depths of a block: `_CHANNELS`, or half of them where there would be fewer tasks than threads.
    depths: int
    tasks: int
    tiles: int
    #: Numbers from one of 36 planes of sums to the next, and of an output tile with its border.
    sums_plane: int
    padded: int


_named = named_as(ConvShape, Images, Images, Points, Points, Blocks)


@_jit.inline
def _copy_rows(source, source_at, target, target_at, rows, width):
    """Copy *rows* of sums, if any, one row of `_CHANNELS` numbers apart."""
    for row in range(rows):
        place = row * _CHANNELS
        product.copy_run(source, source_at + place, target, target_at + place, width)


@_jit.flushing_tasks
def _grad_weight_tasks(
    x, grad_out, partial, memory, memory_at, s, inputs, outputs, points, gradients, blocks, first_task, last_task
):
    """Tasks [first_task, last_task); a task is a split of the tiles times a block of depths and one of output channels.

    Strips of tiles outside: both are transformed, then the 36 products one after the other, so that the tiles of one
    lie in the L1 cache while every register tile of its sums is loaded, updated and stored.  Each element of
    ``partial[split]`` has one writer, and tiles are added in rising order.
    """
    x, grad_out, partial, memory = simd.span(x), simd.span(grad_out), simd.span(partial), simd.span(memory)
    points_size, gradients_size = PLANES * points.plane, PLANES * gradients.plane
    sums_size = PLANES * blocks.sums_plane
    transformed = simd.part(memory, memory_at, points_size)
    right = simd.part(memory, memory_at + points_size, gradients_size)
    sums = simd.part(memory, memory_at + points_size + gradients_size, sums_size)
    padded = simd.part(memory, memory_at + points_size + gradients_size + sums_size, blocks.padded)
    lanes = simd.lane_count(partial)
    width = TILE_VECTORS * lanes
    tap_step, row_step = s.stride_w * s.IC * s.OC, s.stride_h * s.KW * s.IC * s.OC
    total_depths = depths_of(inputs)
    depth_blocks, oc_blocks = ceil_div(total_depths, blocks.depths), ceil_div(s.OC, _CHANNELS)
    for task in range(first_task, last_task):
        first_depth = task % depth_blocks * blocks.depths
        first_oc = task // depth_blocks % oc_blocks * _CHANNELS
        split = task // (depth_blocks * oc_blocks)
        depths, ocs = min(blocks.depths, total_depths - first_depth), min(_CHANNELS, s.OC - first_oc)
        last_depth = first_depth + depths
        start, stop = blocks.tiles * split // blocks.splits, blocks.tiles * (split + 1) // blocks.splits
        for first_tile in range(start, stop, _TILES_OF_STRIP):
            tiles = min(_TILES_OF_STRIP, stop - first_tile)
            lines = transform_input_tiles(
                x, inputs, first_tile, tiles, first_depth, depths, padded, transformed, points
            )
            transform_grad_out_tiles(grad_out, outputs, first_tile, tiles, first_oc, ocs, padded, right, gradients)
            for plane in range(PLANES):
                kind = KINDS[plane]
                for oc in range(0, ocs, width):
                    right_at = plane * gradients.plane + oc // width * gradients.block
                    depth, last = next_depths(first_depth, last_depth, kind, inputs)
                    while depth < last:
                        row = depth - first_depth
                        at = plane * blocks.sums_plane + row * _CHANNELS + oc
                        rows = product.rows_of_tile(last - depth)
                        # rows of the last tile that are sums of other depths, which this one must leave as they are
                        beyond = depth + rows - last if last < last_depth else 0
                        _copy_rows(sums, at + (rows - beyond) * _CHANNELS, padded, 0, beyond, width)
                        _accumulate(
                            transformed, plane * points.plane + row, right, right_at,
                            sums, at, _CHANNELS, lines[kind], first_tile == start, rows, ocs - oc, 0, 0,
                        )  # fmt: skip
                        _copy_rows(padded, 0, sums, at + (rows - beyond) * _CHANNELS, beyond, width)
                        depth += rows
                        if depth >= last:
                            depth, last = next_depths(last, last_depth, kind, inputs)
        row_of_pieces, column_of_pieces, ic = place_of(first_depth, inputs)
        for depth in range(depths):
            kh = start_of(row_of_pieces, s.stride_h, TAPS, inputs.long_h)
            kw = start_of(column_of_pieces, s.stride_w, TAPS, inputs.long_w)
            rows = count_of(kh, row_of_pieces, s.stride_h, TAPS, inputs.long_h, s.KH)
            taps_of_row = count_of(kw, column_of_pieces, s.stride_w, TAPS, inputs.long_w, s.KW)
            for oc in range(0, ocs, lanes):
                plane = blocks.sums_plane
                transform_grad_taps(sums, depth * _CHANNELS + oc, INPUTS * plane, plane, padded, 0, lanes, EVERYWHERE)
                count = min(lanes, ocs - oc)
                at = (((split * s.KH + kh) * s.KW + kw) * s.IC + ic) * s.OC + first_oc + oc
                for row in range(TAPS):
                    for column in range(TAPS):
                        if row < rows and column < taps_of_row:
                            tap = simd.load(padded, (row * TAPS + column) * lanes)
                            to = at + row * row_step + column * tap_step
                            if count == lanes:
                                simd.store(partial, to, tap)
                            else:
                                simd.store_first(partial, to, tap, count)
            ic += 1
            if ic == s.IC:
                ic = 0
                row_of_pieces, column_of_pieces = next_piece(row_of_pieces, column_of_pieces, 1, inputs)


@_jit.kernel
def conv2d_grad_weight_winograd_serial(x, grad_out, partial, memory, numbers):
    """All tasks; arrays are flat."""
    shape, inputs, outputs, points, gradients, blocks = _named(numbers)
    _grad_weight_tasks(
        x, grad_out, partial, memory, 0, shape, inputs, outputs, points, gradients, blocks, 0, blocks.tasks
    )  # fmt: skip


@_jit.parallel_kernel
def conv2d_grad_weight_winograd_parallel(workers, x, grad_out, partial, memory, numbers):
    """The same tasks, an equal share for each worker."""
    for worker in prange(workers):
        shape, inputs, outputs, points, gradients, blocks = _named(numbers)
        _grad_weight_tasks(
            x, grad_out, partial, memory, worker * (memory.size // workers),
            shape, inputs, outputs, points, gradients, blocks,
            blocks.tasks * worker // workers, blocks.tasks * (worker + 1) // workers,
        )  # fmt: skip


def grad_weight(geometry: Conv2dGeometry, x: NDArray[Any], grad_out: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = the gradient with respect to weight``: partial sums over a fixed split of the tiles, added in order."""
    workers = threads.worker_count(geometry.flops)
    blocks, own, numbers = _plan(geometry, codegen.VECTOR_BYTES // out.itemsize, workers)
    workers = min(workers, blocks.tasks)
    sums_size = blocks.splits * out.size if blocks.splits > 1 else 0
    memory = scratch(sums_size + workers * own, out.dtype)
    partial = memory[:sums_size] if blocks.splits > 1 else out.reshape(-1)
    threads.run(
        conv2d_grad_weight_winograd_serial,
        conv2d_grad_weight_winograd_parallel,
        workers,
        x.reshape(-1),
        grad_out.reshape(-1),
        partial,
        memory[sums_size:],
        numbers,
    )
    if blocks.splits > 1:
        add_splits(partial.reshape(blocks.splits, -1), out)


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes of memory of one thread."""
    _, own, _ = _plan(geometry, codegen.VECTOR_BYTES // itemsize, workers=1)
    return itemsize * own


def split_count(geometry: Conv2dGeometry) -> int:
    """Parts into which the tiles are split, each with sums of its own."""
    shape = forward_shape(geometry)
    return splits_of(-(-_TASKS // _blocks_of_sums(*images_of(shape))), tiles_of(shape) // _TILES_OF_SPLIT)


def _blocks_of_sums(inputs: Images, outputs: Images) -> int:
    return -(-depths_of(inputs) // _CHANNELS) * -(-outputs.C // _CHANNELS)


@lru_cache(maxsize=1024)
def _plan(g: Conv2dGeometry, lanes: int, workers: int) -> tuple[Blocks, int, NDArray[np.int64]]:
    """The cut into tasks, the numbers in the memory of a thread, and all that `_named` gives to a kernel."""
    shape = forward_shape(g)
    inputs, outputs = images_of(shape)
    width = TILE_VECTORS * lanes
    points = Points(_CHANNELS, 0, _ROW, plane_size(_TILES_OF_STRIP * _ROW))
    gradients = Points(width, _TILES_OF_STRIP * width, width, plane_size(_TILES_OF_STRIP * _CHANNELS))
    tiles = tiles_of(shape)
    splits = split_count(g)
    sums_plane = plane_size((_CHANNELS + TILE_ROWS) * _CHANNELS)
    depths = _CHANNELS if splits * _blocks_of_sums(inputs, outputs) >= workers else _CHANNELS // 2
    tasks = splits * -(-depths_of(inputs) // depths) * -(-outputs.C // _CHANNELS)
    blocks = Blocks(splits, depths, tasks, tiles, sums_plane, PLANES * _CHANNELS)
    own = PLANES * (points.plane + gradients.plane + blocks.sums_plane) + blocks.padded
    return blocks, own, numbers_of(shape, inputs, outputs, points, gradients, blocks)
