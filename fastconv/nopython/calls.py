"""Calls of kernels from inside other people's compiled code, without Python and without its lock.

What a call needs besides its arrays (which algorithm, the cut into blocks, tables of pixels, the address of the
kernel's machine code) depends on shapes and options alone, and Python works it out, with the same functions and the
same errors as ever.  It writes all that into a *record*, an array of integers.  Compiled code keeps the addresses of
the records that it has used in a small table of its own, finds a record by its *key*, the shapes and options as
numbers, and asks Python only for a key that it has not met:

    key -> slot -> record -> driver's address -> kernel

So a loop, or the threads of a `prange`, take Python's lock once for each new shape.  Records are small (some kilobytes)
and are never freed, because any table of any function may hold their address.

The idea is that of inline caches: L. P. Deutsch and A. M. Schiffman, Efficient implementation of the Smalltalk-80
system, POPL 1984.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import objmode, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable
from numpy.typing import NDArray

from fastconv import _jit
from fastconv.nopython.arguments import numbers

Planner = TypeVar("Planner", bound=Callable[..., Any])

# Slots of a table, a power of two, and how many of them a key may lie in: networks have tens of different layers.
_SLOTS = 256
_PROBES = 8
# Spreads keys over the slots: that of Knuth's multiplicative hashing, 2**64 over the golden ratio.
_SPREAD = np.int64(0x9E3779B97F4A7C15 - 2**64)

#: Name of an operation -> what makes the parts of a record from the details of a call.
_planners: dict[str, Callable[..., Iterable[Any]]] = {}
#: Records by operation and details; they live as long as the process.
_records: dict[tuple[str, Any], NDArray[np.int64]] = {}


# ---- in Python ------------------------------------------------------------------------------------------------------


def plans(operation: str) -> Callable[[Planner], Planner]:
    """Register a function that makes the parts of the records of *operation*: integers and arrays of them."""

    def register(planner: Planner) -> Planner:
        _planners[operation] = planner
        return planner

    return register


def address_of_record(operation: str, key: tuple[int, ...], details: Any) -> int:
    """The address of the record of a call; the errors of the operation are raised here."""
    if (operation, details) not in _records:
        body = [number for part in _planners[operation](*details) for number in np.ravel(part).tolist()]
        made = np.array([2 + len(key) + len(body), len(key), *key, *body], np.int64)
        # another thread may have been faster, and given away the address of its record
        _records.setdefault((operation, details), made)
    return int(_records[operation, details].ctypes.data)


# ---- in compiled code -----------------------------------------------------------------------------------------------


@intrinsic
def _table(typingctx: Any) -> Any:
    """The address of this function's table of records, all 0 at first."""

    def generate(context: Any, builder: Any, signature: Any, _: Any) -> Any:
        kind = ir.ArrayType(ir.IntType(64), _SLOTS)
        slots = cgutils.add_global_variable(builder.module, kind, "fastconv.records")
        slots.initializer, slots.linkage = kind(None), "internal"
        return builder.ptrtoint(slots, context.get_value_type(signature.return_type))

    return types.intp(), generate


@intrinsic
def _load(typingctx: Any, slots: Any, index: Any) -> Any:
    """The address in a slot, which other threads may be writing."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.load_atomic(_slot(builder, *arguments), "acquire", 8)

    return types.intp(types.intp, types.intp), generate


@intrinsic
def _store(typingctx: Any, slots: Any, index: Any, address: Any) -> Any:
    """Write an address into a slot; what it points to has been written before."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        slots, index, address = arguments
        builder.store_atomic(address, _slot(builder, slots, index), "release", 8)
        return context.get_dummy_value()

    return types.none(types.intp, types.intp, types.intp), generate


def _slot(builder: Any, slots: Any, index: Any) -> Any:
    return builder.gep(builder.inttoptr(slots, ir.IntType(64).as_pointer()), [index])


@intrinsic
def _numbers_at(typingctx: Any, address: Any) -> Any:
    """The record at *address* as an array; its first number is its length."""
    kind = types.Array(types.int64, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        length, bytes_of_number = builder.load(data), context.get_constant(types.intp, 8)
        array = context.make_array(kind)(context, builder)
        context.populate_array(
            array, data=data, shape=[length], strides=[bytes_of_number], itemsize=bytes_of_number, meminfo=None
        )
        return array._getvalue()

    return kind(types.intp), generate


@_jit.inline
def _first_slot(key):
    mixed = np.int64(0)
    for number in key:
        mixed = (mixed ^ number) * _SPREAD
    return (mixed >> 32) & (_SLOTS - 1)


@_jit.inline
def _find(slots, key):
    """The address of the record with *key* in the table at *slots*, or 0."""
    slot = _first_slot(key)
    for probe in range(_PROBES):
        address = _load(slots, (slot + probe) & (_SLOTS - 1))
        if address == 0:
            break
        record = _numbers_at(address)
        same = record[1] == len(key)
        at = 2
        for number in key:
            same = same and record[at] == number
            at += 1
        if same:
            return address
    return 0


@_jit.inline
def _keep(slots, key, address):
    """Note the address of a record; where all its slots are taken, in place of another, which Python can give again."""
    first = _first_slot(key)
    slot = first
    for probe in range(_PROBES):
        slot = (first + probe) & (_SLOTS - 1)
        if _load(slots, slot) == 0:
            break
    _store(slots, slot, address)


@register_jitable
def record(operation, dtype, shapes_and_options, details):
    """The address of the record of a call: *details* are for Python, *shapes_and_options* the same as numbers.

    Functions of one signature share a table, so operation and dtype are in the key, too.
    """
    slots = _table()
    key = (*numbers(operation), *numbers(dtype), *shapes_and_options)
    address = _find(slots, key)
    if address == 0:
        with objmode(address="intp"):
            address = address_of_record(operation, key, (dtype, *details))
        _keep(slots, key, address)
    return address


@_jit.inline
def body_at(address):
    """What a record says of a call: its numbers after the key."""
    record = _numbers_at(address)
    return record[2 + record[1] :]


@intrinsic
def call(typingctx: Any, address: Any, arguments: Any) -> Any:
    """Call the driver at *address* with the elements of a tuple; it has been compiled for exactly their types."""
    kinds = tuple(types.unliteral(argument) for argument in arguments)
    given = types.Tuple(kinds)

    def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
        convention = context.call_conv
        driver = builder.inttoptr(values[0], convention.get_function_type(types.none, kinds).as_pointer())
        elements = cgutils.unpack_tuple(builder, values[1], len(kinds))
        status, _ = convention.call_function(builder, driver, types.none, kinds, elements)
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.none(types.intp, given), generate
