"""The kernels of the direct convolution; which of them runs when, and with which tables, is said in `conv_direct`.

All are products of matrices, a block of threads for a tile of the result:

                      rows                columns    depth, the chain of one sum
    forward, grad_x   output pixels       oc         (kh, kw, ic)
    grad_weight       (kh, kw, ic)        oc         output pixels

In turns of DEPTH numbers of the chain: while the threads multiply what lies in one half of shared memory, the loads of
the next turn are on their way to registers, from where they go to the other half.  One barrier a turn suffices: a half
is written only after the barrier behind its last read.

Loads need no branch and no special last turn, because `conv_direct` fills every chain up to whole turns with neutral
products: -0 times +0 is -0, which added to any sum, -0 included, leaves its bits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from fastconv.cuda.conv_direct_plan import DEPTH, OUTSIDE, Problem, Tile, WeightProblem
from fastconv.cuda.device import Kernel, target
from fastconv.cuda.epilogue import LINEAR
from fastconv.cuda.kernels.elements import NUMBERS, TABLE, element, kernel_of_elements, split_in_three, told
from fastconv.cuda.kernels.intrinsics import (
    add,
    bits_to_float,
    block_index,
    divide,
    for_each,
    load,
    load_each,
    load_or,
    multiply,
    rectify,
    store,
    store_each,
    take,
    thread_index,
    within,
    zeros,
)

cuda = target()
types = cuda.types
float32, int32, int64 = types.float32, types.int32, types.int64


class _Layout(NamedTuple):
    """Who does what in a block of threads; all numbers are constants of a kernel."""

    #: Numbers of one line of `a` and `b` in shared memory.  The 4 more set the two quads of a turn 16 banks apart, so
    #: that 32 threads that turn quads of 16 pixels into columns of `a` meet 32 banks.
    a_stride: int
    b_stride: int
    #: Warps next to each other over the columns of the tile; a warp is 4 x 8 threads.
    warps_across: int
    #: Distance of the runs of four that a thread has of the rows, and of the columns.
    row_step: int
    column_step: int
    column_runs: int


def _layout(tile: Tile) -> _Layout:
    runs = tile.width // 4
    return _Layout(
        a_stride=tile.rows + 4,
        b_stride=tile.columns + tile.columns // 4 % 32,
        warps_across=tile.columns // tile.width // 8,
        row_step=tile.rows // 2,
        column_step=tile.columns // runs,
        column_runs=runs,
    )


@lru_cache
def _place_of_thread(warps_across: int) -> Any:
    @cuda.jit(device=True)
    def place_of_thread(thread):
        """Where the rows and the columns of a thread begin in a tile."""
        lane, warp = int32(thread & 31), int32(thread >> 5)
        row = int32((warp // warps_across * 4 + (lane >> 3)) * 4)
        column = int32((warp % warps_across * 8 + (lane & 7)) * 4)
        return row, column

    return place_of_thread


@lru_cache
def forward(tile: Tile, vector: bool, in_parts: bool = False) -> Kernel:
    """The kernel of the forward pass for one tile; with *vector*, four channels are loaded at a time.

    *in_parts*, every ``turns_of_part`` turns are a chain of their own, and the sums of the chains are added.
    """
    ROWS, COLUMNS, WIDTH, _ = tile
    THREADS, SUMS = tile.threads, 8 * WIDTH
    A_STRIDE, B_STRIDE, WARPS_ACROSS, ROW_STEP, COLUMN_STEP, COLUMN_RUNS = _layout(tile)
    A_HALF, B_HALF = DEPTH * A_STRIDE, DEPTH * B_STRIDE
    A_NUMBERS, B_NUMBERS = 2 * A_HALF, 2 * B_HALF
    RUN = 4 if vector else 1
    # x: a thread loads the same ENTRIES of the chain for each of its PIXELS
    if vector:
        PIXELS, ENTRIES = 2 * ROWS // THREADS, 1
        OF_TURN, PIXEL_STEP, ENTRY_STEP = 2, THREADS // 2, 0
    else:
        PIXELS, ENTRIES = 1, DEPTH * ROWS // THREADS
        OF_TURN, PIXEL_STEP, ENTRY_STEP = DEPTH, 0, THREADS // ROWS
    AHEAD = PIXELS * ENTRIES * RUN
    # weight: a thread loads 4 columns of one line
    LOADS, LOAD_STEP = 4 // RUN, COLUMNS // 4
    multiply_turn = multiply((0, ROW_STEP), tuple(range(0, COLUMNS, COLUMN_STEP)), (A_STRIDE, B_STRIDE), DEPTH)
    no_sums, load_run, load_run_or = zeros(SUMS), load(RUN), load_or(RUN)
    load_entry, keep, kept, turn_over = load(4), store_each(1), load_each(RUN), store_each(A_STRIDE)
    take_run = take(RUN)
    place_of_thread = _place_of_thread(WARPS_ACROSS)

    @cuda.jit(device=True)
    def finish_row(i, numbers, group, first_pixel, first_channel, bias, residual, out, problem, activation):
        """Bias, residual and activation for row *i* of a thread, and where it goes."""
        p = problem
        pixel = int32(first_pixel + (i >> 2) * ROW_STEP + (i & 3))
        if pixel < p.pixels:
            n, oh, ow = split_in_three(pixel, p.OH, p.OW)
            place = (int64(n) * p.OUT_H + p.start_h + oh * p.step_h) * p.OUT_W + p.start_w + ow * p.step_w
            for run in range(COLUMN_RUNS):
                channel = int32(first_channel + run * COLUMN_STEP)
                for _ in range(4 // RUN):
                    some, numbers = take_run(numbers)
                    if channel < p.columns:
                        oc = int32(group * p.columns + channel)
                        at = place * p.OC + oc
                        if bias.size > 0:
                            some = add(some, load_run(bias, oc))
                        if residual.size > 0:
                            some = add(some, load_run(residual, at))
                        if activation > LINEAR:
                            some = rectify(some, activation)
                        store(out, at, some)
                    channel = int32(channel + RUN)

    finish_rows = for_each(WIDTH)

    def conv2d_forward_direct(x, weight, bias, residual, out, taps, problem, activation):
        """One tile of ``out = activation(conv2d(x, weight) + bias + residual)``; arrays are flat, *taps* a table.

        A chain over (kh, kw, ic) for each element, a turn of DEPTH of them at a time: x comes pixel by pixel, a quad of
        channels at a time, and is turned over on its way to shared memory; the weight comes line by line.
        Each output element has one writer.
        """
        p = problem
        a = cuda.shared.array(A_NUMBERS, float32, alignment=16)
        b = cuda.shared.array(B_NUMBERS, float32, alignment=16)
        x_ahead = cuda.local.array(AHEAD, float32)
        weight_ahead = cuda.local.array(4, float32)
        tops = cuda.local.array(PIXELS, int32)
        lefts = cuda.local.array(PIXELS, int32)
        bases = cuda.local.array(PIXELS, int64)

        thread = thread_index()
        group, pixel_block, column_block = split_in_three(block_index(), p.pixel_blocks, p.column_blocks)
        first_pixel, first_column = int32(pixel_block * ROWS), int32(column_block * COLUMNS)

        # what this thread loads of x
        if vector:
            x_row, x_entry = int32(thread >> 1), int32(thread & 1)
        else:
            x_row, x_entry = int32(thread % ROWS), int32(thread // ROWS)
        for i in range(PIXELS):
            pixel = int32(first_pixel + x_row + i * PIXEL_STEP)
            n, oh, ow = split_in_three(pixel, p.OH, p.OW)
            top, left = int32(oh * p.stride_h - p.pad_top), int32(ow * p.stride_w - p.pad_left)
            bases[i] = ((int64(n) * p.IH + top) * p.IW + left) * p.IC + group * p.ic_of_group
            tops[i] = top if pixel < p.pixels else OUTSIDE
            lefts[i] = left
        # and of the weight
        line = int32(thread // LOAD_STEP)
        weight_column = int32(thread % LOAD_STEP * RUN)
        weight_at = int32(line * p.OC + group * p.columns + first_column + weight_column)
        columns_left = int32(p.columns - first_column - weight_column)
        lines_left = int32(p.depths - line)

        # where its rows and columns of the tile begin
        row, column = place_of_thread(thread)
        x_put = int32(x_entry * RUN * A_STRIDE + x_row)
        weight_put = int32(line * B_STRIDE + weight_column)

        sums, total = no_sums(), no_sums()
        turn = int32(0)
        until_part = p.turns_of_part
        while turn <= p.turns:
            for e in range(ENTRIES):
                entry = int32(turn * OF_TURN + x_entry + e * ENTRY_STEP)
                distance, down, right, fill = load_entry(taps, int32(entry * 4))
                for i in range(PIXELS):
                    there = within(int32(tops[i] + down), p.IH) & within(int32(lefts[i] + right), p.IW)
                    numbers = load_run_or(x, int64(bases[i] + distance), there, bits_to_float(fill))
                    keep(x_ahead, int32((i * ENTRIES + e) * RUN), numbers)
            for i in range(LOADS):
                there = (int32(turn * DEPTH) < lines_left) & (columns_left > i * LOAD_STEP)
                at = int32(weight_at + turn * DEPTH * p.OC + i * LOAD_STEP)
                keep(weight_ahead, int32(i * RUN), load_run_or(weight, at, there, float32(0)))
            half = int32(turn & 1)
            if turn > 0:
                read = int32(half ^ 1)
                sums = multiply_turn(sums, a, int32(read * A_HALF + row), b, int32(read * B_HALF + column))
                if in_parts:
                    until_part = int32(until_part - 1)
                    if until_part == 0:
                        until_part = p.turns_of_part
                        sums, total = no_sums(), add(total, sums)
            for i in range(PIXELS):
                for e in range(ENTRIES):
                    at = int32(half * A_HALF + x_put + e * ENTRY_STEP * RUN * A_STRIDE + i * PIXEL_STEP)
                    turn_over(a, at, kept(x_ahead, int32((i * ENTRIES + e) * RUN)))
            for i in range(LOADS):
                store(b, int32(half * B_HALF + weight_put + i * LOAD_STEP), kept(weight_ahead, int32(i * RUN)))
            turn = int32(turn + 1)
            cuda.syncthreads()

        group, pixel_block, column_block = split_in_three(block_index(), p.pixel_blocks, p.column_blocks)
        row, column = place_of_thread(thread_index())
        pixel, channel = int32(pixel_block * ROWS + row), int32(column_block * COLUMNS + column)
        finish_rows(
            finish_row, total if in_parts else sums, (group, pixel, channel, bias, residual, out, p, activation)
        )

    arguments = NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, TABLE, told(Problem), int32
    return Kernel(conv2d_forward_direct, types.void(*arguments), THREADS, tile.residents)


@lru_cache
def grad_weight(tile: Tile, vector: bool) -> Kernel:
    """The kernel of grad_weight for one tile; with *vector*, four channels are loaded at a time."""
    ROWS, COLUMNS, WIDTH, _ = tile
    THREADS, SUMS = tile.threads, 8 * WIDTH
    _, B_STRIDE, WARPS_ACROSS, ROW_STEP, COLUMN_STEP, COLUMN_RUNS = _layout(tile)
    A_STRIDE = ROWS + ROWS // 4 % 32
    A_HALF, B_HALF = DEPTH * A_STRIDE, DEPTH * B_STRIDE
    A_NUMBERS, B_NUMBERS = 2 * A_HALF, 2 * B_HALF
    RUN = 4 if vector else 1
    # x: a thread loads the same four rows of the tile, TAPS runs of them, for PIXELS pixels of a turn
    TAPS, TAP_STEP, PIXELS, PIXEL_STEP = 4 // RUN, ROWS // 4, DEPTH * ROWS // 4 // THREADS, THREADS // (ROWS // 4)
    AHEAD = PIXELS * 4
    # grad_out: a thread loads four columns of one pixel
    LOADS, LOAD_STEP = 4 // RUN, COLUMNS // 4
    multiply_turn = multiply((0, ROW_STEP), tuple(range(0, COLUMNS, COLUMN_STEP)), (A_STRIDE, B_STRIDE), DEPTH)
    no_sums, load_run_or, load_entry, keep, kept = zeros(SUMS), load_or(RUN), load(4), store_each(1), load_each(RUN)
    take_run, place_of_thread, store_rows = take(RUN), _place_of_thread(WARPS_ACROSS), for_each(WIDTH)

    @cuda.jit(device=True)
    def store_row(i, numbers, split, group, first_depth, first_channel, partial, problem):
        p = problem
        depth = int32(first_depth + (i >> 2) * ROW_STEP + (i & 3))
        if depth < p.depths:
            place = (int64(split) * p.depths + depth) * p.OC + group * p.columns
            for run in range(COLUMN_RUNS):
                channel = int32(first_channel + run * COLUMN_STEP)
                for _ in range(4 // RUN):
                    some, numbers = take_run(numbers)
                    if channel < p.columns:
                        store(partial, place + channel, some)
                    channel = int32(channel + RUN)

    def conv2d_grad_weight_direct(x, grad_out, partial, taps, starts, problem):
        """One tile of one partial sum: ``partial[split, kh, kw, ic, oc]``, a chain over the pixels of the split.

        Turns of DEPTH pixels; their x comes line by line, four neighbouring depths of one pixel at a time.  Each
        element has one writer.
        """
        p = problem
        a = cuda.shared.array(A_NUMBERS, float32, alignment=16)
        b = cuda.shared.array(B_NUMBERS, float32, alignment=16)
        x_ahead = cuda.local.array(AHEAD, float32)
        grad_ahead = cuda.local.array(4, float32)
        distances = cuda.local.array(TAPS, int32)
        downs = cuda.local.array(TAPS, int32)
        rights = cuda.local.array(TAPS, int32)
        ns = cuda.local.array(PIXELS, int32)
        ohs = cuda.local.array(PIXELS, int32)
        ows = cuda.local.array(PIXELS, int32)

        thread = thread_index()
        rest, depth_block, column_block = split_in_three(block_index(), p.depth_blocks, p.column_blocks)
        split = divide(rest, p.groups)
        group = int32(rest - split * p.groups)
        first_depth, first_column = int32(depth_block * ROWS), int32(column_block * COLUMNS)
        start = starts[split]
        pixels = int32(starts[split + 1] - start)

        # what this thread loads of x
        x_line = int32(thread // TAP_STEP)
        x_row = int32(thread % TAP_STEP * RUN)
        for i in range(TAPS):
            depth = int32(first_depth + x_row + i * TAP_STEP)
            distance, down, right, _ = load_entry(taps, int32((depth if depth < p.depths else 0) // RUN * 4))
            distances[i], rights[i] = distance, right
            downs[i] = down if depth < p.depths else OUTSIDE
        for i in range(PIXELS):
            ns[i], ohs[i], ows[i] = split_in_three(int32(start + x_line + i * PIXEL_STEP), p.OH, p.OW)
        # and of grad_out
        line = int32(thread // LOAD_STEP)
        grad_column = int32(thread % LOAD_STEP * RUN)
        grad_at = (int64(start) + line) * p.OC + group * p.columns + first_column + grad_column
        columns_left = int32(p.columns - first_column - grad_column)

        row, column = place_of_thread(thread)
        x_put = int32(x_line * A_STRIDE + x_row)
        grad_put = int32(line * B_STRIDE + grad_column)

        sums = no_sums()
        turn = int32(0)
        while turn <= ((pixels + DEPTH - 1) >> 3):
            done = int32(turn * DEPTH)
            for i in range(PIXELS):
                n, oh, ow = ns[i], ohs[i], ows[i]
                top, left = int32(oh * p.stride_h - p.pad_top), int32(ow * p.stride_w - p.pad_left)
                base = ((int64(n) * p.IH + top) * p.IW + left) * p.IC + group * p.ic_of_group
                exists = int32(done + x_line + i * PIXEL_STEP) < pixels
                fill = float32(0.0) if exists else float32(-0.0)
                for j in range(TAPS):
                    inside = within(int32(top + downs[j]), p.IH) & within(int32(left + rights[j]), p.IW)
                    numbers = load_run_or(x, int64(base + distances[j]), exists & inside, fill)
                    keep(x_ahead, int32(i * 4 + j * RUN), numbers)
                # the pixel of the next turn
                ow = int32(ow + p.next_ow)
                carry = int32(ow >= p.OW)
                ows[i] = int32(ow - carry * p.OW)
                oh = int32(oh + p.next_oh + carry)
                carry = int32(oh >= p.OH)
                ohs[i] = int32(oh - carry * p.OH)
                ns[i] = int32(n + p.next_n + carry)
            for i in range(LOADS):
                there = (int32(done + line) < pixels) & (columns_left > i * LOAD_STEP)
                keep(grad_ahead, int32(i * RUN), load_run_or(grad_out, grad_at + i * LOAD_STEP, there, float32(0)))
            grad_at += int32(DEPTH * p.OC)
            half = int32(turn & 1)
            if turn > 0:
                read = int32(half ^ 1)
                sums = multiply_turn(sums, a, int32(read * A_HALF + row), b, int32(read * B_HALF + column))
            for i in range(PIXELS):
                for j in range(TAPS):
                    at = int32(half * A_HALF + x_put + i * PIXEL_STEP * A_STRIDE + j * TAP_STEP)
                    store(a, at, kept(x_ahead, int32(i * 4 + j * RUN)))
            for i in range(LOADS):
                store(b, int32(half * B_HALF + grad_put + i * LOAD_STEP), kept(grad_ahead, int32(i * RUN)))
            turn = int32(turn + 1)
            cuda.syncthreads()

        rest, depth_block, column_block = split_in_three(block_index(), p.depth_blocks, p.column_blocks)
        split = divide(rest, p.groups)
        group = int32(rest - split * p.groups)
        row, column = place_of_thread(thread_index())
        depth, channel = int32(depth_block * ROWS + row), int32(column_block * COLUMNS + column)
        store_rows(store_row, sums, (split, group, depth, channel, partial, p))

    arguments = NUMBERS, NUMBERS, NUMBERS, TABLE, TABLE, told(WeightProblem)
    return Kernel(conv2d_grad_weight_direct, types.void(*arguments), THREADS, tile.residents)


@lru_cache
def swap_channels() -> Kernel:
    """The kernel that prepares a weight for grad_x."""

    def swap_channels_of_taps(weight, taps, out, inputs, outputs, lines, groups):
        """``out[t, oc, g * inputs + ic] = weight[taps[t], ic, g * outputs + oc]``, one element a thread.

        Each tap has *lines* lines; those behind its outputs are zero.
        """
        i = int32(element())
        if i < out.size:
            line = divide(i, int32(groups * inputs))
            channel = int32(i - line * groups * inputs)
            tap = divide(line, lines)
            oc = int32(line - tap * lines)
            group = divide(channel, inputs)
            ic = int32(channel - group * inputs)
            source = int32(((taps[tap] * inputs + ic) * groups + group) * outputs + oc)
            out[i] = weight[source] if oc < outputs else float32(0)

    return kernel_of_elements(swap_channels_of_taps, NUMBERS, TABLE, NUMBERS, int32, int32, int32, int32)
