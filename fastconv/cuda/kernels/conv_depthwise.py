"""The kernels of the depthwise convolution: one thread for each element of the result, channels next to each other.

Threads of a warp read neighbouring channels of one pixel and of one tap, whole lines of memory; a pixel that serves
several taps comes from the L1 cache.  Taps that fall on padding are left out, as on the CPU.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fastconv.cuda.device import Kernel, target
from fastconv.cuda.epilogue import LINEAR
from fastconv.cuda.kernels.elements import NUMBERS, TABLE, element, kernel_of_elements, split_in_three, told
from fastconv.cuda.kernels.intrinsics import add, divide, multiply_add, rectify

cuda = target()
float32, int32, int64 = cuda.types.float32, cuda.types.int32, cuda.types.int64


class Problem(NamedTuple):
    """Extents, and the distance of neighbouring taps in the source and in the kernel, which grad_x walks backwards."""

    C: int
    SOURCE_H: int
    SOURCE_W: int
    TARGET_H: int
    TARGET_W: int
    KH: int
    KW: int
    dilation_h: int
    dilation_w: int
    tap_step_h: int
    tap_step_w: int


@lru_cache
def forward() -> Kernel:
    """The kernel of the forward pass and of grad_x."""

    def conv2d_forward_depthwise(x, weight, bias, residual, out, rows, columns, problem, activation):
        """A chain of fused multiply-adds over the taps that lie inside, in the order of the CPU.

        *rows* and *columns* hold, for each pixel of the target, (first source pixel, first tap, taps).
        """
        p = problem
        i = element()
        if i < out.size:
            pixel = divide(int32(i), p.C)
            channel = int32(i - pixel * p.C)
            n, oh, ow = split_in_three(pixel, p.TARGET_H, p.TARGET_W)
            total = float32(0)
            row, kh = rows[3 * oh], rows[3 * oh + 1]
            for _ in range(rows[3 * oh + 2]):
                column, kw = columns[3 * ow], columns[3 * ow + 1]
                for _ in range(columns[3 * ow + 2]):
                    number = x[((int64(n) * p.SOURCE_H + row) * p.SOURCE_W + column) * p.C + channel]
                    total = multiply_add(number, weight[(kh * p.KW + kw) * p.C + channel], total)
                    column, kw = int32(column + p.dilation_w), int32(kw + p.tap_step_w)
                row, kh = int32(row + p.dilation_h), int32(kh + p.tap_step_h)
            finished = (total,)
            if bias.size > 0:
                finished = add(finished, (bias[channel],))
            if residual.size > 0:
                finished = add(finished, (residual[i],))
            if activation > LINEAR:
                finished = rectify(finished, activation)
            out[i] = finished[0]

    arrays = NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, TABLE, TABLE
    return kernel_of_elements(conv2d_forward_depthwise, *arrays, told(Problem), int32)


class WeightProblem(NamedTuple):
    """Extents of grad_weight; the rows (n, oh) are cut into *splits* parts."""

    rows: int
    splits: int
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
def grad_weight() -> Kernel:
    """The kernel of the partial sums of grad_weight."""

    def conv2d_grad_weight_depthwise(x, grad_out, partial, starts, problem):
        """``partial[split, kh, kw, c]``: a chain over the pixels (n, oh, ow) of the split that see the tap."""
        p = problem
        i = element()
        if i < partial.size:
            line = divide(int32(i), p.C)
            channel = int32(i - line * p.C)
            split, kh, kw = split_in_three(line, p.KH, p.KW)
            total = float32(0)
            for row in range(starts[split], starts[split + 1]):
                n = divide(int32(row), p.OH)
                oh = int32(row - n * p.OH)
                ih = int32(oh * p.stride_h - p.pad_top + kh * p.dilation_h)
                if ih >= 0 and ih < p.IH:
                    iw = int32(kw * p.dilation_w - p.pad_left)
                    for ow in range(p.OW):
                        if iw >= 0 and iw < p.IW:
                            number = x[((int64(n) * p.IH + ih) * p.IW + iw) * p.C + channel]
                            total = multiply_add(number, grad_out[(int64(row) * p.OW + ow) * p.C + channel], total)
                        iw = int32(iw + p.stride_w)
            partial[i] = total

    return kernel_of_elements(conv2d_grad_weight_depthwise, NUMBERS, NUMBERS, NUMBERS, TABLE, told(WeightProblem))
