"""`conv2d` and `dense` in compiled code."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload
from numba.np.numpy_support import from_dtype
from numpy.typing import NDArray

from fastconv import _jit
from fastconv.arrays import IMAGES, image_format, weight_shape_in
from fastconv.cpu import (
    conv_depthwise,
    conv_direct,
    conv_first,
    conv_last,
    conv_winograd,
    depthwise_plan,
    winograd_plan,
)
from fastconv.cpu.activation import activation_code
from fastconv.cpu.direct_plan import Way, forward_ways
from fastconv.cpu.shape import forward_shape, named_as
from fastconv.dispatch import choose
from fastconv.functional.conv import bias_in, conv2d
from fastconv.functional.dense import check_shapes, dense, product_geometry
from fastconv.geometry import Conv2dGeometry, conv2d_geometry
from fastconv.memory import ALIGNMENT
from fastconv.nopython.arguments import (
    as_row,
    check_array,
    exchanged,
    extents,
    is_given,
    leave,
    numbers,
    read_only,
    result_of,
    row,
)
from fastconv.nopython.calls import address_of_record, body_at, call, plans, record

Shapes = tuple[tuple[int, ...], ...]

_DIRECT, _WINOGRAD, _FIRST, _LAST, _DEPTHWISE = range(5)
# A call computes on the thread that makes it.
_ONE_THREAD = 1
# Types of the kernels' tables.
_TABLE = types.Array(types.int64, 1, "C")
_AXIS = types.Array(types.int64, 2, "C", readonly=True)
_PLAN = types.NamedTuple(
    [_AXIS if name in ("lines", "runs") else types.int64 for name in depthwise_plan.Plan._fields], depthwise_plan.Plan
)


class Head(NamedTuple):
    """The first numbers of a record: the result, and which kernel computes it from what."""

    #: Address of `conv2d_forward_of_record`.
    entry: int
    #: The result in the caller's layout.
    extent_0: int
    extent_1: int
    extent_2: int
    extent_3: int
    channels_first: int
    N: int
    IC: int
    OH: int
    OW: int
    OC: int
    G: int
    activation: int
    #: One of the kinds above, and the address of its driver.
    kind: int
    driver: int
    #: Numbers of the packed weight, and of the other memory that a call needs.
    packed: int
    memory: int
    #: Numbers of shape and plan; the table is the rest.
    numbers: int


class Step(NamedTuple):
    """What computes a problem, as in `Head`, and the arrays that it needs."""

    kind: int
    driver: int
    packed: int
    memory: int
    numbers: Any
    table: NDArray[np.int64]


_head = named_as(Head)
_FIELDS = len(Head._fields)
_EMPTY = np.empty(0, np.int64)

#: The step of an empty batch, which no kernel is called for.
_NOTHING = Step(-1, 0, 0, 0, (), _EMPTY)


# ---- in Python: the record of a problem -----------------------------------------------------------------------------


def _floats(itemsize: int, count: int) -> tuple[types.Array, ...]:
    """The types of so many flat arrays."""
    return (types.Array(from_dtype(np.dtype(f"f{itemsize}")), 1, "C"),) * count


def _depthwise(geometry: Conv2dGeometry, itemsize: int, activation: int) -> Step:
    plan = depthwise_plan.forward_plan(geometry)
    kinds = (*_floats(itemsize, 5), _PLAN, types.int64, types.int64, types.int64)
    driver = _jit.address_of(conv_depthwise.conv2d_forward_depthwise_serial, kinds)
    plain = [number for number in plan if not isinstance(number, np.ndarray)]
    return Step(_DEPTHWISE, driver, 0, 0, plain, np.concatenate((plan.lines.ravel(), plan.runs.ravel())))


def _winograd(geometry: Conv2dGeometry, itemsize: int, activation: int) -> Step:
    job = winograd_plan.job_of(forward_shape(geometry), itemsize, _ONE_THREAD, False)
    kinds = (*_floats(itemsize, 7), _TABLE, types.int64)
    driver = _jit.address_of(conv_winograd.kernels_of(job)[0], kinds)
    return Step(_WINOGRAD, driver, job.taps, job.workspace, job.numbers, _EMPTY)


def _direct(geometry: Conv2dGeometry, itemsize: int, activation: int) -> Step:
    """Where pixels share vectors (`conv_last`), two more records are the convolution of those and that of each."""
    g = geometry
    ways = forward_ways(g, itemsize, _ONE_THREAD, False)
    if len(ways) == 1:
        return _in_one_way(ways[0], itemsize)
    records = [address_of_record("one way", (), (g, itemsize, way, activation)) for way in range(len(ways))]
    return Step(_LAST, 0, 0, 0, (*records, g.KH, g.KW, g.IC, g.OC, ways[0].pixels, g.stride[1]), _EMPTY)


def _in_one_way(way: Way, itemsize: int) -> Step:
    if way.job is None:
        _, offsets, numbers = conv_first.plan_of(way.shape, itemsize, _ONE_THREAD)
        kinds = (*_floats(itemsize, 5), _TABLE, _TABLE, types.int64)
        driver = _jit.address_of(conv_first.conv2d_forward_first_serial, kinds)
        return Step(_FIRST, driver, 0, 0, numbers, offsets)
    kinds = (*_floats(itemsize, 6), _TABLE, _TABLE, types.int64)
    driver = _jit.address_of(conv_direct.conv2d_forward_direct_serial, kinds)
    return Step(_DIRECT, driver, way.job.packed, 0, way.job.numbers, way.job.pieces)


@plans("one way")
def _way_record(geometry: Conv2dGeometry, itemsize: int, number: int, activation: int) -> tuple[Any, ...]:
    step = _in_one_way(forward_ways(geometry, itemsize, _ONE_THREAD, False)[number], itemsize)
    return _record(itemsize, geometry, geometry.out_shape, False, activation, step)


#: What `dispatch.choose` gives -> what makes the step of a problem.
_STEPS = {conv_depthwise.forward: _depthwise, conv_winograd.forward: _winograd, conv_direct.forward: _direct}


@plans("conv2d")
def _conv2d_record(dtype: str, arrays: Shapes, options: tuple[Any, ...], form: tuple[Any, ...]) -> tuple[Any, ...]:
    x_shape, weight_shape, bias_shape, residual_shape, out_shape = arrays
    stride, padding, dilation, groups = options
    activation, layout, algorithm, precision = form
    kind = np.dtype(dtype)
    # an array of this shape that takes no memory
    images = image_format("x", np.broadcast_to(kind.type(0), x_shape), layout, IMAGES)
    g = conv2d_geometry(
        images.nhwc("x.shape", x_shape),
        weight_shape_in("weight.shape", weight_shape, layout),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    for name, shape in (("residual", residual_shape), ("out", out_shape)):
        if shape and images.nhwc(f"{name}.shape", shape) != g.out_shape:
            raise ValueError(
                f"{name} must have the shape of the result, NHWC {g.out_shape}. Received: {name}.shape={shape}"
            )
    compute = choose("conv2d_forward", g, kind.itemsize, algorithm, None, precision)
    shape = g.out_shape if images.channels_last else (g.N, g.OC, g.OH, g.OW)
    return _parts(g, compute, kind, bias_shape, activation, shape, not images.channels_last)


@plans("dense")
def _dense_record(dtype: str, arrays: Shapes, activation: str | None) -> tuple[Any, ...]:
    x_shape, weight_shape, bias_shape = arrays
    check_shapes(x_shape, weight_shape)
    # of an empty batch one row is planned for, and none computed
    g = product_geometry(max(prod(x_shape[:-1]), 1), *weight_shape)
    kind = np.dtype(dtype)
    compute = choose("conv2d_forward", g, kind.itemsize, "auto")
    return _parts(g, compute, kind, bias_shape, activation, g.out_shape, False)


def _parts(
    g: Conv2dGeometry,
    compute: Any,
    kind: np.dtype[Any],
    bias_shape: tuple[int, ...],
    activation: str | None,
    shape: tuple[int, ...],
    channels_first: bool,
) -> tuple[Any, ...]:
    if bias_shape:
        bias_in(np.empty(bias_shape, kind), g.OC, np.empty(0, kind))
    if compute not in _STEPS:
        raise ValueError("the reference is not compiled code. Received: algorithm='reference'")
    code = activation_code(activation)
    # an empty batch is not computed
    step = _STEPS[compute](g, kind.itemsize, code) if g.N else _NOTHING
    return _record(kind.itemsize, g, shape, channels_first, code, step)


def _record(
    itemsize: int,
    geometry: Conv2dGeometry,
    shape: tuple[int, ...],
    channels_first: bool,
    activation: int,
    step: Step,
) -> tuple[Any, ...]:
    g = geometry
    entry = _jit.address_of(conv2d_forward_of_record, (types.int64, *_floats(itemsize, 5)))
    *fixed, plan, tables = step
    head = Head._make((entry, *shape, channels_first, g.N, g.IC, g.OH, g.OW, g.OC, g.G, activation, *fixed, len(plan)))
    return head, plan, tables


# ---- in compiled code -----------------------------------------------------------------------------------------------


@_jit.inline
def _memory(count, like):
    """*count* numbers of any value, of the dtype of *like*, that begin a cache line."""
    line = ALIGNMENT // like.itemsize
    memory = np.empty(count + line, like.dtype)
    start = -(memory.ctypes.data // like.itemsize) % line
    return memory[start : start + count]


@_jit.inline
def _repeated(x, times):
    """Each number so many times."""
    out = np.empty(x.size * times, x.dtype)
    for i in range(x.size):
        for j in range(times):
            out[i * times + j] = x[i]
    return out


@_jit.inline
def _run_depthwise(driver, n, table, activation, x, weight, bias, residual, out):
    """Channels of x that several kernels read are repeated before."""
    times = n[0] * n[1] * n[2] * n[5] // x.size
    if times > 1:
        x = _repeated(x, times)
    lines, runs = table[: 3 * n[3]].reshape((-1, 3)), table[3 * n[3] :].reshape((-1, 5))
    plan = depthwise_plan.Plan(
        *(n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]),
        *(read_only(lines), n[8], n[9], read_only(runs), n[10], n[11], n[12], n[13]),
    )
    call(driver, (x, weight, bias, residual, out, plan, activation, 1, n[0] * n[3]))


@_jit.inline
def _run_last(entry, n, x, weight, bias, residual, out):
    """Several pixels in each vector, and where that leaves NaN, pixel by pixel."""
    wide, single, KH, KW, IC, OC, pixels, stride_w = n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]
    taps = conv_last.wide_weight(weight, KH, KW, IC, OC, pixels, stride_w)
    call(entry, (wide, x, taps, conv_last.wide_bias(bias, pixels), residual, out))
    if conv_last.has_nan(out):
        call(entry, (single, x, weight, bias, residual, out))


@_jit.kernel
def conv2d_forward_of_record(address, x, weight, bias, residual, out):
    """Compute what the record at *address* says; arrays are flat, in the caller's layout, and empty for None."""
    body = body_at(address)
    (head,) = _head(body)
    numbers, table = body[_FIELDS : _FIELDS + head.numbers], body[_FIELDS + head.numbers :]
    result = out
    if head.channels_first:
        pixels = head.OH * head.OW
        x = exchanged(x, head.N, head.IC, x.size // (head.N * head.IC))
        # (OC, IC, taps) by way of (OC, taps, IC)
        of_group = head.IC // head.G
        weight = exchanged(weight, head.OC, of_group, weight.size // (head.OC * of_group))
        weight = exchanged(weight, 1, head.OC, weight.size // head.OC)
        residual = exchanged(residual, head.N if residual.size else 0, head.OC, pixels)
        result = np.empty(out.size, out.dtype)
    if head.kind == _DIRECT:
        packed = _memory(head.packed, out)
        call(head.driver, (x, weight, packed, bias, residual, result, table, numbers, head.activation))
    elif head.kind == _WINOGRAD:
        memory = _memory(head.packed + head.memory, out)
        taps, rest = memory[: head.packed], memory[head.packed :]
        call(head.driver, (x, weight, taps, bias, residual, result, rest, numbers, head.activation))
    elif head.kind == _FIRST:
        call(head.driver, (x, weight, bias, residual, result, table, numbers, head.activation))
    elif head.kind == _LAST:
        _run_last(head.entry, numbers, x, weight, bias, residual, result)
    else:
        _run_depthwise(head.driver, numbers, table, head.activation, x, weight, bias, residual, result)
    if head.channels_first:
        out[:] = exchanged(result, head.N, head.OH * head.OW, head.OC)


@overload(conv2d)
def _conv2d(
    x,
    weight,
    bias=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    activation=None,
    residual=None,
    layout="NHWC",
    algorithm="auto",
    precision=None,
    out=None,
):
    check_array("x", x, (3, 4))
    check_array("weight", weight, (4,), x)
    for name, array, dimensions in (("bias", bias, 1), ("residual", residual, x.ndim), ("out", out, x.ndim)):
        if is_given(array):
            check_array(name, array, (dimensions,), x)
    dtype = str(x.dtype)

    def convolve(
        x,
        weight,
        bias=None,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        activation=None,
        residual=None,
        layout="NHWC",
        algorithm="auto",
        precision=None,
        out=None,
    ):
        arrays = extents(x), extents(weight), extents(bias), extents(residual), extents(out)
        options = stride, padding, dilation, groups
        form = activation, layout, algorithm, precision
        key = (
            *(arrays[0] + arrays[1] + arrays[2] + arrays[3] + arrays[4]),
            *(numbers(stride) + numbers(padding) + numbers(dilation) + numbers(groups)),
            *(numbers(activation) + numbers(layout) + numbers(algorithm) + numbers(precision)),
        )
        address = record("conv2d", dtype, key, (arrays, options, form))
        (head,) = _head(body_at(address))
        result = result_of((head.extent_0, head.extent_1, head.extent_2, head.extent_3), x, x.dtype)
        if result.size > 0:
            rows = row(x, x), row(weight, x), row(bias, x), row(residual, x)
            call(head.entry, (address, *rows, as_row(result, result.size)))
        return leave(result, out)

    return convolve


@overload(dense)
def _dense(x, weight, bias=None, activation=None):
    check_array("x", x, (1, 2, 3, 4))
    check_array("weight", weight, (2,), x)
    if is_given(bias):
        check_array("bias", bias, (1,), x)
    dtype = str(x.dtype)

    def multiply(x, weight, bias=None, activation=None):
        arrays = extents(x), extents(weight), extents(bias)
        key = (*(arrays[0] + arrays[1] + arrays[2]), *numbers(activation))
        address = record("dense", dtype, key, (arrays, activation))
        (head,) = _head(body_at(address))
        result = np.empty((*x.shape[:-1], head.OC), x.dtype)
        if result.size > 0:
            rows = row(x, x), row(weight, x), row(bias, x), row(None, x)
            call(head.entry, (address, *rows, as_row(result, result.size)))
        return result

    return multiply
