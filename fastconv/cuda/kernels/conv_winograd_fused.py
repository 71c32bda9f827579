"""F(2x2, 3x3) in one kernel: transforms at both ends of the products, and nothing between them leaves the block.

A block of 256 threads has 32 tiles x 32 output channels at all 16 points, a thread 8 x 8 of them at one point.  In
turns of 8 input channels, each thread transforms one channel of one tile on its way to shared memory, where it meets
the transformed weight.  In the end the sums change places, half of the tiles at a time: then a thread has all 16 points
of a tile, and out is written channel by channel.

    a       [point, ic, tile]    line ic with its runs of four tiles exchanged, run r at r ^ ic: so the stores of a
                                 warp, 8 channels of one run, meet 32 banks
    b       [point, ic, oc]
    sums    [point, tile, oc]    in place of a and b; every other run of four tiles with the halves of oc exchanged

Two blocks share a multiprocessor: while one loads and transforms, the other multiplies.  Fetching x a turn ahead, as
`conv_direct` does, would take 16 registers more than there are.
"""

from __future__ import annotations

from functools import lru_cache

from fastconv.cpu.winograd_tiles import Images
from fastconv.cuda.conv_direct_plan import DEPTH, OUTSIDE
from fastconv.cuda.conv_winograd_plan import (
    FUSED_COLUMNS as COLUMNS,
    FUSED_OUTPUTS as OUTPUTS,
    FUSED_POINTS as POINTS,
    FUSED_TILES as TILES,
)
from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels import winograd
from fastconv.cuda.kernels.addresses import multiply
from fastconv.cuda.kernels.conv_winograd import finish_output, number_of_line, pixel_of
from fastconv.cuda.kernels.elements import NUMBERS, split_in_three, told
from fastconv.cuda.kernels.intrinsics import (
    block_index,
    collect,
    divide,
    for_each,
    load_or,
    store,
    take,
    thread_index,
    zeros,
)
from fastconv.cuda.kernels.tensor_intrinsics import shared_address

cuda = target()
types = cuda.types
float32, int32, int64 = types.float32, types.int32, types.int64

#: 4 x 4 threads for each point, which have 8 x 8 sums each: two runs of four tiles and of four channels, half of the
#: block apart.
THREADS, SUMS, RUN = 16 * POINTS, 64, 4
HALF_TILES, HALF_COLUMNS = TILES // 2, COLUMNS // 2
_RESIDENTS = 2
#: Shared memory: a, and b behind it.
A_PLANE, B_PLANE = DEPTH * TILES, DEPTH * COLUMNS
B_START = POINTS * A_PLANE
A_LINE_BYTES = 4 * TILES
MEMORY = B_START + POINTS * B_PLANE
#: Of a turn of weights, a thread loads runs of four columns at points some steps apart.
RUNS_OF_PLANE = B_PLANE // RUN
POINT_STEP = THREADS // RUNS_OF_PLANE
LOADS = POINTS // POINT_STEP
#: Of half of the tiles, a thread finishes channels of so many.
SUMS_PLANE = HALF_TILES * COLUMNS
ROW_STEP = THREADS // COLUMNS

