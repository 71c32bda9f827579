"""Winograd convolution F(4x4, 3x3): the gradient with respect to the weight.

The relation of the forward pass read backwards: 36 matrix products of transformed tiles of x and of grad_out, summed
over all tiles, then one transform for each pair of channels.  PyTorch's time (2.13, oneDNN, the faster of its two
layouts) over ours, one AVX2 core, batch 8:

                                    64 channels, 56 x 56    512 channels, 7 x 7    64 channels, 11 x 11
    direct convolution                      1.6                    1.6                     1.2
    this                                    4.0                    2.7                     2.0

    fastconv bench --net resnet_50_v1_5 --layer res2a_branch2b --pass grad_weight --threads 1 --against torch

With register tiles of 4 rows for the last of 64 input channels, where 14 divide them with a rest: 1.04 to 1.11 times as
fast on an AVX-512 core (Zen 4).

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
from fastconv.cpu.product import LINE, TILE_ROWS, TILE_VECTORS
from fastconv.cpu.shape import named_as, numbers_of
from fastconv.cpu.winograd import INPUTS, OUTPUTS, PLANES, TAPS, transform_grad_taps
from fastconv.cpu.winograd_tiles import (
    Images,
    Points,
    ceil_div,
    plane_size,
    transform_grad_out_tiles,
    transform_input_tiles,
)
from fastconv.geometry import Conv2dGeometry
from fastconv.memory import scratch

# Input and output channels of a block of grad_weight: its sums at 36 points are 600 KB of float32, most of an L2 cache.
# A block transforms its tiles itself; with fewer channels that work would grow beside the products.
_CHANNELS = 64
# Rows of transformed input tiles: a register tile of rows may begin at the last channel.
_ROW = _CHANNELS + LINE
# Tiles of a strip: each adds so many products to a sum between loading and storing it.
_TILES_OF_STRIP = 48
# Tasks for all threads to share, and tiles below which a split is not worth its own sums.  They decide the order of the
# sums, so they do not look at the machine.
_TASKS = 8
_TILES_OF_SPLIT = 96

_accumulate = product.tile_product(TILE_VECTORS, 1, _ROW)


class Blocks(NamedTuple):
    """How the (input channels x output channels x tiles) of a problem are cut into tasks."""

    splits: int
    tasks: int
    tiles: int
    #: Numbers from one of 36 planes of sums to the next, and of an output tile with its border.
    sums_plane: int
    padded: int


_named = named_as(Images, Images, Points, Points, Blocks)


@_jit.flushing_tasks
def _grad_weight_tasks(
    x, grad_out, partial, memory, memory_at, inputs, outputs, points, gradients, blocks, first_task, last_task
):
    """Tasks [first_task, last_task); a task is a split of the tiles times a block of input and one of output channels.

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
    IC, OC = inputs.C, outputs.C
    ic_blocks, oc_blocks = ceil_div(IC, _CHANNELS), ceil_div(OC, _CHANNELS)
    for task in range(first_task, last_task):
        first_ic = task % ic_blocks * _CHANNELS
        first_oc = task // ic_blocks % oc_blocks * _CHANNELS
        split = task // (ic_blocks * oc_blocks)
        ics, ocs = min(_CHANNELS, IC - first_ic), min(_CHANNELS, OC - first_oc)
        start, stop = blocks.tiles * split // blocks.splits, blocks.tiles * (split + 1) // blocks.splits
        for first_tile in range(start, stop, _TILES_OF_STRIP):
            tiles = min(_TILES_OF_STRIP, stop - first_tile)
            transform_input_tiles(x, inputs, first_tile, tiles, first_ic, ics, padded, transformed, points)
            transform_grad_out_tiles(grad_out, outputs, first_tile, tiles, first_oc, ocs, padded, right, gradients)
            for plane in range(PLANES):
                for oc in range(0, ocs, width):
                    right_at = plane * gradients.plane + oc // width * gradients.block
                    ic = 0
                    while ic < ics:
                        at = plane * blocks.sums_plane + ic * _CHANNELS + oc
                        rows = product.rows_of_tile(ics - ic)
                        _accumulate(
                            transformed, plane * points.plane + ic, right, right_at,
                            sums, at, _CHANNELS, tiles, first_tile == start, rows,
                        )  # fmt: skip
                        ic += rows
        for ic in range(ics):
            for oc in range(0, ocs, lanes):
                plane = blocks.sums_plane
                transform_grad_taps(sums, ic * _CHANNELS + oc, INPUTS * plane, plane, padded, 0, lanes)
                count = min(lanes, ocs - oc)
                for tap in range(TAPS * TAPS):
                    at = ((split * TAPS * TAPS + tap) * IC + first_ic + ic) * OC + first_oc + oc
                    if count == lanes:
                        simd.store(partial, at, simd.load(padded, tap * lanes))
                    else:
                        simd.store_first(partial, at, simd.load(padded, tap * lanes), count)


