"""Forward pass with few input channels, the first layers of networks: sums of 9 to 192 products, and many of them.

Ladder: the time of `conv_direct`'s general forward pass over this one's, one AVX2 core (Zen 3), batch 8, best of many
calls, into an array that is there (the floor is the multiply-adds alone at two a cycle):

                                                  3x3, 1 -> 32    3x3, 3 -> 32    7x7 stride 2, 3 -> 64
                                                    64 x 64         64 x 64             224 x 224
    pixels at a fixed step in place of a table
    of places, weights where they lie                 1.8             1.4                 1.1
    one loop over a table of depths, not two
    over kernel rows and the numbers in them          2.0             1.5                 1.0
    weights packed, tiles in chunks under a panel     2.0             1.5                 1.1
    floor                                             3.2             1.9                 1.2

    fastconv bench --net pockets --layer "IC = 1" --pass forward --threads 1 --against torch

Measured and left out: 3 x 4 tiles in place of 6 x 2 (0.5 of the speed: too few registers are left);
x with channels and columns exchanged, so that the pixels of a tile are neighbours (0.9 to 1.0, and a copy more);
steps unrolled by the 3, 9 or 21 numbers of a kernel row (1.0); one panel for a whole row of outputs (0.9
to 1.0: the other half of each cache line of out comes too late).

The sums are short, so what surrounds them counts: here a tile has two addresses, of x and of out, and all else is a
constant step.  Each output element is the chain of fused multiply-adds over (kh, kw, ic) from zero that `conv_direct`
makes, to the bit, with the same error bound.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import codegen, patches, product, simd, tiles
from fastconv.cpu.activation import activate
from fastconv.cpu.epilogue import RELU, tile_finisher
from fastconv.cpu.product import DEPTH, LINE
from fastconv.cpu.shape import ConvShape, named_as, numbers_of, round_up

# More input channels, and the general pass is as fast.
_MOST_CHANNELS = 8
# Pixels of a register tile: with 32 registers, 14 would waste more at the end of a row than they win inside it.
_PIXELS = min(tiles.TILE_ROWS, 8)
_VECTORS = tiles.TILE_VECTORS
# Tiles of one panel before the next panel: its weights stay in the L1 cache, and so do the lines of out that the panels
# share.  The lines of the next chunk are fetched meanwhile.
_CHUNK = 4 * _PIXELS
# The rows of x for a block of rows of outputs: half of an L1 cache.
_STRIP_BYTES = 16 * 1024
# Blocks per thread below which blocks are made lower.
_TASKS_PER_WORKER = 4


class Blocks(NamedTuple):
    """How the images are cut into tasks: *rows* rows of outputs each."""

    rows: int
    tasks: int


_named = named_as(ConvShape, Blocks)


@_jit.inline
def _panel_width(done, OC, lanes):
    """Columns of the panel behind the first *done* output channels: two vectors, or one for the last few.

    The last panel begins early enough to end with the last channel: channels that two panels share are computed twice,
    with the same bits, and there is no vector to mask.
    """
    return _VECTORS * lanes if OC - done > lanes and OC >= _VECTORS * lanes else lanes


@_jit.inline
def _pack_panels(weight, panels, OC, depth):
    """The weight as panels of all depths by the columns of `_panel_width`, one after the other."""
    lanes = simd.lane_count(panels)
    done = 0
    while done < OC:
        width = _panel_width(done, OC, lanes)
        column = min(done, OC - width)
        product.pack_columns(weight, column, OC, depth, width, panels, done * depth, width)
        done += width


def _tile_of(vectors):
    """One register tile of outputs, *vectors* wide."""
    finish = tile_finisher(_PIXELS, vectors)

    @_jit.splice
    def compute(
        strip, strip_at, step, offsets, panels, panel_at,
        bias, column, residual, out, out_at, OC, activation, stream,
    ):  # fmt: skip
        """``out[out_at + m * OC + lane] = activation(sum over k of x[m, k] * panel[k, lane] + bias + residual)``.

        x[m, k] lies at ``strip_at + m * step + offsets[k]``.  Tiles of short sums wait for the memory that they are
        written to, unless it is asked for a chunk earlier.
        """
        width = vectors * simd.lane_count(out)
        if not stream:
            for pixel in range(_PIXELS):
                for lane in range(0, width, LINE):
                    simd.prefetch_for_write(out, out_at + (_CHUNK + pixel) * OC + lane)
        tile = tiles.zeros(out, _PIXELS, vectors)
        for k in range(offsets.size):
            tile = tiles.rank1(tile, strip, strip_at + offsets[k], step, panels, panel_at)
            panel_at += width
        finish(tile, bias, column, residual, out, out_at, OC, activation, stream)

    return compute


_wide_tile = _tile_of(_VECTORS)
_narrow_tile = _tile_of(1)


@_jit.flushing_tasks
def _first_tasks(
    x, weight, bias, residual, out_array, workspace, offsets, shape, blocks, activation, first_task, last_task
):
    """Tasks [first_task, last_task); a task is a block of rows of the outputs of one image.

    The rows of x that a block reads are copied with their padding, into the L1 cache.  Then row by row chunks of
    pixels, under each chunk panels of output channels, under each panel tiles of pixels.  The last tile of a row is
    moved back to end with it; what it computes again gets the same bits.  Each output element has one writer.
    """
    s = shape
    x, weight, bias, residual = simd.span(x), simd.span(weight), simd.span(bias), simd.span(residual)
    out, offsets = simd.span(out_array), simd.span(offsets)
    strip, panels = simd.span(workspace[0]), simd.span(workspace[1])
    lanes = simd.lane_count(out)
    stream = activation <= RELU and simd.streams(out_array, s.OC)
    depth = offsets.size
    step = s.stride_w * s.IC
    pitch = patches.strip_pitch(s)
    blocks_of_image = (s.OH + blocks.rows - 1) // blocks.rows
    if first_task < last_task:
        _pack_panels(weight, panels, s.OC, depth)
    for task in range(first_task, last_task):
        n, first_oh = task // blocks_of_image, task % blocks_of_image * blocks.rows
        rows = min(blocks.rows, s.OH - first_oh)
        patches.copy_strip(x, strip, s, 0, n, first_oh, rows)
        for row in range(rows):
            strip_row = row * s.stride_h * pitch
            out_row = (n * s.OH + first_oh + row) * s.OW * s.OC
            for first_pixel in range(0, s.OW, _CHUNK):
                last_pixel = min(first_pixel + _CHUNK, s.OW)
                done = 0
                while done < s.OC:
                    width = _panel_width(done, s.OC, lanes)
                    column = min(done, s.OC - width)
                    panel_at = done * depth
                    if width > lanes:
                        for pixel in range(first_pixel, last_pixel, _PIXELS):
                            ow = min(pixel, s.OW - _PIXELS)
                            _wide_tile(
                                strip, strip_row + ow * step, step, offsets, panels, panel_at,
                                bias, column, residual, out, out_row + ow * s.OC + column, s.OC, activation, stream,
                            )  # fmt: skip
                    else:
                        for pixel in range(first_pixel, last_pixel, _PIXELS):
                            ow = min(pixel, s.OW - _PIXELS)
                            _narrow_tile(
                                strip, strip_row + ow * step, step, offsets, panels, panel_at,
                                bias, column, residual, out, out_row + ow * s.OC + column, s.OC, activation, stream,
                            )  # fmt: skip
                    done += width
            if activation > RELU:
                activate(out_array, out_row, s.OW * s.OC, activation)


@_jit.inline
def _first_workspace(out, offsets, shape, blocks):
    """Memory of one thread: a strip of x, and the weight in panels."""
    rows = (blocks.rows - 1) * shape.stride_h + (shape.KH - 1) * shape.dilation_h + 1
    lanes = codegen.VECTOR_BYTES // out.itemsize
    strip = np.empty(rows * patches.strip_pitch(shape) + LINE, out.dtype)
    return strip, np.empty(offsets.size * ((shape.OC + lanes - 1) // lanes * lanes), out.dtype)


@_jit.kernel
def conv2d_forward_first_serial(x, weight, bias, residual, out, offsets, numbers, activation):
    """All tasks; arrays are flat."""
    shape, blocks = _named(numbers)
    workspace = _first_workspace(out, offsets, shape, blocks)
    _first_tasks(x, weight, bias, residual, out, workspace, offsets, shape, blocks, activation, 0, blocks.tasks)


@_jit.parallel_kernel
def conv2d_forward_first_parallel(workers, x, weight, bias, residual, out, offsets, numbers, activation):
    """The same tasks, an equal share for each worker, who packs the few weights for himself."""
    for worker in prange(workers):
        shape, blocks = _named(numbers)
        first_task = blocks.tasks * worker // workers
        last_task = blocks.tasks * (worker + 1) // workers
        workspace = _first_workspace(out, offsets, shape, blocks)
        _first_tasks(
            x, weight, bias, residual, out, workspace, offsets, shape, blocks, activation, first_task, last_task
        )


# ---- from a shape to the kernels ------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def suits(shape: ConvShape, itemsize: int) -> bool:
    """Few input channels and short sums without groups; a row of outputs fills a tile, and a pixel a vector.

    The vector width of the processor may decide here, because the bits are those of the general pass.
    """
    s = shape
    short = s.G == 1 and s.IC <= _MOST_CHANNELS and s.IC < s.KH * s.KW * s.IC <= DEPTH
    fills = s.OW >= _PIXELS and s.OC * itemsize >= codegen.VECTOR_BYTES
    whole = (s.OH, s.OW) == (s.OUT_H, s.OUT_W)
    return short and fills and whole and patches.strip_size(s, 1) * itemsize <= patches.STRIP_BYTES


def forward(
    shape: ConvShape,
    workers: int,
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    residual: NDArray[Any] | None,
    out: NDArray[Any],
    activation: int,
) -> None:
    """``out = activation(conv2d(x, weight) + bias + residual)`` for a shape that `suits`."""
    blocks, offsets, numbers = plan_of(shape, out.itemsize, workers)
    absent = np.empty(0, out.dtype)
    threads.run(
        conv2d_forward_first_serial,
        conv2d_forward_first_parallel,
        min(workers, blocks.tasks),
        x.ravel(),
        weight.ravel(),
        absent if bias is None else bias,
        absent if residual is None else residual.ravel(),
        out.ravel(),
        offsets,
        numbers,
        activation,
    )


def workspace(shape: ConvShape, itemsize: int) -> int:
    """Bytes of memory of one thread."""
    s = shape
    blocks, offsets, _ = plan_of(s, itemsize, 1)
    panels = offsets.size * round_up(s.OC, codegen.VECTOR_BYTES // itemsize)
    return itemsize * (patches.strip_size(s, blocks.rows) + LINE + panels)


@lru_cache(maxsize=1024)
def plan_of(shape: ConvShape, itemsize: int, workers: int) -> tuple[Blocks, NDArray[np.int64], NDArray[np.int64]]:
    """As many rows to a block as their strip allows, fewer where there is little work; and the offset of each depth.

    Last, shape and blocks as an array, for `_named`.
    """
    s = shape
    rows = s.OH
    while rows > 1 and patches.strip_size(s, rows) * itemsize > _STRIP_BYTES:
        rows -= 1
    while workers > 1 and rows > 1 and s.N * -(-s.OH // rows) < _TASKS_PER_WORKER * workers:
        rows = -(-rows // 2)
    runs = patches.pieces_of(s, patches.STRIP, DEPTH).reshape(-1, 2)
    offsets = [start + element for start, count in runs for element in range(count)]
    blocks = Blocks(rows, s.N * -(-s.OH // rows))
    return blocks, np.array(offsets, np.int64), numbers_of(s, blocks)
