"""A convolution as the kernels see it, and the gradient of a strided one as several convolutions without stride."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastconv.geometry import Conv2dGeometry

#: What kernels have made of a weight that will not change, by what it was made for.
Forms = dict[Any, NDArray[Any]]


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is not below *value*."""
    return -(-value // multiple) * multiple


def splits_of(wanted: int, most: int) -> int:
    """Parts of a sum that are summed on their own: a power of two, for two or four threads to have equal shares.

    It is the next one from *wanted* on, but at most *most*.  With four parts in place of three, two threads compute the
    weight's gradient of 56 x 56 pixels 1.09 (3x3, 64 channels) and 1.18 (1x1, 256 to 128) times as fast.
    """
    return 1 << min((wanted - 1).bit_length(), max(most, 1).bit_length() - 1)


class ConvShape(NamedTuple):
    """A convolution as the kernels see it: extents, strides, and where its outputs lie.

    Output pixel (oh, ow) is written to row ``start_h + step_h * oh`` and column ``start_w + step_w * ow`` of an image
    of ``OUT_H x OUT_W``: all of it in the forward pass, one phase of it in the gradient of a strided convolution.
    """

    N: int
    IH: int
    IW: int
    IC: int
    OH: int
    OW: int
    OC: int
    KH: int
    KW: int
    G: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_top: int
    pad_left: int
    OUT_H: int
    OUT_W: int
    start_h: int
    start_w: int
    step_h: int
    step_w: int

    @property
    def flops(self) -> int:
        """Multiplications and additions of the plain sum."""
        return 2 * self.N * self.OH * self.OW * self.OC * self.KH * self.KW * (self.IC // self.G)


@lru_cache(maxsize=1024)
def as_product(shape: ConvShape) -> ConvShape:
    """A 1x1 convolution without stride and padding is a product of matrices: all its pixels as one long row.

    There are no row ends for a kernel to look after then.  Other shapes are returned as they are.
    """
    s = shape
    one_to_one = (s.N, s.IH, s.IW) == (s.N, s.OH, s.OW) == (s.N, s.OUT_H, s.OUT_W)
    if (s.KH, s.KW, s.stride_h, s.stride_w, s.pad_top, s.pad_left) != (1, 1, 1, 1, 0, 0) or not one_to_one:
        return shape
    pixels = s.N * s.OH * s.OW
    # a phase may have steps, which a row or column of one pixel never takes
    return s._replace(N=1, IH=1, IW=pixels, OH=1, OW=pixels, OUT_H=1, OUT_W=pixels, step_h=1, step_w=1)


@lru_cache(maxsize=1024)
def forward_shape(geometry: Conv2dGeometry) -> ConvShape:
    """The forward convolution itself."""
    g = geometry
    return ConvShape(
        *(g.N, g.IH, g.IW, g.IC, g.OH, g.OW, g.OC, g.KH, g.KW, g.G),
        *(*g.stride, *g.dilation, g.padding[0][0], g.padding[1][0]),
        *(g.OH, g.OW, 0, 0, 1, 1),
    )


class Phase(NamedTuple):
    """The pixels of x that lie at one offset modulo the stride, and the taps of the kernel that reach them."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    shape: ConvShape


class _PhaseOfAxis(NamedTuple):
    """One axis of a phase: *pixels* from *start* on, one stride apart, and the taps that reach them."""

    start: int
    pixels: int
    taps: NDArray[np.int64]
    dilation: int
    pad: int


def _phases_of_axis(extent: int, kernel: int, stride: int, dilation: int, pad: int) -> Iterator[_PhaseOfAxis]:
    """Input pixel i receives tap k from output pixel o = (i + pad - k * dilation) / stride, where that is whole.

    All pixels of one phase, i = start + stride * j, have the same taps: a convolution of stride 1 over grad_out with
    the taps in reverse order.
    """
    for start in range(min(stride, extent)):
        pixels = -(-(extent - start) // stride)
        taps = np.array([k for k in reversed(range(kernel)) if (start + pad - k * dilation) % stride == 0], np.int64)
        first_read = (start + pad - int(taps[0]) * dilation) // stride if taps.size else 0
        yield _PhaseOfAxis(start, pixels, taps, dilation // gcd(stride, dilation), -first_read)


@lru_cache(maxsize=1024)
def phases(geometry: Conv2dGeometry) -> tuple[Phase, ...]:
    """The gradient with respect to x as forward convolutions over grad_out, one for each offset modulo the stride."""
    g = geometry
    found = []
    for h in _phases_of_axis(g.IH, g.KH, g.stride[0], g.dilation[0], g.padding[0][0]):
        for w in _phases_of_axis(g.IW, g.KW, g.stride[1], g.dilation[1], g.padding[1][0]):
            shape = ConvShape(
                *(g.N, g.OH, g.OW, g.OC, h.pixels, w.pixels, g.IC),
                *(h.taps.size, w.taps.size, g.G),
                *(1, 1, h.dilation, w.dilation, h.pad, w.pad),
                *(g.IH, g.IW, h.start, w.start, *g.stride),
            )
            found.append(Phase(h.taps, w.taps, shape))
    return tuple(found)


def numbers_of(*parts: Any) -> NDArray[np.int64]:
    """A shape, a plan and whatever is a NamedTuple of ints as one array.

    Python hands it to a kernel 5 microseconds faster.
    """
    return np.array([number for part in parts for number in part], np.int64)


def named_as(*kinds: Any) -> Any:
    """What takes the array of `numbers_of` apart again inside a kernel, given the classes of the parts."""
    parts = types.Tuple([types.NamedUniTuple(types.intp, len(kind._fields), kind) for kind in kinds])

    @intrinsic
    def named(typingctx: Any, numbers: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            positions = count()
            values = [
                context.make_tuple(
                    builder, part, [builder.load(cgutils.gep(builder, array.data, next(positions))) for _ in part]
                )
                for part in parts
            ]
            return context.make_tuple(builder, parts, values)

        return parts(numbers), generate

    return named
