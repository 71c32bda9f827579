"""The kernels of the convolution on tensor cores; which of them runs when is said in `conv_tensorcore`.

A product of matrices, a block of threads for a tile of the result: rows are output pixels, columns output channels,
and a chain (kh, kw, ic) is taken up in turns of four chunks.  In shared memory there are several stages, each a turn's
lines of x and of the weight.  Turn by turn, every thread

    waits for its own copies of the turn that is to be multiplied,
    meets the others (their copies have arrived too, and the stage multiplied last is free),
    starts the copies of a later turn into the free stage,
    multiplies.

So one barrier a turn suffices.  Where there are no asynchronous copies (sm_75), a turn's numbers are loaded into
registers before the product of the turn before, and stored to the other of two stages behind it.
"""

from __future__ import annotations

from functools import lru_cache

from fastconv.cuda.conv_direct_plan import OUTSIDE, QUAD
from fastconv.cuda.conv_tensorcore_plan import (
    CHUNK_BYTES,
    CHUNKS,
    FRAGMENT,
    LINE,
    WORDS,
    Packing,
    Precision,
    Problem,
    Tile,
    WeightProblem,
)
from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import NUMBERS, TABLE, element, kernel_of_elements, split_in_three, told
from fastconv.cuda.kernels.epilogue import finish, place_of_pixel
from fastconv.cuda.kernels.intrinsics import (
    block_index,
    divide,
    for_each,
    load,
    load_each,
    load_or,
    store,
    store_each,
    take,
    thread_index,
    within,
    zeros,
)
from fastconv.cuda.kernels.tensor_intrinsics import (
    close_group,
    copy_chunk,
    multiply_columns,
    multiply_lines,
    shared_address,
    store_chunk,
    to_words,
    wait_for_groups,
)

cuda = target()
types = cuda.types
float32, int32, int64 = types.float32, types.int32, types.int64

#: Stages in shared memory without asynchronous copies.
_STAGES_OF_PAIR = 2
_WORDS_OF_LINE = CHUNKS * WORDS
#: What other taps or other blocks of the multiprocessor read as well is kept near.
copy_again, copy_once = copy_chunk(near=True), copy_chunk(near=False)


@cuda.jit(device=True)
def swizzled(line, chunk):
    """Where a chunk lies in a tile of shared memory, in bytes: `tensor_intrinsics` tells why."""
    return int32(line * LINE + (chunk ^ ((line >> 1) & 3)) * CHUNK_BYTES)