_pixels, _points_of_tile, _weights_of_thread = collect(POINTS), collect(POINTS), collect(LOADS)
_each, _each_row, _each_half = for_each(1), for_each(2 * RUN), for_each(SUMS // 2)
_no_sums, _load_run_or, _load_or, _take = zeros(SUMS), load_or(RUN), load_or(1), take(RUN)
_multiply = multiply((0, HALF_TILES), (0, HALF_COLUMNS), (TILES, COLUMNS), DEPTH, twist=RUN)
_transform_input, _transform_output = winograd.transform_input(OUTPUTS), winograd.transform_output(OUTPUTS)
_pixel, _finish = pixel_of(OUTPUTS + 2, True), finish_output(OUTPUTS, True)


@cuda.jit(device=True)
def _place_of_block(column_blocks):
    """The first tile and the first output channel of this block."""
    tile_block = divide(block_index(), column_blocks)
    return int32(tile_block * TILES), int32((block_index() - tile_block * column_blocks) * COLUMNS)


@cuda.jit(device=True)
def _factors_of_thread():
    """Where in a and b the rows and columns of this thread begin, in bytes."""
    thread = thread_index()
    point, row, column = int32(thread >> 4), int32(thread >> 2 & 3), int32(thread & 3)
    return int32(4 * (point * A_PLANE + row * RUN)), int32(4 * (B_START + point * B_PLANE + column * RUN))


@cuda.jit(device=True)
def _places_of_thread():
    """Where in a and b this thread puts the channel of a tile, and the first run of weights, that it loads."""
    thread = thread_index()
    tile, ic = divide(thread, DEPTH), int32(thread & (DEPTH - 1))
    point, run = divide(thread, RUNS_OF_PLANE), int32(thread & (RUNS_OF_PLANE - 1))
    return int32(ic * TILES + (tile >> 2 ^ ic) * RUN + (tile & 3)), int32(B_START + point * B_PLANE + run * RUN)


@cuda.jit(device=True)
def _put_point(i, numbers, memory, at):
    store(memory, int32(at + i * A_PLANE), numbers)


@cuda.jit(device=True)
def _load_weights(i, taps, at, step, there):
    return _load_run_or(taps, int32(at + i * step), there, float32(0))


@cuda.jit(device=True)
def _put_weights(i, runs, memory, at):
    store(memory, int32(at + i * POINT_STEP * B_PLANE), runs[0])


@cuda.jit(device=True)
def _put_row(i, numbers, memory, at):
    """Row *i* of the four rows of a thread in half of the tiles."""
    first, numbers = _take(numbers)
    second, numbers = _take(numbers)
    at = int32(at + i * COLUMNS)
    store(memory, at, first)
    store(memory, int32(at ^ HALF_COLUMNS), second)


@cuda.jit(device=True)
def _finish_half(half, sums, memory, first_tile, total, first_column, bias, residual, out, outputs, activation):
    """Half of the tiles of a block: sums to shared memory, from there tile by tile to out."""
    g = outputs
    if half > 0:
        cuda.syncthreads()
    thread = thread_index()
    point, row, column = int32(thread >> 4), int32(thread >> 2 & 3), int32(thread & 3)
    put = int32(point * SUMS_PLANE + row * RUN * COLUMNS + (column * RUN ^ (row & 1) * HALF_COLUMNS))
    _each_row(_put_row, sums, (memory, put))
    cuda.syncthreads()
    column = int32(thread % COLUMNS)
    channel = int32(first_column + column)
    if channel < g.C:
        (addend,) = _load_or(bias, channel, bias.size > 0, float32(0))
        for step in range(0, HALF_TILES, ROW_STEP):
            row = int32(thread // COLUMNS + step)
            tile = int32(first_tile + half * HALF_TILES + row)
            if tile < total:
                at = int32(row * COLUMNS + (column ^ (row >> 2 & 1) * HALF_COLUMNS))
                found = _transform_output(_points_of_tile(number_of_line, (memory, at, int32(SUMS_PLANE))))
                n, th, tw = split_in_three(tile, g.grid_h, g.grid_w)
                oh, ow = int32(th * OUTPUTS), int32(tw * OUTPUTS)
                place = ((int64(n) * g.H + oh) * g.W + ow) * g.C + channel
                _each(_finish, found, (oh, ow, g.H, g.W, place, addend, bias, residual, out, g, activation))


@lru_cache
def forward() -> Kernel:
    """The kernel of the forward pass and of grad_x."""

    def conv2d_forward_winograd_fused(
        x, taps, bias, residual, out, inputs, outputs, total, columns, column_blocks, activation
    ):
        """32 of *total* tiles x 32 channels of ``out = activation(conv2d(x, weight) + bias + residual)``.

        *taps* are the transformed weight, in rows of *columns* for OC.  At each point, a chain over ic.  The loads of a
        turn are asked for before the barrier behind which the last one is no longer read.  Each output element has one
        writer.
        """
        g = inputs
        memory = cuda.shared.array(MEMORY, float32, alignment=A_LINE_BYTES)
        thread = thread_index()
        first_tile, first_column = _place_of_block(column_blocks)
        # what this thread loads of x: a channel of a tile
        tile, ic = int32(first_tile + thread // DEPTH), int32(thread % DEPTH)
        n, th, tw = split_in_three(tile, g.grid_h, g.grid_w)
        h, w = int32(g.top + th * OUTPUTS), int32(g.left + tw * OUTPUTS)
        at = ((int64(n) * g.H + h) * g.W + w) * g.C + ic
        channels_left = int32(g.C - ic) if tile < total else int32(0)
        # and of the weight
        line = int32(thread % RUNS_OF_PLANE // (COLUMNS // RUN))
        column = int32(first_column + thread % (COLUMNS // RUN) * RUN)
        weight_at = int32((line * POINTS + thread // RUNS_OF_PLANE) * columns + column)
        lines_left = int32(g.C - line) if column < columns else int32(0)

        sums = _no_sums()
        done = int32(0)
        while done < g.C:
            pixels = _pixels(_pixel, (x, at + done, h if done < channels_left else int32(OUTSIDE), w, g.H, g.W, g))
            there = done < lines_left
            weights = _weights_of_thread(_load_weights, (taps, weight_at, int32(POINT_STEP * columns), there))
            weight_at = int32(weight_at + DEPTH * POINTS * columns)
            cuda.syncthreads()
            a_at, b_at = _places_of_thread()
            _each(_put_point, _transform_input(pixels), (memory, a_at))
            _each(_put_weights, weights, (memory, b_at))
            cuda.syncthreads()
            a_at, b_at = _factors_of_thread()
            start = shared_address(memory)
            sums = _multiply(sums, int32(start + a_at), int32(start + b_at))
            done = int32(done + DEPTH)
        cuda.syncthreads()

        first_tile, first_column = _place_of_block(column_blocks)
        finished = (memory, first_tile, total, first_column, bias, residual, out, outputs, activation)
        _each_half(_finish_half, sums, finished)

    arguments = NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, told(Images), told(Images), *(int32,) * 4
    return Kernel(conv2d_forward_winograd_fused, types.void(*arguments), THREADS, _RESIDENTS)
