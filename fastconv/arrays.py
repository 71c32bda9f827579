"""The door: what comes in as an array becomes a contiguous NHWC float array, and results go out as they came.

Layout, missing batch axis, byte order, strides and read-only memory are dealt with here and nowhere behind it; so are
arrays on a GPU, of whatever library: behind the door they are `cuda.array.Array`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastconv.cuda import exchange
from fastconv.cuda.array import Array
from fastconv.cuda.exchange import Strided, contiguous
from fastconv.memory import empty

FloatArray = NDArray[np.floating[Any]]

#: The layouts of a batch of images, and of one of series.
IMAGES = ("NHWC", "NCHW")
SERIES = ("NWC", "NCW")
_FLOAT32 = np.dtype(np.float32)
_DTYPES = (_FLOAT32, np.dtype(np.float64))

#: Layout name -> (axes that bring an array with batch axis to channels-last, axes that bring it back).
_LAYOUTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "NHWC": ((0, 1, 2, 3), (0, 1, 2, 3)),
    "NCHW": ((0, 2, 3, 1), (0, 3, 1, 2)),
    "NWC": ((0, 1, 2), (0, 1, 2)),
    "NCW": ((0, 2, 1), (0, 2, 1)),
}


def float_array(name: str, value: ArrayLike, like: Any = None, first: str = "x") -> FloatArray:
    """*value* as a C-contiguous float32 or float64 array in native byte order, without a copy where it is one.

    With *like*, which the caller knows as *first*, dtype and memory must be the same as that array's.
    """
    if type(value) is ndarray:
        array = value
    elif _is_ready(value, like, _FLOAT32):
        return value  # type: ignore[return-value]
    else:
        array = _look(name, value, like, first)
        if type(array) is Strided:
            there: FloatArray = contiguous(array)
            return there
    same = like is None or (type(like) is ndarray and array.dtype == like.dtype)
    if same and array.dtype in _DTYPES and array.flags.carray:
        return array
    if type(like) is Array:
        raise TypeError(_mixed(name, value, first, like))
    native = array.dtype.newbyteorder("=")
    if native not in _DTYPES:
        raise TypeError(f"{name} must be float32 or float64. Received: {name}.dtype={array.dtype}")
    if like is not None and native != like.dtype:
        raise TypeError(f"{name} must have the dtype of the first array, {like.dtype}. Received: {array.dtype}")
    array = np.require(array, native, ["C_CONTIGUOUS", "ALIGNED"])
    return array if array.flags.writeable else _writeable_alias(array)


class _Memory:
    """The memory of an array without its read-only flag."""

    def __init__(self, array: FloatArray) -> None:
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}
        self.array = array


def _writeable_alias(array: FloatArray) -> FloatArray:
    """The same memory as a writeable array.

    Kernels never write to their inputs, and Numba would compile each of them again for every mix of read-only
    arguments.
    """
    return np.asarray(_Memory(array))


def index_array(name: str, value: ArrayLike, like: Any, first: str = "x", form: str = "") -> NDArray[np.int64]:
    """*value*, whole numbers that belong to *like* and lie where it does; contiguous int64 on a GPU."""
    if on_device(value):
        there: NDArray[np.int64] = contiguous(_device_array(name, value, like, first, np.int64))
        return there
    if type(like) is Array:
        raise TypeError(_mixed(name, value, first, like))
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}{form} must be integers. Received: {name}.dtype={array.dtype}")
    return array


# ---- arrays on a device -----------------------------------------------------------------------------------------


def on_device(value: Any) -> bool:
    """Whether *value* is an array in the memory of a GPU."""
    return type(value) is not ndarray and (type(value) is Array or exchange.is_foreign(value))


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of an array of any library, or of a number or nested list."""
    shape = getattr(value, "shape", None)
    return np.shape(value) if shape is None else shape


