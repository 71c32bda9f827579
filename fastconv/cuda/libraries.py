"""The libraries whose arrays are taken and given: whose memory results lie in, and on which stream kernels run.

A result goes out in the library of the first array that came in.  Its memory is that library's, and so is the stream:
PyTorch's and CuPy's current stream, or for all others that of `stream`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from fastconv.cuda import recording
from fastconv.cuda.array import Array
from fastconv.cuda.device import Device, Engine, target
from fastconv.cuda.memory import Block, Pool

#: Handle of the stream that `stream` has chosen; 0 is the default stream.
_chosen: ContextVar[int] = ContextVar("stream", default=0)
#: The part of a device's memory that its pool keeps is one over this.
_KEPT_SHARE = 4
_pools: dict[int, Pool] = {}
_FLOAT32 = np.dtype(np.float32)


class Place(NamedTuple):
    """Where an array of a library lies; strides count elements."""

    address: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Library(Protocol):
    """What an engine needs to know of a library."""

    def ordinal_of(self, value: Any) -> int:
        """The number of the device on which an array of the library lies."""

    def look(self, value: Any) -> Place | None:
        """How an array of the library lies, where it tells that faster than by its CUDA array interface."""

    def stream(self, ordinal: int) -> int:
        """The handle of the stream on which the library works now, on device number *ordinal*."""

    def allocate(self, nbytes: int, ordinal: int) -> tuple[int, Any]:
        """New memory: its address, and the object that keeps it."""

    def give(self, array: Array) -> Any:
        """*array* as an array of the library, the same memory."""


class Own:
    """Arrays of this package, and of libraries that are not known."""

    def ordinal_of(self, value: Any) -> int:
        where = getattr(value, "__dlpack_device__", None)
        return int(target().get_current_device().id if where is None else where()[1])

    def look(self, value: Any) -> Place | None:
        return None

    def stream(self, ordinal: int) -> int:
        return _chosen.get()

    def allocate(self, nbytes: int, ordinal: int) -> tuple[int, Any]:
        chosen = _chosen.get()
        lease = recording.taken_from(pool(ordinal), chosen).take(nbytes, chosen)
        return lease.address, lease

    def give(self, array: Array) -> Any:
        return array


class Numba(Own):
    """Numba's device arrays."""

    def give(self, array: Array) -> Any:
        interface = {**array.memory.__cuda_array_interface__, "shape": array.shape}
        return target().from_cuda_array_interface(interface, owner=array.memory, sync=False)


class CuPy(Own):
    """CuPy's arrays, memory and current stream."""

    def stream(self, ordinal: int) -> int:
        return int(sys.modules["cupy"].cuda.get_current_stream(ordinal).ptr)

    def allocate(self, nbytes: int, ordinal: int) -> tuple[int, Any]:
        cupy = sys.modules["cupy"]
        with cupy.cuda.Device(ordinal):
            memory = cupy.empty(nbytes, np.uint8)
        return int(memory.data.ptr), memory

    def give(self, array: Array) -> Any:
        cupy = sys.modules["cupy"]
        return cupy.asarray(_SameStream(array)) if array.size else cupy.empty(array.shape, array.dtype)


class PyTorch:
    """PyTorch's CUDA tensors, memory and current stream."""

    def ordinal_of(self, value: Any) -> int:
        return int(value.get_device())

    def look(self, value: Any) -> Place | None:
        torch = sys.modules["torch"]
        plain = type(value) is torch.Tensor and value.dtype is torch.float32 and value.layout is torch.strided
        if not plain or value.requires_grad:
            return None
        return Place(value.data_ptr(), _FLOAT32, tuple(value.shape), value.stride())

    def stream(self, ordinal: int) -> int:
        return int(sys.modules["torch"].cuda.current_stream(ordinal).cuda_stream)

    def allocate(self, nbytes: int, ordinal: int) -> tuple[int, Any]:
        torch = sys.modules["torch"]
        memory = torch.empty(nbytes, dtype=torch.uint8, device=f"cuda:{ordinal}")
        return int(memory.data_ptr()), memory

    def give(self, array: Array) -> Any:
        torch, device, kept = sys.modules["torch"], f"cuda:{array.engine.ordinal}", array.memory.owner
        if type(kept) is torch.Tensor and kept.dtype is torch.uint8 and kept.numel() == array.nbytes:
            return kept.view(getattr(torch, array.dtype.name)).view(array.shape)  # what `allocate` made, all of it
        if not array.size:
            return torch.empty(array.shape, dtype=getattr(torch, array.dtype.name), device=device)
        return torch.as_tensor(_SameStream(array), device=device)


