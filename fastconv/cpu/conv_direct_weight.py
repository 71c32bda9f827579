"""Direct grad_weight: blocks of pixels, whose patches times gradients are added to register tiles of the result.

Ladder: PyTorch's time (2.13, oneDNN, the faster of its two layouts) over ours, one AVX2 core (Zen 3), batch 8:

                                                      7x7, 1 -> 64, 28 x 28    1x1, 64 -> 256, 56 x 56
    patches gathered, gradients packed per panel               0.78                     0.75
    patches in place or in strips, gradients in place
    or packed in the order of memory                           0.89                     0.95
    one address for the depths of a tile                       1.14                     0.98

    fastconv bench --net handson_fashion_mnist --layer conv2d --pass grad_weight --threads 1 --against torch

Prefetching the next block's x and gradients gained nothing.  Order of sums: see `conv_direct`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import codegen, patches, product, simd, tiles
from fastconv.cpu.patches import IN_PLACE, PATCHES, STRIP
from fastconv.cpu.product import DEPTH, LINE, PATCH_STRIDE, TILE_ROWS, TILE_VECTORS
from fastconv.cpu.shape import ConvShape, as_product, forward_shape, round_up
from fastconv.geometry import Conv2dGeometry

# A strip of pixels: its patches and gradients are read by every register tile of a block.
_PIXELS_OF_BLOCK = 8 * TILE_ROWS
# Gradients are read in place by so few depths that a packed copy of them would not pay.
_UNPACKED_DEPTH = 8 * TILE_ROWS
# Numbers from pixel to pixel of x from which patches are better gathered than read in place.
_FAR = 128
# Output channels of a block: gathering a patch is paid once for all of them.
_COLUMNS_OF_BLOCK = 256


class Plan(NamedTuple):
    """How a problem is computed: where patches are read from, and how (depths x output channels) is cut into tasks.

    The pixels of a split are taken in blocks of at most *pixels*; with strips, of at most *rows* rows of one image.
    """

    source: int
    strip: int
    rows: int
    pixels: int
    depth: int
    columns: int
    tasks: int


@_jit.inline
def _grad_weight_workspace(partial, plan):
    """Memory of one thread: patches or a strip, panels of gradients, sums of a block, and its runs of pixels."""
    width = TILE_VECTORS * codegen.VECTOR_BYTES // partial.itemsize
    left = np.zeros(max(plan.strip + LINE, plan.pixels * PATCH_STRIDE), partial.dtype)
    panels = np.empty(plan.pixels * (plan.columns + width), partial.dtype)
    sums = np.empty((plan.depth + TILE_ROWS) * plan.columns, partial.dtype)
    return left, panels, sums, np.empty(2 * (plan.pixels + 1), np.int64)


def _tile_step(vectors):
    """One register tile of grad_weight, *vectors* wide."""

    @_jit.splice
    def step(left, offsets, row, runs, step_of_pixel, panel, panel_at, panel_stride, sums, sums_at, first):
        """``sums[m, :] (+)= sum over pixels of left[offsets[row + m] + place of pixel] * gradient of pixel``.

        The places are counted, run by run, not loaded from a table: LLVM would let all multiplications wait for that
        load and run out of registers.
        """
        width = vectors * simd.lane_count(sums)
        if first:
            tile = tiles.zeros(sums, TILE_ROWS, vectors)
        else:
            tile = tiles.load(sums, sums_at, width, TILE_ROWS, vectors)
        # mostly the depths of a tile are neighbours, which takes one address for all of them
        # (offsets rise; only those that fill up the last tile repeat its last one)
        last = row + TILE_ROWS - 1
        together = offsets[last] - offsets[row] == TILE_ROWS - 1 and offsets[last] > offsets[last - 1]
        for run in range(1, runs[0] + 1):
            place = runs[2 * run]
            if together:
                for _ in range(runs[2 * run + 1]):
                    tile = tiles.rank1(tile, left, place + offsets[row], 1, panel, panel_at)
                    place += step_of_pixel
                    panel_at += panel_stride
            else:
                for _ in range(runs[2 * run + 1]):
                    tile = tiles.rank1_placed(tile, left, offsets, row, place, panel, panel_at)
                    place += step_of_pixel
                    panel_at += panel_stride
        tiles.store(tile, sums, sums_at, width)

    return step


_wide_step = _tile_step(TILE_VECTORS)
_narrow_step = _tile_step(1)


@_jit.flushing_tasks
def _grad_weight_tasks(x, grad_out, partial, workspace, offsets, shape, plan, splits, first_task, last_task):
    """Tasks of grad_weight; a task is a split of the pixels times a block of (kh, kw, ic) times one of output channels.

    Blocks of pixels outermost: their patches and gradients are in the cache while every register tile of the block of
    grad_weight is loaded, updated by one rank-1 step a pixel, and stored.  Each element of ``partial[split]`` has one
    writer, and pixels are added in rising order (n, oh, ow).
    """
    s = shape
    x, grad_out, partial, offsets = simd.span(x), simd.span(grad_out), simd.span(partial), simd.span(offsets)
    left, packed, sums = simd.span(workspace[0]), simd.span(workspace[1]), simd.span(workspace[2])
    runs = simd.span(workspace[3])
    lanes = simd.lane_count(partial)
    width = TILE_VECTORS * lanes
    total_pixels = s.N * s.OH * s.OW
    oc_of_group = s.OC // s.G
    column_blocks = (oc_of_group + plan.columns - 1) // plan.columns
    total_depth = s.KH * s.KW * (s.IC // s.G)
    depth_blocks = (total_depth + plan.depth - 1) // plan.depth
    if plan.source == IN_PLACE:
        left = x
    step_of_pixel = patches.step_of_pixel(s, plan.source)
    for task in range(first_task, last_task):
        column_of_group = task % column_blocks * plan.columns
        first_depth = task // column_blocks % depth_blocks * plan.depth
        group = task // (column_blocks * depth_blocks) % s.G
        split = task // (column_blocks * depth_blocks * s.G)
        depth = min(plan.depth, total_depth - first_depth)
        columns = min(plan.columns, oc_of_group - column_of_group)
        first_column = group * oc_of_group + column_of_group
        split_start = total_pixels * split // splits
        split_stop = total_pixels * (split + 1) // splits
        first_offset = 0 if plan.source == PATCHES else first_depth
        first_pixel = split_start
        while first_pixel < split_stop:
            n, oh, ow = product.pixel_at(first_pixel, s.OH, s.OW)
            pixels = min(plan.pixels, split_stop - first_pixel)
            if plan.source == STRIP:
                last_oh = min(oh + plan.rows, s.OH)
                pixels = min(pixels, (last_oh - oh) * s.OW - ow)
                patches.copy_strip(x, left, s, group, n, oh, (ow + pixels + s.OW - 1) // s.OW)
            elif plan.source == PATCHES:
                patches.gather_patches(x, left, s, group, n, oh, ow, pixels, first_depth, depth)
            patches.place_runs(s, plan.source, group, n, oh, ow, pixels, runs)
            first = first_pixel == split_start
            in_place = columns % lanes == 0 and depth <= _UNPACKED_DEPTH
            if not in_place:
                # pixel by pixel, in the order in which the gradients lie in memory
                for pixel in range(pixels):
                    for column in range(0, columns, width):
                        rest = min(columns - column, width)
                        panel_width = width if rest > lanes else lanes
                        grad_at = (first_pixel + pixel) * s.OC + first_column + column
                        panel_at = column * plan.pixels + pixel * panel_width
                        product.pack_columns(grad_out, grad_at, s.OC, 1, rest, packed, panel_at, panel_width)
            for column in range(0, columns, width):
                rest = min(columns - column, width)
                panel_width = width if rest > lanes else lanes
                panel, panel_at, panel_stride = packed, column * plan.pixels, panel_width
                if in_place:
                    panel, panel_at, panel_stride = grad_out, first_pixel * s.OC + first_column + column, s.OC
                for row in range(0, depth, TILE_ROWS):
                    at = row * plan.columns + column * TILE_ROWS
                    if rest > lanes:
                        _wide_step(
                            left, offsets, first_offset + row, runs, step_of_pixel,
                            panel, panel_at, panel_stride, sums, at, first,
                        )  # fmt: skip
                    else:
                        _narrow_step(
                            left, offsets, first_offset + row, runs, step_of_pixel,
                            panel, panel_at, panel_stride, sums, at, first,
                        )  # fmt: skip
            first_pixel += pixels
        for row in range(depth):
            target = (split * total_depth + first_depth + row) * s.OC + first_column
            row_of_tile = row % TILE_ROWS
            for column in range(0, columns, width):
                rest = min(columns - column, width)
                at = (row - row_of_tile) * plan.columns + column * TILE_ROWS
                at += row_of_tile * (width if rest > lanes else lanes)
                for lane in range(rest):
                    partial[target + column + lane] = sums[at + lane]


@_jit.kernel
def conv2d_grad_weight_direct_serial(x, grad_out, partial, offsets, shape, plan, splits):
    """All tasks of grad_weight; arrays are flat."""
    workspace = _grad_weight_workspace(partial, plan)
    _grad_weight_tasks(x, grad_out, partial, workspace, offsets, shape, plan, splits, 0, plan.tasks)


@_jit.parallel_kernel
def conv2d_grad_weight_direct_parallel(workers, x, grad_out, partial, offsets, shape, plan, splits):
    """The same tasks, an equal share for each worker."""
    for worker in prange(workers):
        first_task = plan.tasks * worker // workers
        last_task = plan.tasks * (worker + 1) // workers
        workspace = _grad_weight_workspace(partial, plan)
        _grad_weight_tasks(x, grad_out, partial, workspace, offsets, shape, plan, splits, first_task, last_task)


def grad_weight(geometry: Conv2dGeometry, x: NDArray[Any], grad_out: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = the gradient with respect to weight``: partial sums over a fixed split of the pixels, added in order."""
    s = as_product(forward_shape(geometry))
    plan, splits = _plan(s, out.itemsize)
    partial = out.reshape(1, -1) if splits == 1 else np.empty((splits, out.size), out.dtype)
    threads.run(
        conv2d_grad_weight_direct_serial,
        conv2d_grad_weight_direct_parallel,
        min(threads.worker_count(geometry.flops), plan.tasks),
        x.reshape(-1),
        grad_out.reshape(-1),
        partial.reshape(-1),
        _offsets(s, plan.source),
        s,
        plan,
        splits,
    )
    if splits > 1:
        np.add.reduce(partial, axis=0, out=out.reshape(-1))


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes of memory of one thread."""
    plan, _ = _plan(as_product(forward_shape(geometry)), itemsize)
    width = TILE_VECTORS * codegen.VECTOR_BYTES // itemsize
    left = max(plan.strip, plan.pixels * PATCH_STRIDE)
    return itemsize * (left + plan.pixels * (plan.columns + width) + (plan.depth + TILE_ROWS) * plan.columns) + 16 * (
        plan.pixels + 2 * TILE_ROWS
    )


@lru_cache(maxsize=1024)
def _offsets(shape: ConvShape, source: int) -> NDArray[np.int64]:
    return patches.offsets_of(shape, source)


@lru_cache(maxsize=1024)
def _plan(shape: ConvShape, itemsize: int) -> tuple[Plan, int]:
    """The plan, and the number of splits of the pixels."""
    s = shape
    lanes = codegen.VECTOR_BYTES // itemsize
    total_depth = s.KH * s.KW * (s.IC // s.G)
    depth = product.depth_of_block(total_depth)
    columns = min(_COLUMNS_OF_BLOCK, round_up(s.OC // s.G, lanes))
    source = patches.source_of(s, itemsize)
    if source == IN_PLACE and s.stride_w * s.IC > _FAR:
        source = PATCHES
    rows, pixels, strip = 1, _PIXELS_OF_BLOCK, 0
    if source == STRIP:
        rows = min(max(_PIXELS_OF_BLOCK // s.OW, 1), s.OH)
        pixels = rows * s.OW if s.OW <= _PIXELS_OF_BLOCK else -(-s.OW // -(-s.OW // _PIXELS_OF_BLOCK))
        strip = patches.strip_size(s, rows)
    tasks = s.G * -(-total_depth // depth) * -(-(s.OC // s.G) // columns)
    splits = _splits(s.N * s.OH * s.OW, s.G * -(-total_depth // DEPTH) * -(-(s.OC // s.G) // columns))
    return Plan(source, strip, rows, pixels, depth, columns, tasks * splits), splits


# grad_weight with few channels has too few blocks for all cores, so its pixels are split as well: into at most this
# many parts, none of fewer pixels than a few strips.  The split follows from the geometry alone, not from the register
# tile: it decides the order of a sum, which must be the same on every CPU.
_TASKS_OF_GRAD_WEIGHT = 16
_PIXELS_OF_SPLIT = 448


def _splits(pixels: int, tasks_of_split: int) -> int:
    return max(1, min(-(-_TASKS_OF_GRAD_WEIGHT // tasks_of_split), pixels // _PIXELS_OF_SPLIT))
