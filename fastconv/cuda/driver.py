"""The few things that every operation asks of the CUDA driver, by NVIDIA's binding.

Numba asks it too, for arguments of any kind, in any context and with a line for the log: 67 us of Python for a launch
with two arrays, and 40 for a new array.  Here they take 4 and 5.  What is needed once for a kernel or a device, and
events, are left to Numba.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from numpy.typing import NDArray


class DriverError(RuntimeError):
    """The driver could not do what it was asked for, or a kernel before it has failed."""


@cache
def calls() -> Any:
    """The functions of the driver; each returns its error, and then what it is asked for."""
    return import_module("cuda.bindings.driver")


def checked(result: tuple[Any, ...], what: str = "") -> Any:
    """What a function of the driver returned besides its error, of which there must be none.

    The error may be that of a kernel that ran before: *what* tells what was asked for.
    """
    if result[0]:
        raise DriverError(f"{what}: the CUDA driver reports {result[0].name}".removeprefix(": "))
    return result[1] if len(result) > 1 else None


def current_context() -> int:
    """The handle of this thread's context; 0 if it has none."""
    return int(checked(calls().cuCtxGetCurrent()))


def keep_context(context: Any) -> None:
    """Give this thread a context for good."""
    checked(calls().cuCtxSetCurrent(context))


class Pushed:
    """Makes a context this thread's while a ``with`` block runs."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __enter__(self) -> None:
        checked(calls().cuCtxPushCurrent(self._context))

    def __exit__(self, *error: object) -> None:
        checked(calls().cuCtxPopCurrent())


def copy_to_device(values: NDArray[Any], address: int, stream: int) -> None:
    """Copy contiguous *values* to the device; those that are not in pinned memory may change from then on."""
    checked(calls().cuMemcpyHtoDAsync(address, values.ctypes.data, values.nbytes, stream))


def copy_on_device(source: int, target: int, nbytes: int, stream: int) -> None:
    """Copy memory of the device, once what was launched on *stream* before has run."""
    checked(calls().cuMemcpyDtoDAsync(target, source, nbytes, stream))


def copy_to_host(address: int, values: NDArray[Any], stream: int) -> None:
    """Fill contiguous *values* from the device, once what was launched on *stream* before has run."""
    checked(calls().cuMemcpyDtoHAsync(values.ctypes.data, address, values.nbytes, stream))
    checked(calls().cuStreamSynchronize(stream))