@lru_cache
def forward(tile: Tile, precision: Precision, asynchronous: bool) -> Kernel:
    """The kernel of the forward pass for one tile and one precision, *asynchronous* from sm_80 on."""
    ROWS, COLUMNS, WARP_ROWS, WARP_COLUMNS, _ = tile
    THREADS, WARPS_DOWN = tile.threads, tile.warps_down
    STAGES = tile.stages if asynchronous else _STAGES_OF_PAIR
    AHEAD = STAGES - 1
    A_NUMBERS, B_NUMBERS = STAGES * ROWS * _WORDS_OF_LINE, STAGES * COLUMNS * _WORDS_OF_LINE
    A_STAGE, B_STAGE = ROWS * LINE, COLUMNS * LINE
    # x: a thread copies the same chunk of A_COPIES lines; the weight: B_COPIES chunks of one line
    A_COPIES, A_STEP = ROWS * CHUNKS // THREADS, THREADS // CHUNKS
    B_COPIES, B_STEP = COLUMNS * CHUNKS // THREADS, THREADS // COLUMNS
    WORDS_AHEAD = (A_COPIES + B_COPIES) * WORDS
    # sums: a thread has a pair of every run of 8 columns
    RUNS = WARP_COLUMNS // FRAGMENT
    no_sums, take_pair, finish_rows = zeros(WARP_ROWS * WARP_COLUMNS // 32), take(2), for_each(2 * RUNS)
    multiply_turn = multiply_lines(precision.name, WARP_ROWS, WARP_COLUMNS, not asynchronous)
    finish_pair, load_words, load_words_or = finish(2, relu_only=True), load(WORDS), load_or(WORDS)
    keep, kept, wait = store_each(1), load_each(WORDS), wait_for_groups(AHEAD - 1)

    @cuda.jit(device=True)
    def finish_row(i, numbers, group, first_pixel, first_channel, bias, residual, out, problem, activation):
        """Bias, residual and relu for row *i* of a thread, and where it goes."""
        p = problem
        pixel = int32(first_pixel + i * 8)
        if pixel < p.pixels:
            place = place_of_pixel(pixel, p)
            for run in range(RUNS):
                channel = int32(first_channel + run * FRAGMENT)
                pair, numbers = take_pair(numbers)
                if channel < p.columns:
                    oc = int32(group * p.columns + channel)
                    finish_pair(pair, bias, residual, out, place * p.OC + oc, oc, activation)

    def conv2d_forward_tensorcore(x, weight, bias, residual, out, problem, activation):
        """One tile of ``out = activation(conv2d(x, weight) + bias + residual)``; arrays are flat.

        x and the weight are in chunks of one precision, the weight as `pack_weight` leaves it.  A chain over
        (kh, kw, ic) for each element, four chunks a turn.  Each output element has one writer.
        """
        p = problem
        a = cuda.shared.array(A_NUMBERS, float32, alignment=128)
        b = cuda.shared.array(B_NUMBERS, float32, alignment=128)
        ahead = cuda.local.array(WORDS_AHEAD, float32)
        tops = cuda.local.array(A_COPIES, int32)
        lefts = cuda.local.array(A_COPIES, int32)
        bases = cuda.local.array(A_COPIES, int32)

        thread = thread_index()
        group, pixel_block, column_block = split_in_three(block_index(), p.pixel_blocks, p.column_blocks)

        # what this thread copies of x: threads side by side, the chunks of a line
        line, chunk = int32(thread // CHUNKS), int32(thread % CHUNKS)
        a_put = int32(shared_address(a) + swizzled(line, chunk))
        for i in range(A_COPIES):
            pixel = int32(pixel_block * ROWS + line + i * A_STEP)
            n, oh, ow = split_in_three(pixel, p.OH, p.OW)
            top, left = int32(oh * p.stride_h - p.pad_top), int32(ow * p.stride_w - p.pad_left)
            bases[i] = int32(((n * p.IH + top) * p.IW + left) * p.IC + group * p.ic_of_group)
            tops[i] = top if pixel < p.pixels else OUTSIDE
            lefts[i] = left
        # where in the chain: computed, not loaded, since every block would ask for the same bytes in every turn
        tap = divide(chunk, p.ic_of_group)
        kh = divide(tap, p.KW)
        down, right = int32(kh * p.dilation_h), int32((tap - kh * p.KW) * p.dilation_w)
        ic = int32(chunk - tap * p.ic_of_group)
        # and of the weight: threads side by side, the same chunk of neighbouring columns
        column, chunk = int32(thread % COLUMNS), int32(thread // COLUMNS)
        b_put = int32(shared_address(b) + swizzled(column, chunk))
        width = int32(p.column_blocks * COLUMNS)
        weight_at = int32((group * p.turns * CHUNKS + chunk) * width + column_block * COLUMNS + column)

        # what it reads of both: matrices of 8 lines x one chunk, of x line by line, of the weight chunk by chunk
        lane, warp = int32(thread & 31), int32(thread >> 5)
        line = int32(warp % WARPS_DOWN * WARP_ROWS + (lane & 15))
        a_get = int32(shared_address(a) + swizzled(line, lane >> 4))
        line = int32(warp // WARPS_DOWN * WARP_COLUMNS + (lane & 7) + ((lane >> 4) << 3))
        b_get = int32(shared_address(b) + swizzled(line, (lane >> 3) & 1))

        sums = no_sums()
        turn, stage = int32(0), int32(0)
        while turn < int32(p.turns + AHEAD):
            next_stage = int32(stage + 1 if stage < STAGES - 1 else 0)
            if asynchronous:
                wait()
            cuda.syncthreads()
            if turn < p.turns:
                distance = int32((down * p.IW + right) * p.IC + ic)
                of_chain = down if down < p.span_h else OUTSIDE
                for i in range(A_COPIES):
                    there = within(int32(tops[i] + of_chain), p.IH) & within(int32(lefts[i] + right), p.IW)
                    at = int32(bases[i] + distance)
                    if asynchronous:
                        copy_again(int32(a_put + stage * A_STAGE + i * A_STEP * LINE), x, at, there)
                    else:
                        keep(ahead, int32(i * WORDS), load_words_or(x, int64(at) * WORDS, there, float32(0)))
                for i in range(B_COPIES):
                    at = int32(weight_at + i * B_STEP * width)
                    if asynchronous:
                        put = int32((b_put ^ (i * B_STEP * CHUNK_BYTES)) + stage * B_STAGE)
                        copy_again(put, weight, at, True)
                    else:
                        keep(ahead, int32((A_COPIES + i) * WORDS), load_words(weight, int64(at) * WORDS))
                weight_at = int32(weight_at + CHUNKS * width)
                # the chunk of the next turn
                ic = int32(ic + p.step_ic)
                carry = int32(ic >= p.ic_of_group)
                ic = int32(ic - carry * p.ic_of_group)
                right = int32(right + p.step_right + carry * p.dilation_w)
                carry = int32(right >= p.span_w)
                right = int32(right - carry * p.span_w)
                down = int32(down + p.step_down + carry * p.dilation_h)
            if asynchronous:
                close_group()
            if turn >= AHEAD:
                sums = multiply_turn(sums, int32(a_get + next_stage * A_STAGE), int32(b_get + next_stage * B_STAGE))
            if not asynchronous and turn < p.turns:
                for i in range(A_COPIES):
                    store_chunk(int32(a_put + stage * A_STAGE + i * A_STEP * LINE), kept(ahead, int32(i * WORDS)))
                for i in range(B_COPIES):
                    put = int32((b_put ^ (i * B_STEP * CHUNK_BYTES)) + stage * B_STAGE)
                    store_chunk(put, kept(ahead, int32((A_COPIES + i) * WORDS)))
            stage = next_stage
            turn = int32(turn + 1)

        group, pixel_block, column_block = split_in_three(block_index(), p.pixel_blocks, p.column_blocks)
        thread = thread_index()
        lane, warp = int32(thread & 31), int32(thread >> 5)
        pixel = int32(pixel_block * ROWS + warp % WARPS_DOWN * WARP_ROWS + (lane >> 2))
        channel = int32(column_block * COLUMNS + warp // WARPS_DOWN * WARP_COLUMNS + (lane & 3) * 2)
        finish_rows(finish_row, sums, (group, pixel, channel, bias, residual, out, p, activation))

    arguments = NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, told(Problem), int32
    return Kernel(conv2d_forward_tensorcore, types.void(*arguments), THREADS, tile.residents)


@lru_cache
def grad_weight(tile: Tile, precision: Precision, asynchronous: bool) -> Kernel:
    """The kernel of grad_weight for one tile and one precision."""
    SIDE, _, WARP_ROWS, WARP_COLUMNS, _ = tile
    THREADS, WARPS_DOWN, CHANNELS = tile.threads, tile.warps_down, precision.channels
    STAGES = tile.stages if asynchronous else _STAGES_OF_PAIR
    AHEAD = STAGES - 1
    # a turn: PIXELS lines of x, and as many of grad_out; a thread copies the same chunk of COPIES lines of both
    PIXELS, CHUNKS_OF_LINE = CHUNKS * CHANNELS, SIDE // CHANNELS
    COPIES, STEP = PIXELS * CHUNKS_OF_LINE // THREADS, THREADS // CHUNKS_OF_LINE
    LINE_BYTES = CHUNKS_OF_LINE * CHUNK_BYTES
    STAGE = PIXELS * LINE_BYTES
    STAGES_NUMBERS, WORDS_AHEAD = STAGES * STAGE // 4, COPIES * WORDS
    RUNS = WARP_COLUMNS // FRAGMENT
    TF32 = precision.name == "tf32"
    no_sums, load_entry = zeros(WARP_ROWS * WARP_COLUMNS // 32), load(4)
    multiply_turn = multiply_columns(precision.name, WARP_ROWS, WARP_COLUMNS, LINE_BYTES, not asynchronous)
    wait, load_words_or, keep, kept = wait_for_groups(AHEAD - 1), load_or(WORDS), store_each(1), load_each(WORDS)
    take_pair, store_rows = take(2), for_each(2 * RUNS)

    @cuda.jit(device=True)
    def place_in_tile(line, chunk):
        """Where a chunk lies in a tile of shared memory, in bytes: in other banks than in the 3 or 7 lines around."""
        swizzle = int32((line & 3) << 1) if TF32 else int32(line & 7)
        return int32(line * LINE_BYTES + (chunk ^ swizzle) * CHUNK_BYTES)

    @cuda.jit(device=True)
    def store_row(i, numbers, split, group, first_depth, first_channel, partial, problem):
        p = problem
        depth, depths = int32(first_depth + i * 8), int32(p.chunks * CHANNELS)
        if depth < depths:
            columns = int32(p.columns * CHANNELS)
            place = (int64(split) * depths + depth) * p.OC * CHANNELS + group * columns
            for run in range(RUNS):
                channel = int32(first_channel + run * FRAGMENT)
                pair, numbers = take_pair(numbers)
                if channel < columns:
                    store(partial, place + channel, pair)

    def conv2d_grad_weight_tensorcore(x, grad_out, partial, taps, starts, problem):
        """One tile of one partial sum: ``partial[split, kh, kw, ic, oc]``, a chain over the pixels of the split.

        Lines of shared memory are pixels, in turns of four chunks' worth; the products turn them over.  The tile is a
        square, so that what a thread copies of x and of grad_out lies at the same place.  Each element has one writer.
        """
        p = problem
        a = cuda.shared.array(STAGES_NUMBERS, float32, alignment=128)
        b = cuda.shared.array(STAGES_NUMBERS, float32, alignment=128)
        x_ahead = cuda.local.array(WORDS_AHEAD, float32)
        grad_ahead = cuda.local.array(WORDS_AHEAD, float32)
        ns = cuda.local.array(COPIES, int32)
        ohs = cuda.local.array(COPIES, int32)
        ows = cuda.local.array(COPIES, int32)

        thread = thread_index()
        rest, depth_block, column_block = split_in_three(block_index(), p.depth_blocks, p.column_blocks)
        split = divide(rest, p.groups)
        group = int32(rest - split * p.groups)
        start = starts[split]
        pixels = int32(starts[split + 1] - start)

        # what this thread copies: of x one chunk of the chain of taps, of grad_out one of its channels
        line, chunk = int32(thread // CHUNKS_OF_LINE), int32(thread % CHUNKS_OF_LINE)
        put = place_in_tile(line, chunk)
        a_put, b_put = int32(shared_address(a) + put), int32(shared_address(b) + put)
        row = int32(depth_block * CHUNKS_OF_LINE + chunk)
        distance, down, right, _ = load_entry(taps, int32((row if row < p.chunks else 0) * 4))
        distance = int32(distance + group * p.ic_of_group)
        down = down if row < p.chunks else OUTSIDE
        for i in range(COPIES):
            ns[i], ohs[i], ows[i] = split_in_three(int32(start + line + i * STEP), p.OH, p.OW)
        column = int32(column_block * CHUNKS_OF_LINE + chunk)
        grad_at = int32((start + line) * p.OC + group * p.columns + column)

        # what it reads: `multiply_columns` tells which
        lane, warp = int32(thread & 31), int32(thread >> 5)
        a_chunk = int32(warp % WARPS_DOWN * (WARP_ROWS // CHANNELS))
        b_chunk = int32(warp // WARPS_DOWN * (WARP_COLUMNS // CHANNELS))
        if TF32:
            of_line = int32(((lane >> 2) & 3) << 2)
            a_get = int32(place_in_tile(lane & 3, int32(a_chunk + (lane >> 4))) + of_line)
            b_get = int32(place_in_tile(lane & 3, int32(b_chunk + (lane >> 4))) + of_line)
        else:
            a_get = place_in_tile(int32((lane & 7) + ((lane >> 4) << 3)), int32(a_chunk + ((lane >> 3) & 1)))
            b_get = place_in_tile(int32(lane & 15), int32(b_chunk + (lane >> 4)))
        a_get, b_get = int32(shared_address(a) + a_get), int32(shared_address(b) + b_get)

        sums = no_sums()
        turn, stage = int32(0), int32(0)
        turns = divide(int32(pixels + PIXELS - 1), PIXELS)
        while turn < int32(turns + AHEAD):
            next_stage = int32(stage + 1 if stage < STAGES - 1 else 0)
            if asynchronous:
                wait()
            cuda.syncthreads()
            if turn < turns:
                for i in range(COPIES):
                    n, oh, ow = ns[i], ohs[i], ows[i]
                    top, left = int32(oh * p.stride_h - p.pad_top), int32(ow * p.stride_w - p.pad_left)
                    exists = int32(turn * PIXELS + line + i * STEP) < pixels
                    there = exists & within(int32(top + down), p.IH) & within(int32(left + right), p.IW)
                    at = int32(((n * p.IH + top) * p.IW + left) * p.IC + distance)
                    grad_there, of_grad = exists & (column < p.columns), int32(grad_at + i * STEP * p.OC)
                    if asynchronous:
                        to = int32(stage * STAGE + i * STEP * LINE_BYTES)
                        copy_again(int32(a_put + to), x, at, there)
                        copy_once(int32(b_put + to), grad_out, of_grad, grad_there)
                    else:
                        keep(x_ahead, int32(i * WORDS), load_words_or(x, int64(at) * WORDS, there, float32(0)))
                        words = load_words_or(grad_out, int64(of_grad) * WORDS, grad_there, float32(0))
                        keep(grad_ahead, int32(i * WORDS), words)
                    # the pixel of the next turn
                    ow = int32(ow + p.next_ow)
                    carry = int32(ow >= p.OW)
                    ows[i] = int32(ow - carry * p.OW)
                    oh = int32(oh + p.next_oh + carry)
                    carry = int32(oh >= p.OH)
                    ohs[i] = int32(oh - carry * p.OH)
                    ns[i] = int32(n + p.next_n + carry)
                grad_at = int32(grad_at + PIXELS * p.OC)
            if asynchronous:
                close_group()
            if turn >= AHEAD:
                sums = multiply_turn(sums, int32(a_get + next_stage * STAGE), int32(b_get + next_stage * STAGE))
            if not asynchronous and turn < turns:
                for i in range(COPIES):
                    to = int32(stage * STAGE + i * STEP * LINE_BYTES)
                    store_chunk(int32(a_put + to), kept(x_ahead, int32(i * WORDS)))
                    store_chunk(int32(b_put + to), kept(grad_ahead, int32(i * WORDS)))
            stage = next_stage
            turn = int32(turn + 1)

        rest, depth_block, column_block = split_in_three(block_index(), p.depth_blocks, p.column_blocks)
        split = divide(rest, p.groups)
        group = int32(rest - split * p.groups)
        thread = thread_index()
        lane, warp = int32(thread & 31), int32(thread >> 5)
        depth = int32(depth_block * SIDE + warp % WARPS_DOWN * WARP_ROWS + (lane >> 2))
        channel = int32(column_block * SIDE + warp // WARPS_DOWN * WARP_COLUMNS + (lane & 3) * 2)
        store_rows(store_row, sums, (split, group, depth, channel, partial, p))

    arguments = NUMBERS, NUMBERS, NUMBERS, TABLE, TABLE, told(WeightProblem)
    return Kernel(conv2d_grad_weight_tensorcore, types.void(*arguments), THREADS, tile.residents)


@lru_cache
def convert(precision: Precision) -> Kernel:
    """The kernel that rounds x to 16 bits."""
    load_quad, words_of = load(QUAD), to_words(precision.name)

    def convert_to_words(numbers, out):
        """``out = numbers`` rounded, four of them, two words, a thread."""
        i = element()
        if i * 2 < out.size:
            store(out, i * 2, words_of(load_quad(numbers, i * QUAD)))

    return kernel_of_elements(convert_to_words, NUMBERS, NUMBERS)


@lru_cache
def pack_weight(precision: Precision, transposed: bool) -> Kernel:
    """The kernel that rounds a weight and brings it into chunks; *transposed*, with its inputs as columns."""
    QUADS = precision.channels // QUAD
    WORDS_OF_QUAD = WORDS // QUADS
    words_of, load_one_or, load_quad_or = to_words(precision.name), load_or(1), load_or(QUAD)
    keep, kept = store_each(1), load_each(QUAD)

    def pack_weight_in_chunks(weight, taps, out, packing):
        """``out[group, chunk, column]``: chunks of the chain (tap, line) of each column; four numbers of it a thread.

        Four lines of one column lie apart, threads side by side have neighbouring columns; *transposed*, they lie side
        by side, and 16 quads of two columns are what a warp takes.  So both loads and stores are of whole sectors.
        Chunks behind the last one of the chain and columns behind those of the group are zero.
        """
        p = packing
        numbers = cuda.local.array(QUAD, float32)
        i = int32(element())
        if i < p.groups * p.packed_chunks * p.packed_columns * QUADS:
            if transposed:
                group, pair, quad = split_in_three(i >> 1, p.packed_columns >> 1, int32(p.packed_chunks * QUADS))
                column = int32(pair * 2 + (i & 1))
                chunk, part = int32(quad // QUADS), int32(quad % QUADS)
            else:
                group, chunk, column = split_in_three(int32(i // QUADS), p.packed_chunks, p.packed_columns)
                part = int32(i % QUADS)
            there = (chunk < p.chunks) & (column < p.columns)
            tap = divide(chunk, p.chunks_of_tap)
            line = int32((chunk - tap * p.chunks_of_tap) * QUADS * QUAD + part * QUAD)
            at = int32(group * p.group_step + taps[tap if there else 0] * p.tap_step)
            if transposed:
                keep(numbers, int32(0), load_quad_or(weight, int32(at + column * p.width + line), there, float32(0)))
            else:
                for k in range(QUAD):
                    from_line = int32(at + (line + k) * p.width + column)
                    keep(numbers, int32(k), load_one_or(weight, from_line, there, float32(0)))
            place = (int64(group) * p.packed_chunks + chunk) * p.packed_columns + column
            store(out, place * WORDS + part * WORDS_OF_QUAD, words_of(kept(numbers, int32(0))))

    return kernel_of_elements(pack_weight_in_chunks, NUMBERS, TABLE, NUMBERS, told(Packing))
