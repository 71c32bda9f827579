"""The shape of a problem: normalised, validated, and with its output sizes, once and for all.

Everything that a caller may write in several ways (``2``, ``(2, 2)``, ``"same"``) becomes one form here, and every
shape error is raised here.  Reference, kernels, tests and benches take the geometry and never look at the arguments
again.

Extents are upper case: ``N`` images, ``IC x IH x IW`` in, ``OC x OH x OW`` out, kernel ``KH x KW``, ``G`` groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from operator import index
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

_Geometry = TypeVar("_Geometry")

Pair = tuple[int, int]
Sides = tuple[tuple[int, int], tuple[int, int]]
#: What a caller may pass for a stride, a dilation or a window.
IntOrPair = int | Sequence[int]
#: What a caller may pass for a padding.
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


def pair(name: str, value: Any, minimum: int = 1) -> Pair:
    """``3 -> (3, 3)``, ``(2, 3) -> (2, 3)``; every number at least *minimum*."""
    try:
        numbers = (index(value),) * 2 if not isinstance(value, Sequence) else tuple(index(item) for item in value)
    except TypeError:
        raise TypeError(f"{name} must be an int or a pair of ints. Received: {name}={value!r}") from None
    if len(numbers) != 2 or min(numbers) < minimum:
        raise ValueError(f"{name} must be an int or a pair of ints, each >= {minimum}. Received: {name}={value!r}")
    return numbers


def sides(padding: Any, extent: Pair, window: Pair, stride: Pair, dilation: Pair) -> Sides:
    """Padding as ``((top, bottom), (left, right))``.

    ``"same"`` is TensorFlow's rule: ``ceil(extent / stride)`` outputs, the odd pixel at the end; ``"same_lower"`` puts
    it at the beginning; ``"valid"`` is no padding.
    """
    if isinstance(padding, str):
        rule = padding.lower()
        if rule == "valid":
            return (0, 0), (0, 0)
        if rule not in ("same", "same_lower"):
            raise ValueError(
                f'padding must be "valid", "same", "same_lower", an int, (h, w) or ((top, bottom), (left, right)). '
                f"Received: padding={padding!r}"
            )
        both = []
        for size, k, s, d in zip(extent, window, stride, dilation, strict=True):
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            smaller, larger = total // 2, total - total // 2
            both.append((smaller, larger) if rule == "same" else (larger, smaller))
        return both[0], both[1]
    if isinstance(padding, Sequence) and len(padding) == 2 and all(isinstance(side, Sequence) for side in padding):
        return pair("padding[0]", padding[0], 0), pair("padding[1]", padding[1], 0)
    vertical, horizontal = pair("padding", padding, 0)
    return (vertical, vertical), (horizontal, horizontal)


def looked_up(compute: Callable[..., _Geometry]) -> Callable[..., _Geometry]:
    """Cache a geometry by its arguments, whose lists and arrays become tuples first."""
    cached = lru_cache(maxsize=4096, typed=True)(compute)

    @wraps(compute)
    def look_up(*arguments: Any) -> _Geometry:
        try:
            return cached(*arguments)
        except TypeError:
            tuples = _hashable(arguments)
            if tuples is arguments:  # they could be looked up: it is an argument of the wrong type
                raise
            return cached(*tuples)

    return look_up


def _hashable(value: Any) -> Any:
    """Lists and arrays as tuples; anything else, and tuples without them, as it is."""
    try:
        hash(value)
    except TypeError:
        items = value.tolist() if isinstance(value, np.ndarray) else value
        return tuple(_hashable(item) for item in items) if isinstance(items, list | tuple) else items
    return value


def image_shape(name: str, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The four extents of a batch of images."""
    if len(shape) != 4:
        raise ValueError(f"{name} must have 4 dimensions, or 3 without the batch axis. Received: {name}.shape={shape}")
    N, IH, IW, C = map(index, shape)
    return N, IH, IW, C