@_jit.kernel
def conv2d_grad_weight_winograd_serial(x, grad_out, partial, memory, numbers):
    """All tasks; arrays are flat."""
    inputs, outputs, points, gradients, blocks = _named(numbers)
    _grad_weight_tasks(
        x, grad_out, partial, memory, 0, inputs, outputs, points, gradients, blocks, 0, blocks.tasks
    )  # fmt: skip


@_jit.parallel_kernel
def conv2d_grad_weight_winograd_parallel(workers, x, grad_out, partial, memory, numbers):
    """The same tasks, an equal share for each worker."""
    for worker in prange(workers):
        inputs, outputs, points, gradients, blocks = _named(numbers)
        _grad_weight_tasks(
            x, grad_out, partial, memory, worker * (memory.size // workers),
            inputs, outputs, points, gradients, blocks,
            blocks.tasks * worker // workers, blocks.tasks * (worker + 1) // workers,
        )  # fmt: skip


def grad_weight(geometry: Conv2dGeometry, x: NDArray[Any], grad_out: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = the gradient with respect to weight``: partial sums over a fixed split of the tiles, added in order."""
    blocks, own, numbers = _plan(geometry, codegen.VECTOR_BYTES // out.itemsize)
    workers = min(threads.worker_count(geometry.flops), blocks.tasks)
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
        np.add.reduce(partial.reshape(blocks.splits, -1), axis=0, out=out.reshape(-1))


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes of memory of one thread."""
    _, own, _ = _plan(geometry, codegen.VECTOR_BYTES // itemsize)
    return itemsize * own


def split_count(geometry: Conv2dGeometry) -> int:
    """Parts into which the tiles are split, each with sums of its own."""
    g = geometry
    tiles = g.N * -(-g.OH // OUTPUTS) * -(-g.OW // OUTPUTS)
    return max(1, min(-(-_TASKS // _channel_blocks(g)), tiles // _TILES_OF_SPLIT))


def _channel_blocks(geometry: Conv2dGeometry) -> int:
    return -(-geometry.IC // _CHANNELS) * -(-geometry.OC // _CHANNELS)


@lru_cache(maxsize=1024)
def _plan(g: Conv2dGeometry, lanes: int) -> tuple[Blocks, int, NDArray[np.int64]]:
    """The cut into tasks, the numbers in the memory of a thread, and all that `_named` gives to a kernel."""
    grid_h, grid_w = -(-g.OH // OUTPUTS), -(-g.OW // OUTPUTS)
    inputs = Images(g.IH, g.IW, g.IC, grid_h, grid_w, -g.padding[0][0], -g.padding[1][0])
    outputs = Images(g.OH, g.OW, g.OC, grid_h, grid_w, 0, 0)
    width = TILE_VECTORS * lanes
    points = Points(_CHANNELS, 0, _ROW, plane_size(_TILES_OF_STRIP * _ROW))
    gradients = Points(width, _TILES_OF_STRIP * width, width, plane_size(_TILES_OF_STRIP * _CHANNELS))
    tiles = g.N * grid_h * grid_w
    channel_blocks = _channel_blocks(g)
    splits = split_count(g)
    sums_plane = plane_size((_CHANNELS + TILE_ROWS) * _CHANNELS)
    blocks = Blocks(splits, splits * channel_blocks, tiles, sums_plane, PLANES * _CHANNELS)
    own = PLANES * (points.plane + gradients.plane + blocks.sums_plane) + blocks.padded
    return blocks, own, numbers_of(inputs, outputs, points, gradients, blocks)