def _is_ready(value: Any, like: Any, dtype: DTypeLike) -> bool:
    """Whether *value* is an `Array` of *dtype* where *like* is, if there is a *like*: nothing needs to be done."""
    return (
        type(value) is Array
        and value.dtype == dtype
        and (like is None or (type(like) is Array and like.engine is value.engine))
    )


def host_only(operation: str, array: Any) -> None:
    """Raise NotImplementedError for an array on a device, where there is no kernel of *operation*."""
    if type(array) is Array:
        raise NotImplementedError(f"{operation} takes arrays in host memory only: it has no kernel for a GPU yet")


def _look(name: str, value: Any, like: Any, first: str, dtype: DTypeLike = _FLOAT32) -> Any:
    """What is not a NumPy array as one, or as it lies on a device, there of *dtype*."""
    if type(value) is Strided:
        return value
    return _device_array(name, value, like, first, dtype) if on_device(value) else np.asarray(value)


def _device_array(name: str, value: Any, like: Any, first: str, dtype: DTypeLike = _FLOAT32) -> Strided:
    """An array of any library on a device as it lies there, checked against *like*, the array called *first*."""
    if isinstance(like, np.ndarray):
        raise TypeError(_mixed(name, value, first, like))
    array = exchange.enter(name, value)
    if array.memory.dtype != dtype:
        raise TypeError(f"{name} must be {np.dtype(dtype)} on a GPU. Received: {name}.dtype={array.memory.dtype}")
    return array if like is None else exchange.join(name, array, first, like)


def _mixed(name: str, value: Any, first: str, like: Any) -> str:
    own, other = ("on the GPU", "in host memory") if on_device(value) else ("in host memory", "on the GPU")
    return (
        f"{name} and {first} must lie in the same memory: nothing is copied to or from a GPU unasked. "
        f"Received: {name} {own} ({type(value).__name__}, shape {np.shape(value)}), "
        f"{first} {other} (shape {like.shape})"
    )


