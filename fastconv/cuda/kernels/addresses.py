"""Addresses as numbers: what a loop adds to them is one instruction, and shared memory is reached by registers alone.

An array and a position are six instructions for a load: the array's address, the position of the element in 64 bits,
and their sum.  A loop that moves an address along, or adds one distance in 32 bits to it, needs one or two; what is
constant is part of the load itself.

- Memory of the GPU: 64-bit addresses, from `address_of`.
- Shared memory: 32-bit addresses, from `tensor_intrinsics.shared_address`.

The product of two tiles in shared memory is generated here as well, because Numba spends 8 seconds on its hundreds of
multiply-adds as Python and 0.4 as one operation.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from llvmlite import ir

from fastconv.cuda.device import target
from fastconv.cuda.kernels.intrinsics import fused

_cuda = target()
_types, _cgutils, intrinsic = _cuda.types, _cuda.cgutils, _cuda.extending.intrinsic

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
# numbers of the address spaces in LLVM
_GLOBAL_SPACE, _SHARED_SPACE = 1, 3
_BYTES = 4


@intrinsic
def address_of(typingctx, array, at):
    """Where number *at*, counted in 64 bits, of a contiguous array lies, also if there is none."""

    def generate(context, builder, signature, arguments):
        data = _cgutils.create_struct_proxy(signature.args[0])(context, builder, value=arguments[0]).data
        return builder.ptrtoint(builder.gep(data, [arguments[1]]), _I64)

    return _types.int64(array, _types.int64), generate


def _load_numbers(builder: Any, address: Any, distance: Any, kind: Any, count: int) -> list[Any]:
    """*count* neighbours, *distance* numbers behind an address."""
    moved = builder.add(address, builder.mul(builder.sext(distance, _I64), _I64(_BYTES)))
    loaded = kind if count == 1 else ir.VectorType(kind, count)
    value = builder.load(builder.inttoptr(moved, loaded.as_pointer(_GLOBAL_SPACE)), align=count * _BYTES)
    return [value] if count == 1 else [builder.extract_element(value, _I32(lane)) for lane in range(count)]


@intrinsic
def load_entry(typingctx, address, distance):
    """Four 32-bit integers, *distance* numbers behind an address; one instruction."""

    def generate(context, builder, signature, arguments):
        numbers = _load_numbers(builder, arguments[0], arguments[1], _I32, 4)
        return context.make_tuple(builder, signature.return_type, numbers)

    return _types.UniTuple(_types.int32, 4)(_types.int64, _types.int32), generate


@lru_cache
def load_from(count: int) -> Any:
    """``load_from(count)(address, distance, there, fill)``: as `intrinsics.load_or`, *distance* behind an address."""

    @intrinsic
    def load_numbers_from(typingctx, address, distance, there, fill):
        def generate(context, builder, signature, arguments):
            before = builder.block
            with builder.if_then(arguments[2]):
                loaded = _load_numbers(builder, arguments[0], arguments[1], _F32, count)
                after = builder.block
            numbers = []
            for number in loaded:
                merged = builder.phi(_F32)
                merged.add_incoming(arguments[3], before)
                merged.add_incoming(number, after)
                numbers.append(merged)
            return context.make_tuple(builder, signature.return_type, numbers)

        result = _types.UniTuple(_types.float32, count)
        return result(_types.int64, _types.int32, _types.boolean, _types.float32), generate

    return load_numbers_from


def _shared(builder: Any, address: Any, distance: int, kind: Any) -> Any:
    """A pointer to what lies *distance* numbers behind an address in shared memory."""
    numbers = builder.inttoptr(address, _F32.as_pointer(_SHARED_SPACE))
    return builder.bitcast(builder.gep(numbers, [_I64(distance)]), kind.as_pointer(_SHARED_SPACE))


@lru_cache
def put(step: int) -> Any:
    """``put(step)(address, distance, numbers)``: a tuple to shared memory, *step* numbers from one to the next.

    Four neighbours are one instruction and must be aligned.
    """

    @intrinsic
    def put_numbers(typingctx, address, distance, numbers):
        count = numbers.count

        def generate(context, builder, signature, arguments):
            values = [builder.extract_value(arguments[2], i) for i in range(count)]
            start = builder.inttoptr(arguments[0], _F32.as_pointer(_SHARED_SPACE))
            start = builder.gep(start, [builder.sext(arguments[1], _I64)])
            if step == 1 and count > 1:
                vector = ir.VectorType(_F32, count)
                together = ir.Constant(vector, ir.Undefined)
                for lane, value in enumerate(values):
                    together = builder.insert_element(together, value, _I32(lane))
                builder.store(together, builder.bitcast(start, vector.as_pointer(_SHARED_SPACE)), align=count * _BYTES)
            else:
                for i, value in enumerate(values):
                    builder.store(value, builder.gep(start, [_I64(i * step)]))
            return context.get_dummy_value()

        return _types.void(_types.int32, _types.int32, numbers), generate

    return put_numbers


@lru_cache
def multiply(
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    strides: tuple[int, int],
    depth: int,
    row_run: int = 4,
    twist: int = 0,
) -> Any:
    """``sums = multiply(...)(sums, a_at, b_at)``: the product of two tiles in shared memory, for one thread.

    ``sums[i, j] += sum over k of a[k * strides[0] + row i] * b[k * strides[1] + column j]``, where a and b begin at
    these addresses: *rows* and *columns* are the offsets of runs of *row_run* and of four, which one load brings; k
    rises.  In line k of a, runs have changed places: row i lies at ``(a_at + row i) ^ (k * twist)`` in numbers, where
    a_at must not reach from one row to the next, and a must be aligned to a line.
    """

    @intrinsic
    def multiply_tiles(typingctx, sums, a_at, b_at):
        def generate(context, builder, signature, arguments):
            totals = [builder.extract_value(arguments[0], i) for i in range(sums.count)]
            # the part of a twist below the step from row to row changes a_at, the rest changes the row
            step = rows[1] - rows[0] if twist else 1
            parts = {k * twist % step for k in range(depth)}
            turned = {part: builder.xor(arguments[1], _I32(part * _BYTES)) for part in sorted(parts)}

            def factors(address, first, offsets, run):
                kind = ir.VectorType(_F32, run)
                pointers = [_shared(builder, address, first + offset, kind) for offset in offsets]
                vectors = [builder.load(pointer, align=run * _BYTES) for pointer in pointers]
                return [builder.extract_element(vector, _I32(lane)) for vector in vectors for lane in range(run)]

            for k in range(depth):
                part = k * twist % step
                left = factors(turned[part], k * strides[0], [row ^ (k * twist - part) for row in rows], row_run)
                right = factors(arguments[2], k * strides[1], columns, 4)
                for i, value in enumerate(left):
                    for j, factor in enumerate(right):
                        at = i * len(right) + j
                        totals[at] = fused(builder, value, factor, totals[at])
            return context.make_tuple(builder, signature.return_type, totals)

        return sums(sums, _types.int32, _types.int32), generate

    return multiply_tiles
