"""Direct convolution for any padding, stride, dilation and number of groups: forward, grad_x and grad_weight.

Ladder: PyTorch's time (2.13, oneDNN, the faster of its two layouts) over ours, one AVX-512 core, batch 8:

                                                              3x3, 64 -> 64, 56 x 56    1x1, 64 -> 256, 56 x 56
    patches gathered pixel by pixel, register tiles                   0.64                       0.57
    gathered run by run, blocks of depth of equal size                0.71                       0.61
    spans instead of arrays: no reference counts in the loops         0.93                       0.62
    out prefetched while the tile that goes there is computed         0.93                       0.79

    python bench/compare.py --net resnet_50_v1_5 --layer res2a_branch2b --pass forward --threads 1 --against torch

Every output element is one chain of fused multiply-adds over (kh, kw, ic), or over pixels (n, oh, ow) for grad_weight,
starting from zero.  Blocks and tiles only cut the chain into pieces that are stored and taken up again, so neither
they, nor the vector width, the batch or the number of threads change a bit of the result.

Error bound: ``|out - exact| <= eps * L * sum of |x * weight|`` with L = KH * KW * IC / G; for random data the error
grows like ``eps * sqrt(L)``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import codegen, product, simd
from fastconv.cpu.activation import activate
from fastconv.cpu.epilogue import RELU, finish_vector
from fastconv.cpu.product import DEPTH, LINE, PATCH_STRIDE, TILE_ROWS, TILE_VECTORS
from fastconv.cpu.shape import ConvShape, as_product, forward_shape, phases
from fastconv.cpu.transpose import swap_channels
from fastconv.geometry import Conv2dGeometry

# A block of pixels: long enough that packing a panel of weights (once a block) is a few percent of using it.
_PIXELS_OF_BLOCK = 8 * TILE_ROWS
# Output channels of a block: gathering a patch is paid once for all of them.
_COLUMNS_OF_BLOCK = 256
# Blocks per thread below which blocks are made smaller, so that all threads have work until the end.
_BLOCKS_PER_WORKER = 3


class Blocks(NamedTuple):
    """How the (pixels x output channels) plane of a problem is cut into tasks."""

    pixels: int
    columns: int
    tasks: int


@_jit.inline
def _depth_of_block(total):
    """Depths are cut into equal blocks of at most DEPTH, whole cache lines each, so that no block is a small rest."""
    blocks = max((total + DEPTH - 1) // DEPTH, 1)
    depth = (total + blocks - 1) // blocks
    return max((depth + LINE - 1) // LINE * LINE, LINE)


@_jit.inline
def _out_row(shape, n, oh, ow):
    """Where pixel (n, oh, ow) lies in the sequence of all pixels of out."""
    s = shape
    return (n * s.OUT_H + s.start_h + s.step_h * oh) * s.OUT_W + s.start_w + s.step_w * ow


@_jit.inline
def _prefetch_rows(out, at, stride, rows, columns):
    """Fetch the cache lines that a tile will be written to while it is computed (rows behind a row end are missed).

    The memory is idle then; without this, layers with few products for each output wait for it at the end of each tile
    (64 -> 256 channels, 1x1: 1.25 times as fast).
    """
    for row in range(rows):
        for column in range(0, columns, simd.lane_count(out)):
            simd.prefetch_for_write(out, at + row * stride + column)


@_jit.inline
def _finish_rows(
    sums, sums_at, sums_stride, bias, residual, out, out_array, shape, activation,
    n, oh, ow, pixels, first_column, columns,
):  # fmt: skip
    """Write the sums of pixels from (n, oh, ow) on to their places in out, with bias, residual and activation."""
    s = shape
    lanes = simd.lane_count(out)
    whole = columns - columns % lanes
    for pixel in range(pixels):
        out_at = _out_row(s, n, oh, ow) * s.OC + first_column
        at = sums_at + pixel * sums_stride
        for column in range(0, whole, lanes):
            value = simd.load(sums, at + column)
            value = finish_vector(value, bias, first_column + column, residual, out_at + column, lanes, activation)
            simd.store(out, out_at + column, value)
        if whole < columns:
            rest = columns - whole
            value = simd.load(sums, at + whole)
            value = finish_vector(value, bias, first_column + whole, residual, out_at + whole, rest, activation)
            simd.store_first(out, out_at + whole, value, rest)
        if activation > RELU:
            activate(out_array, out_at, columns, activation)
        ow += 1
        n, oh, ow = product.next_pixel(n, oh, ow, s.OH, s.OW)


@_jit.inline
def _forward_workspace(out, blocks):
    """Memory of one thread: patches of a tile, panels of a block of depths and channels, sums of a block of pixels."""
    width = TILE_VECTORS * codegen.VECTOR_BYTES // 4
    patches = np.zeros(TILE_ROWS * PATCH_STRIDE, out.dtype)
    panels = np.empty(DEPTH * (blocks.columns + width), out.dtype)
    sums = np.zeros((blocks.pixels + TILE_ROWS) * blocks.columns, out.dtype)
    return patches, panels, sums


@_jit.flushing_tasks
def _forward_tasks(x, weight, bias, residual, out_array, workspace, shape, blocks, activation, first_task, last_task):
    """Tasks [first_task, last_task) of the forward pass; a task is a block of pixels times a block of output channels.

    Depth outermost: the weights of a block of depths and channels are packed once, into panels for the L2 cache, and
    used by every tile of pixels.  Then tiles of pixels: their patches are gathered into the L1 cache and meet one panel
    after the other.  Between depths the sums of the block wait in the workspace.  Each output element has one writer.
    """
    s = shape
    x, weight, bias, residual = simd.span(x), simd.span(weight), simd.span(bias), simd.span(residual)
    out = simd.span(out_array)
    patches, panels, sums = simd.span(workspace[0]), simd.span(workspace[1]), simd.span(workspace[2])
    width = TILE_VECTORS * simd.lane_count(out)
    narrow = simd.lane_count(out)
    total_pixels = s.N * s.OH * s.OW
    pixel_blocks = (total_pixels + blocks.pixels - 1) // blocks.pixels
    ic_of_group = s.IC // s.G
    oc_of_group = s.OC // s.G
    column_blocks = (oc_of_group + blocks.columns - 1) // blocks.columns
    total_depth = s.KH * s.KW * ic_of_group
    depth_of_block = _depth_of_block(total_depth)
    for task in range(first_task, last_task):
        group = task // (column_blocks * pixel_blocks)
        first_pixel = task // column_blocks % pixel_blocks * blocks.pixels
        column_of_group = task % column_blocks * blocks.columns
        pixels = min(blocks.pixels, total_pixels - first_pixel)
        columns = min(blocks.columns, oc_of_group - column_of_group)
        first_column = group * oc_of_group + column_of_group
        for first_depth in range(0, total_depth, depth_of_block):
            depth = min(depth_of_block, total_depth - first_depth)
            first = first_depth == 0
            for column in range(0, columns, width):
                weight_at = first_depth * s.OC + first_column + column
                rest = columns - column
                product.pack_columns(
                    weight, weight_at, s.OC, depth, rest, panels, column * DEPTH, width if rest > narrow else narrow
                )
            n, oh, ow = product.pixel_at(first_pixel, s.OH, s.OW)
            for row in range(0, pixels, TILE_ROWS):
                rows = min(TILE_ROWS, pixels - row)
                product.gather_patches(x, patches, s, group, n, oh, ow, rows, first_depth, depth)
                # sums of a single depth are finished at once and never leave the L1 cache
                row_at = 0 if depth == total_depth else row * blocks.columns
                out_at = _out_row(s, n, oh, ow) * s.OC + first_column
                for column in range(0, columns, width):
                    at = row_at + column
                    if first_depth + depth == total_depth:
                        _prefetch_rows(out, out_at + column, s.step_w * s.OC, rows, min(width, columns - column))
                    if columns - column > narrow:
                        product.multiply_wide(
                            patches, 0, panels, column * DEPTH, sums, at, blocks.columns, depth, first
                        )
                    else:
                        product.multiply_narrow(
                            patches, 0, panels, column * DEPTH, sums, at, blocks.columns, depth, first
                        )
                if first_depth + depth == total_depth:
                    _finish_rows(
                        sums, row_at, blocks.columns, bias, residual, out, out_array, s, activation,
                        n, oh, ow, rows, first_column, columns,
                    )  # fmt: skip
                n, oh, ow = product.next_pixel(n, oh, ow + TILE_ROWS, s.OH, s.OW)


@_jit.kernel
def conv2d_forward_direct_serial(x, weight, bias, residual, out, shape, blocks, activation):
    """All tasks of the forward pass; arrays are flat."""
    workspace = _forward_workspace(out, blocks)
    _forward_tasks(x, weight, bias, residual, out, workspace, shape, blocks, activation, 0, blocks.tasks)


@_jit.parallel_kernel
def conv2d_forward_direct_parallel(workers, x, weight, bias, residual, out, shape, blocks, activation):
    """The same tasks, an equal share for each worker."""
    for worker in prange(workers):
        first_task = blocks.tasks * worker // workers
        last_task = blocks.tasks * (worker + 1) // workers
        workspace = _forward_workspace(out, blocks)
        _forward_tasks(x, weight, bias, residual, out, workspace, shape, blocks, activation, first_task, last_task)


@_jit.inline
def _grad_weight_workspace(partial, blocks):
    """Memory of one thread: patches and gradients of a strip of pixels, sums of a block of grad_weight."""
    width = TILE_VECTORS * codegen.VECTOR_BYTES // 4
    patches = np.zeros(blocks.pixels * PATCH_STRIDE, partial.dtype)
    panel = np.empty(blocks.pixels * width, partial.dtype)
    sums = np.zeros((DEPTH + TILE_ROWS) * blocks.columns, partial.dtype)
    return patches, panel, sums


@_jit.flushing_tasks
def _grad_weight_tasks(x, grad_out, partial, workspace, shape, blocks, splits, first_task, last_task):
    """Tasks of grad_weight; a task is a split of the pixels times a block of (kh, kw, ic) times one of output channels.

    Strips of pixels outermost: their patches and gradients are in the cache while every register tile of the block of
    grad_weight is loaded, updated by one rank-1 step a pixel, and stored.  Each element of ``partial[split]`` has one
    writer, and pixels are added in rising order (n, oh, ow).
    """
    s = shape
    x, grad_out, partial = simd.span(x), simd.span(grad_out), simd.span(partial)
    patches, panel, sums = simd.span(workspace[0]), simd.span(workspace[1]), simd.span(workspace[2])
    width = TILE_VECTORS * simd.lane_count(partial)
    narrow = simd.lane_count(partial)
    total_pixels = s.N * s.OH * s.OW
    oc_of_group = s.OC // s.G
    column_blocks = (oc_of_group + blocks.columns - 1) // blocks.columns
    total_depth = s.KH * s.KW * (s.IC // s.G)
    depth_of_block = _depth_of_block(total_depth)
    depth_blocks = (total_depth + depth_of_block - 1) // depth_of_block
    for task in range(first_task, last_task):
        column_of_group = task % column_blocks * blocks.columns
        first_depth = task // column_blocks % depth_blocks * depth_of_block
        group = task // (column_blocks * depth_blocks) % s.G
        split = task // (column_blocks * depth_blocks * s.G)
        depth = min(depth_of_block, total_depth - first_depth)
        columns = min(blocks.columns, oc_of_group - column_of_group)
        first_column = group * oc_of_group + column_of_group
        split_start = total_pixels * split // splits
        split_stop = total_pixels * (split + 1) // splits
        for first_pixel in range(split_start, split_stop, blocks.pixels):
            pixels = min(blocks.pixels, split_stop - first_pixel)
            first = first_pixel == split_start
            n, oh, ow = product.pixel_at(first_pixel, s.OH, s.OW)
            product.gather_patches(x, patches, s, group, n, oh, ow, pixels, first_depth, depth)
            for column in range(0, columns, width):
                grad_at = first_pixel * s.OC + first_column + column
                rest = columns - column
                product.pack_columns(
                    grad_out, grad_at, s.OC, pixels, rest, panel, 0, width if rest > narrow else narrow
                )
                for row in range(0, depth, TILE_ROWS):
                    at = row * blocks.columns + column
                    if rest > narrow:
                        product.accumulate_wide(patches, row, panel, 0, sums, at, blocks.columns, pixels, first)
                    else:
                        product.accumulate_narrow(patches, row, panel, 0, sums, at, blocks.columns, pixels, first)
        for row in range(depth):
            target = (split * total_depth + first_depth + row) * s.OC + first_column
            for column in range(columns):
                partial[target + column] = sums[row * blocks.columns + column]


@_jit.kernel
def conv2d_grad_weight_direct_serial(x, grad_out, partial, shape, blocks, splits):
    """All tasks of grad_weight; arrays are flat."""
    workspace = _grad_weight_workspace(partial, blocks)
    _grad_weight_tasks(x, grad_out, partial, workspace, shape, blocks, splits, 0, blocks.tasks)


@_jit.parallel_kernel
def conv2d_grad_weight_direct_parallel(workers, x, grad_out, partial, shape, blocks, splits):
    """The same tasks, an equal share for each worker."""
    for worker in prange(workers):
        first_task = blocks.tasks * worker // workers
        last_task = blocks.tasks * (worker + 1) // workers
        workspace = _grad_weight_workspace(partial, blocks)
        _grad_weight_tasks(x, grad_out, partial, workspace, shape, blocks, splits, first_task, last_task)


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
    _run_forward(forward_shape(geometry), x, weight, bias, residual, out, activation)


def grad_x(geometry: Conv2dGeometry, grad_out: NDArray[Any], weight: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = the gradient with respect to x``: a forward convolution of grad_out for each phase of the stride."""
    parts = phases(geometry)
    if any(phase.rows.size * phase.columns.size == 0 for phase in parts):
        # where the stride is larger than the kernel, some pixels have no tap
        out.fill(0)
    for phase in parts:
        if phase.rows.size and phase.columns.size:
            taps = swap_channels(weight, phase.rows, phase.columns, geometry.G)
            _run_forward(phase.shape, grad_out, taps, None, None, out, 0)


