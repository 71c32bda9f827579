"""The kernels of the direct convolution; which of them runs when, and with which tables, is said in `conv_direct`.

All are products of matrices, a block of threads for a tile of the result:

                      rows                columns    depth, the chain of one sum
    forward, grad_x   output pixels       oc         (kh, kw, ic)
    grad_weight       (kh, kw, ic)        oc         output pixels

In turns of DEPTH numbers of the chain: while the threads multiply what lies in one half of shared memory, the loads of
the next turn are on their way to registers, from where they go to the other half.  One barrier a turn suffices: a half
is written only after the barrier behind its last read.  What says where to load x, entries of a table, comes a turn
earlier still where turns are deep, so that no load waits for another one; where they are not, other blocks multiply
meanwhile, and loading ahead was slower (`conv_direct`).

Loads need no branch and no special last turn, because every chain is filled up to whole turns with neutral products: +0
for x, as in padding, times -0 is -0, which added to any sum, -0 included, leaves its bits.

The two halves lie one behind the other, so a thread moves its four addresses from half to half by adding the distance,
up and down in turn.  Global memory is reached by addresses that move on with the turns, and distances from them that
are constants of the kernel or come from the table: most loads have one instruction besides the test whether there is
anything to load.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from fastconv.cuda.conv_direct_plan import DEPTH as LEAST_DEPTH, OUTSIDE, QUAD, Problem, Tile, WeightProblem
from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.addresses import address_of, load_entry, load_from, multiply, put
from fastconv.cuda.kernels.elements import NUMBERS, TABLE, element, kernel_of_elements, split_in_three, told
from fastconv.cuda.kernels.epilogue import finish, place_of_pixel
from fastconv.cuda.kernels.intrinsics import (
    add,
    block_index,
    divide,
    for_each,
    load_each,
    store,
    store_each,
    take,
    thread_index,
    within,
    zeros,
)
from fastconv.cuda.kernels.tensor_intrinsics import shared_address

cuda = target()
types = cuda.types
float32, int32, int64 = types.float32, types.int32, types.int64


class _Layout(NamedTuple):
    """Who does what in a block of threads; all numbers are constants of a kernel."""

    #: Numbers of one line of `a` and `b` in shared memory.  The 4 more set neighbouring quads 16 banks apart, so that
    #: the 32 threads of a warp, which turn two quads of 16 pixels into columns of `a`, meet 32 banks.
    a_stride: int
    b_stride: int
    #: Threads of a warp next to each other over the columns of the tile, and warps.
    lanes_across: int
    warps_across: int
    #: Neighbouring rows that a thread has, and the distance from run to run; a run of columns is a quad.
    row_run: int
    row_step: int
    column_step: int
    column_runs: int


def _layout(tile: Tile) -> _Layout:
    runs = tile.width // QUAD
    row_run = min(QUAD, tile.height)
    lanes_across = min(8, tile.columns // tile.width)
    return _Layout(
        a_stride=tile.rows + 4,
        b_stride=tile.columns + tile.columns // 8 * 2 % 32,
        lanes_across=lanes_across,
        warps_across=tile.columns // tile.width // lanes_across,
        row_run=row_run,
        row_step=tile.rows // (tile.height // row_run),
        column_step=tile.columns // runs,
        column_runs=runs,
    )


@lru_cache
def _place_of_thread(lanes_across: int, warps_across: int, row_run: int) -> Any:
    @cuda.jit(device=True)
    def place_of_thread(thread):
        """Where the rows and the columns of a thread begin in a tile: two neighbours of a warp have the same columns.

        Either way every number of shared memory is read by the same warps and without conflicts; but with neighbours
        side by side in a row, an H200 takes 2 to 24% longer.
        """
        lane, warp = int32(thread & 31), int32(thread >> 5)
        row = int32(warp // warps_across * (32 // lanes_across) + (lane & 1) + lane // (2 * lanes_across) * 2)
        column = int32((warp % warps_across * lanes_across + lane // 2 % lanes_across) * 4)
        return int32(row * row_run), column

    return place_of_thread


@lru_cache
def forward(tile: Tile, vector: bool, in_parts: bool = False, column_vector: bool | None = None) -> Kernel:
    """The kernel of the forward pass for one tile; with *vector*, four channels are loaded at a time.

    *column_vector* says so of columns, which are channels of everything but x, where it is another matter: those of a
    narrow tile always go one at a time.  *in_parts*, every ``turns_of_part`` turns are a chain of their own, and the
    sums of the chains are added.
    """
    ROWS, COLUMNS, DEPTH, THREADS = tile.rows, tile.columns, tile.depth, tile.threads
    WIDTH, SUMS = tile.width, tile.height * tile.width
    A_STRIDE, B_STRIDE, LANES_ACROSS, WARPS_ACROSS, ROW_RUN, ROW_STEP, COLUMN_STEP, COLUMN_RUNS = _layout(tile)
    B_START, HALF = DEPTH * A_STRIDE, DEPTH * (A_STRIDE + B_STRIDE)
    NUMBERS_OF_HALVES = 2 * HALF
    ROWS_OF_THREAD, COLUMNS_OF_THREAD = tuple(range(0, ROWS, ROW_STEP)), tuple(range(0, COLUMNS, COLUMN_STEP))
    RUN = 4 if vector else 1
    # otherwise, entries come in the turn of the x that they point to
    EARLY = DEPTH > LEAST_DEPTH
    # x: a thread loads the same ENTRIES of the chain for each of its PIXELS; with vectors, two threads have neighbours
    if vector:
        ENTRY_STEP, OF_TURN = max(2, THREADS // ROWS), DEPTH // RUN
        PIXELS, ENTRIES, PIXEL_STEP = max(1, 2 * ROWS // THREADS), OF_TURN // ENTRY_STEP, THREADS // 2
    elif THREADS >= ROWS:
        PIXELS, ENTRIES, OF_TURN, PIXEL_STEP, ENTRY_STEP = 1, DEPTH * ROWS // THREADS, DEPTH, 0, THREADS // ROWS
    else:
        PIXELS, ENTRIES, OF_TURN, PIXEL_STEP, ENTRY_STEP = ROWS // THREADS, DEPTH, DEPTH, THREADS, 1
    AHEAD = PIXELS * ENTRIES * RUN
    # weight: a thread loads the same columns, 4 at most, of LINES of a turn
    COLUMN_RUN = QUAD if (vector if column_vector is None else column_vector) and COLUMNS > QUAD else 1
    LOADS = QUAD // COLUMN_RUN if COLUMNS > QUAD else 1
    LOAD_STEP = COLUMNS // (LOADS * COLUMN_RUN)
    LINES, LINE_STEP = DEPTH * LOAD_STEP // THREADS, THREADS // LOAD_STEP
    WEIGHTS, WEIGHTS_AHEAD = LINES * LOADS, LINES * LOADS * COLUMN_RUN
    multiply_turn = multiply(ROWS_OF_THREAD, COLUMNS_OF_THREAD, (A_STRIDE, B_STRIDE), DEPTH, ROW_RUN)
    no_sums, keep, put_column, put_weights = zeros(SUMS), store_each(1), put(A_STRIDE), put(1)
    load_x, x_kept = load_from(RUN), load_each(RUN)
    load_weights, weights_kept = load_from(COLUMN_RUN), load_each(COLUMN_RUN)
    finish_run, take_run = finish(COLUMN_RUN), take(COLUMN_RUN)
    place_of_thread = _place_of_thread(LANES_ACROSS, WARPS_ACROSS, ROW_RUN)

    @cuda.jit(device=True)
    def finish_row(i, numbers, group, first_pixel, first_channel, bias, residual, out, problem, activation):
        """Bias, residual and activation for row *i* of a thread, and where it goes."""
        p = problem
        pixel = int32(first_pixel + i // ROW_RUN * ROW_STEP + i % ROW_RUN)
        if pixel < p.pixels:
            place = place_of_pixel(pixel, p)
            for run in range(COLUMN_RUNS):
                channel = int32(first_channel + run * COLUMN_STEP)
                for _ in range(4 // COLUMN_RUN):
                    some, numbers = take_run(numbers)
                    if channel < p.columns:
                        oc = int32(group * p.columns + channel)
                        finish_run(some, bias, residual, out, place * p.OC + oc, oc, activation)
                    channel = int32(channel + COLUMN_RUN)

    finish_rows = for_each(WIDTH)

    def conv2d_forward_direct(x, weight, bias, residual, out, taps, problem, activation):
        """One tile of ``out = activation(conv2d(x, weight) + bias + residual)``; arrays are flat, *taps* a table.

        A chain over (kh, kw, ic) for each element, a turn of DEPTH of them at a time: x comes pixel by pixel, a quad of
        channels at a time, and is turned over on its way to shared memory; the weight comes line by line.
        Each output element has one writer.
        """
        p = problem
        halves = cuda.shared.array(NUMBERS_OF_HALVES, float32, alignment=16)
        x_ahead = cuda.local.array(AHEAD, float32)
        weights_ahead = cuda.local.array(WEIGHTS_AHEAD, float32)
        tops = cuda.local.array(PIXELS, int32)
        lefts = cuda.local.array(PIXELS, int32)
        bases = cuda.local.array(PIXELS, int64)
        distances = cuda.local.array(ENTRIES, int32)
        downs = cuda.local.array(ENTRIES, int32)
        rights = cuda.local.array(ENTRIES, int32)
        lines_from = cuda.local.array(LINES, int64)
        last_turns = cuda.local.array(WEIGHTS, int32)

        thread = thread_index()
        group, pixel_block, column_block = split_in_three(block_index(), p.pixel_blocks, p.column_blocks)
        first_pixel, first_column = int32(pixel_block * ROWS), int32(column_block * COLUMNS)

        # what this thread loads of x
        if vector:
            x_row, x_entry = int32((thread >> 1) % ROWS), int32((thread & 1) + thread // (2 * ROWS) * 2)
        else:
            x_row, x_entry = int32(thread % ROWS), int32(thread // ROWS)
        entries_from = address_of(taps, int64(x_entry) * 4)
        if EARLY:
            for e in range(ENTRIES):
                distances[e], downs[e], rights[e], _ = load_entry(entries_from, int32(e * ENTRY_STEP * 4))
        for i in range(PIXELS):
            pixel = int32(first_pixel + x_row + i * PIXEL_STEP)
            n, oh, ow = split_in_three(pixel, p.OH, p.OW)
            top, left = int32(oh * p.stride_h - p.pad_top), int32(ow * p.stride_w - p.pad_left)
            bases[i] = address_of(x, ((int64(n) * p.IH + top) * p.IW + left) * p.IC + group * p.ic_of_group)
            tops[i] = top if pixel < p.pixels else OUTSIDE
            lefts[i] = left
        # and of the weight
        first_line = int32(thread // LOAD_STEP)
        weight_column = int32(thread % LOAD_STEP * COLUMN_RUN)
        columns_left = int32(p.columns - first_column - weight_column)
        for i in range(LINES):
            line = int32(first_line + i * LINE_STEP)
            lines_from[i] = address_of(weight, int64(line) * p.OC + group * p.columns + first_column + weight_column)
            for j in range(LOADS):
                exists = columns_left > j * LOAD_STEP
                last_turns[i * LOADS + j] = (p.depths - line + DEPTH - 1) // DEPTH if exists else 0

        # where they go, and where the factors of its rows and columns lie: in halves that change places every turn
        row, column = place_of_thread(thread)
        start, half = shared_address(halves), int32(4 * HALF)
        put_x = int32(start + 4 * (x_entry * RUN * A_STRIDE + x_row))
        put_weight = int32(start + 4 * (B_START + first_line * B_STRIDE + weight_column))
        rows_at, columns_at = int32(start + half + 4 * row), int32(start + half + 4 * (B_START + column))

        sums, total = no_sums(), no_sums()
        turn = int32(0)
        until_part = p.turns_of_part
        while turn <= p.turns:
            for e in range(ENTRIES):
                if not EARLY:
                    distances[e], downs[e], rights[e], _ = load_entry(entries_from, int32(e * ENTRY_STEP * 4))
                for i in range(PIXELS):
                    there = within(int32(tops[i] + downs[e]), p.IH) & within(int32(lefts[i] + rights[e]), p.IW)
                    numbers = load_x(bases[i], distances[e], there, float32(0))
                    keep(x_ahead, int32((i * ENTRIES + e) * RUN), numbers)
            entries_from += OF_TURN * 16
            if EARLY:
                for e in range(ENTRIES):
                    distances[e], downs[e], rights[e], _ = load_entry(entries_from, int32(e * ENTRY_STEP * 4))
            for i in range(LINES):
                for j in range(LOADS):
                    there = turn < last_turns[i * LOADS + j]
                    numbers = load_weights(lines_from[i], int32(j * LOAD_STEP), there, float32(-0.0))
                    keep(weights_ahead, int32((i * LOADS + j) * COLUMN_RUN), numbers)
                lines_from[i] += int64(p.OC) * (4 * DEPTH)
            if turn > 0:
                sums = multiply_turn(sums, rows_at, columns_at)
                if in_parts:
                    until_part = int32(until_part - 1)
                    if until_part == 0:
                        until_part = p.turns_of_part
                        sums, total = no_sums(), add(total, sums)
            for i in range(PIXELS):
                for e in range(ENTRIES):
                    distance = int32(e * ENTRY_STEP * RUN * A_STRIDE + i * PIXEL_STEP)
                    put_column(put_x, distance, x_kept(x_ahead, int32((i * ENTRIES + e) * RUN)))
            for i in range(LINES):
                for j in range(LOADS):
                    distance = int32(i * LINE_STEP * B_STRIDE + j * LOAD_STEP)
                    put_weights(put_weight, distance, weights_kept(weights_ahead, int32((i * LOADS + j) * COLUMN_RUN)))
            put_x, put_weight = int32(put_x + half), int32(put_weight + half)
            rows_at, columns_at = int32(rows_at - half), int32(columns_at - half)
            half = int32(-half)
            turn = int32(turn + 1)
            cuda.syncthreads()

        group, pixel_block, column_block = split_in_three(block_index(), p.pixel_blocks, p.column_blocks)
        row, column = place_of_thread(thread_index())
        pixel, channel = int32(pixel_block * ROWS + row), int32(column_block * COLUMNS + column)
        finish_rows(
            finish_row, total if in_parts else sums, (group, pixel, channel, bias, residual, out, p, activation)
        )

    arguments = NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, TABLE, told(Problem), int32
    return Kernel(conv2d_forward_direct, types.void(*arguments), THREADS, tile.residents if vector else tile.singly)


@lru_cache
def grad_weight(tile: Tile, vector: bool) -> Kernel:
    """The kernel of grad_weight for one tile; with *vector*, four channels are loaded at a time."""
    ROWS, COLUMNS, DEPTH, THREADS = tile.rows, tile.columns, tile.depth, tile.threads
    WIDTH, SUMS = tile.width, tile.height * tile.width
    _, B_STRIDE, LANES_ACROSS, WARPS_ACROSS, ROW_RUN, ROW_STEP, COLUMN_STEP, COLUMN_RUNS = _layout(tile)
    RUN = 4 if vector else 1
    # x: a thread loads the same TAPS runs of rows of the tile, for one pixel of a turn
    THREADS_OF_PIXEL = THREADS // DEPTH
    TAP_STEP = THREADS_OF_PIXEL * RUN
    TAPS = ROWS // TAP_STEP
    A_STRIDE = ROWS + TAP_STEP % 32
    B_START, HALF = DEPTH * A_STRIDE, DEPTH * (A_STRIDE + B_STRIDE)
    NUMBERS_OF_HALVES = 2 * HALF
    ROWS_OF_THREAD, COLUMNS_OF_THREAD = tuple(range(0, ROWS, ROW_STEP)), tuple(range(0, COLUMNS, COLUMN_STEP))
    AHEAD = TAPS * RUN
    # grad_out: a thread loads the same four columns of LINES pixels
    LOADS, LOAD_STEP = 4 // RUN, COLUMNS // 4
    LINES, LINE_STEP = DEPTH * LOAD_STEP // THREADS, THREADS // LOAD_STEP
    GRADS, LINES_AHEAD = LINES * LOADS, 4 * LINES
    multiply_turn = multiply(ROWS_OF_THREAD, COLUMNS_OF_THREAD, (A_STRIDE, B_STRIDE), DEPTH, ROW_RUN)
    no_sums, load_run_from, keep, kept, put_run = zeros(SUMS), load_from(RUN), store_each(1), load_each(RUN), put(1)
    place_of_thread = _place_of_thread(LANES_ACROSS, WARPS_ACROSS, ROW_RUN)
    take_run, store_rows = take(RUN), for_each(WIDTH)

    @cuda.jit(device=True)
    def store_row(i, numbers, split, group, first_depth, first_channel, partial, problem):
        p = problem
        depth = int32(first_depth + i // ROW_RUN * ROW_STEP + i % ROW_RUN)
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
        halves = cuda.shared.array(NUMBERS_OF_HALVES, float32, alignment=16)
        x_ahead = cuda.local.array(AHEAD, float32)
        grads_ahead = cuda.local.array(LINES_AHEAD, float32)
        distances = cuda.local.array(TAPS, int32)
        downs = cuda.local.array(TAPS, int32)
        rights = cuda.local.array(TAPS, int32)
        lines_from = cuda.local.array(LINES, int64)
        grad_turns = cuda.local.array(GRADS, int32)

        thread = thread_index()
        rest, depth_block, column_block = split_in_three(block_index(), p.depth_blocks, p.column_blocks)
        split = divide(rest, p.groups)
        group = int32(rest - split * p.groups)
        first_depth, first_column = int32(depth_block * ROWS), int32(column_block * COLUMNS)
        first_pixel = starts[split]
        pixels = int32(starts[split + 1] - first_pixel)

        # what this thread loads of x
        x_line = int32(thread // THREADS_OF_PIXEL)
        x_row = int32(thread % THREADS_OF_PIXEL * RUN)
        for i in range(TAPS):
            depth = int32(first_depth + x_row + i * TAP_STEP)
            entry = (depth if depth < p.depths else 0) // RUN * 4
            distances[i], downs[i], rights[i], _ = load_entry(address_of(taps, int64(entry)), int32(0))
            downs[i] = downs[i] if depth < p.depths else OUTSIDE
        n, oh, ow = split_in_three(int32(first_pixel + x_line), p.OH, p.OW)
        top, left = int32(oh * p.stride_h - p.pad_top), int32(ow * p.stride_w - p.pad_left)
        pixel_at = int32((n * p.IH + top) * p.IW + left)
        x_turns = int32((pixels - x_line + DEPTH - 1) // DEPTH)
        x_from = address_of(x, int64(group) * p.ic_of_group)
        bottom, end = int32(p.image_top - p.pad_top), int32(p.row_left - p.pad_left)
        # and of grad_out
        first_line = int32(thread // LOAD_STEP)
        grad_column = int32(thread % LOAD_STEP * RUN)
        columns_left = int32(p.columns - first_column - grad_column)
        for i in range(LINES):
            line = int32(first_line + i * LINE_STEP)
            lines_from[i] = address_of(
                grad_out, (int64(first_pixel) + line) * p.OC + group * p.columns + first_column + grad_column
            )
            for j in range(LOADS):
                exists = columns_left > j * LOAD_STEP
                grad_turns[i * LOADS + j] = (pixels - line + DEPTH - 1) // DEPTH if exists else 0

        row, column = place_of_thread(thread)
        start, half = shared_address(halves), int32(4 * HALF)
        put_x = int32(start + 4 * (x_line * A_STRIDE + x_row))
        put_grad = int32(start + 4 * (B_START + first_line * B_STRIDE + grad_column))
        rows_at, columns_at = int32(start + half + 4 * row), int32(start + half + 4 * (B_START + column))

        sums = no_sums()
        turn, turns = int32(0), int32((pixels + DEPTH - 1) // DEPTH)
        while turn <= turns:
            exists = turn < x_turns
            base = x_from + int64(pixel_at) * (4 * p.IC)
            for i in range(TAPS):
                inside = within(int32(top + downs[i]), p.IH) & within(int32(left + rights[i]), p.IW)
                keep(x_ahead, int32(i * RUN), load_run_from(base, distances[i], exists & inside, float32(0)))
            # the pixel of the next turn
            left = int32(left + p.step_left)
            leaves = left >= end
            left = int32(left - p.row_left) if leaves else left
            top = int32(top + p.step_top + (p.stride_h if leaves else 0))
            falls = top >= bottom
            top = int32(top - p.image_top) if falls else top
            pixel_at = int32(pixel_at + p.step_at + (p.row_at if leaves else 0) + (p.image_at if falls else 0))
            for i in range(LINES):
                for j in range(LOADS):
                    there = turn < grad_turns[i * LOADS + j]
                    numbers = load_run_from(lines_from[i], int32(j * LOAD_STEP), there, float32(-0.0))
                    keep(grads_ahead, int32((i * LOADS + j) * RUN), numbers)
                lines_from[i] += int64(p.OC) * (4 * DEPTH)
            if turn > 0:
                sums = multiply_turn(sums, rows_at, columns_at)
            for i in range(TAPS):
                put_run(put_x, int32(i * TAP_STEP), kept(x_ahead, int32(i * RUN)))
            for i in range(LINES):
                for j in range(LOADS):
                    distance = int32(i * LINE_STEP * B_STRIDE + j * LOAD_STEP)
                    put_run(put_grad, distance, kept(grads_ahead, int32((i * LOADS + j) * RUN)))
            put_x, put_grad = int32(put_x + half), int32(put_grad + half)
            rows_at, columns_at = int32(rows_at - half), int32(columns_at - half)
            half = int32(-half)
            turn = int32(turn + 1)
            cuda.syncthreads()

        rest, depth_block, column_block = split_in_three(block_index(), p.depth_blocks, p.column_blocks)
        split = divide(rest, p.groups)
        group = int32(rest - split * p.groups)
        row, column = place_of_thread(thread_index())
        depth, channel = int32(depth_block * ROWS + row), int32(column_block * COLUMNS + column)
        store_rows(store_row, sums, (split, group, depth, channel, partial, p))

    arguments = NUMBERS, NUMBERS, NUMBERS, TABLE, TABLE, told(WeightProblem)
    return Kernel(conv2d_grad_weight_direct, types.void(*arguments), THREADS, tile.residents if vector else tile.singly)


@lru_cache
def swap_channels() -> Kernel:
    """The kernel that prepares a weight for grad_x."""

    def swap_channels_of_taps(weight, taps, out, inputs, outputs, lines, groups):
        """``out[t, oc, g * inputs + ic] = weight[taps[t], ic, g * outputs + oc]``, one element a thread.

        Each tap has *lines* lines; those behind its outputs are -0.
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
            out[i] = weight[source] if oc < outputs else float32(-0.0)

    return kernel_of_elements(swap_channels_of_taps, NUMBERS, TABLE, NUMBERS, int32, int32, int32, int32)
