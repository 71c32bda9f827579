"""Direct convolution for any padding, stride, dilation and number of groups: forward, grad_x and grad_weight.

Ladder: PyTorch's time (2.13, oneDNN, the faster of its two layouts) over ours, one AVX-512 core, batch 8:

                                                              3x3, 64 -> 64, 56 x 56    1x1, 64 -> 256, 56 x 56
    patches gathered pixel by pixel, register tiles                   0.64                       0.57
    gathered run by run, blocks of depth of equal size                0.71                       0.61
    spans instead of arrays: no reference counts in the loops         0.93                       0.62
    out prefetched while the tile that goes there is computed         0.93                       0.79

and on one AVX2 core (Zen 3):
                                                         1x1, 256 -> 64   1x1, 64 -> 256   7x7 stride 2, 3 -> 64
    the same                                                  0.89             0.93                 0.79
    patches in place or in strips, weights packed once
    a call, tiles finished in registers                       1.10             0.98                 0.95
    x of the next tile prefetched                             1.09             1.04

and 1x1 layers on that CPU, one run each on a busy machine, where a ratio repeats to 10%, some only to 30%:
                                              64 -> 256,    1024 -> 2048,    1024 -> 1024,     2048 -> 512,
                                                56 x 56   7 x 7, stride 2   7 x 7, 2 threads   7 x 7, batch 1
    the same                                      0.99         0.88              0.74            0.65 to 0.73
    panels packed by the task that needs them,
    400 pixels a block, equal shares              1.03         1.02              1.02               0.94
    256 depths, more channels where they are few  1.16         1.16              1.08               0.86

The 14 pixels of an AVX-512 tile, read in place 4096 bytes apart, push each other out of the L1 cache (`direct_plan`): a
Sapphire Rapids core had 75 GFLOP/s for 512 channels at stride 2, and 116 for 256.  Gathered, with tiles of 12 x 1 on
the AVX2 core, whose sets hold 8 lines, five such layers are 1.8 to 2.1 times as fast.

and an AVX-512 core of another (Zen 4), GFLOP/s of 117 for multiply-adds alone; medians of 7 to 9 runs in turns, each
with arrays of its own, because where these lie in memory alone makes up to 30%:
                                                  256 -> 64,   256 -> 128,   512 -> 256,   1024 -> 2048,
                                                   56 x 56       56 x 56       28 x 28     7 x 7, one image
    the same                                          77            98            94              64
    256 channels a block in place of 128              78            98           102              64
    4 rows in the last tiles in place of 14           78            95           102              70
    x of the next tile fetched a line of each pixel
    at a time, not 14 pixels before the products      97           108           105              79

Larger kernels, whose patches are gathered, are fetched in the same way: 3x3, stride 2, 8 images, 1.04 times as fast at
56 x 56 x 128, 1.07 at 28 x 28 x 256 and 1.11 at 14 x 14 x 512, one image 1.04 to 1.06, on the AVX2 core 1.02 to 1.03.
Gathering takes few instructions, and waited for x.

Prefetching the rows of a panel 8 steps ahead gained nothing there (1.00, mean of 23 layers), nor did 128 depths (1.01).

A core with twice the arithmetic (Zen 5, 270 GFLOP/s) waits for the weight.  What the next block of depths, or the next
task, reads of it is asked for during the products, some rows every 16 steps; all of a panel at once gains nothing.  One
image, one thread, times as fast, and with AVX2:
                            512 -> 512,      1024 -> 2048,    1024 -> 1024,   512 -> 2048,   2048 -> 512,
                         3x3, 14 x 14, /2     14 x 14, /2        7 x 7           7 x 7          7 x 7
    weight kept               1.4, 1.2         1.4, 1.2         1.4, 1.2        1.4, 1.2       1.3, 1.2
    weight packed             1.2, 1.2         1.2, 1.1         1.3, 1.1        1.1, 1.1       1.3, 1.1
Eight images are 1.0 to 1.05 times as fast.

Large results written past the caches (`memory` has the ratios): 1.08 for 32 -> 64 channels at 112 x 112, where each
output is 32 products, 1.00 from 256 channels on.

The inner loop with both factors in the L1 cache reaches 83 to 88% of the multiply-adds on registers alone here, and all
of it in quiet moments: `bench/peak.py` times layers beside both.  Tiles of 4 x 3 reach 79 to 84%, 5 x 2 80 to 84%, 3 x
4 and 12 x 1 41 to 43%.  24 other blocks (96 to 1602 pixels, 64 to 512 channels, 128 or 256 depths) of the 512 -> 512
product at 14 x 14: .81 to 1.01 times as fast, with a kept weight up to 1.06.

Tried without gain: depths of 384 (1.00), 32 rows of the weight packed at a time in place of 8 (0.6 to 1.0 of the speed
of packing).

    fastconv bench --net resnet_50_v1_5 --layer res2a_branch1 --pass forward --threads 1 --against torch

With more weights than pixels packing costs as much as the product.  A weight that was packed before (`PackedWeight`)
makes the call for one image 1.6 times as fast at 512 -> 2048 channels and 7 x 7, 1.1 times at 256 -> 1024 and 14 x 14.

Few input channels have a pass of their own, `conv_first`, and of few output channels several pixels share a vector,
`conv_last`; both have the bits of this one.

Every output element is one chain of fused multiply-adds over (kh, kw, ic), starting from zero; for grad_weight, a few
chains over pixels (n, oh, ow), cut by the geometry alone and added in order (`conv_direct_weight`; `conv_scatter` tells
its own order for grad_x).  Blocks and tiles only cut a chain into pieces that are stored and taken up again, so neither
they, nor the vector width, the batch or the number of threads change a bit of the result.

Error bound: ``|out - exact| <= eps * L * sum of |x * weight|`` with L = KH * KW * IC / G; for random data the error
grows like ``eps * sqrt(L)``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import conv_direct_weight, conv_first, conv_last, conv_scatter, patches, product, simd, tiles
from fastconv.cpu.activation import activate
from fastconv.cpu.conv_direct_weight import grad_weight as grad_weight
from fastconv.cpu.direct_plan import NUMBERS_OF_L2, Way, forward_ways, named, ways_of
from fastconv.cpu.epilogue import RELU, finish_vector
from fastconv.cpu.panels import pack_count, pack_rows, pack_tasks, start_of_panels
from fastconv.cpu.patches import IN_PLACE, PATCHES, STRIP
from fastconv.cpu.product import FEW_ROWS, LINE, PATCH_STRIDE, STEPS_OF_FETCHING, TILE_ROWS, TILE_VECTORS, ceil_div
from fastconv.cpu.shape import Forms, phases
from fastconv.cpu.transpose import swap_channels
from fastconv.geometry import Conv2dGeometry
from fastconv.memory import aligned

# Register tiles of fewer pixels at the end of a block, at most; their sums take as much room as those of others.
_LAST_TILES = TILE_ROWS // FEW_ROWS


@_jit.inline
def _prefetch_out(out, places, row, rows, column, columns):
    """Fetch the cache lines that a tile will be written to while it is computed.

    The memory is idle then; without this, layers with few products for each output wait for it at the end of each tile
    (64 -> 256 channels, 1x1: 1.25 times as fast).
    """
    for pixel in range(row, row + rows):
        for lane in range(column, column + columns, simd.lane_count(out)):
            simd.prefetch_for_write(out, places[pixel] + lane)


def _tile_sums(height, vectors):
    """The sums of a register tile, *height* pixels by *vectors* of channels, with its products of a block of depths."""
    multiply = product.placed_product(vectors)

    @_jit.splice
    def sums_of_tile(
        left, places, row, pieces, first_piece, last_piece, panels, panel_at, sums, sums_at, first,
        x, first_next, last_next, ahead, factor, factor_at, factor_row, factor_rows,
    ):  # fmt: skip
        """``sums[m, :] + sum over k of left[places[row + m] + offset of k] * panel[k, :]``, the *first* from zero.

        k runs through *pieces*, pairs (offset of the first, count) of numbers that are neighbours in *left*: the
        KW * IC of a kernel row, say.  Beside it, the same depths of some pixels of the next tile are asked for, which
        lie *ahead* of those in *left*: x is read in the product, or where a tile is gathered for it, and neither can
        wait for memory.  So are rows of *factor*, a tile wide, which a later product is to meet.
        """
        width = vectors * simd.lane_count(sums)
        if first:
            tile = tiles.zeros(sums, height, vectors)
        else:
            tile = tiles.load(sums, sums_at, width, height, vectors)
        fetching = first_next < last_next or factor_rows > 0
        at_a_time = STEPS_OF_FETCHING if fetching else product.MOST_DEPTH
        for piece in range(first_piece, last_piece):
            start, stop = pieces[2 * piece], pieces[2 * piece] + pieces[2 * piece + 1]
            for begin in range(start, stop, at_a_time):
                end = min(begin + at_a_time, stop)
                for pixel in range(first_next, last_next):
                    product.fetch(x, places[pixel] + ahead + begin, end - begin)
                factor_at = product.fetch_rows(factor, factor_at, factor_row, factor_rows, width)
                tile = multiply(tile, left, places, row, begin, end, panels, panel_at)
                panel_at += (end - begin) * width
        return tile

    return sums_of_tile


def _tile_step(vectors):
    """One register tile of outputs, or of sums, *vectors* wide."""
    high, low = (_tile_sums(height, vectors) for height in (TILE_ROWS, FEW_ROWS))

    @_jit.splice
    def step(
        left, places_in, row, rows, pieces, first_piece, last_piece, panels, panel_at, sums, sums_at, first, whole,
        bias, residual, out, places_out, out_row, column, activation, stream, x, first_next, last_next, ahead,
        factor, factor_at, factor_row, factor_rows,
    ):  # fmt: skip
        """Continue the sums of a tile, or start them (*first*), and finish a *whole* one straight from the registers.

        Where the tile has pixels or channels that do not exist, only FEW_ROWS, or more depths follow, its sums are
        stored.
        """
        width = vectors * simd.lane_count(sums)
        if rows == FEW_ROWS:
            few = low(
                left, places_in, row, pieces, first_piece, last_piece, panels, panel_at, sums, sums_at, first,
                x, first_next, last_next, ahead, factor, factor_at, factor_row, factor_rows,
            )  # fmt: skip
            tiles.store(few, sums, sums_at, width)
        else:
            tile = high(
                left, places_in, row, pieces, first_piece, last_piece, panels, panel_at, sums, sums_at, first,
                x, first_next, last_next, ahead, factor, factor_at, factor_row, factor_rows,
            )  # fmt: skip
            if whole:
                if bias.size > 0:
                    tile = tiles.add_row(tile, bias, column)
                if residual.size > 0:
                    tile = tiles.add_placed(tile, residual, places_out, out_row, column)
                if activation == RELU:
                    tile = tiles.relu(tile)
                tiles.put_placed(tile, out, places_out, out_row, column, stream)
            else:
                tiles.store(tile, sums, sums_at, width)

    return step


_wide_step = _tile_step(TILE_VECTORS)
_narrow_step = _tile_step(1)


@_jit.inline
def _finish_part(sums, sums_at, width, bias, residual, out, places, row, rows, column, columns, activation):
    """Finish the *rows* x *columns* of a tile that exist.

    The last vector of a row is moved back to end with it, over columns that are done twice, because a masked store is
    slow; only rows shorter than a vector need one.
    """
    lanes = simd.lane_count(out)
    for pixel in range(rows):
        out_at = places[row + pixel] + column
        at = sums_at + pixel * width
        if columns >= lanes:
            for start in range(0, columns, lanes):
                lane = min(start, columns - lanes)
                value = simd.load(sums, at + lane)
                value = finish_vector(value, bias, column + lane, residual, out_at + lane, lanes, activation)
                simd.store(out, out_at + lane, value)
        else:
            value = simd.load(sums, at)
            value = finish_vector(value, bias, column, residual, out_at, columns, activation)
            simd.store_first(out, out_at, value, columns)


@_jit.inline
def _forward_workspace(out, packed, shape, plan):
    """Memory of one thread: patches of a tile or a strip of x, sums of a block, and where its pixels lie."""
    patches_size = TILE_ROWS * PATCH_STRIDE if plan.source == PATCHES else 0
    if plan.source == STRIP:
        rows = (plan.rows - 1) * shape.stride_h + (shape.KH - 1) * shape.dilation_h + 1
        patches_size = rows * patches.strip_pitch(shape) + LINE
    left = np.zeros(patches_size, out.dtype)
    total_depth = shape.KH * shape.KW * (shape.IC // shape.G)
    waiting = plan.pixels if plan.depth < total_depth else 0
    sums = np.empty((waiting + _LAST_TILES * TILE_ROWS) * plan.columns, out.dtype)
    places_in = np.empty(plan.pixels + 2 * TILE_ROWS, np.int64)
    places_out = np.empty(plan.pixels + 2 * TILE_ROWS, np.int64)
    panels = np.empty(0 if packed.size > 0 else plan.columns * plan.depth, out.dtype)
    return left, sums, places_in, places_out, panels


@_jit.inline
def _place_of_task(task, pixel_blocks, column_blocks, in_strips):
    """(block of pixels, group, block of its output channels) of a task."""
    if in_strips:
        block, column_block = task // column_blocks, task % column_blocks
        return block, block // pixel_blocks, column_block
    group, column_block = task // pixel_blocks // column_blocks, task // pixel_blocks % column_blocks
    return group * pixel_blocks + task % pixel_blocks, group, column_block


@_jit.flushing_tasks
def _forward_tasks(
    x, weight, packed, bias, residual, out_array, workspace, pieces, shape, plan, activation, first_task, last_task
):
    """Tasks [first_task, last_task) of the forward pass; a task is a block of pixels times a block of output channels.

    Depth outermost: the panels of a block of depths and channels stay in the L2 cache for every tile of pixels.  Then
    tiles of pixels: their patches come into the L1 cache with the first panel and meet one panel after the other.
    Between depths the sums of the block wait in the workspace.  Each output element has one writer.

    An empty *packed* means that few blocks of pixels share a panel: each task packs its own from *weight*.  Tasks of
    the same channels follow one another, so that a thread reads only its part of a large weight; with strips, those of
    the same strip.
    """
    s = shape
    x, weight, bias, residual = simd.span(x), simd.span(weight), simd.span(bias), simd.span(residual)
    out, pieces = simd.span(out_array), simd.span(pieces)
    left, sums = simd.span(workspace[0]), simd.span(workspace[1])
    places_in, places_out = simd.span(workspace[2]), simd.span(workspace[3])
    panels = simd.span(packed) if packed.size > 0 else simd.span(workspace[4])
    lanes = simd.lane_count(out)
    width = TILE_VECTORS * lanes
    total_pixels = s.N * s.OH * s.OW
    in_strips = plan.source == STRIP
    blocks_of_image = ceil_div(s.OH, plan.rows)
    pixel_blocks = s.N * blocks_of_image if in_strips else ceil_div(total_pixels, plan.pixels)
    oc_of_group = s.OC // s.G
    column_blocks = ceil_div(oc_of_group, plan.columns)
    total_depth = s.KH * s.KW * (s.IC // s.G)
    far = total_depth * s.OC > NUMBERS_OF_L2
    if plan.source == IN_PLACE:
        left = x
    stream = activation <= RELU and simd.streams(out_array, oc_of_group)
    block_before, columns_before = -1, -1
    for task in range(first_task, last_task):
        block, group, column_block = _place_of_task(task, pixel_blocks, column_blocks, in_strips)
        first_column = column_block * plan.columns
        columns = min(plan.columns, oc_of_group - first_column)
        if in_strips:
            n, oh, ow = block % pixel_blocks // blocks_of_image, block % blocks_of_image * plan.rows, 0
            rows_of_block = min(plan.rows, s.OH - oh)
            pixels = rows_of_block * s.OW
            if block != block_before:
                patches.copy_strip(x, left, s, group, n, oh, rows_of_block)
        else:
            first_pixel = block % pixel_blocks * plan.pixels
            pixels = min(plan.pixels, total_pixels - first_pixel)
            n, oh, ow = product.pixel_at(first_pixel, s.OH, s.OW)
        if block != block_before:
            patches.place_pixels(s, plan.source, group, n, oh, ow, pixels, places_in, places_out)
        block_before = block
        last_piece = 0
        for first_depth in range(0, total_depth, plan.depth):
            depth = min(plan.depth, total_depth - first_depth)
            # where the depths of a block do not lie in one piece in x, the first ones are asked for, and what is behind
            ahead = patches.offset_in_x(s, first_depth) if plan.source == PATCHES else 0
            first, last = first_depth == 0, first_depth + depth == total_depth
            first_piece, covered = last_piece, 0
            while covered < depth:
                covered += pieces[2 * last_piece + 1]
                last_piece += 1
            if packed.size > 0:
                panels_at = start_of_panels(s, group, first_column, lanes)
                panel_depth, panel_row = total_depth, first_depth
            else:
                panels_at, panel_depth, panel_row = 0, depth, 0
                column_id = group * column_blocks + column_block
                if depth < total_depth or column_id != columns_before:
                    weight_at = first_depth * s.OC + group * oc_of_group + first_column
                    pack_rows(s, weight, weight_at, depth, columns, panels, 0, depth, 0)
                columns_before = column_id
            # what the next block of depths reads of the weight, or the next task
            _, next_group, next_column_block = _place_of_task(task + last, pixel_blocks, column_blocks, in_strips)
            next_first, next_depth = next_column_block * plan.columns, 0 if last else first_depth + depth
            if packed.size > 0:
                next_factor, next_row, next_column = panels, width, total_depth
                next_at = start_of_panels(s, next_group, next_first, lanes) + next_depth * width
            else:
                next_factor, next_row, next_column = weight, s.OC, 1
                next_at = next_depth * s.OC + next_group * oc_of_group + next_first
            gn, goh, gow = n, oh, ow
            row, sums_row = 0, 0
            while row < pixels:
                height = product.rows_of_tile(pixels - row)
                rows = min(height, pixels - row)
                if plan.source == PATCHES:
                    patches.gather_patches(x, left, s, group, gn, goh, gow, rows, first_depth, depth)
                    gn, goh, gow = product.next_pixel(gn, goh, gow + rows, s.OH, s.OW)
                row_in = 0 if plan.source == PATCHES else row
                next_rows = ceil_div(STEPS_OF_FETCHING * height, pixels) if far and pixels > TILE_ROWS else 0
                for column in range(0, columns, width):
                    rest = min(columns - column, width)
                    out_column = group * oc_of_group + first_column + column
                    # sums of a single depth are finished at once and never leave the L1 cache
                    sums_at = 0 if depth == total_depth else sums_row * plan.columns + column * TILE_ROWS
                    if last and not stream:
                        _prefetch_out(out, places_out, row, rows, out_column, rest)
                    first_next, last_next = 0, 0
                    if not in_strips:
                        # each panel has its share of the pixels
                        first_next = row + height + column * TILE_ROWS // columns
                        last_next = row + height + min(column + width, columns) * TILE_ROWS // columns
                    panel_at = panels_at + column * panel_depth
                    factor_at = next_at + column * next_column + row * depth // pixels * next_row
                    if rest > lanes:
                        whole = last and rows == TILE_ROWS and rest == width
                        _wide_step(
                            left, places_in, row_in, height, pieces, first_piece, last_piece,
                            panels, panel_at + panel_row * width, sums, sums_at, first, whole,
                            bias, residual, out, places_out, row, out_column, activation, stream,
                            x, first_next, last_next, ahead, next_factor, factor_at, next_row, next_rows,
                        )  # fmt: skip
                    else:
                        whole = last and rows == TILE_ROWS and rest == lanes
                        _narrow_step(
                            left, places_in, row_in, height, pieces, first_piece, last_piece,
                            panels, panel_at + panel_row * lanes, sums, sums_at, first, whole,
                            bias, residual, out, places_out, row, out_column, activation, stream,
                            x, first_next, last_next, ahead, next_factor, factor_at, next_row, next_rows,
                        )  # fmt: skip
                    if last and not whole:
                        _finish_part(
                            sums, sums_at, width if rest > lanes else lanes, bias, residual, out, places_out,
                            row, rows, out_column, rest, activation,
                        )  # fmt: skip
                if last and activation > RELU:
                    for pixel in range(row, row + rows):
                        activate(out_array, places_out[pixel] + group * oc_of_group + first_column, columns, activation)
                row += height
                sums_row += TILE_ROWS


@_jit.kernel
def conv2d_forward_direct_serial(x, weight, packed, bias, residual, out, pieces, numbers, activation):
    """All tasks of the forward pass; arrays are flat, and an empty weight has been packed before."""
    shape, plan = named(numbers)
    if packed.size > 0 and weight.size > 0:
        pack_tasks(weight, packed, shape, 0, pack_count(shape))
    workspace = _forward_workspace(out, packed, shape, plan)
    _forward_tasks(x, weight, packed, bias, residual, out, workspace, pieces, shape, plan, activation, 0, plan.tasks)


@_jit.parallel_kernel
def conv2d_forward_direct_parallel(workers, x, weight, packed, bias, residual, out, pieces, numbers, activation):
    """The same tasks, an equal share for each worker; panels packed ahead are all there before the first is used."""
    if packed.size > 0 and weight.size > 0:
        for worker in prange(workers):
            shape, _ = named(numbers)
            packs = pack_count(shape)
            pack_tasks(weight, packed, shape, packs * worker // workers, packs * (worker + 1) // workers)
    for worker in prange(workers):
        shape, plan = named(numbers)
        first_task = plan.tasks * worker // workers
        last_task = plan.tasks * (worker + 1) // workers
        workspace = _forward_workspace(out, packed, shape, plan)
        _forward_tasks(
            x, weight, packed, bias, residual, out, workspace, pieces, shape, plan, activation, first_task, last_task
        )


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
    """``out = activation(conv2d(x, weight) + bias + residual)``; the packed weight is kept in *forms*."""
    workers = threads.worker_count(geometry.flops)
    ways = forward_ways(geometry, out.itemsize, workers, forms is not None)
    _run(ways, workers, x, lambda: weight, forms, ("direct", geometry.G), bias, residual, out, activation)


def grad_x(
    geometry: Conv2dGeometry,
    grad_out: NDArray[Any],
    weight: NDArray[Any],
    out: NDArray[Any],
    forms: Forms | None = None,
) -> None:
    """``out = the gradient with respect to x``: a forward convolution of grad_out for each phase of the stride.

    The packed weights of the phases are kept in *forms*.  Few input channels would leave most lanes of its vectors
    idle, and small images without padding would multiply with zeros; see `conv_scatter`.
    """
    if conv_scatter.suits(geometry):
        conv_scatter.grad_x(geometry, grad_out, weight, out)
        return
    parts = phases(geometry)
    if any(phase.rows.size * phase.columns.size == 0 for phase in parts):
        # where the stride is larger than the kernel, some pixels have no tap
        out.fill(0)
    for phase in parts:
        if phase.rows.size and phase.columns.size:
            taps = partial(swap_channels, weight, phase.rows, phase.columns, geometry.G)
            key = "direct grad_x", geometry.G, phase.rows.tobytes(), phase.columns.tobytes()
            workers = threads.worker_count(phase.shape.flops)
            ways = ways_of(phase.shape, out.itemsize, workers, forms is not None)
            _run(ways, workers, grad_out, taps, forms, key, None, None, out, 0)


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes of memory of one thread: the larger of what the forward pass and grad_weight need."""
    way = forward_ways(geometry, itemsize, 1, False)[0]
    if way.job is None:
        of_forward = conv_first.workspace(way.shape, itemsize)
    else:
        s, plan, _, _, packed, _, _ = way.job
        strip = patches.strip_size(s, plan.rows) if plan.source == STRIP else 0
        left = max(strip, TILE_ROWS * PATCH_STRIDE)
        places = 2 * (plan.pixels + 2 * TILE_ROWS)
        panels = 0 if packed else plan.columns * plan.depth
        sums = (plan.pixels + _LAST_TILES * TILE_ROWS) * plan.columns
        of_forward = itemsize * (left + sums + panels) + 8 * places
    of_grad_x = conv_scatter.workspace(geometry, itemsize) if conv_scatter.suits(geometry) else 0
    return max(of_forward, of_grad_x, conv_direct_weight.workspace(geometry, itemsize))


