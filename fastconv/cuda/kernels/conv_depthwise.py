"""The kernels of the depthwise convolution: a thread for neighbouring channels, and neighbouring pixels where it can.

A product needs a number of x and one of the weight, so memory decides, and what comes before it are the instructions:
loads of four channels at a time, and each number of x loaded once for all the taps of a row that read it, which is what
`window` and `grad_weight` do for the usual kernels.  `forward` takes all others.  Taps that fall on padding are left
out, as on the CPU.

Threads of a warp read neighbouring channels of one pixel, whole lines of memory; a pixel that serves rows of taps comes
from the L1 cache.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fastconv.cuda.conv_depthwise_plan import CHANNELS, PIXELS, PLACES, QUAD, THREADS
from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import (
    NUMBERS,
    TABLE,
    THREADS as THREADS_OF_ELEMENTS,
    element,
    kernel_of_elements,
    split_in_three,
    told,
)
from fastconv.cuda.kernels.epilogue import finish
from fastconv.cuda.kernels.intrinsics import (
    block_index,
    divide,
    load,
    load_each,
    store,
    take,
    thread_index,
    within,
    zeros,
)
from fastconv.cuda.kernels.windows import load_columns, places, slide, steps, there

cuda = target()
float32, int32, void = cuda.types.float32, cuda.types.int32, cuda.types.void

#: Of a block of `window`: threads side by side, and how many blocks a multiprocessor is to hold.
_QUADS, _RESIDENTS = CHANNELS // QUAD, 5
#: Pixels that `grad_weight` loads together where windows are neighbours.
_PIXELS_OF_RUN = 8
# every column and every factor counts
_ALL = -1


class Problem(NamedTuple):
    """Extents, and the distance of neighbouring taps in the source and in the weight, which grad_x walks backwards."""

    C: int
    SOURCE_H: int
    SOURCE_W: int
    TARGET_H: int
    TARGET_W: int
    KW: int
    row_step: int
    column_step: int
    tap_row_step: int
    tap_step: int


@lru_cache
def forward(lanes: int) -> Kernel:
    """The kernel of the forward pass and of grad_x, for *lanes* channels of one pixel."""
    finish_lanes, load_lanes, no_sums = finish(lanes), load(lanes), zeros(lanes)
    entry, multiply_add = load_each(3), slide(1, 1, 0, 0)

    def conv2d_forward_depthwise(x, weight, bias, residual, out, rows, columns, problem, activation):
        """A chain of fused multiply-adds over the taps that lie inside, in the order of the CPU.

        *rows* and *columns* hold, for each pixel of the target, (first source pixel, first tap, taps).
        """
        p = problem
        at = int32(element() * lanes)
        if at < out.size:
            pixel = divide(at, p.C)
            channel = int32(at - pixel * p.C)
            n, oh, ow = split_in_three(pixel, p.TARGET_H, p.TARGET_W)
            row, kh, taps_h = entry(rows, int32(3 * oh))
            column, kw, taps_w = entry(columns, int32(3 * ow))
            line = int32(int32(int32(n * p.SOURCE_H + row) * p.SOURCE_W + column) * p.C + channel)
            weight_line = int32(int32(kh * p.KW + kw) * p.C + channel)
            sums = no_sums()
            for _ in range(taps_h):
                x_at, weight_at = line, weight_line
                for _ in range(taps_w):
                    sums = multiply_add(sums, load_lanes(x, x_at), load_lanes(weight, weight_at), _ALL, _ALL)
                    x_at, weight_at = int32(x_at + p.column_step), int32(weight_at + p.tap_step)
                line, weight_line = int32(line + p.row_step), int32(weight_line + p.tap_row_step)
            finish_lanes(sums, bias, residual, out, at, channel, activation)

    arrays = NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, TABLE, TABLE
    return kernel_of_elements(conv2d_forward_depthwise, *arrays, told(Problem), int32)


class WindowProblem(NamedTuple):
    """Extents, the windows (`conv_depthwise_plan.Windows`) and the blocks."""

    C: int
    SOURCE_H: int
    SOURCE_W: int
    TARGET_H: int
    TARGET_W: int
    row_step: int
    first_row: int
    first_column: int
    first_tap: int
    tap_step: int
    row_blocks: int
    column_blocks: int
    channel_blocks: int
    #: The binary logarithm of the places of a block along a row.
    across: int


@lru_cache
def window(extent: int, step: int) -> Kernel:
    """The kernel of the forward pass for kernels of *extent* x *extent* whose windows lie *step* columns apart.

    It takes four channels at a time.
    """
    COLUMNS = (PIXELS - 1) * step + extent
    finish_pixel, no_sums, take_pixel, load_weights = finish(QUAD), zeros(PIXELS * QUAD), take(QUAD), load_columns(QUAD)
    columns_of, taps_of, bits_of, load_row = places(COLUMNS), steps(extent), there(COLUMNS), load_columns(QUAD)
    add_taps = slide(PIXELS, extent, step, 1)

    def conv2d_forward_depthwise_window(x, weight, bias, residual, out, problem, activation):
        """A thread computes four channels of PIXELS neighbours, row of taps by row of taps; the same chains.

        A block is PLACES of those, rows below each other, so that a row of x that three of them read is in the L1
        cache.
        """
        p = problem
        thread = thread_index()
        rest = divide(block_index(), p.channel_blocks)
        channel = int32(int32(block_index() - rest * p.channel_blocks) * CHANNELS + (thread & (_QUADS - 1)) * QUAD)
        n, row_block, column_block = split_in_three(rest, p.row_blocks, p.column_blocks)
        place = int32(thread // _QUADS)
        below = int32(place >> p.across)
        oh = int32(row_block * (PLACES >> p.across) + below)
        ow = int32(((column_block << p.across) + place - (below << p.across)) * PIXELS)
        if channel < p.C and oh < p.TARGET_H and ow < p.TARGET_W:
            row, column = int32(oh * p.row_step + p.first_row), int32(ow * step + p.first_column)
            columns, inside = columns_of(column, int32(1), p.SOURCE_W, p.C), bits_of(column, int32(1), p.SOURCE_W)
            tap_step = int32(p.tap_step * p.C)
            taps, weight_at = taps_of(tap_step), int32(p.first_tap * p.C + channel)
            line = int32(int32(n * p.SOURCE_H + row) * p.SOURCE_W * p.C + channel)
            last_row = int32(row + extent)
            sums = no_sums()
            while row < last_row:
                if within(row, p.SOURCE_H):
                    sums = add_taps(
                        sums, load_row(x, line, columns), load_weights(weight, weight_at, taps), inside, _ALL
                    )
                row, line = int32(row + 1), int32(line + p.SOURCE_W * p.C)
                weight_at = int32(weight_at + extent * tap_step)
            at = int32(int32(int32(n * p.TARGET_H + oh) * p.TARGET_W + ow) * p.C + channel)
            for _ in range(PIXELS):
                pixel, sums = take_pixel(sums)
                if ow < p.TARGET_W:
                    finish_pixel(pixel, bias, residual, out, at, channel, activation)
                ow, at = int32(ow + 1), int32(at + p.C)

    arrays = [NUMBERS] * 5
    return Kernel(conv2d_forward_depthwise_window, void(*arrays, told(WindowProblem), int32), THREADS, _RESIDENTS)


class WeightProblem(NamedTuple):
    """Extents of grad_weight, and the distance of neighbouring windows and of neighbouring taps."""

    C: int
    IH: int
    IW: int
    OH: int
    OW: int
    KH: int
    KW: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_top: int
    pad_left: int


@lru_cache
def grad_weight(taps: int, step: int, lanes: int) -> Kernel:
    """The kernel of the chains of grad_weight, for *taps* neighbours of a row of the kernel and *lanes* channels.

    Several taps share the columns of windows that lie *step* apart; with one tap, only the columns of the windows are
    loaded, whatever their distance.
    """
    ACROSS, RUN = CHANNELS // lanes, _PIXELS_OF_RUN // step
    COLUMNS = (RUN - 1) * step + taps
    no_sums, take_tap, load_run = zeros(taps * lanes), take(lanes), load_columns(lanes)
    columns_of, inside_of, pixels_of, counted = places(COLUMNS), there(COLUMNS), places(RUN), there(RUN)
    add_pixels = slide(taps, RUN, 1, step)

    def conv2d_grad_weight_depthwise(x, grad_out, partial, starts, problem):
        """``partial[chain, kh, kw, c]``: over the pixels (n, oh, ow) of the chain's rows that see the tap.

        RUN pixels at a time, so that many loads are on their way together.  *starts* says where the rows of each
        chain begin, and where the last ends.
        """
        p = problem
        thread = int32(element())
        item = thread // ACROSS
        channel_blocks, parts = divide(int32(p.C + CHANNELS - 1), int32(CHANNELS)), divide(p.KW, int32(taps))
        block, kh, part = split_in_three(item, p.KH, parts)
        chain = divide(block, channel_blocks)
        channel = int32(int32(block - chain * channel_blocks) * CHANNELS + (thread & (ACROSS - 1)) * lanes)
        if chain < starts.size - 1 and channel < p.C:
            kw = int32(part * taps)
            spacing = int32(1) if taps > 1 else p.stride_w
            sums = no_sums()
            for row in range(starts[chain], starts[chain + 1]):
                n = divide(int32(row), p.OH)
                ih = int32(int32(row - n * p.OH) * p.stride_h - p.pad_top + kh * p.dilation_h)
                if within(ih, p.IH):
                    x_line = int32(int32(n * p.IH + ih) * p.IW * p.C + channel)
                    grad_line = int32(row * p.OW * p.C + channel)
                    for ow in range(0, p.OW, RUN):
                        iw = int32(ow * p.stride_w - p.pad_left + kw * p.dilation_w)
                        columns = load_run(x, x_line, columns_of(iw, spacing, p.IW, p.C))
                        pixels = load_run(grad_out, grad_line, pixels_of(int32(ow), int32(1), p.OW, p.C))
                        inside = inside_of(iw, spacing, p.IW)
                        sums = add_pixels(sums, columns, pixels, inside, counted(int32(ow), int32(1), p.OW))
            at = int32(int32(int32(chain * p.KH + kh) * p.KW + kw) * p.C + channel)
            for _ in range(taps):
                tap, sums = take_tap(sums)
                store(partial, at, tap)
                at = int32(at + p.C)

    signature = void(NUMBERS, NUMBERS, NUMBERS, TABLE, told(WeightProblem))
    return Kernel(conv2d_grad_weight_depthwise, signature, THREADS_OF_ELEMENTS, 2)
