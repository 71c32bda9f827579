"""Few output channels, the last layers of networks and filters of images: neighbouring pixels share a vector.

One output channel fills one lane of 16.  But p neighbours in a row of out are p * OC numbers side by side, and together
they are one pixel of another convolution: its kernel is KW + (p - 1) * stride columns wide, its stride p times as
large, and its weight holds the old one p times, each time one stride further to the right, between zeros:

    3 taps, stride 1, p = 4                  x   0  1  2  3  4  5
                              out 0              a  b  c  .  .  .
                              out 1              .  a  b  c  .  .
                              out 2              .  .  a  b  c  .
                              out 3              .  .  .  a  b  c

So 6 steps take the place of 12, and each multiplies a number of x with 4 lanes in place of one.  x and out stay what
and where they are; only the weight is made anew.  The idea is that of the banded matrix of a convolution (Dumoulin and
Visin, A guide to convolution arithmetic, 2016, section 4.1), cut to the size of a register.

Ladder: the time of `conv_direct`'s pass over single pixels over this one's, one core (Zen 4), 8 images; in brackets
what is chosen:

                                           AVX-512                          AVX2
                               p = 2    4     8    16
    1 -> 1, 3x3, 64 x 64         1.8   2.8   4.0  (4.7)                   (8) 6.0
    32 -> 1, 3x3, 64 x 64        1.4   1.8   2.0  (2.2)                   (8) 2.5
    32 -> 3, 3x3, 64 x 64        1.5  (1.9)  1.2                          (2) 1.6
    3 -> 3, 5x5, 64 x 64         1.7  (2.6)  2.0   1.5                    (2) 1.8
    32 -> 3, 9x9, 64 x 64        1.8  (2.9)  1.9   1.8                    (4) 2.0
    8 -> 8, 25x25, 48 x 48      (1.9)  1.8                                (2) 1.3
    1 -> 8, 3x3, 64 x 64        (3.8)  2.7         by way of `conv_first` (1)
    16 -> 8, 3x3, stride 2      (1.2)  0.7                                (1)
    16 -> 10, 5x5, 64 x 64       0.9   0.9   0.7                          (1)

    python bench/against.py 98d462a f59e4b9 --threads 1 --shape 64x64x32,3x3x3,padding=same 48x48x8,25x25x8,padding=same

One image of 256 x 256 and a 3x3 kernel: 84 us in place of 570.

Every sum has the products that it had, in the same order, and between them zeros times numbers of x, which change
nothing unless such a number is infinite or NaN.  That leaves NaN in out, so where NaN comes out, the pixels are
computed again one by one, and the bits are those of `conv_direct` in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv import _jit
from fastconv.cpu import codegen
from fastconv.cpu.shape import ConvShape
from fastconv.cpu.tiles import TILE_ROWS, TILE_VECTORS

# Most pixels that share a vector, and how many times as fast that must be by the count of `_time`.
_MOST_PIXELS = 16
_LEAST_GAIN = 1.2
# Cycles of a fused multiply-add, and how many begin in each: of 64 bytes one on Zen 4.
_LATENCY, _BEGUN = 4, 1 if codegen.VECTOR_BYTES == 64 else 2
# The weight is packed in the time that its products with so many tiles of pixels take, and made wider before in half.
_TILES_OF_PACKING, _TILES_OF_WIDENING = 3, 1.5
# Cycles of the calls that make weight and bias wider and look for NaN, 2 us.
_CYCLES_OF_CALLS = 6_000


@lru_cache(maxsize=1024)
def pixels_together(shape: ConvShape, itemsize: int, kept: bool) -> int:
    """How many pixels of a row share a vector, 1 where they had better not; a weight that is *kept* is wide already.

    The width of vectors and the number of images may decide here, because the bits do not depend on it.
    """
    s = shape
    whole_image = (s.OH, s.OW) == (s.OUT_H, s.OUT_W)
    if s.G > 1 or s.KW == 1 or s.dilation_w > 1 or not whole_image:
        return 1
    lanes = codegen.VECTOR_BYTES // itemsize
    divisors = [pixels for pixels in range(1, _MOST_PIXELS + 1) if s.OW % pixels == 0]
    best = min(divisors, key=lambda pixels: _time(s, pixels, lanes, kept))
    return best if _time(s, 1, lanes, kept) > _LEAST_GAIN * _time(s, best, lanes, kept) else 1


def _time(shape: ConvShape, pixels: int, lanes: int, kept: bool) -> float:
    """Cycles of a pass with so many pixels in a vector.

    Register tiles of one vector of channels cost more than half of those of two where their few sums wait for
    themselves.
    """
    s = shape
    pairs, single = divmod(-(-pixels * s.OC // lanes), TILE_VECTORS)
    cycles = pairs * cycles_of_step(TILE_ROWS, TILE_VECTORS) + single * cycles_of_step(TILE_ROWS, 1)
    tiles = -(-s.N * s.OH * s.OW // (pixels * TILE_ROWS))
    packing = 0.0 if kept else _TILES_OF_PACKING + (_TILES_OF_WIDENING if pixels > 1 else 0)
    steps = s.KH * (s.KW + (pixels - 1) * s.stride_w) * s.IC
    return steps * cycles * (tiles + packing) + (_CYCLES_OF_CALLS if pixels > 1 else 0)


def cycles_of_step(rows: int, vectors: int) -> float:
    """Cycles of a step of a register tile."""
    return max(_LATENCY, rows * vectors / _BEGUN)


def widened(shape: ConvShape, pixels: int) -> ConvShape:
    """The convolution whose pixels are *pixels* neighbours of this one's."""
    s = shape
    return s._replace(
        OW=s.OW // pixels,
        OC=s.OC * pixels,
        KW=s.KW + (pixels - 1) * s.stride_w,
        stride_w=s.stride_w * pixels,
        OUT_W=s.OUT_W // pixels,
    )


