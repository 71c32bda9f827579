"""The door: what comes in as an array becomes a contiguous NHWC float array, and results go out as they came.

Layout, missing batch axis, byte order, strides and read-only memory are dealt with here and nowhere behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

FloatArray = NDArray[np.floating[Any]]

#: The layouts of a batch of images, and of one of series.
IMAGES = ("NHWC", "NCHW")
SERIES = ("NWC", "NCW")
_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

#: Layout name -> (axes that bring an array with batch axis to channels-last, axes that bring it back).
_LAYOUTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "NHWC": ((0, 1, 2, 3), (0, 1, 2, 3)),
    "NCHW": ((0, 2, 3, 1), (0, 3, 1, 2)),
    "NWC": ((0, 1, 2), (0, 1, 2)),
    "NCW": ((0, 2, 1), (0, 2, 1)),
}


def float_array(name: str, value: ArrayLike, like: FloatArray | None = None) -> FloatArray:
    """*value* as a C-contiguous float32 or float64 array in native byte order, without a copy where it is one.

    With *like*, the dtype must be the same as that array's.
    """
    array = np.asarray(value)
    if array.dtype in _DTYPES and array.flags.carray and (like is None or array.dtype == like.dtype):
        return array
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


@dataclass(frozen=True)
class ImageFormat:
    """How the caller's images look: layout, and whether there is a batch axis."""

    layout: str
    batched: bool

    @cached_property
    def dimensions(self) -> int:
        """Dimensions of the caller's arrays."""
        return len(self.layout) - (not self.batched)

    @cached_property
    def channels_last(self) -> bool:
        """Whether nothing has to be transposed."""
        return self.layout in ("NHWC", "NWC")

    def enter(self, name: str, value: ArrayLike, like: FloatArray | None = None) -> FloatArray:
        """The caller's images as a contiguous NHWC (or NWC) array with a batch axis."""
        array = np.asarray(value)
        if array.ndim != self.dimensions:
            raise ValueError(
                f"{name} must have {self.dimensions} dimensions ({self.layout[not self.batched :]}). "
                f"Received: {name}.shape={array.shape}"
            )
        batch = array if self.batched else array[np.newaxis]
        return float_array(name, batch if self.channels_last else batch.transpose(_LAYOUTS[self.layout][0]), like)

    def nhwc(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The caller's shape as NHWC (or NWC) with a batch axis."""
        if len(shape) != self.dimensions:
            raise ValueError(f"{name} must have {self.dimensions} numbers. Received: {name}={tuple(shape)}")
        with_batch = tuple(shape) if self.batched else (1, *shape)
        return tuple(int(with_batch[axis]) for axis in _LAYOUTS[self.layout][0])

    def leave(self, array: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """A contiguous NHWC result in the caller's layout, written into *out* where one is given."""
        result = array if self.channels_last else array.transpose(_LAYOUTS[self.layout][1])
        if not self.batched:
            result = result[0]
        if out is None:
            return np.ascontiguousarray(result)
        if not np.may_share_memory(out, result):
            np.copyto(out, result)
        return out

    def result(
        self,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        out: NDArray[Any] | None = None,
        inputs: tuple[NDArray[Any] | None, ...] = (),
    ) -> NDArray[Any]:
        """An array of NHWC *shape* to compute into: the caller's *out* itself where its memory has that form.

        Not where *out* shares memory with one of *inputs*, which are still read when the first results are written.
        """
        if out is None:
            return np.empty(shape, dtype)
        expected = tuple(shape[axis] for axis in _LAYOUTS[self.layout][1])[not self.batched :]
        if not isinstance(out, np.ndarray) or out.shape != expected or out.dtype != dtype or not out.flags.writeable:
            raise ValueError(
                f"out must be a writeable {np.dtype(dtype)} array of shape {expected}. "
                f"Received: {type(out).__name__}, shape={np.shape(out)}, dtype={getattr(out, 'dtype', None)}"
            )
        direct = self.channels_last and out.flags.c_contiguous and out.dtype.isnative
        direct = direct and not any(np.may_share_memory(out, array) for array in inputs if array is not None)
        return out.reshape(shape) if direct else np.empty(shape, dtype)


_AS_THEY_ARE = (0, 1, 2, 3)

#: Layout of x -> axes that bring its weight to (kernel extents, inputs of a group, outputs), and back.
_WEIGHT_AXES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "NHWC": ((0, 1, 2, 3), (0, 1, 2, 3)),
    "NCHW": ((2, 3, 1, 0), (3, 2, 0, 1)),
    "NWC": ((0, 1, 2), (0, 1, 2)),
    "NCW": ((2, 1, 0), (2, 1, 0)),
    "NC": ((0, 1), (0, 1)),
}


def weight_in(name: str, value: ArrayLike, layout: str, like: FloatArray) -> FloatArray:
    """A weight as contiguous HWIO (WIO); with "NCHW" the caller's is OIHW, with "NCW" OIW."""
    axes = _WEIGHT_AXES[layout][0]
    array = np.asarray(value)
    if array.ndim != len(axes):
        raise ValueError(
            f'{name} must have {len(axes)} dimensions with layout="{layout}". Received: {name}.shape={array.shape}'
        )
    return float_array(name, array if axes == _AS_THEY_ARE[: len(axes)] else array.transpose(axes), like)


def weight_shape_in(name: str, shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The caller's weight shape as HWIO (WIO)."""
    axes = _WEIGHT_AXES[layout][0]
    if len(shape) != len(axes):
        raise ValueError(f'{name} must have {len(axes)} numbers with layout="{layout}". Received: {name}={shape}')
    return tuple(int(shape[axis]) for axis in axes)


def weight_out(weight: NDArray[Any], layout: str) -> NDArray[Any]:
    """A contiguous HWIO (WIO) weight in the caller's layout."""
    return np.ascontiguousarray(weight.transpose(_WEIGHT_AXES[layout][1]))


def image_format(name: str, value: ArrayLike, layout: str, layouts: tuple[str, ...]) -> ImageFormat:
    """The format of the caller's first array, one of *layouts*; the others of the call must have the same."""
    dimensions = value.ndim if isinstance(value, np.ndarray) else np.ndim(value)
    found = _image_format(layout, layouts, dimensions)
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
    image = _image_format(layout, layouts, len(x_shape))
    if image is None:
        raise ValueError(
            f"x_shape must have {len(layout)} dimensions ({layout}), or one less without the batch axis. "
            f"Received: x_shape={tuple(x_shape)}"
        )
    return image, image.nhwc("x_shape", x_shape)


@lru_cache
def _image_format(layout: str, layouts: tuple[str, ...], dimensions: int) -> ImageFormat | None:
    """The format of arrays of so many dimensions, or None where those do not fit the layout."""
    if layout not in layouts:
        raise ValueError(f"layout must be one of {', '.join(layouts)}. Received: layout={layout!r}")
    without_batch = len(layout) - 1
    return ImageFormat(layout, dimensions > without_batch) if 0 <= dimensions - without_batch <= 1 else None
