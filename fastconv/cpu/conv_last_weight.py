"""grad_weight with few output channels: vectors of neighbours in x, in place of nearly empty ones of grad_out.

The general pass multiplies numbers of x with vectors of output channels (`conv_direct_weight`); of one channel, a lane
of 16 is filled.  Here the factors change places: KW * IC neighbours in a row of x, those under a row of the kernel, are
vectors, and each number of grad_out meets them.

Ladder: the general pass's time over this one's, one core (Zen 4), 8 images of 64 x 64:

                                  AVX-512    AVX2
    32 -> 1, 3x3                    4.7       4.7
    32 -> 3, 3x3                    2.1       2.2
    64 -> 3, 9x9                    4.2       3.3
    64 -> 4, 1x1                    3.5       1.9
    16 -> 2, 5x5, stride 2          4.3       2.4
    1 -> 1, 3x3                     1.7       1.6
    8 -> 8, 25x25, 48 x 48          1.7       1.1, not taken
    64 -> 16, 3x3                   1.1       1.0, not taken
    3 -> 16, 3x3                    0.5       0.3, not taken

    python bench/against.py 98d462a f59e4b9 --pass grad_weight --threads 1 --shape 64x64x32,3x3x1,padding=same

Every element is the sum that `conv_direct_weight` forms: the same chains of fused multiply-adds over the same pixels,
padding as zeros included, to the bit, with the same error bound.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import codegen, patches, product, simd, tiles
from fastconv.cpu.chains import chain_count, split_count, start_of_chain
from fastconv.cpu.conv_last import cycles_of_step
from fastconv.cpu.shape import ConvShape, named_as, numbers_of, round_up
from fastconv.cpu.tiles import TILE_ROWS, TILE_VECTORS

# Register tiles: output channels, all of them or one by one, times vectors of x, as many or one.
_OUTPUTS, _VECTORS = 4, 4
# How many times as fast this must be by the count of cycles: of the steps, and of a pixel that is packed or gone to.
_LEAST_GAIN = 1.4
_CYCLES_OF_PIXEL = 30
# Tasks for each of several threads.
_TASKS_OF_WORKER = 2
# Bytes of the copied patches of one row: of the pixels whose patch reaches beyond it.
_EDGE_BYTES = 64 * 1024


class Cut(NamedTuple):
    """How the work is cut into tasks: a split of the pixels, and one of *parts* of the rows of the kernel."""

    splits: int
    chains: int
    parts: int
    #: Pixels [inner_from, inner_to) of a row have their patch inside it.
    inner_from: int
    inner_to: int
    #: Most patches of a row that are copied.
    edges: int
    #: Numbers of a row of the kernel, and of the tiles that hold them.
    run: int
    pitch: int


_named = named_as(ConvShape, Cut)


def _tile_of(outputs, vectors):
    """One register tile of grad_weight."""

    @_jit.inline
    def add_pixels(sums, at, pitch, begun, grad_out, grad_at, OC, x, x_at, step, pixels):
        """``sums[oc, :] += sum over pixels of grad_out[pixel, oc] * x[patch of pixel]``, from zero or *begun*."""
        if begun:
            tile = tiles.load(sums, at, pitch, outputs, vectors)
        else:
            tile = tiles.zeros(sums, outputs, vectors)
        for _ in range(pixels):
            tile = tiles.rank1(tile, grad_out, grad_at, 1, x, x_at)
            grad_at += OC
            x_at += step
        tiles.store(tile, sums, at, pitch)

    return add_pixels


_wide_tile_of_all, _narrow_tile_of_all = (_tile_of(_OUTPUTS, vectors) for vectors in (_VECTORS, 1))
_wide_tile, _narrow_tile = (_tile_of(1, vectors) for vectors in (_VECTORS, 1))


@_jit.inline
def _add_run(sums, sums_at, begun, grad_out, grad_at, shape, cut, x, x_at, step, pixels):
    """A run of pixels of one row, whose patches lie *step* apart, for one row of the kernel: all tiles of sums."""
    s = shape
    lanes = simd.lane_count(sums)
    oc = 0
    while oc < s.OC:
        outputs = _OUTPUTS if s.OC - oc >= _OUTPUTS else 1
        column = 0
        while column < cut.pitch:
            vectors = _VECTORS if cut.pitch - column >= _VECTORS * lanes else 1
            at = sums_at + oc * cut.pitch + column
            if outputs > 1 and vectors > 1:
                _wide_tile_of_all(
                    sums, at, cut.pitch, begun, grad_out, grad_at + oc, s.OC, x, x_at + column, step, pixels
                )
            elif outputs > 1:
                _narrow_tile_of_all(
                    sums, at, cut.pitch, begun, grad_out, grad_at + oc, s.OC, x, x_at + column, step, pixels
                )
            elif vectors > 1:
                _wide_tile(sums, at, cut.pitch, begun, grad_out, grad_at + oc, s.OC, x, x_at + column, step, pixels)
            else:
                _narrow_tile(sums, at, cut.pitch, begun, grad_out, grad_at + oc, s.OC, x, x_at + column, step, pixels)
            column += vectors * lanes
        oc += outputs


@_jit.inline
def _finish(sums, partial, split, shape, cut, first_kh, last_kh, later):
    """Write the sums of a chain to their places in grad_weight; those of a *later* one are added to what is there."""
    s = shape
    for kh in range(first_kh, last_kh):
        for number in range(cut.run):
            to = ((split * s.KH + kh) * cut.run + number) * s.OC
            for oc in range(s.OC):
                value = sums[((kh - first_kh) * s.OC + oc) * cut.pitch + number]
                partial[to + oc] = partial[to + oc] + value if later else value


@_jit.inline
def _copy_patches(x, row, edges, at, shape, cut, first_ow, last_ow):
    """The part of the patches of pixels [first_ow, last_ow) that lies in one row of x, with zeros beside it."""
    s = shape
    for ow in range(first_ow, last_ow):
        left = (s.pad_left - ow * s.stride_w) * s.IC
        patches.gather_clipped(x, row - left, edges, at, 0, cut.run, left, left + s.IW * s.IC)
        at += cut.pitch


@_jit.flushing_tasks
def _last_tasks(x, grad_out, partial_array, sums_array, edges, shape, cut, first_task, last_task):
    """Tasks [first_task, last_task); a task is a split of the pixels times some rows of the kernel.

    Chain by chain, row by row of the pixels, which stay in the L1 cache with their sums, row by row of the kernel:
    first the pixels whose patch begins left of x, then those inside, read in place, then the others.  Patches at the
    edge are copied with their zeros; a row of the kernel above or below x meets zeros alone.  Each element of
    ``partial[split]`` has one writer, and pixels are added in rising order (n, oh, ow).
    """
    s = shape
    x, grad_out, sums, edges = simd.span(x), simd.span(grad_out), simd.span(sums_array), simd.span(edges)
    step = s.stride_w * s.IC
    for task in range(first_task, last_task):
        split, part = task // cut.parts, task % cut.parts
        first_kh, last_kh = s.KH * part // cut.parts, s.KH * (part + 1) // cut.parts
        first_chain = cut.chains * split // cut.splits
        for chain in range(first_chain, cut.chains * (split + 1) // cut.splits):
            pixel, stop = start_of_chain(s, cut.chains, chain), start_of_chain(s, cut.chains, chain + 1)
            first = True
            while pixel < stop:
                n, oh, begin = product.pixel_at(pixel, s.OH, s.OW)
                end = min(s.OW, begin + stop - pixel)
                inner_from = min(max(cut.inner_from, begin), end)
                grad_row = (pixel - begin) * s.OC
                for kh in range(first_kh, last_kh):
                    at = (kh - first_kh) * s.OC * cut.pitch
                    ih = oh * s.stride_h - s.pad_top + kh * s.dilation_h
                    row = (n * s.IH + ih) * s.IW * s.IC
                    left, inner = end - begin, 0
                    inside = 0 <= ih < s.IH
                    if inside:
                        # a tile is wider than a patch, and must not read behind the end of x
                        readable = (x.size - cut.pitch - row + s.pad_left * s.IC) // step + 1
                        left = inner_from - begin
                        inner = max(min(cut.inner_to, readable, end) - inner_from, 0)
                        _copy_patches(x, row, edges, 0, s, cut, begin, inner_from)
                        _copy_patches(x, row, edges, left * cut.pitch, s, cut, inner_from + inner, end)
                    ow = begin
                    for part_of_row in range(3):
                        source, place, apart, pixels = edges, 0, cut.pitch, left
                        if part_of_row == 1:
                            source, place, apart, pixels = x, row + ow * step - s.pad_left * s.IC, step, inner
                        elif part_of_row == 2:
                            place, pixels = left * cut.pitch, end - ow
                        elif not inside:
                            place, apart = cut.edges * cut.pitch, 0
                        if pixels > 0:
                            begun = not first or ow > begin
                            _add_run(
                                sums, at, begun, grad_out, grad_row + ow * s.OC, s, cut, source, place, apart, pixels
                            )
                        ow += pixels
                first = False
                pixel += end - begin
            _finish(sums_array, partial_array, split, s, cut, first_kh, last_kh, chain > first_chain)


@_jit.inline
def _workspace(partial, shape, cut):
    """Memory of one thread: the sums of a chain, and copied patches, with a patch of zeros behind them."""
    sums, edges = _sizes(shape, cut)
    return np.empty(sums, partial.dtype), np.zeros(edges, partial.dtype)


@_jit.inline
def _sizes(shape, cut):
    """Numbers of both; what is copied last may spill over by a vector."""
    rows = (shape.KH + cut.parts - 1) // cut.parts
    return rows * shape.OC * cut.pitch, (cut.edges + 1) * cut.pitch + codegen.VECTOR_BYTES // 4


@_jit.kernel
def conv2d_grad_weight_last_serial(x, grad_out, partial, numbers):
    """All tasks; arrays are flat."""
    shape, cut = _named(numbers)
    sums, edges = _workspace(partial, shape, cut)
    _last_tasks(x, grad_out, partial, sums, edges, shape, cut, 0, cut.splits * cut.parts)


@_jit.parallel_kernel
def conv2d_grad_weight_last_parallel(workers, x, grad_out, partial, numbers):
    """The same tasks, an equal share for each worker."""
    for worker in prange(workers):
        shape, cut = _named(numbers)
        tasks = cut.splits * cut.parts
        sums, edges = _workspace(partial, shape, cut)
        first_task, last_task = tasks * worker // workers, tasks * (worker + 1) // workers
        _last_tasks(x, grad_out, partial, sums, edges, shape, cut, first_task, last_task)


# ---- from a shape to the kernels ------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def suits(shape: ConvShape, itemsize: int) -> bool:
    """So few output channels that vectors of x make it faster; kernel rows without gaps, no groups, few edges.

    The width of vectors may decide here, because the bits do not depend on it.
    """
    s = shape
    if s.G > 1 or (s.dilation_w > 1 and s.KW > 1) or s.N * s.OH * s.OW == 0:
        return False
    cut = cut_of(s, itemsize, 1)
    lanes = codegen.VECTOR_BYTES // itemsize
    wide, narrow = divmod(cut.pitch // lanes, _VECTORS)
    together, alone = divmod(s.OC, _OUTPUTS)
    time = s.KH * sum(
        count * (wide * cycles_of_step(rows, _VECTORS) + narrow * cycles_of_step(rows, 1))
        for count, rows in ((together, _OUTPUTS), (alone, 1))
    )
    pairs, single = divmod(-(-s.OC // lanes), TILE_VECTORS)
    general = -(-s.KH * s.KW * s.IC // TILE_ROWS) * (
        pairs * cycles_of_step(TILE_ROWS, TILE_VECTORS) + single * cycles_of_step(TILE_ROWS, 1)
    )
    general += _CYCLES_OF_PIXEL * (2 if s.OC % lanes else 1)
    return general > _LEAST_GAIN * (time + _CYCLES_OF_PIXEL) and cut.edges * cut.pitch * itemsize <= _EDGE_BYTES


@lru_cache(maxsize=1024)
def cut_of(shape: ConvShape, itemsize: int, workers: int) -> Cut:
    """As many tasks as make equal shares: splits, and where those are fewer, parts of the rows of the kernel."""
    s = shape
    lanes = codegen.VECTOR_BYTES // itemsize
    run, splits = s.KW * s.IC, split_count(s)
    rest = run % (_VECTORS * lanes)
    pitch = round_up(run, lanes if rest <= lanes else _VECTORS * lanes)
    inner_from = min(max(-(-s.pad_left // s.stride_w), 0), s.OW)
    inner_to = max(min((s.IW + s.pad_left - s.KW) // s.stride_w + 1, s.OW), inner_from)
    edges = min(s.OW - (inner_to - inner_from) + -(-(pitch - run) // (s.stride_w * s.IC)), s.OW)
    parts = 1 if splits % workers == 0 else min(s.KH, -(-_TASKS_OF_WORKER * workers // splits))
    return Cut(splits, chain_count(s), parts, inner_from, inner_to, edges, run, pitch)


_numbers = lru_cache(maxsize=1024)(numbers_of)


def grad_weight(shape: ConvShape, workers: int, x: NDArray[Any], grad_out: NDArray[Any], partial: NDArray[Any]) -> None:
    """``partial[split] = the gradient with respect to weight`` over a split of the pixels, of a shape that `suits`."""
    cut = cut_of(shape, partial.itemsize, workers)
    threads.run(
        conv2d_grad_weight_last_serial,
        conv2d_grad_weight_last_parallel,
        min(workers, cut.splits * cut.parts),
        x.reshape(-1),
        grad_out.reshape(-1),
        partial.reshape(-1),
        _numbers(shape, cut),
    )


def workspace(shape: ConvShape, itemsize: int) -> int:
    """Bytes of memory of one thread."""
    return itemsize * sum(_sizes(shape, cut_of(shape, itemsize, 1)))