# ---- images -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageFormat:
    """How the caller's images look: layout, whether there is a batch axis, and what the caller calls the first."""

    layout: str
    batched: bool
    first: str = "x"

    @cached_property
    def untouched(self) -> int | None:
        """Dimensions of arrays that are taken as they are; None where all need a batch axis, or a transpose."""
        return len(self.layout) if self.batched and self.channels_last else None

    @cached_property
    def dimensions(self) -> int:
        """Dimensions of the caller's arrays."""
        return len(self.layout) - (not self.batched)

    @cached_property
    def channels_last(self) -> bool:
        """Whether nothing has to be transposed."""
        return self.layout in ("NHWC", "NWC")

    def enter(
        self, name: str, value: ArrayLike, like: FloatArray | None = None, dtype: DTypeLike = _FLOAT32
    ) -> FloatArray:
        """The caller's images as a contiguous NHWC (or NWC) array with a batch axis; *dtype* is that on a GPU."""
        if type(value) is ndarray and value.ndim == self.untouched:
            return float_array(name, value, like, self.first)
        as_it_is = type(value) is ndarray or (self.untouched is not None and _is_ready(value, like, dtype))
        array: Any = value if as_it_is else _look(name, value, like, self.first, dtype)
        if array.ndim != self.dimensions:
            raise ValueError(
                f"{name} must have {self.dimensions} dimensions ({self.layout[not self.batched :]}). "
                f"Received: {name}.shape={array.shape}"
            )
        if type(array) is Array:
            return array  # type: ignore[return-value]
        batch = array if self.batched else with_batch_axis(array)
        if not self.channels_last:
            batch = batch.transpose(_LAYOUTS[self.layout][0])
        return float_array(name, batch, like, self.first)

    def nhwc(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The caller's shape as NHWC (or NWC) with a batch axis."""
        if len(shape) != self.dimensions:
            raise ValueError(f"{name} must have {self.dimensions} numbers. Received: {name}={tuple(shape)}")
        if self.untouched is not None:
            return tuple(map(int, shape))
        with_batch = tuple(shape) if self.batched else (1, *shape)
        return tuple(int(with_batch[axis]) for axis in _LAYOUTS[self.layout][0])

    def leave(self, array: Any, out: Any = None) -> FloatArray:
        """A contiguous NHWC result in the caller's layout, written into *out* where one is given."""
        if type(array) is Array:
            return self._leave_device(array, out)
        if out is None and self.untouched is not None:
            as_it_is: FloatArray = array
            return as_it_is
        result: FloatArray = array if self.channels_last else array.transpose(_LAYOUTS[self.layout][1])
        if not self.batched:
            result = result[0]
        if out is None:
            return np.ascontiguousarray(result)
        if not np.may_share_memory(out, result):
            np.copyto(out, result)
        written: FloatArray = out
        return written

    def _leave_device(self, array: Array, out: Any) -> FloatArray:
        if out is not None:  # was computed into: see `result`
            written: FloatArray = out
            return written
        if not self.channels_last:
            array = contiguous(exchange.enter("result", array).transpose(_LAYOUTS[self.layout][1]))
        return leave(array if self.batched else array.reshape(array.shape[1:]))

    def result(
        self,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        out: NDArray[Any] | None,
        inputs: tuple[Any, ...],
    ) -> FloatArray:
        """An array of NHWC *shape* to compute into: the caller's *out* itself where its memory has that form.

        Not where *out* shares memory with one of *inputs*, which are still read when the first results are written.
        """
        if type(inputs[0]) is Array:
            return self._result_on_device(shape, dtype, out, inputs)
        if out is None:
            return empty(shape, dtype)
        expected = tuple(shape[axis] for axis in _LAYOUTS[self.layout][1])[not self.batched :]
        if not isinstance(out, np.ndarray) or out.shape != expected or out.dtype != dtype or not out.flags.writeable:
            raise ValueError(
                f"out must be a writeable {np.dtype(dtype)} array of shape {expected}. "
                f"Received: {type(out).__name__}, shape={np.shape(out)}, dtype={getattr(out, 'dtype', None)}"
            )
        direct = self.channels_last and out.flags.c_contiguous and out.dtype.isnative
        direct = direct and not any(np.may_share_memory(out, array) for array in inputs if array is not None)
        return out.reshape(shape) if direct else empty(shape, dtype)

    def _result_on_device(
        self, shape: tuple[int, ...], dtype: DTypeLike, out: Any, inputs: tuple[Any, ...]
    ) -> FloatArray:
        """The same on a device, where *out* must have the form of a result and share memory with no input."""
        like = inputs[0]
        if out is None:
            new: Any = Array(like.engine, like.engine.empty((prod(shape),), dtype), shape)
            return new  # type: ignore[no-any-return]
        expected = shape[not self.batched :]
        if not self.channels_last:
            raise ValueError(f'on a GPU out needs a layout with the channels last. Received: layout="{self.layout}"')
        array = _device_array("out", out, like, self.first) if on_device(out) else None
        if array is None:
            raise TypeError(_mixed("out", out, self.first, like))
        result = exchange.in_place(array)
        if result is None or array.shape != expected:
            raise ValueError(f"out must be contiguous, of shape {expected}. Received: out.shape={array.shape}")
        if any(exchange.overlap(result, one) for one in inputs if one is not None):
            raise ValueError("on a GPU out must share no memory with the arrays that are read")
        fitting: Any = result.reshape(shape)
        return fitting  # type: ignore[no-any-return]


def planes(array: Any) -> Any:
    """Series as images of height 1; images as they are."""
    return array if array.ndim == 4 else array.reshape(array.shape[0], 1, *array.shape[1:])


def leave(array: Any) -> FloatArray:
    """A result as the caller's library has arrays; the same memory."""
    result: FloatArray = array.engine.give(array) if type(array) is Array else array
    return result


def with_batch_axis(array: Any) -> Any:
    """One image as a batch."""
    return array[np.newaxis] if type(array) is ndarray else array.with_batch_axis()


#: Layout of x -> axes that bring its weight to (kernel extents, inputs of a group, outputs), and back.
_WEIGHT_AXES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "NHWC": ((0, 1, 2, 3), (0, 1, 2, 3)),
    "NCHW": ((2, 3, 1, 0), (3, 2, 0, 1)),
    "NWC": ((0, 1, 2), (0, 1, 2)),
    "NCW": ((2, 1, 0), (2, 1, 0)),
    "NC": ((0, 1), (0, 1)),
}
#: Layout of x -> dimensions of its weight, where that is taken as it is.
_UNTOUCHED_WEIGHTS = {layout: len(axes) for layout, (axes, _) in _WEIGHT_AXES.items() if axes == tuple(sorted(axes))}