@dataclass(frozen=True, eq=False)
class Conv2dGeometry:
    """One two-dimensional convolution: ``x`` (N, IH, IW, IC), ``weight`` (KH, KW, IC / G, OC), ``out`` (N, OH, OW, OC).

    ``OH = (IH + top + bottom - (KH - 1) * dilation - 1) // stride + 1``, and the same for ``OW``.  Equal problems are
    one object (`_problem`), so that what belongs to a geometry is looked up by its identity.
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
    stride: Pair
    dilation: Pair
    padding: Sides

    @cached_property
    def x_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.IH, self.IW, self.IC

    @cached_property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return self.KH, self.KW, self.IC // self.G, self.OC

    @cached_property
    def out_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.OH, self.OW, self.OC

    @cached_property
    def flops(self) -> int:
        """Multiplications and additions of the plain sum, the products with padding included."""
        return 2 * self.N * self.OH * self.OW * self.OC * self.KH * self.KW * (self.IC // self.G)

    @property
    def is_depthwise(self) -> bool:
        """Every group has one input channel."""
        return self.G == self.IC and self.G > 1

    def bytes(self, itemsize: int) -> int:
        """Input, weight and output, each moved once."""
        numbers = self.N * self.IH * self.IW * self.IC + self.N * self.OH * self.OW * self.OC
        return itemsize * (numbers + self.KH * self.KW * (self.IC // self.G) * self.OC)

    def __str__(self) -> str:
        """One line that names the problem and can be typed back in."""
        return (
            f"x={self.x_shape} weight={self.weight_shape} out={self.out_shape} "
            f"stride={self.stride} padding={self.padding} dilation={self.dilation} groups={self.G}"
        )


_problem = lru_cache(maxsize=4096)(Conv2dGeometry)


def conv2d_geometry(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Conv2dGeometry:
    """Geometry of the convolution of ``x`` (N, IH, IW, IC) with ``weight`` (KH, KW, IC / groups, OC)."""
    return _conv2d_geometry(x_shape, weight_shape, stride, padding, dilation, groups)


@looked_up
def _conv2d_geometry(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: int
) -> Conv2dGeometry:
    N, IH, IW, IC = image_shape("x", x_shape)
    KH, KW, IC_of_group, OC = _weight_extents(weight_shape)
    groups = _group_count(groups, weight_shape)
    if IC != IC_of_group * groups:
        raise ValueError(
            f"x must have weight.shape[2] * groups = {IC_of_group * groups} channels. "
            f"Received: x.shape={x_shape}, weight.shape={weight_shape}, groups={groups}"
        )
    stride, dilation = pair("stride", stride), pair("dilation", dilation)
    padding = sides(padding, (IH, IW), (KH, KW), stride, dilation)
    OH = (IH + sum(padding[0]) - (KH - 1) * dilation[0] - 1) // stride[0] + 1
    OW = (IW + sum(padding[1]) - (KW - 1) * dilation[1] - 1) // stride[1] + 1
    if OH < 1 or OW < 1:
        raise ValueError(
            f"the padded image must be at least as large as the dilated kernel. Received: x.shape={x_shape}, "
            f"weight.shape={weight_shape}, padding={padding}, dilation={dilation}"
        )
    return _problem(N, IH, IW, IC, OH, OW, OC, KH, KW, groups, stride, dilation, padding)


def conv_transpose2d_geometry(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    output_padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Conv2dGeometry:
    """Geometry of the convolution whose ``grad_x`` is the transposed convolution of ``x`` with ``weight``.

    Its ``out`` is our ``x`` and its ``x`` is our output, of height
    ``(IH - 1) * stride - top - bottom + (KH - 1) * dilation + 1 + output_padding``, or ``IH * stride`` under
    ``"same"``.
    """
    return _conv_transpose2d_geometry(x_shape, weight_shape, stride, padding, output_padding, dilation, groups)


@looked_up
def _conv_transpose2d_geometry(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Any,
    padding: Any,
    output_padding: Any,
    dilation: Any,
    groups: int,
) -> Conv2dGeometry:
    N, IH, IW, IC = image_shape("x", x_shape)
    KH, KW, OC_of_group, weight_inputs = _weight_extents(weight_shape)
    groups = _group_count(groups, weight_shape)
    if IC != weight_inputs:
        raise ValueError(
            f"x must have weight.shape[3] = {weight_inputs} channels. "
            f"Received: x.shape={x_shape}, weight.shape={weight_shape}"
        )
    stride, dilation = pair("stride", stride), pair("dilation", dilation)
    extra = pair("output_padding", output_padding, 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(
            f"output_padding must be smaller than stride or dilation. "
            f"Received: output_padding={output_padding!r}, stride={stride}, dilation={dilation}"
        )
    if isinstance(padding, str) and padding.lower() != "valid":
        if any(extra):
            raise ValueError(
                f'output_padding must be 0 with padding="same", which fixes the output size. '
                f"Received: output_padding={output_padding!r}, padding={padding!r}"
            )
        OH, OW = IH * stride[0], IW * stride[1]
        padding = sides(padding, (OH, OW), (KH, KW), stride, dilation)
    else:
        padding = sides(padding, (IH, IW), (KH, KW), stride, dilation)
        OH = (IH - 1) * stride[0] - sum(padding[0]) + (KH - 1) * dilation[0] + 1 + extra[0]
        OW = (IW - 1) * stride[1] - sum(padding[1]) + (KW - 1) * dilation[1] + 1 + extra[1]
    if OH < 1 or OW < 1:
        raise ValueError(
            f"padding must leave at least one output pixel. "
            f"Received: x.shape={x_shape}, weight.shape={weight_shape}, padding={padding}"
        )
    return _problem(N, OH, OW, OC_of_group * groups, IH, IW, IC, KH, KW, groups, stride, dilation, padding)


def _weight_extents(weight_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    if len(weight_shape) != 4 or min(weight_shape) < 1:
        raise ValueError(
            f"weight must have 4 dimensions (KH, KW, IC / groups, OC), none of them 0. "
            f"Received: weight.shape={weight_shape}"
        )
    KH, KW, inputs, outputs = map(index, weight_shape)
    return KH, KW, inputs, outputs


def _group_count(groups: Any, weight_shape: tuple[int, ...]) -> int:
    try:
        count = index(groups)
    except TypeError:
        raise TypeError(f"groups must be an int. Received: groups={groups!r}") from None
    if count < 1 or weight_shape[3] % count:
        raise ValueError(
            f"groups must be a positive int that divides weight.shape[3]. "
            f"Received: groups={groups!r}, weight.shape={weight_shape}"
        )
    return count


class AxisWindows(NamedTuple):
    """All windows along one axis, inside the image: output ``o`` sees ``range(start[o], stop[o], step)``."""

    #: What a kernel receives: for each window its first pixel, how many pixels it holds, and what an average divides
    #: by, which may include padding; the range never does.
    table: NDArray[np.int64]
    step: int
    #: Pixels in the largest window, and in all windows together.
    largest: int
    total: int

    @property
    def outputs(self) -> int:
        return int(self.table.shape[1])

    @property
    def start(self) -> NDArray[np.int64]:
        first: NDArray[np.int64] = self.table[0]
        return first

    @property
    def stop(self) -> NDArray[np.int64]:
        end: NDArray[np.int64] = self.table[0] + self.table[1] * self.step
        return end

    @property
    def counts(self) -> NDArray[np.int64]:
        divisors: NDArray[np.int64] = self.table[2]
        return divisors

    def divided_by(self, counts: NDArray[np.int64]) -> AxisWindows:
        """The same windows with other counts."""
        table = self.table.copy()
        table[2] = counts
        table.setflags(write=False)
        return self._replace(table=table)


@dataclass(frozen=True, eq=False)
class Pool2dGeometry:
    """One two-dimensional pooling: ``x`` (N, IH, IW, C), ``out`` (N, OH, OW, C).

    A window is a range of rows times a range of columns, so two tables describe every kind of pooling: with padding,
    dilation and ceil_mode, adaptive, and global.
    """

    N: int
    IH: int
    IW: int
    C: int
    OH: int
    OW: int
    rows: AxisWindows
    columns: AxisWindows
    arguments: str

    @cached_property
    def x_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.IH, self.IW, self.C

    @cached_property
    def out_shape(self) -> tuple[int, int, int, int]:
        return self.N, self.OH, self.OW, self.C

    def bytes(self, itemsize: int) -> int:
        """Input and output, each moved once."""
        return itemsize * self.N * self.C * (self.IH * self.IW + self.OH * self.OW)

    def __str__(self) -> str:
        """One line that names the problem and can be typed back in."""
        return f"x={self.x_shape} out={self.out_shape} {self.arguments}"


def pool2d_geometry(
    x_shape: tuple[int, ...],
    kernel_size: IntOrPair,
    *,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Pool2dGeometry:
    """Geometry of pooling ``x`` (N, IH, IW, C) with windows of *kernel_size*; *stride* is *kernel_size* by default.

    ``OH = (IH + top + bottom - (KH - 1) * dilation - 1) // stride + 1``, and the same for ``OW``.  With *ceil_mode* the
    division rounds up, but a window that would start in the bottom or right padding is dropped.
    """
    step = kernel_size if stride is None else stride
    return _pool2d_geometry(x_shape, kernel_size, step, padding, dilation, bool(ceil_mode), bool(count_include_pad))


@looked_up
def _pool2d_geometry(
    x_shape: tuple[int, ...],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Pool2dGeometry:
    N, IH, IW, C = image_shape("x", x_shape)
    kernel_size, stride, dilation = pair("kernel_size", kernel_size), pair("stride", stride), pair("dilation", dilation)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel_size, dilation, strict=True))
    both = sides(padding, (IH, IW), kernel_size, stride, dilation)
    if not isinstance(padding, str) and any(max(side) > r // 2 for side, r in zip(both, reach, strict=True)):
        raise ValueError(
            f"padding must be at most half of the dilated kernel on each side. "
            f"Received: padding={padding!r}, kernel_size={kernel_size}, dilation={dilation}"
        )
    received = f"x.shape={x_shape}, kernel_size={kernel_size}, stride={stride}, padding={both}, dilation={dilation}"
    tables = []
    for extent, r, s, d, (before, after) in zip((IH, IW), reach, stride, dilation, both, strict=True):
        outputs = (extent + before + after - r + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (outputs - 1) * s >= extent + before:
            outputs -= 1
        if extent < 1 or outputs < 1:
            raise ValueError(f"the padded image must be at least as large as the dilated kernel. Received: {received}")
        first = np.arange(outputs) * s - before
        end = first + r
        # a window that begins in the padding has its first pixel a multiple of the dilation further on
        start = first + -(np.minimum(first, 0) // d) * d
        stop = np.minimum(end, extent)
        if np.any(start >= stop):
            raise ValueError(f"every window must hold a pixel of the image. Received: {received}")
        counted = np.minimum(end, extent + after) - first if count_include_pad else stop - start
        tables.append(_axis_windows(start, stop, -(-counted // d), d))
    rows, columns = tables
    arguments = (
        f"kernel_size={kernel_size} stride={stride} padding={both} dilation={dilation} "
        f"ceil_mode={ceil_mode} count_include_pad={count_include_pad}"
    )
    return Pool2dGeometry(N, IH, IW, C, rows.outputs, columns.outputs, rows, columns, arguments)


@lru_cache(maxsize=4096)
def adaptive_pool2d_geometry(x_shape: tuple[int, ...], output_size: Pair) -> Pool2dGeometry:
    """Geometry of pooling ``x`` (N, IH, IW, C) to *output_size*.

    Window ``oh`` holds the rows from ``floor(oh * IH / OH)`` up to, not with, ``ceil((oh + 1) * IH / OH)``.
    """
    N, IH, IW, C = image_shape("x", x_shape)
    if IH < 1 or IW < 1:
        raise ValueError(f"x must have at least one pixel. Received: x.shape={x_shape}")
    OH, OW = output_size
    tables = []
    for extent, outputs in ((IH, OH), (IW, OW)):
        o = np.arange(outputs)
        start, stop = o * extent // outputs, -(-(o + 1) * extent // outputs)
        tables.append(_axis_windows(start, stop, stop - start, 1))
    return Pool2dGeometry(N, IH, IW, C, OH, OW, tables[0], tables[1], f"output_size={output_size}")


@lru_cache(maxsize=256)
def single_pixels(extent: int) -> AxisWindows:
    """Windows of one pixel each: the table of an axis that is not pooled."""
    pixels = np.arange(extent)
    return _axis_windows(pixels, pixels + 1, np.ones_like(pixels), 1)


def covering_windows(windows: AxisWindows, extent: int, count: int = 1) -> AxisWindows:
    """The table read the other way: for each pixel of an axis, the range of windows that hold it, and *count*.

    The windows must have no gaps (``step == 1``); then both their ends never decrease, so the range has no gaps either.
    """
    pixels = np.arange(extent)
    start = np.searchsorted(windows.stop, pixels, side="right")
    stop = np.searchsorted(windows.start, pixels, side="right")
    return _axis_windows(start, stop, np.full_like(pixels, count), 1)


@lru_cache(maxsize=1024)
def windows_of_pixels(geometry: Pool2dGeometry) -> tuple[AxisWindows, AxisWindows, bool]:
    """Both tables of a geometry, which is one object for equal problems, read the other way; whether counts differ.

    Where all windows of an axis divide by the same count, so do these.
    """
    axes = ((geometry.rows, geometry.IH), (geometry.columns, geometry.IW))
    differ = any(np.ptp(windows.counts) for windows, _ in axes)
    rows, columns = (
        covering_windows(windows, extent, 1 if differ else int(windows.counts[0])) for windows, extent in axes
    )
    return rows, columns, differ


def _axis_windows(start: Any, stop: Any, counts: Any, step: int) -> AxisWindows:
    """Tables are shared between calls, so they are made read-only; kernels compile for that one type."""
    pixels = -((start - stop) // step)
    table = np.array((start, pixels, counts), np.int64)
    table.setflags(write=False)
    return AxisWindows(table, step, int(pixels.max()), int(pixels.sum()))
