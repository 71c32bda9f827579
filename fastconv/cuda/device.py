"""The one door to the CUDA target: whether it is there, what is missing, and how a kernel gets onto the device.

Numba's CUDA target is a package of its own (numba-cuda).  Its import takes half a second and fails in several ways, so
nothing here imports it before it is used, and no other file of fastconv does at all: kernels get the package from
`target`.

Operations speak to an `Engine`.  `Device` is the one that runs on a GPU.
The tests have another, which runs the same PTX in an interpreter: what an operation launches, with which grid and which
arguments, is the same code for both.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from math import prod
from typing import Any, Protocol
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from fastconv.cuda import driver, kernel_cache, recording
from fastconv.cuda.launcher import Launcher
from fastconv.cuda.memory import Memory
from fastconv.cuda.recording import Graph, Recording
from fastconv.cuda.upload import Copier

#: What to install, and what that needs.
INSTALL = "pip install 'fastconv[cuda]'"
_NEEDS_PACKAGE = (
    f"Numba's CUDA target cannot be imported ({{reason}}): {INSTALL} (CUDA 13, driver 580 or newer; "
    "for drivers from 525 on: pip install 'numba-cuda[cu12]')"
)
_NEEDS_DRIVER = (
    "Numba's CUDA target is installed, but there is no usable NVIDIA driver: CUDA 13 needs driver 580 or newer "
    "(nvidia-smi prints it), CUDA 12 (pip install 'numba-cuda[cu12]') 525 or newer"
)


_FLOAT32 = np.dtype(np.float32)
#: What the addresses of loads of four numbers are multiples of.
_BYTES_OF_QUAD = 16
#: For a thread that is in the right context already.
_AS_IT_IS = nullcontext()


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel that is not compiled yet: the same object for the same specialisation, so that it can be a key."""

    function: Callable[..., None]
    signature: Any
    #: Threads of a block.
    threads: int
    #: Blocks that a multiprocessor is to hold at the same time, which bounds the registers of a thread.
    residents: int


class Engine(Protocol):
    """Where device arrays come from and where kernels run."""

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability, such as (9, 0)."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A new device array of any contents."""

    def constant(self, values: NDArray[Any]) -> Any:
        """*values*, which never change, on the device; uploaded once."""

    def upload(self, values: NDArray[Any]) -> Any:
        """A copy of *values* on the device, flat."""

    def upload_ahead(self, values: NDArray[Any]) -> Callable[[], Any]:
        """Start a copy of *values* to the device beside the kernels that run there.

        Calling what is returned gives the memory, flat, to kernels that are launched from then on; it must be called.
        An engine that cannot do both at a time copies at once.
        """

    def download(self, memory: Any) -> NDArray[Any]:
        """A copy of a flat device array on the host, made when what was launched before has run."""

    def copy(self, source: Any, target: Any) -> None:
        """Copy the numbers of one flat device array to where another of its size and dtype lies."""

    def number(self, draw: Callable[[], int]) -> Any:
        """What *draw* returns, an unsigned number of 64 bits, in memory of the device: drawn anew by each replay."""

    def launch(self, kernel: Kernel, blocks: int, *arguments: Any) -> None:
        """Run *kernel* on a row of *blocks*."""

    def recording(self) -> Recording:
        """A new recording of what will be launched here."""

    def give(self, array: Any) -> Any:
        """An `Array` of this engine as the caller's library has arrays; the same memory."""


def target() -> Any:
    """Numba's CUDA target; ImportError with the sentence of `why_not` where it cannot be imported."""
    try:
        from numba import cuda

        if getattr(cuda, "implementation", "") == "Built-in":
            raise ImportError("only the old one inside numba is there")
        # attributes of the package from now on; cudaimpl says at once where the target and NumPy do not go together
        from numba.cuda import cgutils, cudaimpl, extending, types  # noqa: F401
    except Exception as error:  # a missing library of CUDA is a RuntimeError
        raise ImportError(_NEEDS_PACKAGE.format(reason=str(error).strip().splitlines()[0])) from error
    return cuda