def weight_in(name: str, value: ArrayLike, layout: str, like: FloatArray, first: str = "x") -> FloatArray:
    """A weight as contiguous HWIO (WIO); with "NCHW" the caller's is OIHW, with "NCW" OIW."""
    if type(value) is ndarray and value.ndim == _UNTOUCHED_WEIGHTS.get(layout):
        return float_array(name, value, like, first)
    axes, unchanged = _WEIGHT_AXES[layout][0], layout in _UNTOUCHED_WEIGHTS
    as_it_is = type(value) is ndarray or (unchanged and _is_ready(value, like, _FLOAT32))
    array: Any = value if as_it_is else _look(name, value, like, first)
    if array.ndim != len(axes):
        raise ValueError(
            f'{name} must have {len(axes)} dimensions with layout="{layout}". Received: {name}.shape={array.shape}'
        )
    array = array if unchanged else array.transpose(axes)
    return float_array(name, array, like, first)


def weight_shape_in(name: str, shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The caller's weight shape as HWIO (WIO)."""
    axes = _WEIGHT_AXES[layout][0]
    if len(shape) != len(axes):
        raise ValueError(f'{name} must have {len(axes)} numbers with layout="{layout}". Received: {name}={shape}')
    return tuple(int(shape[axis]) for axis in axes)


def weight_out(weight: Any, layout: str) -> FloatArray:
    """A contiguous HWIO (WIO) weight in the caller's layout."""
    if type(weight) is Array:
        return leave(contiguous(exchange.enter("weight", weight).transpose(_WEIGHT_AXES[layout][1])))
    return np.ascontiguousarray(weight.transpose(_WEIGHT_AXES[layout][1]))


def image_format(name: str, value: ArrayLike, layout: str, layouts: tuple[str, ...]) -> ImageFormat:
    """The format of the caller's first array, one of *layouts*; the others of the call must have the same."""
    dimensions = len(shape_of(value))
    found = _image_format(layout, layouts, dimensions, name)
    if found is None:
        raise ValueError(
            f"{name} must have {len(layout)} dimensions ({layout}), or one less without the batch axis. "
            f"Received: {name}.shape={np.shape(value)}"
        )
    return found


def image_format_of_shape(
    x_shape: tuple[int, ...], layout: str, layouts: tuple[str, ...]
) -> tuple[ImageFormat, tuple[int, ...]]:
    """The format of an array of which only the shape is known, and its shape with batch axis and channels last."""
    image = _image_format(layout, layouts, len(x_shape), "grad_out")
    if image is None:
        raise ValueError(
            f"x_shape must have {len(layout)} dimensions ({layout}), or one less without the batch axis. "
            f"Received: x_shape={tuple(x_shape)}"
        )
    return image, image.nhwc("x_shape", x_shape)


@lru_cache
def _image_format(layout: str, layouts: tuple[str, ...], dimensions: int, first: str) -> ImageFormat | None:
    """The format of arrays of so many dimensions, or None where those do not fit the layout."""
    if layout not in layouts:
        raise ValueError(f"layout must be one of {', '.join(layouts)}. Received: layout={layout!r}")
    without_batch = len(layout) - 1
    return ImageFormat(layout, dimensions > without_batch, first) if 0 <= dimensions - without_batch <= 1 else None