def grad_weight(geometry: Conv2dGeometry, x: NDArray[Any], grad_out: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = the gradient with respect to weight``: partial sums over a fixed split of the pixels, added in order."""
    g = geometry
    shape = as_product(forward_shape(geometry))
    lanes = codegen.VECTOR_BYTES // out.itemsize
    columns = min(_COLUMNS_OF_BLOCK, _round_up(g.OC // g.G, lanes))
    depth = g.KH * g.KW * (g.IC // g.G)
    tasks_of_split = g.G * -(-depth // DEPTH) * -(-(g.OC // g.G) // columns)
    splits = _splits(g, tasks_of_split)
    partial = out.reshape(1, -1) if splits == 1 else np.empty((splits, out.size), out.dtype)
    blocks = Blocks(_PIXELS_OF_BLOCK, columns, tasks_of_split * splits)
    threads.run(
        conv2d_grad_weight_direct_serial,
        conv2d_grad_weight_direct_parallel,
        min(threads.worker_count(g.flops), blocks.tasks),
        x.reshape(-1),
        grad_out.reshape(-1),
        partial.reshape(-1),
        shape,
        blocks,
        splits,
    )
    if splits > 1:
        np.add.reduce(partial, axis=0, out=out.reshape(-1))


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes of memory of one thread: the larger of what the forward pass and grad_weight need."""
    width = TILE_VECTORS * codegen.VECTOR_BYTES // itemsize
    columns = min(_COLUMNS_OF_BLOCK, _round_up(geometry.OC // geometry.G, codegen.VECTOR_BYTES // itemsize))
    sums_of_pixels = (_PIXELS_OF_BLOCK + TILE_ROWS) * columns
    of_forward = TILE_ROWS * PATCH_STRIDE + DEPTH * (columns + width) + sums_of_pixels
    sums_of_weight = (DEPTH + TILE_ROWS) * columns
    of_grad_weight = _PIXELS_OF_BLOCK * (PATCH_STRIDE + width) + sums_of_weight
    return itemsize * max(of_forward, of_grad_weight)


# grad_weight with few channels has too few blocks for all cores, so its pixels are split as well: into at most this
# many parts, none of fewer pixels than a few strips.  The split follows from the geometry alone, not from the register
# tile: it decides the order of a sum, which must be the same on every CPU.
_TASKS_OF_GRAD_WEIGHT = 16
_PIXELS_OF_SPLIT = 448


def _splits(geometry: Conv2dGeometry, tasks_of_split: int) -> int:
    pixels = geometry.N * geometry.OH * geometry.OW
    return max(1, min(-(-_TASKS_OF_GRAD_WEIGHT // tasks_of_split), pixels // _PIXELS_OF_SPLIT))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _run_forward(
    shape: ConvShape,
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    residual: NDArray[Any] | None,
    out: NDArray[Any],
    activation: int,
) -> None:
    s = as_product(shape)
    workers = threads.worker_count(2 * s.N * s.OH * s.OW * s.OC * s.KH * s.KW * (s.IC // s.G))
    blocks = _blocks(s.N * s.OH * s.OW, s.OC // s.G, s.G, codegen.VECTOR_BYTES // out.itemsize, workers)
    absent = np.empty(0, out.dtype)
    threads.run(
        conv2d_forward_direct_serial,
        conv2d_forward_direct_parallel,
        min(workers, blocks.tasks),
        x.reshape(-1),
        weight.reshape(-1),
        absent if bias is None else bias,
        absent if residual is None else residual.reshape(-1),
        out.reshape(-1),
        s,
        blocks,
        activation,
    )


@lru_cache(maxsize=1024)
def _blocks(pixels: int, oc_of_group: int, groups: int, lanes: int, workers: int) -> Blocks:
    """Large blocks where there is enough work for all threads, smaller ones where there is not."""
    block_pixels = min(_PIXELS_OF_BLOCK, _round_up(pixels, TILE_ROWS))
    block_columns = min(_COLUMNS_OF_BLOCK, _round_up(oc_of_group, lanes))
    smallest_pixels, smallest_columns = 2 * TILE_ROWS, 2 * TILE_VECTORS * lanes

    def tasks() -> int:
        return groups * -(-pixels // block_pixels) * -(-oc_of_group // block_columns)

    while workers > 1 and tasks() < _BLOCKS_PER_WORKER * workers:
        if block_pixels >= 2 * smallest_pixels:
            block_pixels = _round_up(block_pixels // 2, TILE_ROWS)
        elif block_columns >= 2 * smallest_columns:
            block_columns = _round_up(block_columns // 2, lanes)
        else:
            break
    return Blocks(block_pixels, block_columns, tasks())
