"""Launches: the arguments of a kernel are packed into one buffer, and the driver is told where each of them lies.

What Numba's kernels take is plain: an array of one axis is seven numbers, a tuple its members, a number itself.  So one
`struct.Struct` for a signature packs them all, and the table of places is made once.
"""

from __future__ import annotations

import ctypes
from struct import Struct, calcsize
from threading import Lock
from typing import Any

from fastconv.cuda.driver import calls, checked
from fastconv.cuda.memory import NUMBERS_OF_ARRAY

#: Kinds of arguments.
_ARRAY, _TUPLE, _NUMBER = range(3)
#: The code of `struct` for numbers of one of Numba's types.
_CODES = {"int32": "i", "int64": "q", "uint32": "I", "uint64": "Q", "float32": "f", "float64": "d", "bool": "?"}


def codes_of(kind: Any) -> tuple[int, str]:
    """What an argument of one of Numba's types is, and the codes of its numbers."""
    if hasattr(kind, "layout"):
        if kind.ndim != 1:
            raise TypeError(f"kernels take arrays of one axis. Received: {kind}")
        return _ARRAY, "q" * NUMBERS_OF_ARRAY
    if hasattr(kind, "count"):
        return _TUPLE, _CODES[str(kind.dtype)] * int(kind.count)
    return _NUMBER, _CODES[str(kind)]


def places_of(codes: str, start: int) -> list[int]:
    """Where `struct` puts the numbers of *codes* in a buffer from *start* on: each aligned to its size."""
    ends = [calcsize(codes[: index + 1]) for index in range(len(codes))]
    return [start + end - calcsize(code) for code, end in zip(codes, ends, strict=True)]


class Launcher:
    """A kernel on one device.

    Parameters
    ----------
    compiled : object
        Numba's kernel; the device's context is current.
    name : str
        What errors call it.
    signature : object
        The types of its arguments, which nothing compares with those that come.
    threads : int
        Of a block.
    """

    def __init__(self, compiled: Any, name: str, signature: Any, threads: int) -> None:
        function = compiled.library.get_cufunc()
        handle = function.handle
        if isinstance(handle, calls().CUkernel):  # of any context, which a launch takes, and a graph does not
            handle = checked(calls().cuKernelGetFunction(handle))
        self._function = calls().CUfunction(int(handle))
        self._kept = compiled, function  # the code is unloaded with the last reference
        self._name, self._threads = name, threads
        taken = [codes_of(kind) for kind in signature.args]
        self._kinds = [kind for kind, _ in taken]
        codes = "".join(codes for _, codes in taken)
        self._form = Struct(codes)
        #: Where the driver reads arguments, and the table of their addresses in it.
        self._buffer = ctypes.create_string_buffer(self._form.size)
        self._places = (ctypes.c_void_p * len(codes))(*places_of(codes, ctypes.addressof(self._buffer)))
        self._table = ctypes.addressof(self._places)
        self._lock = Lock()  # of the buffer, which the driver has read when a launch returns

    def __call__(self, blocks: int, stream: int, arguments: tuple[Any, ...]) -> None:
        """Run the kernel on a row of *blocks*."""
        numbers = self._numbers(arguments)
        with self._lock:
            self._form.pack_into(self._buffer, 0, *numbers)
            threads, table = self._threads, self._table
            result = calls().cuLaunchKernel(self._function, blocks, 1, 1, threads, 1, 1, 0, stream, table, 0)
        checked(result, self._name)

    def node(self, graph: Any, behind: list[Any], blocks: int, arguments: tuple[Any, ...]) -> Any:
        """Put the kernel into a graph of the driver, behind other nodes of it: the new node."""
        told = calls().CUDA_KERNEL_NODE_PARAMS()
        told.func, told.kernelParams = self._function, self._table
        told.gridDimX, told.gridDimY, told.gridDimZ = blocks, 1, 1
        told.blockDimX, told.blockDimY, told.blockDimZ = self._threads, 1, 1
        numbers = self._numbers(arguments)
        with self._lock:
            self._form.pack_into(self._buffer, 0, *numbers)
            result = calls().cuGraphAddKernelNode(graph, behind, len(behind), told)
        return checked(result, self._name)

    def _numbers(self, arguments: tuple[Any, ...]) -> list[Any]:
        """What the arguments come to in the buffer."""
        numbers: list[Any] = []
        for argument, kind in zip(arguments, self._kinds, strict=True):
            if kind is _ARRAY:
                numbers += argument.fields
            elif kind is _TUPLE:
                numbers += argument
            else:
                numbers.append(argument)
        return numbers