class _SameStream:
    """An array for a library that works on the stream on which the array was computed: it need not wait."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, "stream": None}


_LIBRARIES: dict[str, Any] = {"cupy": CuPy(), "torch": PyTorch(), "numba": Numba()}
OWN = Own()


@lru_cache
def engine(library: Any, ordinal: int) -> Device:
    """The engine for device number *ordinal* with the memory and the stream of *library*."""
    return Device(ordinal, library)


def current(ordinal: int = 0) -> Device:
    """The engine of this package's own arrays on device number *ordinal*."""
    return engine(OWN, ordinal)


def asarray(values: ArrayLike, device: int | Engine = 0) -> Array:
    """Copy an array from host memory to a device.

    Parameters
    ----------
    values : array_like
        Of any dtype; the operations take float32.
    device : int or Engine, default 0
        Number of the GPU, or an engine: that of another `Array`, or an `emulator.Emulator`.

    Returns
    -------
    Array

    Raises
    ------
    RuntimeError
        If there is no GPU, with the sentence of `why_not`.

    Examples
    --------
    >>> from fastconv.cuda.emulator import Emulator
    >>> asarray(np.ones((2, 3), np.float32), Emulator()).numpy().sum()
    np.float32(6.0)
    """
    host = np.asarray(values)
    where = current(device) if isinstance(device, int) else device
    return Array(where, where.upload(host), host.shape)


def library_of(value: Any) -> Any:
    """The library of an array."""
    return _LIBRARIES.get(type(value).__module__.partition(".")[0], OWN)


def engine_of(value: Any) -> Device:
    """The engine for another library's array; those of unknown libraries get results as `Array`."""
    library = library_of(value)
    return engine(library, library.ordinal_of(value))


def pool(ordinal: int) -> Pool:
    """The memory of `Array` and Numba arrays on device number *ordinal*."""
    found = _pools.get(ordinal)
    if found is None:
        found = _pools.setdefault(ordinal, _new_pool(target().gpus[ordinal]))
    return found


def _new_pool(device: Any) -> Pool:
    context = device.get_primary_context()

    def allocate(nbytes: int) -> Block:
        with device:
            return Block(context.memalloc(nbytes))

    with device:
        return Pool(allocate, context.get_memory_info().total // _KEPT_SHARE)


def empty_cache() -> None:
    """Free the device memory that is kept for the next arrays, on every device.

    Only what is in no use is freed.  PyTorch and CuPy keep the memory of their arrays in caches of their own.

    Examples
    --------
    >>> empty_cache()
    """
    for one in tuple(_pools.values()):
        one.empty()


@contextmanager
def stream(chosen: Any) -> Iterator[None]:
    """Run what the ``with`` block computes on *chosen*, for `Array` and Numba arrays.

    Arrays of PyTorch and CuPy do not need it: their operations run on their library's current stream.

    Parameters
    ----------
    chosen : stream
        A stream of Numba, CuPy or PyTorch, any object with ``__cuda_stream__``, or the handle as an int.

    Notes
    -----
    The choice is the thread's (and the asyncio task's).  An array that was computed on another stream must be complete
    before, and must not be dropped until the block's work is done: wait for the streams, as with any CUDA library.
    """
    token = _chosen.set(handle_of(chosen))
    try:
        yield
    finally:
        _chosen.reset(token)


def handle_of(chosen: Any) -> int:
    """The handle of a stream of any library."""
    if hasattr(chosen, "__cuda_stream__"):
        protocol = chosen.__cuda_stream__
        return int((protocol() if callable(protocol) else protocol)[1])
    for attribute in ("cuda_stream", "ptr", "handle"):
        if hasattr(chosen, attribute):
            return int(getattr(chosen, attribute))
    if isinstance(chosen, int):
        return chosen
    raise TypeError(f"stream must be a CUDA stream or its handle. Received: {type(chosen).__name__}")
