"""Neighbouring windows of one row, in the registers of one thread: what they share is loaded once.

Windows that begin *step* columns apart read the same columns.  So a thread loads the columns of several windows, each a
*number* of neighbouring channels (four are one load), and uses every one of them in all windows that it belongs to.
Columns that are not there are read where the nearest one is, and left out of the sums: loads that depend on nothing can
all be on their way at once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from llvmlite import ir

from fastconv.cuda.device import target
from fastconv.cuda.kernels.intrinsics import _call, _load_numbers, _pointer, fused

_cuda = target()
_types, intrinsic = _cuda.types, _cuda.extending.intrinsic

_I32 = ir.IntType(32)


@lru_cache
def places(count: int) -> Any:
    """``places(count)(first, step, extent, C)``: where *count* columns lie in their row, moved to the nearest one."""

    @intrinsic
    def places_of_columns(typingctx, first, step, extent, C):
        def generate(context, builder, signature, arguments):
            first, step, extent, C = arguments
            last = builder.sub(extent, _I32(1))
            found = []
            for j in range(count):
                column = builder.add(first, builder.mul(step, _I32(j)))
                column = builder.select(builder.icmp_signed("<", column, _I32(0)), _I32(0), column)
                column = builder.select(builder.icmp_signed("<", last, column), last, column)
                found.append(builder.mul(column, C))
            return context.make_tuple(builder, signature.return_type, found)

        i32 = _types.int32
        return _types.UniTuple(i32, count)(i32, i32, i32, i32), generate

    return places_of_columns


@lru_cache
def there(count: int) -> Any:
    """``there(count)(first, step, extent)``: a bit for each of *count* columns that is in the row."""

    @intrinsic
    def bits_of_columns(typingctx, first, step, extent):
        def generate(context, builder, signature, arguments):
            first, step, extent = arguments
            bits = _I32(0)
            for j in range(count):
                column = builder.add(first, builder.mul(step, _I32(j)))
                inside = builder.zext(builder.icmp_unsigned("<", column, extent), _I32)
                bits = builder.or_(bits, builder.shl(inside, _I32(j)))
            return bits

        i32 = _types.int32
        return i32(i32, i32, i32), generate

    return bits_of_columns


@lru_cache
def load_columns(lanes: int) -> Any:
    """``load_columns(lanes)(array, at, places)``: *lanes* neighbours from ``at + place`` on, for each of the places."""

    @intrinsic
    def load_numbers(typingctx, array, at, places):
        def generate(context, builder, signature, arguments):
            numbers = []
            for j in range(places.count):
                index = builder.add(arguments[1], builder.extract_value(arguments[2], j))
                pointer = _pointer(context, builder, array, arguments[0], _types.int32, index)
                numbers += _load_numbers(context, builder, array, pointer, lanes)
            return context.make_tuple(builder, signature.return_type, numbers)

        return _types.UniTuple(array.dtype, places.count * lanes)(array, _types.int32, places), generate

    return load_numbers


@lru_cache
def slide(sums: int, factors: int, sum_step: int, factor_step: int) -> Any:
    """``slide(...)(totals, columns, others, columns_there, others_there)``: the totals with their products added.

    Total s receives column ``s * sum_step + f * factor_step`` times factor f, for f = 0, 1, ...: a chain of fused
    multiply-adds for each lane.  A product is left out where the bit of its column or of its factor is 0.
    """

    @intrinsic
    def add_products(typingctx, totals, columns, others, columns_there, others_there):
        lanes = totals.count // sums

        def generate(context, builder, signature, arguments):
            x, factor = ([builder.extract_value(side, i) for i in range(kind.count)]
                         for side, kind in zip(arguments[1:3], (columns, others)))

            def bit(mask, i):
                return builder.trunc(builder.lshr(mask, _I32(i)), ir.IntType(1))

            column_bits = [bit(arguments[3], i) for i in range(columns.count // lanes)]
            factor_bits = [bit(arguments[4], i) for i in range(factors)]
            results = []
            for s in range(sums):
                chains = [builder.extract_value(arguments[0], s * lanes + lane) for lane in range(lanes)]
                for f in range(factors):
                    column = s * sum_step + f * factor_step
                    counts = builder.and_(column_bits[column], factor_bits[f])
                    for lane in range(lanes):
                        longer = fused(builder, x[column * lanes + lane], factor[f * lanes + lane], chains[lane])
                        chains[lane] = builder.select(counts, longer, chains[lane])
                results += chains
            return context.make_tuple(builder, signature.return_type, results)

        return totals(totals, columns, others, _types.int32, _types.int32), generate

    return add_products


@intrinsic
def add_each(typingctx, totals, numbers, there):
    """The totals with each of the *numbers*, in turn, added where its bit is 1: as many at a time as there are totals.

    Denormals are zero.
    """
    lanes = totals.count

    def generate(context, builder, signature, arguments):
        sums = [builder.extract_value(arguments[0], lane) for lane in range(lanes)]
        for i in range(numbers.count):
            counts = builder.trunc(builder.lshr(arguments[2], _I32(i // lanes)), ir.IntType(1))
            number = builder.extract_value(arguments[1], i)
            longer = _call(builder, "llvm.nvvm.add.rn.ftz.f", sums[i % lanes], number)
            sums[i % lanes] = builder.select(counts, longer, sums[i % lanes])
        return context.make_tuple(builder, signature.return_type, sums)

    return totals(totals, numbers, _types.int32), generate
