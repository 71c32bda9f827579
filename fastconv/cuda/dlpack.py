"""Arrays of libraries that have DLPack and no CUDA array interface, as if they had one.

DLPack hands over a capsule around a C structure (dlpack.h), which is read here.  The capsule is kept as the owner of
the memory: when it is dropped, it tells the library.
"""

from __future__ import annotations

import ctypes
from typing import Any

#: DLPack's number for CUDA, and its letters for the kinds of numbers.
_CUDA = 2
_KINDS = {0: "i", 1: "u", 2: "f", 5: "c", 6: "b"}
_CAPSULE = b"dltensor"


class _Tensor(ctypes.Structure):
    """DLTensor: where the numbers are, and how they lie."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)


def on_gpu(value: Any) -> bool:
    """Whether *value* is an array of a library with DLPack, on a GPU."""
    where = getattr(value, "__dlpack_device__", None)
    return where is not None and not isinstance(value, type) and int(where()[0]) == _CUDA


def interface(value: Any, stream: int) -> tuple[dict[str, Any], Any]:
    """The CUDA array interface of *value*, safe to use on *stream*, and the owner of the memory."""
    # 1 is DLPack's name of the default stream
    capsule = value.__dlpack__(stream=stream or 1)
    return read(capsule), capsule


def read(capsule: Any) -> dict[str, Any]:
    """What a capsule says, in the terms of the CUDA array interface."""
    tensor = _Tensor.from_address(_pointer_of(capsule, _CAPSULE))
    itemsize = tensor.bits // 8
    if tensor.lanes != 1 or tensor.code not in _KINDS:
        raise TypeError(f"only plain numbers can be taken. Received: DLPack type {tensor.code}, lanes {tensor.lanes}")
    strides = tuple(tensor.strides[axis] * itemsize for axis in range(tensor.ndim)) if tensor.strides else None
    return {
        "shape": tuple(tensor.shape[: tensor.ndim]),
        "strides": strides,
        "typestr": f"<{_KINDS[tensor.code]}{itemsize}",
        "data": ((tensor.data or 0) + tensor.byte_offset, False),
        "version": 3,
    }