def available() -> bool:
    """Whether there is a GPU that kernels can run on.

    Returns
    -------
    bool

    Examples
    --------
    >>> available() == (why_not() is None)
    True
    """
    return why_not() is None


def why_not() -> str | None:
    """What is missing for kernels to run on a GPU.

    Returns
    -------
    str or None
        One sentence that says what to install, or None if nothing is missing.
    """
    try:
        cuda = target()
    except ImportError as error:
        return str(error)
    return None if cuda.is_available() else _NEEDS_DRIVER


class Device:
    """A GPU, working in the memory and on the stream of one library.

    Kernels are compiled on first use, for each specialisation once, and cached on disk: see `kernel_cache`.
    """

    def __init__(self, ordinal: int, library: Any) -> None:
        reason = why_not()
        if reason is not None:
            raise RuntimeError(reason)
        self.ordinal = ordinal
        self._library = library
        self._cuda = target()
        self._constants = lru_cache(maxsize=256)(self._upload_constant)
        #: The same by the array itself, where it cannot change: it is not read again as long as it lives.
        self._known: dict[int, tuple[ref[NDArray[Any]], Memory]] = {}
        self._streams = lru_cache(maxsize=64)(self._cuda.external_stream)
        self._primary = self._cuda.gpus[ordinal].get_primary_context().handle
        self._handle, self._pushed = int(self._primary), driver.Pushed(self._primary)

    def __repr__(self) -> str:
        return f"device={self.ordinal}"

    @cached_property
    def _copier(self) -> Copier:
        return Copier(self._cuda)

    @cached_property
    def capability(self) -> tuple[int, int]:
        with self.context():
            major, minor = self._cuda.get_current_device().compute_capability
        return major, minor

    @property
    def stream(self) -> int:
        """The handle of the stream on which kernels run now."""
        return int(self._library.stream(self.ordinal))

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Memory:
        kind = np.dtype(dtype)
        nbytes = prod(shape) * kind.itemsize
        address, owner = self._library.allocate(nbytes, self.ordinal) if nbytes else (0, None)
        return Memory(address, kind, shape, owner)

    def constant(self, values: NDArray[Any]) -> Memory:
        whole = _whole(values)
        number = id(whole)
        known = self._known.get(number)
        if known is not None and known[0]() is whole:
            return known[1]
        memory = self._constants(values.tobytes(), values.dtype, values.shape)
        if not whole.flags.writeable:
            self._known[number] = ref(whole, lambda gone: self._known.pop(number, None)), memory
        return memory

    def upload(self, values: NDArray[Any]) -> Memory:
        recording.interrupt()
        memory = self.empty((values.size,), values.dtype)
        if values.size:
            with self.context():
                memory.copy_to_device(np.ascontiguousarray(values), self.stream)
        return memory

    def upload_ahead(self, values: NDArray[Any]) -> Callable[[], Memory]:
        memory = self.empty((values.size,), values.dtype)
        if not values.size:
            return lambda: memory
        with self.context():
            done = self._copier.copy(values, memory, self._streams(self.stream))

        def arrived() -> Memory:
            with self.context():
                done.wait(self._streams(self.stream))
            return memory

        return arrived

    def download(self, memory: Memory) -> NDArray[Any]:
        recording.interrupt()
        host = np.empty(memory.size, memory.dtype)
        if host.size:
            with self.context():
                memory.copy_to_host(host, self.stream)
        return host

    def copy(self, source: Memory, target: Memory) -> None:
        if source.size:
            with self.context():
                driver.copy_on_device(source.address, target.address, source.size * source.dtype.itemsize, self.stream)

    def number(self, draw: Callable[[], int]) -> Memory:
        # a replay writes it before its first kernel, so no earlier one may have used it for something else
        with recording.aside():
            memory = self.empty((1,), np.uint64)

        def write() -> None:
            with self.context():
                memory.copy_to_device(np.array([draw()], np.uint64), self.stream)

        write()
        if (now := recording.current(self)) is not None:
            now.add(write)
        return memory

    def launch(self, kernel: Kernel, blocks: int, *arguments: Any) -> None:
        if blocks > 0:
            with self.context():
                launcher = _launcher(kernel, self.ordinal)
                try:
                    launcher(blocks, self.stream, arguments)
                except AttributeError:
                    refuse_host_arrays(arguments)
                    raise
                if isinstance(now := recording.current(self), Graph):
                    now.add_kernel(launcher, blocks, arguments)

    def recording(self) -> Graph:
        return Graph(self)

    def give(self, array: Any) -> Any:
        return self._library.give(array)

    def adopt(self, address: int, dtype: np.dtype[Any], count: int, owner: Any, stream: int | None) -> Memory:
        """The memory of another library's array; kernels wait for what *stream* has to do on it."""
        if stream is not None:
            self._wait_for(stream)
        return Memory(address, dtype, (count,), owner)

    def follow(self, other: Device) -> None:
        """Let kernels wait for what has been launched for another library on this device."""
        self._wait_for(other.stream)

    def _wait_for(self, stream: int) -> None:
        # 1 is another name of the default stream, 0
        earlier = stream if stream != 1 else 0
        if earlier != self.stream:
            with self.context():
                event = self._cuda.event(timing=False)
                event.record(self._streams(earlier))
                event.wait(self._streams(self.stream))

    def context(self) -> Any:
        """What makes the device's context this thread's while a ``with`` block runs: nothing, where it is.

        A thread without a context keeps that of device 0, which CUDA's own libraries would give it.
        """
        here = driver.current_context()
        if here == self._handle:
            return _AS_IT_IS
        if not here and not self.ordinal:
            driver.keep_context(self._primary)
            return _AS_IT_IS
        return self._pushed

    def _upload_constant(self, data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Memory:
        """A constant serves every stream, so it is complete before the first one sees it."""
        with self.context():
            there = self._cuda.to_device(np.frombuffer(data, dtype).reshape(shape))
            self._cuda.synchronize()
        return Memory(address(there), dtype, shape, there)


def _whole(values: NDArray[Any]) -> NDArray[Any]:
    """The array of which *values* are a view, if they are all its numbers in the same order; or *values*."""
    base = values.base
    if type(base) is not np.ndarray or base.size != values.size or base.dtype != values.dtype:
        return values
    return base if base.flags.c_contiguous and values.flags.c_contiguous else values


@cache
def _launcher(kernel: Kernel, ordinal: int) -> Launcher:
    """A kernel on the device of the current context, which is number *ordinal*."""
    major, minor = target().get_current_device().compute_capability
    compiled = cached(kernel, (major, minor))
    return Launcher(compiled, kernel.function.__name__, kernel.signature, kernel.threads)


def cached(kernel: Kernel, capability: tuple[int, int]) -> Any:
    """A kernel for the current device, which has this compute *capability*: from disk, or compiled and stored there."""
    bounds = kernel.threads, kernel.residents
    return kernel_cache.compiled(target(), kernel.function, kernel.signature, bounds, capability)


def refuse_host_arrays(arguments: tuple[Any, ...]) -> None:
    """Raise TypeError for an array in host memory, which Numba would copy to the device and back without a word."""
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            raise TypeError(f"arrays must all be on the device. Received: a NumPy array of shape {argument.shape}")


def flat(array: Any, dtype: Any = _FLOAT32) -> Any:
    """A contiguous device array as a flat one, no copy: an `Array`, or memory of an engine."""
    view = getattr(array, "memory", array)
    if view.dtype != dtype:
        raise TypeError(f"the GPU kernels take {np.dtype(dtype)} here. Received: {view.dtype}, shape {view.shape}")
    return view.reshape(view.size)


def flats(engine: Engine, *arrays: Any) -> list[Any]:
    """Flat arrays for a kernel, which tells by its size an array that is None."""
    absent = engine.empty((0,), _FLOAT32)
    return [absent if array is None else flat(array) for array in arrays]


def address(array: Any) -> int:
    """Where the first number of a contiguous array lies."""
    if type(array) is Memory:
        return array.address
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(interface["data"][0] or 0)


def aligned(*arrays: Any) -> bool:
    """Whether four neighbours, from the first on, can be loaded at once from each array."""
    return all(address(array) % _BYTES_OF_QUAD == 0 for array in arrays if array.size)
