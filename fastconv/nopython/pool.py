"""Pooling in compiled code."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import overload
from numba.np.numpy_support import from_dtype

from fastconv import _jit
from fastconv.arrays import IMAGES, image_format
from fastconv.cpu.pool_average import average_serial
from fastconv.cpu.pool_max import extreme_serial
from fastconv.cpu.shape import named_as
from fastconv.functional import (
    avg_pool2d,
    global_avg_pool2d,
    global_max_pool2d,
    max_pool2d,
    min_pool2d,
)
from fastconv.geometry import Pool2dGeometry, adaptive_pool2d_geometry, pair, pool2d_geometry
from fastconv.nopython.arguments import (
    as_row,
    check_array,
    exchanged,
    extents,
    is_given,
    is_true,
    leave,
    numbers,
    read_only,
    result_of,
    row,
)
from fastconv.nopython.calls import body_at, call, plans, record

_LARGEST, _SMALLEST, _AVERAGE = 1, -1, 0


class Head(NamedTuple):
    """The first numbers of a record; the tables of rows and columns (`geometry.AxisWindows`) are the rest."""

    #: Address of `pool2d_of_record`, and the result in the caller's layout.
    entry: int
    extent_0: int
    extent_1: int
    extent_2: int
    extent_3: int
    channels_first: int
    N: int
    IH: int
    IW: int
    OH: int
    OW: int
    C: int
    #: The largest pixel of a window (1), the smallest (-1) or their average (0), and the address of its driver.
    kind: int
    driver: int
    row_step: int
    column_step: int


_head = named_as(Head)
_FIELDS = len(Head._fields)
#: Extents of a table: first pixel, pixels and divisor of each window.
_ROWS_OF_TABLE = 3


# ---- in Python: the record of a problem -----------------------------------------------------------------------------


@plans("pool2d")
def _windows_record(
    dtype: str, kind: int, x_shape: tuple[int, ...], out_shape: tuple[int, ...], layout: str, windows: tuple[Any, ...]
) -> tuple[Any, ...]:
    kernel_size, stride, padding, dilation, ceil_mode, count_include_pad = windows

    def geometry(shape: tuple[int, ...]) -> Pool2dGeometry:
        return pool2d_geometry(
            shape,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )

    return _parts(dtype, kind, x_shape, out_shape, layout, geometry)


@plans("adaptive_pool2d")
def _adaptive_record(
    dtype: str, kind: int, x_shape: tuple[int, ...], out_shape: tuple[int, ...], layout: str, output_size: Any
) -> tuple[Any, ...]:
    size = pair("output_size", output_size)
    return _parts(dtype, kind, x_shape, out_shape, layout, lambda shape: adaptive_pool2d_geometry(shape, size))


def _parts(
    dtype: str, kind: int, x_shape: tuple[int, ...], out_shape: tuple[int, ...], layout: str, geometry_of: Any
) -> tuple[Any, ...]:
    # an array of this shape that takes no memory
    images = image_format("x", np.broadcast_to(np.dtype(dtype).type(0), x_shape), layout, IMAGES)
    g = geometry_of(images.nhwc("x.shape", x_shape))
    if out_shape and images.nhwc("out.shape", out_shape) != g.out_shape:
        raise ValueError(f"out must have the shape of the result, NHWC {g.out_shape}. Received: out.shape={out_shape}")
    number = from_dtype(np.dtype(dtype))
    flat, plane = types.Array(number, 1, "C"), types.Array(number, 4, "C")
    flat_indices, indices = types.Array(types.int64, 1, "C"), types.Array(types.int64, 4, "C")
    table = types.Array(types.int64, 2, "C", readonly=True)
    if kind == _AVERAGE:
        driver = _jit.address_of(average_serial, (plane, table, table, plane, types.int64))
    else:
        steps = types.int64, types.int64
        driver = _jit.address_of(extreme_serial, (plane, table, table, *steps, number, plane, indices, types.int64))
    entry = _jit.address_of(pool2d_of_record, (types.int64, flat, flat, flat_indices))
    shape = g.out_shape if images.channels_last else (g.N, g.C, g.OH, g.OW)
    call_extents = not images.channels_last, g.N, g.IH, g.IW, g.OH, g.OW, g.C
    head = Head._make((entry, *shape, *call_extents, kind, driver, g.rows.step, g.columns.step))
    return head, g.rows.table, g.columns.table


# ---- in compiled code -----------------------------------------------------------------------------------------------


@_jit.kernel
def pool2d_of_record(address, x, out, indices):
    """Compute what the record at *address* says, in one pass; arrays are flat, *indices* empty where not wanted."""
    body = body_at(address)
    (head,) = _head(body)
    columns_at = _FIELDS + _ROWS_OF_TABLE * head.OH
    rows = read_only(body[_FIELDS:columns_at].reshape((_ROWS_OF_TABLE, head.OH)))
    columns = read_only(body[columns_at:].reshape((_ROWS_OF_TABLE, head.OW)))
    pixels = head.OH * head.OW
    result, places = out, indices
    if head.channels_first:
        x = exchanged(x, head.N, head.C, head.IH * head.IW)
        result, places = np.empty_like(out), np.empty_like(indices)
    images = x.reshape((head.N, head.IH, head.IW, head.C))
    shape = head.N, head.OH, head.OW, head.C
    tasks = head.N * head.OH
    if head.kind == _AVERAGE:
        call(head.driver, (images, rows, columns, result.reshape(shape), tasks))
    else:
        wanted = shape if indices.size > 0 else (0, 0, 0, 0)
        sign = out.dtype.type(head.kind)
        steps = head.row_step, head.column_step
        call(
            head.driver,
            (images, rows, columns, steps[0], steps[1], sign, result.reshape(shape), places.reshape(wanted), tasks),
        )
    if head.channels_first:
        out[:] = exchanged(result, head.N, pixels, head.C)
        indices[:] = exchanged(places, head.N if indices.size > 0 else 0, pixels, head.C)


@_jit.inline
def _run(address, x, wanted):
    """The result of a record, and the positions of its pixels where they are *wanted*, else an empty array."""
    (head,) = _head(body_at(address))
    shape = head.extent_0, head.extent_1, head.extent_2, head.extent_3
    result = result_of(shape, x, x.dtype)
    indices = result_of(shape if wanted else (0, 0, 0, 0), x, np.int64)
    if result.size > 0:
        call(head.entry, (address, row(x, x), as_row(result, result.size), as_row(indices, indices.size)))
    return result, indices


@_jit.inline
def _alone(result, indices):
    return result


@_jit.inline
def _both(result, indices):
    return result, indices


def _check(x: Any, out: Any = None) -> None:
    check_array("x", x, (3, 4))
    if is_given(out):
        check_array("out", out, (x.ndim,), x)


def _extreme_of(kind: int) -> Any:
    """The overload of `max_pool2d` or `min_pool2d`."""

    def typed(
        x,
        kernel_size,
        stride=None,
        padding=0,
        dilation=1,
        ceil_mode=False,
        return_indices=False,
        layout="NHWC",
        out=None,
    ):
        _check(x, out)
        dtype, wanted = str(x.dtype), is_true("return_indices", return_indices)
        answer = _both if wanted else _alone

        def pool(
            x,
            kernel_size,
            stride=None,
            padding=0,
            dilation=1,
            ceil_mode=False,
            return_indices=False,
            layout="NHWC",
            out=None,
        ):
            windows = kernel_size, stride, padding, dilation, ceil_mode, True
            key = (
                *(np.int64(kind), *x.shape, *extents(out), *numbers(layout), *numbers(kernel_size), *numbers(stride)),
                *(*numbers(padding), *numbers(dilation), *numbers(ceil_mode)),
            )
            address = record("pool2d", dtype, key, (kind, x.shape, extents(out), layout, windows))
            result, indices = _run(address, x, wanted)
            return answer(leave(result, out), indices)

        return pool

    return typed


overload(max_pool2d)(_extreme_of(_LARGEST))
overload(min_pool2d)(_extreme_of(_SMALLEST))


@overload(avg_pool2d)
def _avg_pool2d(
    x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, layout="NHWC", out=None
):
    _check(x, out)
    dtype = str(x.dtype)

    def pool(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, layout="NHWC", out=None):
        windows = kernel_size, stride, padding, 1, ceil_mode, count_include_pad
        key = (
            *(*x.shape, *extents(out), *numbers(layout), *numbers(kernel_size), *numbers(stride)),
            *(*numbers(padding), *numbers(ceil_mode), *numbers(count_include_pad)),
        )
        address = record("pool2d", dtype, key, (_AVERAGE, x.shape, extents(out), layout, windows))
        result, _ = _run(address, x, False)
        return leave(result, out)

    return pool


def _global_of(kind: int, x: Any, keepdims: Any) -> Any:
    """Compiled code of `global_max_pool2d` or `global_avg_pool2d` for these types."""
    _check(x)
    dtype = str(x.dtype)
    arranged = _as_it_is if is_true("keepdims", keepdims) else _channels_only

    @_jit.inline
    def pool(x, layout):
        key = (np.int64(kind), *x.shape, *numbers(layout))
        address = record("adaptive_pool2d", dtype, key, (kind, x.shape, (), layout, 1))
        result, _ = _run(address, x, False)
        return arranged(result)

    return pool


@_jit.inline
def _as_it_is(result):
    return result


def _channels_only(result):
    """Stands for compiled code: a global result without the two axes of length 1."""
    raise NotImplementedError


@overload(_channels_only)
def _channels_only_of(result):
    if result.ndim == len("HWC"):
        return lambda result: as_row(result, result.size)
    return lambda result: result.reshape((result.shape[0], result.shape[1] * result.shape[2] * result.shape[3]))


@overload(global_max_pool2d)
def _global_max_pool2d(x, keepdims=False, return_indices=False, layout="NHWC"):
    if is_true("return_indices", return_indices):
        raise TypingError("in compiled code global_max_pool2d returns no indices; max_pool2d does")
    pool = _global_of(_LARGEST, x, keepdims)
    return lambda x, keepdims=False, return_indices=False, layout="NHWC": pool(x, layout)


@overload(global_avg_pool2d)
def _global_avg_pool2d(x, keepdims=False, layout="NHWC"):
    pool = _global_of(_AVERAGE, x, keepdims)
    return lambda x, keepdims=False, layout="NHWC": pool(x, layout)
