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
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

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

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """A new device array of any contents."""

    def constant(self, values: NDArray[Any]) -> Any:
        """*values*, which never change, on the device; uploaded once."""

    def launch(self, kernel: Kernel, blocks: int, *arguments: Any) -> None:
        """Run *kernel* on a row of *blocks*."""


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
    """Whether there is a GPU that kernels can run on."""
    return why_not() is None


def why_not() -> str | None:
    """What is missing, in one sentence, or None if there is a GPU."""
    try:
        cuda = target()
    except ImportError as error:
        return str(error)
    return None if cuda.is_available() else _NEEDS_DRIVER


class Device:
    """The current GPU.  Kernels are compiled on first use, and for each specialisation once."""

    def __init__(self) -> None:
        reason = why_not()
        if reason is not None:
            raise RuntimeError(reason)
        self._cuda = target()
        self._compiled = lru_cache(maxsize=None)(self._compile)
        self._constants = lru_cache(maxsize=256)(self._upload)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._cuda.device_array(shape, dtype)

    def constant(self, values: NDArray[Any]) -> Any:
        return self._constants(values.tobytes(), values.dtype.str, values.shape)

    def launch(self, kernel: Kernel, blocks: int, *arguments: Any) -> None:
        refuse_host_arrays(arguments)
        if blocks > 0:
            self._compiled(kernel)[blocks, kernel.threads](*arguments)

    def _compile(self, kernel: Kernel) -> Any:
        bounds = kernel.threads, kernel.residents
        return self._cuda.jit(kernel.signature, launch_bounds=bounds)(kernel.function)

    def _upload(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> Any:
        return self._cuda.to_device(np.frombuffer(data, dtype).reshape(shape))


def refuse_host_arrays(arguments: tuple[Any, ...]) -> None:
    """Raise TypeError for an array in host memory, which Numba would copy to the device and back without a word."""
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            raise TypeError(f"arrays must all be on the device. Received: a NumPy array of shape {argument.shape}")


@lru_cache(maxsize=1)
def current() -> Device:
    """The device that operations use unless told otherwise."""
    return Device()


def flat(array: Any, dtype: Any = np.float32) -> Any:
    """A contiguous device array of any library as a flat one, no copy; a host array stays one, for the tests."""
    view = array if isinstance(array, np.ndarray) else target().as_cuda_array(array)
    if view.dtype != dtype:
        raise TypeError(f"the GPU kernels take {np.dtype(dtype)} here. Received: {view.dtype}, shape {view.shape}")
    return view.reshape(view.size)


def address(array: Any) -> int:
    """Where the first number of a contiguous array lies."""
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(interface["data"][0] or 0)