def _run(
    ways: tuple[Way, ...],
    workers: int,
    x: NDArray[Any],
    weight: Callable[[], NDArray[Any]],
    forms: Forms | None,
    key: tuple[Any, ...],
    bias: NDArray[Any] | None,
    residual: NDArray[Any] | None,
    out: NDArray[Any],
    activation: int,
) -> None:
    """Compute a convolution in the first of its *ways* that leaves no NaN, or else in the last.

    With what *forms* has under *key*, or else pack *weight*, and keep that; `conv_first` keeps nothing.
    """
    for way in ways:
        pixels, job = way.pixels, way.job
        taps, taps_key, addend = weight, key, bias
        if pixels > 1:
            taps = partial(conv_last.taps_of, weight, ways[-1].shape, pixels)
            taps_key = *key, pixels, way.shape.stride_w
            addend = conv_last.bias_of(bias, pixels)
        if job is None:
            conv_first.forward(way.shape, workers, x, taps(), addend, residual, out, activation)
        else:
            unpacked = absent = job.absent
            if forms is None:
                unpacked, packed = taps().ravel(), np.empty(job.packed, out.dtype)
            elif taps_key in forms:
                packed = forms[taps_key]
            else:
                unpacked, packed = taps().ravel(), aligned(job.packed, out.dtype)
            threads.run(
                conv2d_forward_direct_serial,
                conv2d_forward_direct_parallel,
                job.workers,
                x.ravel(),
                unpacked,
                packed,
                absent if addend is None else addend,
                absent if residual is None else residual.ravel(),
                out.ravel(),
                job.pieces,
                job.numbers,
                activation,
            )
            if forms is not None:
                forms[taps_key] = packed
        if pixels == 1 or not conv_last.has_nan(out.ravel()):
            return
