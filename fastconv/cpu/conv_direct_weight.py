"""Direct grad_weight: blocks of pixels, whose patches times gradients are added to register tiles of the result.

Ladder: PyTorch's time (2.13, oneDNN, the faster of its two layouts) over ours, one AVX2 core (Zen 3), batch 8:

                                                      7x7, 1 -> 64, 28 x 28    1x1, 64 -> 256, 56 x 56
    patches gathered, gradients packed per panel               0.78                     0.75
    patches in place or in strips, gradients in place
    or packed in the order of memory                           0.89                     0.95
    one address for the depths of a tile                       1.14                     0.98

    fastconv bench --net handson_fashion_mnist --layer conv2d --pass grad_weight --threads 1 --against torch

and for 1x1 kernels, which are one product of matrices (`PACKED`):
                                                      1x1, 128 -> 512, 28 x 28    1x1, 512 -> 512, 14 x 14
    as above: 48 pixels x 192 depths x 256 channels            0.77                     0.78
    x packed too, 192 pixels at a time                         0.86                     0.79
    whole rows: 512 depths x 512 channels                      0.90                     0.94
    128 pixels, the last sums straight to the result           1.03                     1.02

    fastconv bench --net mobilenet,resnet_50_v1_5 --pass grad_weight --threads 1 --against torch

With packing left out, the second of these runs at 93 of 101 GFLOP/s: what it lacks is x and grad_out, piece by piece
from memory.  Tried and not kept: 200 and 256 pixels (0.97, 0.93 in the mean of six layers, against 1.01), and 100
pixels (0.93).

What the next block packs of x and grad_out, asked for between the steps of the products, every 16 pixels or more, one
thread, AVX-512 (Zen 5) and AVX2, times as fast; with more depths and channels than these it is 1.0:
                32 -> 64,    64 -> 128,   128 -> 256,   256 -> 256,   256 -> 64,   256 -> 128,   256 -> 512,
                112 x 112     56 x 56      28 x 28       28 x 28       56 x 56      56 x 56      14 x 14
                2.0, 1.55    1.6, 1.25    1.15, 1.1      1.1, 1.05    1.25, 1.15   1.1, 1.1      1.05, 1.0
Asked for at once, by each register tile, it was 1.4, 1.25, 1.0, .97, 1.05, 1.0 and .91 (AVX-512).  The gradients of
blocks whose patches are not packed in this way are not asked for: 7x7 and 15x15 of few channels lost a quarter (AVX2).

192 pixels where patches share them, the time with 48 over theirs, medians of 11: 7x7, 1 -> 64 at 28 x 28: 1.26; 3x3
stride 2, 3 -> 32 at 224 x 224: 1.30; 7x7, 32 channels: 1.27; 15x15, 16 channels: 1.30; 4 groups of 17: 1.73; first
layers of 28 x 28 and 32 x 32 without padding: 1.12 and 0.9 to 1.1.  384 pixels are as fast, but for layers whose strips
leave the L2 cache (0.64 with 128 channels, stride 2).

3x3, stride 2, whose pixels lie far apart, gathered in place of read from strips: 1.15, 1.2 and 1.18 times as fast at
56 x 56 x 128, 28 x 28 x 256 and 14 x 14 x 512 (AVX-512; AVX2 1.15 to 1.25).  In a strip the pixels of a block compete
for a few sets of the L1 cache.  Blocks of whole register tiles of depths, 252 in place of 256: 1.02 times.  One block
more in place of twice as many, for two threads to have equal shares: 1.12 at 56 x 56 x 128.  To ask for the patches of
the next block, at once, gained nothing (.92 to 1.05).  A strip of few channels of a group is near enough and
stays one: 1.2 times as fast for 8 groups of 32 at 28 x 28, 1.3 with stride 2.

Few channels, 1x1, 32 -> 64 at 112 x 112, AVX2 (Zen 3), before: 46 GFLOP/s packed 128 pixels at a time; 41, 44 and 37
with 64, 256 and 512; 47 and 45 in place, 48 and 96 pixels at a time.

Chains of about 512 pixels, one after the other added to what is in grad_weight, have 0.98 to 1.00 of the speed of one
chain for each split (AVX-512, Zen 4, mean of each of three networks).  Where the lines that a tile is added to are not
fetched before its products it was 0.97, and 0.94 with chains from the middle of a row on, in strips of 28 columns.

    python bench/against.py c6087c5 HEAD --net resnet_50_v1_5 mobilenet pockets --pass grad_weight --algorithm direct

Order of sums: see `conv_direct`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import codegen, conv_last_weight, patches, product, simd, tiles
from fastconv.cpu.chains import add_splits, chain_count, split_count, start_of_chain, starts_of_chains
from fastconv.cpu.patches import IN_PLACE, PATCHES, STRIP, STRIP_BYTES
from fastconv.cpu.product import LINE, PATCH_STRIDE, STEPS_OF_FETCHING, TILE_ROWS, TILE_VECTORS, ceil_div
from fastconv.cpu.shape import ConvShape, as_product, forward_shape, named_as, numbers_of, round_up
from fastconv.geometry import Conv2dGeometry

# Pixels of a block, whose patches and gradients are read by every register tile: as many as the L1 cache holds patches
# of, or, where patches share their pixels, so many that loading and storing the sums is little work.
_PIXELS_OF_BLOCK = 8 * TILE_ROWS
_PIXELS_OF_STRIP = 196
# Gradients are read in place by so few depths that a packed copy of them would not pay.
_UNPACKED_DEPTH = 8 * TILE_ROWS
# Numbers from pixel to pixel, of x or of a strip, from which patches are better gathered than read there.
_FAR = 128
# Output channels of a block: gathering a patch is paid once for all of them.
_COLUMNS_OF_BLOCK = 256

# Beside the sources of `patches`: the x of a 1x1 kernel in the order in which register tiles read it.
PACKED = 3
# Output channels from which packing x pays even where it is near.
_PACKING_COLUMNS = 64
# A packed block: 128 x 512 float32 of x are 256 KB, half of an L2 cache or less.  Long pieces of the rows of x and
# grad_out come from memory at full speed, and many pixels let a tile of sums stay in registers for long.
_PACKED_PIXELS = 128
_PACKED_DEPTH = 512
_PACKED_COLUMNS = 512

# Depths and output channels that are not worth cutting for the sake of even shares.
_LEAST_BLOCK = 64


class Plan(NamedTuple):
    """How a problem is computed: where patches are read from, and how (depths x output channels) is cut into tasks.

    The pixels of a chain are taken in blocks of at most *pixels*; with strips, of at most *rows* rows of one image.
    """

    source: int
    strip: int
    rows: int
    pixels: int
    depth: int
    columns: int
    splits: int
    chains: int
    tasks: int


_named = named_as(ConvShape, Plan)


@_jit.inline
def _pitch(plan, width):
    """From one packed panel of *width* columns to the next; one more line keeps them from starting in one L1 set."""
    return plan.pixels * width + LINE


@_jit.inline
def _pack(matrix, start, stride, packed, at, width, pitch, pixels, columns):
    """``packed[column // width][pixel, column % width] = matrix[pixel, column]``, row by row of the matrix.

    Gradients become panels as wide as a register tile, x those as wide as a tile is high.  Rows are read one by one, in
    the order of memory.  A row of a panel may spill over the next one, which is written later.
    """
    lanes = simd.lane_count(packed)
    vectors = ceil_div(width, lanes)
    # panels whose last vector does not reach beyond the row
    whole = max(columns - vectors * lanes + width, 0) // width
    for pixel in range(pixels):
        source = start + pixel * stride
        target = at + pixel * width
        for _ in range(whole):
            for vector in range(vectors):
                value = simd.load(matrix, source + vector * lanes)
                simd.store(packed, target + vector * lanes, value)
            source += width
            target += pitch
        for column in range(whole * width, columns, width):
            for vector in range(vectors):
                count = min(max(columns - column - vector * lanes, 0), lanes)
                value = simd.load_first(matrix, source + vector * lanes, count)
                simd.store(packed, target + vector * lanes, value)
            source += width
            target += pitch


@_jit.inline
def _pack_x(x, packed, shape, plan, group, first_pixel, pixels, first_depth, depth, runs):
    """Pack the depths of a block of pixels of x, and describe the result as one run of pixels, TILE_ROWS apart."""
    s = shape
    n, oh, ow = product.pixel_at(first_pixel, s.OH, s.OW)
    patches.place_runs(s, IN_PLACE, group, n, oh, ow, pixels, runs)
    pitch, step, at = _pitch(plan, TILE_ROWS), patches.step_of_pixel(s, IN_PLACE), 0
    for run in range(1, runs[0] + 1):
        start, count = runs[2 * run] + first_depth, runs[2 * run + 1]
        _pack(x, start, step, packed, at, TILE_ROWS, pitch, count, depth)
        at += count * TILE_ROWS
    runs[0], runs[2], runs[3] = 1, 0, pixels


@_jit.inline
def _left_size(plan):
    """Numbers of the strip, the gathered patches or the packed x of a block."""
    if plan.source == PACKED:
        return ceil_div(plan.depth, TILE_ROWS) * _pitch(plan, TILE_ROWS) + LINE
    if plan.source == PATCHES:
        return plan.pixels * PATCH_STRIDE
    return plan.strip + LINE


@_jit.inline
def _panels_size(plan, width):
    """Numbers of the packed gradients of a block."""
    return ceil_div(plan.columns, width) * _pitch(plan, width)


@_jit.inline
def _grad_weight_workspace(partial, plan):
    """Memory of one thread: patches or a strip, panels of gradients, sums of a block, and its runs of pixels."""
    width = TILE_VECTORS * codegen.VECTOR_BYTES // partial.itemsize
    left = np.zeros(_left_size(plan), partial.dtype)
    panels = np.empty(_panels_size(plan, width), partial.dtype)
    sums = np.empty((plan.depth + TILE_ROWS) * plan.columns, partial.dtype)
    return left, panels, sums, np.empty(2 * (plan.pixels + 1), np.int64)


def _tile_step(vectors):
    """One register tile of grad_weight, *vectors* wide."""

    @_jit.splice
    def step(
        left, offsets, row, runs, step_of_pixel, panel, panel_at, panel_stride, sums, sums_at, first,
        target, target_at, target_stride,
        at_a_time, grad_out, grad_at, grad_step, grad_rows, x, x_at, x_step, x_rows,
    ):  # fmt: skip
        """``target[m, :] = sums[m, :] + sum over pixels of left[offsets[row + m] + place of pixel] * its gradient``.

        The first time there are no sums yet.  The places are counted, run by run, not loaded from a table: LLVM would
        let all multiplications wait for that load and run out of registers.

        A packed x is a single run.  Beside its products, some rows of x and grad_out that the next block packs are
        asked for, *at_a_time* pixels apart.
        """
        width = vectors * simd.lane_count(sums)
        if first:
            tile = tiles.zeros(sums, TILE_ROWS, vectors)
        else:
            tile = tiles.load(sums, sums_at, width, TILE_ROWS, vectors)
        if grad_rows > 0:
            # x is packed: one run, depths of a tile together
            for begin in range(0, runs[3], at_a_time):
                grad_at = product.fetch_rows(grad_out, grad_at, grad_step, grad_rows, width)
                x_at = product.fetch_rows(x, x_at, x_step, x_rows, 1)
                for pixel in range(begin, min(begin + at_a_time, runs[3])):
                    at = offsets[row] + pixel * step_of_pixel
                    tile = tiles.rank1(tile, left, at, 1, panel, panel_at + pixel * panel_stride)
            tiles.store(tile, target, target_at, target_stride)
            return
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
        tiles.store(tile, target, target_at, target_stride)

    return step


@_jit.inline
def _finish_tile(sums, at, stride, partial, result_at, result_stride, rows, columns, later):
    """Write the sums of a tile to their place in grad_weight; those of a *later* chain are added to what is there."""
    lanes = simd.lane_count(sums)
    for m in range(rows):
        for column in range(0, columns, lanes):
            count = min(columns - column, lanes)
            value, place = simd.load(sums, at + m * stride + column), result_at + m * result_stride + column
            if later:
                value = simd.add(simd.load_first(partial, place, count), value)
            if count == lanes:
                simd.store(partial, place, value)
            else:
                simd.store_first(partial, place, value, count)


@_jit.inline
def _fetch_tile(partial, result_at, result_stride, rows, columns):
    """Bring the lines of a tile of grad_weight near, which its sums are added to later."""
    for m in range(rows):
        for column in range(0, columns, LINE):
            simd.prefetch_for_write(partial, result_at + m * result_stride + column)


_wide_step = _tile_step(TILE_VECTORS)
_narrow_step = _tile_step(1)


@_jit.flushing_tasks
def _grad_weight_tasks(x, grad_out, partial, workspace, offsets, shape, plan, first_task, last_task):
    """Tasks of grad_weight; a task is a split of the pixels times a block of (kh, kw, ic) times one of output channels.

    Blocks of pixels outermost: their patches and gradients are in the cache while every register tile of the block of
    grad_weight is loaded, updated by one rank-1 step a pixel, and stored; after the last block of a chain it is added
    to its place in grad_weight, by way of the sums if it hangs over the edge.  Each element of ``partial[split]`` has
    one writer, and pixels are added in rising order (n, oh, ow).
    """
    s = shape
    x, grad_out, partial, offsets = simd.span(x), simd.span(grad_out), simd.span(partial), simd.span(offsets)
    left, packed, sums = simd.span(workspace[0]), simd.span(workspace[1]), simd.span(workspace[2])
    runs = simd.span(workspace[3])
    lanes = simd.lane_count(partial)
    width = TILE_VECTORS * lanes
    ic_of_group, oc_of_group = s.IC // s.G, s.OC // s.G
    column_blocks = ceil_div(oc_of_group, plan.columns)
    total_depth = s.KH * s.KW * (s.IC // s.G)
    depth_blocks = ceil_div(total_depth, plan.depth)
    if plan.source == IN_PLACE:
        left = x
    step_of_pixel = TILE_ROWS if plan.source == PACKED else patches.step_of_pixel(s, plan.source)
    for task in range(first_task, last_task):
        column_of_group = task % column_blocks * plan.columns
        first_depth = task // column_blocks % depth_blocks * plan.depth
        group = task // (column_blocks * depth_blocks) % s.G
        split = task // (column_blocks * depth_blocks * s.G)
        depth = min(plan.depth, total_depth - first_depth)
        columns = min(plan.columns, oc_of_group - column_of_group)
        first_column = group * oc_of_group + column_of_group
        first_offset = 0 if plan.source == PATCHES or plan.source == PACKED else first_depth
        gradients_in_place = columns % lanes == 0 and depth <= _UNPACKED_DEPTH
        first_chain = plan.chains * split // plan.splits
        for chain in range(first_chain, plan.chains * (split + 1) // plan.splits):
            chain_start, chain_stop = start_of_chain(s, plan.chains, chain), start_of_chain(s, plan.chains, chain + 1)
            first_pixel, later = chain_start, chain > first_chain
            while first_pixel < chain_stop:
                n, oh, ow = product.pixel_at(first_pixel, s.OH, s.OW)
                pixels = min(plan.pixels, chain_stop - first_pixel)
                if plan.source == PACKED:
                    _pack_x(x, left, s, plan, group, first_pixel, pixels, first_depth, depth, runs)
                else:
                    if plan.source == STRIP:
                        last_oh = min(oh + plan.rows, s.OH)
                        pixels = min(pixels, (last_oh - oh) * s.OW - ow)
                        patches.copy_strip(x, left, s, group, n, oh, ceil_div(ow + pixels, s.OW))
                    elif plan.source == PATCHES:
                        patches.gather_patches(x, left, s, group, n, oh, ow, pixels, first_depth, depth)
                    patches.place_runs(s, plan.source, group, n, oh, ow, pixels, runs)
                grad_at = first_pixel * s.OC + first_column
                if not gradients_in_place:
                    _pack(grad_out, grad_at, s.OC, packed, 0, width, _pitch(plan, width), pixels, columns)
                first, last = first_pixel == chain_start, first_pixel + pixels == chain_stop
                # every so many pixels, each register tile asks for its share of what the next block packs
                shares_of_grad, shares_of_x = ceil_div(depth, TILE_ROWS), ceil_div(columns, width)
                at_a_time = max(STEPS_OF_FETCHING, shares_of_grad)
                grad_rows = ceil_div(at_a_time, shares_of_grad) * (plan.source == PACKED)
                x_rows = ceil_div(at_a_time, shares_of_x) * (s.stride_h * s.stride_w == 1)
                next_pixel = first_pixel + pixels
                for column in range(0, columns, width):
                    rest = min(columns - column, width)
                    width_of_tile = width if rest > lanes else lanes
                    panel, panel_at, panel_stride = packed, column // width * _pitch(plan, width), width
                    if gradients_in_place:
                        panel, panel_at, panel_stride = grad_out, grad_at + column, s.OC
                    for row in range(0, depth, TILE_ROWS):
                        rows = min(depth - row, TILE_ROWS)
                        whole = rest == width_of_tile and rows == TILE_ROWS
                        at = row * plan.columns + column * TILE_ROWS
                        result_at = (split * total_depth + first_depth + row) * s.OC + first_column + column
                        target, target_at, target_stride = sums, at, width_of_tile
                        if last and whole and not later:
                            target, target_at, target_stride = partial, result_at, s.OC
                        next_grad = next_pixel + row // TILE_ROWS * pixels // shares_of_grad
                        next_x = next_pixel + column // width * pixels // shares_of_x
                        if last and later:
                            _fetch_tile(partial, result_at, s.OC, rows, rest)
                        if rest > lanes:
                            _wide_step(
                                left, offsets, first_offset + row, runs, step_of_pixel, panel, panel_at, panel_stride,
                                sums, at, first, target, target_at, target_stride,
                                at_a_time, grad_out, next_grad * s.OC + first_column + column, s.OC, grad_rows,
                                x, next_x * s.IC + group * ic_of_group + first_depth + row, s.IC, x_rows,
                            )  # fmt: skip
                        else:
                            _narrow_step(
                                left, offsets, first_offset + row, runs, step_of_pixel, panel, panel_at, panel_stride,
                                sums, at, first, target, target_at, target_stride,
                                at_a_time, grad_out, next_grad * s.OC + first_column + column, s.OC, grad_rows,
                                x, next_x * s.IC + group * ic_of_group + first_depth + row, s.IC, x_rows,
                            )  # fmt: skip
                        if last and (later or not whole):
                            _finish_tile(sums, at, width_of_tile, partial, result_at, s.OC, rows, rest, later)
                first_pixel += pixels


@_jit.kernel
def conv2d_grad_weight_direct_serial(x, grad_out, partial, offsets, numbers):
    """All tasks of grad_weight; arrays are flat."""
    shape, plan = _named(numbers)
    workspace = _grad_weight_workspace(partial, plan)
    _grad_weight_tasks(x, grad_out, partial, workspace, offsets, shape, plan, 0, plan.tasks)


@_jit.parallel_kernel
def conv2d_grad_weight_direct_parallel(workers, x, grad_out, partial, offsets, numbers):
    """The same tasks, an equal share for each worker."""
    for worker in prange(workers):
        shape, plan = _named(numbers)
        first_task = plan.tasks * worker // workers
        last_task = plan.tasks * (worker + 1) // workers
        workspace = _grad_weight_workspace(partial, plan)
        _grad_weight_tasks(x, grad_out, partial, workspace, offsets, shape, plan, first_task, last_task)


def grad_weight(geometry: Conv2dGeometry, x: NDArray[Any], grad_out: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = the gradient with respect to weight``: chains over a fixed split of the pixels, added in order.

    Few output channels would leave most lanes of its vectors idle; see `conv_last_weight`.
    """
    s = as_product(forward_shape(geometry))
    workers, splits = threads.worker_count(geometry.flops), split_count(s)
    partial = out.reshape(1, -1) if splits == 1 else np.empty((splits, out.size), out.dtype)
    if conv_last_weight.suits(s, out.itemsize):
        conv_last_weight.grad_weight(s, workers, x, grad_out, partial)
    else:
        plan = _plan(s, out.itemsize, workers)
        threads.run(
            conv2d_grad_weight_direct_serial,
            conv2d_grad_weight_direct_parallel,
            min(workers, plan.tasks),
            x.reshape(-1),
            grad_out.reshape(-1),
            partial.reshape(-1),
            _offsets(s, plan),
            _numbers(s, plan),
        )
    if splits > 1:
        add_splits(partial, out)


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes of memory of one thread; with several, blocks are smaller or the same."""
    s = as_product(forward_shape(geometry))
    if conv_last_weight.suits(s, itemsize):
        return conv_last_weight.workspace(s, itemsize)
    plan = _plan(s, itemsize, workers=1)
    width = TILE_VECTORS * codegen.VECTOR_BYTES // itemsize
    sums = (plan.depth + TILE_ROWS) * plan.columns
    return itemsize * (_left_size(plan) + _panels_size(plan, width) + sums) + 16 * (plan.pixels + 1 + TILE_ROWS)


_numbers = lru_cache(maxsize=1024)(numbers_of)


@lru_cache(maxsize=1024)
def _offsets(shape: ConvShape, plan: Plan) -> NDArray[np.int64]:
    """Where each depth of a patch lies from the place of the patch."""
    if plan.source == PACKED:
        depths = np.arange(round_up(plan.depth, TILE_ROWS), dtype=np.int64)
        return depths // TILE_ROWS * _pitch(plan, TILE_ROWS) + depths % TILE_ROWS
    return patches.offsets_of(shape, plan.source)


@lru_cache(maxsize=1024)
def _plan(shape: ConvShape, itemsize: int, workers: int) -> Plan:
    """Blocks as large as the caches like, cut until all workers have equal shares; bits do not depend on blocks."""
    s = shape
    lanes = codegen.VECTOR_BYTES // itemsize
    width = TILE_VECTORS * lanes
    splits, chains = split_count(s), chain_count(s)
    longest = int(np.diff(starts_of_chains(s)).max())
    total_depth, total_columns = s.KH * s.KW * (s.IC // s.G), s.OC // s.G
    depth = _part(total_depth, product.MOST_DEPTH // TILE_ROWS * TILE_ROWS, TILE_ROWS)
    columns = min(_COLUMNS_OF_BLOCK, round_up(total_columns, lanes))
    rows, pixels, strip = 1, _PIXELS_OF_BLOCK, 0
    source = patches.source_of(s, itemsize)
    far = patches.step_of_pixel(s, source) > _FAR
    if source == IN_PLACE and (s.KH, s.KW) == (1, 1) and (far or total_columns >= _PACKING_COLUMNS):
        source = PACKED
        pixels = _part(longest, _PACKED_PIXELS, 1)
        depth, columns = _part(total_depth, _PACKED_DEPTH, TILE_ROWS), _part(total_columns, _PACKED_COLUMNS, width)
    elif far:
        source = PATCHES
    elif source == IN_PLACE and s.KH * s.KW > 1:
        pixels = _PIXELS_OF_STRIP
    elif source == STRIP:
        rows = _part(min(max(longest // s.OW, 1), s.OH), max(_PIXELS_OF_STRIP // s.OW, 1), 1)
        while rows * s.OW > _PIXELS_OF_BLOCK and patches.strip_size(s, rows) * itemsize > STRIP_BYTES:
            rows -= 1
        pixels = rows * s.OW if s.OW <= _PIXELS_OF_STRIP else _part(s.OW, _PIXELS_OF_STRIP, 1)
        strip = patches.strip_size(s, rows)
    while True:
        tasks = splits * s.G * -(-total_depth // depth) * -(-total_columns // columns)
        if threads.even(tasks, workers) or max(depth, columns) <= _LEAST_BLOCK:
            return Plan(source, strip, rows, pixels, depth, columns, splits, chains, tasks)
        if columns >= depth:
            columns = _part(total_columns, columns - width, width)
        else:
            depth = _part(total_depth, depth - TILE_ROWS, TILE_ROWS)


def _part(total: int, most: int, multiple: int) -> int:
    """The size of equal parts of at most *most*, rounded up to a *multiple*."""
    return round_up(-(-total // max(-(-total // most), 1)), multiple)
