"""The one door to the CUDA target: whether it is there, what is missing, and how a kernel gets onto the device.

Numba's CUDA target is a package of its own (numba-cuda).  Its import takes half a second and fails in several ways, so
nothing here imports it before it is used, and no other file of fastconv does at all: kernels get the package from
`target`.

Operations speak to an `Engine`.  `Device` is the one that runs on a GPU.
The tests have another, which runs the same PTX in an interpreter: what an operation launches, with which grid and which
arguments, is the same code for both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, cached_property, lru_cache
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np
from numba.core.errors import NumbaPerformanceWarning
from numpy.typing import NDArray

from fastconv.cuda import kernel_cache
from fastconv.cuda.upload import Copier

#: What to install, and what that needs.
INSTALL = "pip install 'fastconv[cuda]'"
_NEEDS_PACKAGE = (
    f"Numba's CUDA target is not installed ({{reason}}): {INSTALL} (CUDA 13, driver 580 or newer; "
    "for drivers from 525 on: pip install 'numba-cuda[cu12]')"
)
_NEEDS_DRIVER = (
    "Numba's CUDA target is installed, but there is no usable NVIDIA driver: CUDA 13 needs driver 580 or newer "
    "(nvidia-smi prints it), CUDA 12 (pip install 'numba-cuda[cu12]') 525 or newer"
)


class Kernel(NamedTuple):
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

    def launch(self, kernel: Kernel, blocks: int, *arguments: Any) -> None:
        """Run *kernel* on a row of *blocks*."""

    def give(self, array: Any) -> Any:
        """An `Array` of this engine as the caller's library has arrays; the same memory."""


def target() -> Any:
    """Numba's CUDA target; ImportError with the sentence of `why_not` where it cannot be imported."""
    try:
        from numba import cuda

        if getattr(cuda, "implementation", "") == "Built-in":
            raise ImportError("only the old one inside numba is there")
        from numba.cuda import cgutils, extending, types  # noqa: F401 - attributes of the package from now on
    except Exception as error:  # a missing library of CUDA is a RuntimeError
        raise ImportError(_NEEDS_PACKAGE.format(reason=str(error).strip().splitlines()[0])) from error
    return cuda


def available() -> bool:
    """Whether there is a GPU that kernels can run on.

    Returns
    -------
    bool
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
        self._streams = lru_cache(maxsize=64)(self._cuda.external_stream)

    def __repr__(self) -> str:
        return f"device={self.ordinal}"

    @cached_property
    def _copier(self) -> Copier:
        return Copier(self._cuda)

    @cached_property
    def capability(self) -> tuple[int, int]:
        with self._context():
            major, minor = self._cuda.get_current_device().compute_capability
        return major, minor

    @property
    def stream(self) -> int:
        """The handle of the stream on which kernels run now."""
        return int(self._library.stream(self.ordinal))

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        kind = np.dtype(dtype)
        size = prod(shape)
        with self._context():
            if not size:
                return self._cuda.device_array(shape, kind)
            address, owner = self._library.allocate(size * kind.itemsize, self.ordinal)
            return self._view(shape, kind.str, address, owner)

    def constant(self, values: NDArray[Any]) -> Any:
        return self._constants(values.tobytes(), values.dtype.str, values.shape)

    def upload(self, values: NDArray[Any]) -> Any:
        memory = self.empty((values.size,), values.dtype)
        with self._context():
            if values.size:
                memory.copy_to_device(np.ascontiguousarray(values).reshape(-1), stream=self._streams(self.stream))
        return memory

    def upload_ahead(self, values: NDArray[Any]) -> Callable[[], Any]:
        memory = self.empty((values.size,), values.dtype)
        if not values.size:
            return lambda: memory
        with self._context():
            done = self._copier.copy(values, memory, self._streams(self.stream))

        def arrived() -> Any:
            with self._context():
                done.wait(self._streams(self.stream))
            return memory

        return arrived

    def download(self, memory: Any) -> NDArray[Any]:
        with self._context():
            stream = self._streams(self.stream)
            host: NDArray[Any] = memory.copy_to_host(stream=stream)
            stream.synchronize()
        return host

    def launch(self, kernel: Kernel, blocks: int, *arguments: Any) -> None:
        refuse_host_arrays(arguments)
        if blocks > 0:
            with self._context():
                _launcher(kernel, self.ordinal, blocks, self.stream)(*arguments)

    def give(self, array: Any) -> Any:
        return self._library.give(array)

    def adopt(self, interface: dict[str, Any], owner: Any, stream: int | None) -> Any:
        """The memory of another library's array; kernels wait for what *stream* has to do on it."""
        with self._context():
            if stream is not None:
                self._wait_for(stream)
            (size,) = interface["shape"]
            return self._view((size,), interface["typestr"], interface["data"][0], owner)

    def follow(self, other: Device) -> None:
        """Let kernels wait for what has been launched for another library on this device."""
        with self._context():
            self._wait_for(other.stream)

    def _wait_for(self, stream: int) -> None:
        # 1 is another name of the default stream, 0
        earlier = stream if stream != 1 else 0
        if earlier != self.stream:
            event = self._cuda.event(timing=False)
            event.record(self._streams(earlier))
            event.wait(self._streams(self.stream))

    def _context(self) -> Any:
        return self._cuda.gpus[self.ordinal]

    def _view(self, shape: tuple[int, ...], typestr: str, address: int, owner: Any) -> Any:
        interface = {"shape": shape, "strides": None, "typestr": typestr, "data": (address, False), "version": 3}
        return self._cuda.from_cuda_array_interface(interface, owner=owner, sync=False)

    def _upload_constant(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> Any:
        """A constant serves every stream, so it is complete before the first one sees it."""
        with self._context():
            memory = self._cuda.to_device(np.frombuffer(data, dtype).reshape(shape))
            self._cuda.synchronize()
        return memory


@cache
def _compiled(kernel: Kernel, ordinal: int) -> Any:
    """A kernel for the device of the current context, which is number *ordinal*."""
    major, minor = target().get_current_device().compute_capability
    return cached(kernel, (major, minor))


def cached(kernel: Kernel, capability: tuple[int, int]) -> Any:
    """A kernel for the current device, which has this compute *capability*: from disk, or compiled and stored there."""
    bounds = kernel.threads, kernel.residents
    return kernel_cache.compiled(target(), kernel.function, kernel.signature, bounds, capability)


@lru_cache(maxsize=4096)
def _launcher(kernel: Kernel, ordinal: int, blocks: int, stream: int) -> Any:
    """A compiled kernel with its grid, on the stream of this handle."""
    with warnings.catch_warnings():
        # Numba warns of grids that leave a GPU idle: small layers have no others
        warnings.simplefilter("ignore", NumbaPerformanceWarning)
        return _compiled(kernel, ordinal)[blocks, kernel.threads, target().external_stream(stream)]


def refuse_host_arrays(arguments: tuple[Any, ...]) -> None:
    """Raise TypeError for an array in host memory, which Numba would copy to the device and back without a word."""
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            raise TypeError(f"arrays must all be on the device. Received: a NumPy array of shape {argument.shape}")


def flat(array: Any, dtype: Any = np.float32) -> Any:
    """A contiguous device array as a flat one, no copy: an `Array`, or memory of an engine."""
    view = getattr(array, "memory", array)
    if view.dtype != dtype:
        raise TypeError(f"the GPU kernels take {np.dtype(dtype)} here. Received: {view.dtype}, shape {view.shape}")
    return view.reshape(view.size)


def address(array: Any) -> int:
    """Where the first number of a contiguous array lies."""
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(interface["data"][0] or 0)
