"""An array on a device: what the public functions take and return in place of a NumPy array.

It knows its `Engine`, the memory that this engine's kernels take, and a shape; its numbers are contiguous.  Arrays of
other libraries come in and go out by `exchange`.
"""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike, NDArray

from fastconv.cuda.device import Engine


class Array(NDArrayOperatorsMixin):
    """A C-contiguous array on a device.

    Made by `fastconv.cuda.asarray`, and by the public functions from other device arrays.  Arithmetic operators work,
    and those of NumPy's functions for which `numpy_calls` has a kernel.

    Attributes
    ----------
    engine : Engine
        The device, and where its memory comes from.
    memory : object
        The numbers as the engine's kernels take them, flat.
    shape : tuple of int
    dtype : numpy.dtype

    Examples
    --------
    Without a GPU, the arrays of the emulator are the same class:

    >>> from fastconv.cuda import asarray
    >>> from fastconv.cuda.emulator import Emulator
    >>> x = asarray(np.arange(6, dtype=np.float32).reshape(2, 3), Emulator())
    >>> x.shape, x[1].numpy()
    ((2, 3), array([3., 4., 5.], dtype=float32))
    """

    __slots__ = ("__weakref__", "dtype", "engine", "memory", "shape")

    #: `numpy_calls`, which stands on top of this file and puts itself here.
    calls: ClassVar[Any]

    def __init__(self, engine: Engine, memory: Any, shape: tuple[int, ...]) -> None:
        self.engine: Any = engine
        self.memory = memory
        self.shape = shape
        self.dtype: np.dtype[Any] = memory.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return int(self.dtype.itemsize)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.itemsize

    def reshape(self, *shape: Any) -> Array:
        """The same memory with another shape; one extent may be -1."""
        wanted = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        if wanted == self.shape:
            return self
        rest = -prod(wanted)
        if wanted.count(-1) == 1 and rest > 0 and self.size % rest == 0:
            wanted = tuple(self.size // rest if extent == -1 else extent for extent in wanted)
        if prod(wanted) == self.size and min(wanted, default=0) >= 0:
            return Array(self.engine, self.memory, wanted)
        # NumPy's own rules and errors, on an array that takes no memory
        model = np.broadcast_to(np.empty((), self.dtype), (self.size,))
        return Array(self.engine, self.memory, model.reshape(wanted).shape)

    def numpy(self) -> NDArray[Any]:
        """A copy in host memory; waits until the device has computed it."""
        host: NDArray[Any] = self.engine.download(self.memory)
        return host.reshape(self.shape)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __getitem__(self, key: Any) -> Array:
        """Ints, slices, None and ``...`` as in NumPy; the same memory where the numbers lie side by side in it."""
        item: Array = self.calls.item(self, key)
        return item

    def copy(self) -> Array:
        """The same numbers in memory of their own, on the device."""
        copied: Array = self.calls.copied(self)
        return copied

    def astype(self, dtype: DTypeLike, copy: bool = True) -> Array:
        """The numbers in another dtype; with *copy* false the array itself where it has that dtype."""
        if self.dtype == dtype:
            return self.copy() if copy else self
        converted: Array = self.calls.converted(self, dtype)
        return converted

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any, out: Any = (None,), **options: Any) -> Any:
        if method != "__call__" or options:
            return NotImplemented
        return self.calls.universal_function(function, inputs, *out)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        return self.calls.array_function(function, arguments, options)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """For other libraries, without a copy; only where the memory is a GPU's."""
        interface: dict[str, Any] = self.memory.__cuda_array_interface__
        # the interface has 1 for the default stream
        return {**interface, "shape": self.shape, "strides": None, "stream": self.engine.stream or 1}

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        raise TypeError("an array on a device is not copied to the host unasked; array.numpy() makes a copy there")

    def __repr__(self) -> str:
        return f"Array(shape={self.shape}, dtype={self.dtype}, {self.engine!r})"