def taps_of(weight: Callable[[], NDArray[Any]], shape: ConvShape, pixels: int) -> NDArray[Any]:
    """The wide form of ``weight()``."""
    s = shape
    return wide_weight(weight().ravel(), s.KH, s.KW, s.IC, s.OC, pixels, s.stride_w)


def bias_of(bias: NDArray[Any] | None, pixels: int) -> NDArray[Any] | None:
    """The wide form of a bias, if there is one."""
    return None if bias is None else wide_bias(bias, pixels)


# ---- in compiled code -----------------------------------------------------------------------------------------------


@_jit.kernel
def wide_weight(weight, KH, KW, IC, OC, pixels, stride_w):
    """``wide[kh, kw + pixel * stride_w, ic, pixel, oc] = weight[kh, kw, ic, oc]``, zeros elsewhere; arrays are flat.

    Row by row of the old weight, in the order of memory.
    """
    wide = np.zeros(KH * (KW + (pixels - 1) * stride_w) * IC * pixels * OC, weight.dtype)
    for kh in range(KH):
        for kw in range(KW):
            for ic in range(IC):
                source = ((kh * KW + kw) * IC + ic) * OC
                first_column = kh * (KW + (pixels - 1) * stride_w) + kw
                for pixel in range(pixels):
                    target = ((first_column + pixel * stride_w) * IC + ic) * pixels * OC + pixel * OC
                    for oc in range(OC):
                        wide[target + oc] = weight[source + oc]
    return wide


@_jit.kernel
def wide_bias(bias, pixels):
    """The bias of each pixel, one after the other."""
    wide = np.empty(pixels * bias.size, bias.dtype)
    for position in range(wide.size):
        wide[position] = bias[position % bias.size]
    return wide


@_jit.kernel
def has_nan(out):
    """Whether a number of a flat array is NaN."""
    found = False
    for position in range(out.size):
        found |= out[position] != out[position]
    return found
