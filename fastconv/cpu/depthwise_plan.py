"""A depthwise pass as tables: which taps each row and each run of pixels sees, and where they are read.

One kernel then serves the forward pass and grad_x for any padding, stride and dilation; all phases of a stride are
computed in one pass over grad_x.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.geometry import Conv2dGeometry


class _Axis(NamedTuple):
    """One axis of a depthwise pass, read from *source* pixels into *target* pixels.

    ``runs`` has a row (target, pixels, source, tap, taps) for each run of target pixels that see the same taps of the
    kernel: its pixels lie at ``target + j * target_step``; the taps are ``tap + k * tap_step`` for k < taps, and pixel
    j reads the source at ``source + j * source_step + k * dilation`` for tap k.
    """

    runs: NDArray[np.int64]
    source_step: int
    target_step: int
    dilation: int
    tap_step: int


class Plan(NamedTuple):
    """A depthwise pass: ``lines[row] = (source row, tap, taps)`` for each row of the target, and runs of columns.

    Flat, because Numba takes no tuple inside a tuple into a parallel loop.
    """

    N: int
    SOURCE_H: int
    SOURCE_W: int
    TARGET_H: int
    TARGET_W: int
    C: int
    KH: int
    KW: int
    lines: NDArray[np.int64]
    dilation_h: int
    tap_step_h: int
    runs: NDArray[np.int64]
    source_step: int
    target_step: int
    dilation_w: int
    tap_step_w: int


Row = tuple[int, int, int, int, int]


def _runs(
    first: int, step: int, pixels: int, source: int, stride: int, extent: int, taps: range, dilation: int
) -> Iterator[Row]:
    """Runs of the *pixels* from *first* on; pixel j reads tap number k at ``source + j * stride + k * dilation``."""

    def seen(j: int) -> tuple[int, int]:
        start = source + j * stride
        low = max(0, -(start // dilation))
        return low, max(low, min(len(taps), -(-(extent - start) // dilation)))

    for (low, high), group in groupby(range(pixels), seen):
        run = list(group)
        tap = taps[low] if high > low else 0
        yield first + run[0] * step, len(run), source + run[0] * stride + low * dilation, tap, high - low


def _forward_axis(source: int, target: int, kernel: int, stride: int, dilation: int, pad: int) -> _Axis:
    runs = list(_runs(0, 1, target, -pad, stride, source, range(kernel), dilation))
    return _Axis(_table(runs), stride, 1, dilation, 1)


def _grad_x_axis(source: int, target: int, kernel: int, stride: int, dilation: int, pad: int) -> _Axis:
    """Pixel i of x receives tap k from pixel o = (i + pad - k * dilation) / stride of grad_out, where that is whole.

    All pixels of one phase, i = phase + stride * j, have the same taps, every stride / gcd(stride, dilation)-th one:
    a convolution of stride 1 over grad_out with these taps in reverse order.
    """
    runs: list[Row] = []
    common = gcd(stride, dilation)
    for phase in range(min(stride, target)):
        met = [k for k in range(kernel) if (phase + pad - k * dilation) % stride == 0]
        taps = range(met[-1], -1, -(stride // common)) if met else range(0)
        first_read = (phase + pad - taps[0] * dilation) // stride if met else 0
        pixels = -(-(target - phase) // stride)
        runs += _runs(phase, stride, pixels, first_read, 1, source, taps, dilation // common)
    return _Axis(_table(runs), 1, stride, dilation // common, -(stride // common))


def _table(rows: Any) -> NDArray[np.int64]:
    table = np.array(rows, np.int64)
    table.setflags(write=False)
    return table


def _lines(axis: _Axis) -> NDArray[np.int64]:
    """(source, tap, taps) for each target pixel of an axis in turn."""
    lines = {
        target + j * axis.target_step: (source + j * axis.source_step, tap, taps)
        for target, pixels, source, tap, taps in axis.runs.tolist()
        for j in range(pixels)
    }
    return _table([lines[target] for target in sorted(lines)])


@lru_cache(maxsize=1024)
def forward_plan(geometry: Conv2dGeometry) -> Plan:
    """x is the source, out the target."""
    g = geometry
    rows = _forward_axis(g.IH, g.OH, g.KH, g.stride[0], g.dilation[0], g.padding[0][0])
    columns = _forward_axis(g.IW, g.OW, g.KW, g.stride[1], g.dilation[1], g.padding[1][0])
    sizes = g.N, g.IH, g.IW, g.OH, g.OW, g.OC, g.KH, g.KW
    return Plan(*sizes, _lines(rows), rows.dilation, rows.tap_step, *columns)


@lru_cache(maxsize=1024)
def grad_x_plan(geometry: Conv2dGeometry) -> Plan:
    """grad_out is the source, grad_x the target."""
    g = geometry
    rows = _grad_x_axis(g.OH, g.IH, g.KH, g.stride[0], g.dilation[0], g.padding[0][0])
    columns = _grad_x_axis(g.OW, g.IW, g.KW, g.stride[1], g.dilation[1], g.padding[1][0])
    sizes = g.N, g.OH, g.OW, g.IH, g.IW, g.OC, g.KH, g.KW
    return Plan(*sizes, _lines(rows), rows.dilation, rows.tap_step, *columns)


def repeated(geometry: Conv2dGeometry, x: NDArray[Any]) -> NDArray[Any]:
    """x with each channel as often as it has kernels, so that channel oc of x meets channel oc of the weight."""
    multiplier = geometry.OC // geometry.IC
    return x if multiplier == 1 else np.repeat(x, multiplier, axis=-1)
