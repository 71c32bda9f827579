"""Arrays of other libraries on a device: they come in without a copy, and results go out in the caller's library.

What is common to Numba, CuPy, PyTorch and others is the CUDA array interface, a dictionary with address, shape, strides
and the stream that has work to do on the array.  Arrays that have DLPack alone are read through that.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fastconv.cuda import dlpack, libraries
from fastconv.cuda.array import Array
from fastconv.cuda.device import Device, Engine, address


class Strided(NamedTuple):
    """An array on a device as its library has it: strides count elements, from the start of flat *memory*."""

    engine: Engine
    memory: Any
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def with_batch_axis(self) -> Strided:
        """The same memory with a first axis of one image."""
        return self._replace(shape=(1, *self.shape), strides=(0, *self.strides))

    def transpose(self, axes: tuple[int, ...]) -> Strided:
        """The same memory with the axes in another order."""
        shape, strides = (tuple(numbers[axis] for axis in axes) for numbers in (self.shape, self.strides))
        return self._replace(shape=shape, strides=strides)


def is_foreign(value: Any) -> bool:
    """Whether *value* is another library's array on a GPU."""
    on_gpu = getattr(value, "is_cuda", None)  # PyTorch's own answer, which takes less time than its interface
    if on_gpu is not None:
        return bool(on_gpu)
    return hasattr(value, "__cuda_array_interface__") or dlpack.on_gpu(value)


def enter(name: str, value: Any) -> Strided:
    """Another library's array, or an `Array`, as it lies."""
    if type(value) is Array:
        return Strided(value.engine, value.memory, value.shape, strides_of(value.shape))
    engine = libraries.engine_of(value)
    if (place := libraries.library_of(value).look(value)) is not None:
        address, dtype, shape, strides = place
        return Strided(engine, engine.adopt(address, dtype, _extent(shape, strides), value, None), shape, strides)
    interface, owner = getattr(value, "__cuda_array_interface__", None), value
    if interface is None:
        interface, owner = dlpack.interface(value, engine.stream)
    dtype = np.dtype(interface["typestr"])
    shape = tuple(interface["shape"])
    given = interface.get("strides")
    strides = strides_of(shape) if given is None else tuple(step // dtype.itemsize for step in given)
    if any(step < 0 for step in strides):
        raise ValueError(f"{name} must not have negative strides on a GPU. Received: {name}.strides={given}")
    address, stream = interface["data"][0] or 0, interface.get("stream")
    return Strided(engine, engine.adopt(address, dtype, _extent(shape, strides), owner, stream), shape, strides)


@lru_cache(maxsize=1024)
def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Numbers from the first to the last element."""
    return 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if prod(shape) else 0


def contiguous(array: Strided) -> Any:
    """An `Array` with the numbers side by side: the same memory where they are."""
    result = in_place(array)
    if result is None:
        from fastconv.cuda.transpose import gather

        result = Array(array.engine, gather(*array), array.shape)
    return result


def in_place(array: Strided) -> Array | None:
    """The array itself if its numbers lie side by side, or None."""
    engine, memory, shape, strides = array
    numbers = prod(shape)
    wanted = strides_of(shape)
    if numbers and strides != wanted:
        steps = zip(shape, strides, wanted, strict=True)
        if not all(extent == 1 or step == dense for extent, step, dense in steps):
            return None
    return Array(engine, memory if memory.size == numbers else memory[:numbers], shape)


def join(name: str, array: Strided, first: str, like: Array) -> Strided:
    """*array* as one of the engine of *like*, which the caller calls *first*."""
    if array.engine is like.engine:
        return array
    one, other = array.engine, like.engine
    if not (isinstance(one, Device) and isinstance(other, Device) and one.ordinal == other.ordinal):
        raise TypeError(f"{name} and {first} must be on one device. Received: {one!r} and {other!r}")
    other.follow(one)
    return array._replace(engine=other)


def overlap(left: Array, right: Array) -> bool:
    """Whether two arrays share memory."""
    first, second = address(left.memory), address(right.memory)
    return first < second + right.nbytes and second < first + left.nbytes


@lru_cache(maxsize=1024)
def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a C-contiguous array, in elements."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
