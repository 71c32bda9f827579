"""The state spaces: global memory (with constants), the shared memory of every CTA, the local memory of every thread.

A space turns a thread's address into an offset into one byte array, and complains about addresses that are misaligned
or outside.  Generic addresses (PTX ISA, Generic Addressing) are told apart by windows: shared and local memory begin at
fixed addresses that no global array reaches.

Global memory is one heap.  Every array that the caller passes gets a region of it, with the alignment inside its owner
kept and unmapped bytes around it, so that an access past the end of an array is seen even where another array follows.
A byte of the heap may be read only if it belongs to an element of an array, so not in the gaps of a strided view, and
written only if the array is writeable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from fastconv.cuda.ptx.faults import Fault, Misaligned, OutOfBounds, ReadOnly
from fastconv.cuda.ptx.operations import Array
from fastconv.cuda.ptx.parse import Variable
from fastconv.cuda.ptx.threads import Lanes, Threads
from fastconv.cuda.ptx.types import UNSIGNED, round_up

GLOBAL_WINDOW = 1 << 40
LOCAL_WINDOW = 1 << 37
SHARED_WINDOW = 1 << 36
_WINDOWS = (("global", GLOBAL_WINDOW), ("local", LOCAL_WINDOW), ("shared", SHARED_WINDOW))

# What cudaMalloc promises, and the unmapped bytes around every array.
_ALIGNMENT = 256
_GUARD = 4096

_READABLE, _WRITEABLE = 1, 2


class AccessError(Exception):
    """An access that breaks a rule, before it is known which instruction made it: the fault, and whose it is."""

    def __init__(self, fault: type[Fault], rule: str, row: int, address: int) -> None:
        super().__init__(rule)
        self.fault, self.rule, self.row, self.address = fault, rule, row, address


def space_of(address: int) -> tuple[str, int]:
    """The state space of a generic address, and where its window begins."""
    for space, window in _WINDOWS:
        if address >= window:
            return space, window
    raise AccessError(OutOfBounds, "generic address in no state space (a null pointer?)", 0, address)


def _first(bad: Array) -> int:
    return int(np.flatnonzero(bad)[0])


def _check_aligned(addresses: Array, size: int) -> None:
    if int(np.bitwise_or.reduce(addresses)) & (size - 1):
        row = _first(addresses & (size - 1))
        address = int(addresses[row])
        raise AccessError(
            Misaligned, f"{size}-byte access to an address that is not a multiple of {size}", row, address
        )


class _Bytes:
    """A byte array seen as words of any size: ``words(4)[offset // 4]``."""

    def __init__(self, size: int) -> None:
        self.data = np.zeros(round_up(size, 32), np.uint8)
        self._views: dict[int, Array] = {1: self.data}

    def words(self, size: int) -> Array:
        """The memory as unsigned integers of 1, 2, 4 or 8 bytes; for 16 and 32, as rows of two and four."""
        if size not in self._views:
            view = self.data.view(UNSIGNED[min(size, 8) * 8])
            self._views[size] = view if size <= 8 else view.reshape(-1, size // 8)
        return self._views[size]


@dataclass(frozen=True)
class _Region:
    name: str
    start: int
    size: int


class GlobalMemory(_Bytes):
    """The heap of arrays and module variables."""

    def __init__(self, arrays: Iterable[NDArray[Any]], variables: Iterable[Variable]) -> None:
        self.arrays = list(arrays)
        self.variables = {variable.name: variable for variable in variables}
        self.regions: list[_Region] = []
        self._offsets: dict[int, int] = {}
        end = _GUARD
        for start, stop, members in _owners(self.arrays):
            base = round_up(end, _ALIGNMENT)
            for index in members:
                self._offsets[index] = base + _pointer(self.arrays[index]) - start
                low, high = _span(self.arrays[index])
                self.regions.append(_Region(f"array argument {index}", base + low - start, high - low))
            end = base + stop - start + _GUARD
        self.variable_offsets: dict[str, int] = {}
        for variable in self.variables.values():
            end = round_up(end, max(_ALIGNMENT, variable.align))
            self.variable_offsets[variable.name] = end
            self.regions.append(_Region(f"variable {variable.name}", end, variable.size))
            end += variable.size + _GUARD
        super().__init__(end + _GUARD)
        self.access = np.zeros(len(self.data), np.uint8)
        for index, array in enumerate(self.arrays):
            self._view(index, array)[...] = array
            allowed = _READABLE | (_WRITEABLE if array.flags.writeable else 0)
            extents, strides = (*array.shape, array.itemsize), (*array.strides, 1)
            np.ndarray(extents, np.uint8, self.access, self._offsets[index], strides)[...] |= allowed
        for name, start in self.variable_offsets.items():
            variable = self.variables[name]
            self.data[start : start + len(variable.initial)] = np.frombuffer(variable.initial, np.uint8)
            allowed = _READABLE | (_WRITEABLE if variable.space == "global" else 0)
            self.access[start : start + variable.size] = allowed

    def _view(self, index: int, array: NDArray[Any]) -> NDArray[Any]:
        """The array's elements where they lie in the heap."""
        return np.ndarray(array.shape, array.dtype, self.data, self._offsets[index], array.strides)

    def pointer(self, index: int) -> int:
        """The device address of an array argument."""
        return GLOBAL_WINDOW + self._offsets[index]

    def copy_back(self) -> None:
        """Give the caller's arrays what the kernel has written."""
        for index, array in enumerate(self.arrays):
            if array.flags.writeable:
                array[...] = self._view(index, array)

    def offsets(self, addresses: Array, size: int, write: bool, checked: bool) -> Array:
        """Offsets into the heap of accesses of *size* bytes."""
        offsets = addresses - GLOBAL_WINDOW
        if checked:
            _check_aligned(addresses, size)
            needed = _WRITEABLE if write else _READABLE
            inside = (offsets >= 0) & (offsets < len(self.data) - size)
            bounded = offsets if inside.all() else np.where(inside, offsets, 0)
            # arrays lie far apart: the first and the last byte tell
            allowed = self.access.take(bounded) & self.access.take(bounded + (size - 1)) & needed
            if not allowed.all():
                self._complain(int(addresses[_first(allowed == 0)]), _first(allowed == 0), size, write)
        return offsets

    def _complain(self, address: int, row: int, size: int, write: bool) -> NoReturn:
        offset = address - GLOBAL_WINDOW
        verb = "store" if write else "load"
        nearest = min(
            self.regions,
            key=lambda region: max(region.start - offset, offset - (region.start + region.size) + 1),
            default=None,
        )
        if nearest is None or not -_GUARD <= offset - nearest.start <= nearest.size + _GUARD:
            raise AccessError(OutOfBounds, f"global {verb} of {size} bytes far from any array", row, address)
        inside = offset - nearest.start
        if 0 <= inside and inside + size <= nearest.size:
            if write and self.access[offset] & _READABLE:
                raise AccessError(ReadOnly, f"store of {size} bytes to read-only {nearest.name}", row, address)
            raise AccessError(OutOfBounds, f"global {verb} between the elements of {nearest.name}", row, address)
        where = f"{-inside} bytes before" if inside < 0 else f"at byte {inside}, past the {nearest.size} bytes of"
        raise AccessError(OutOfBounds, f"global {verb} of {size} bytes {where} {nearest.name}", row, address)


def _pointer(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _span(array: NDArray[Any]) -> tuple[int, int]:
    """The first byte of the array's memory and the byte after its last."""
    low = high = _pointer(array)
    if array.size == 0:
        return low, high
    for extent, stride in zip(array.shape, array.strides, strict=True):
        low += min(0, (extent - 1) * stride)
        high += max(0, (extent - 1) * stride)
    return low, high + array.itemsize


def _owners(arrays: list[NDArray[Any]]) -> Iterable[tuple[int, int, list[int]]]:
    """Arrays that share memory share a region: (start, stop, members).

    The start is aligned as seen from the owner's first byte, so that a view that begins in the middle of an array is as
    misaligned here as it would be on a device.
    """
    groups: dict[int, list[int]] = {}
    for index, array in enumerate(arrays):
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        groups.setdefault(_span(owner)[0], []).append(index)
    for first, members in groups.items():
        spans = [_span(arrays[index]) for index in members]
        low = min(span[0] for span in spans)
        yield low - (low - first) % _ALIGNMENT, max(span[1] for span in spans), members


class SharedMemory(_Bytes):
    """``.shared``: one piece per CTA, filled with ones (NaN) where nothing has been written."""

    def __init__(self, size: int, threads: Threads) -> None:
        self.size = size
        self.pitch = round_up(max(size, 1), 16)
        super().__init__(self.pitch * threads.ctas)
        self.base = threads.cta * self.pitch

    def reset(self) -> None:
        self.data.fill(0xFF)

    def offsets(self, addresses: Array, lanes: Lanes, size: int, checked: bool) -> Array:
        if checked:
            _check_aligned(addresses, size)
            _check_inside(addresses, size, self.size, "shared memory of the CTA")
        return addresses + self.base[lanes]


class LocalMemory(_Bytes):
    """``.local``: one piece per thread."""

    def __init__(self, size: int, threads: Threads) -> None:
        self.size = size
        self.pitch = round_up(size, 16)
        super().__init__(self.pitch * threads.count)
        self.base = threads.numbers * self.pitch

    def reset(self) -> None:
        self.data.fill(0xFF)

    def offsets(self, addresses: Array, lanes: Lanes, size: int, checked: bool) -> Array:
        if checked:
            _check_aligned(addresses, size)
            _check_inside(addresses, size, self.size, "local memory of the thread")
        return addresses + self.base[lanes]


def _check_inside(addresses: Array, size: int, limit: int, what: str) -> None:
    bad = (addresses < 0) | (addresses > limit - size)
    if bad.any():
        row = _first(bad)
        address = int(addresses[row])
        raise AccessError(OutOfBounds, f"{size}-byte access outside the {limit} bytes of the {what}", row, address)
