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
def steps(count: int) -> Any:
    """``steps(count)(step)``: 0, *step*, 2 * *step*, ..."""

    @intrinsic
    def multiples(typingctx, step):
        def generate(context, builder, signature, arguments):
            found = [builder.mul(arguments[0], _I32(j)) for j in range(count)]
            return context.make_tuple(builder, signature.return_type, found)

        return _types.UniTuple(_types.int32, count)(_types.int32), generate

    return multiples


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
            x = [builder.extract_value(arguments[1], i) for i in range(columns.count)]
            factor = [builder.extract_value(arguments[2], i) for i in range(others.count)]

            column_bits = [_bit(builder, arguments[3], i) for i in range(columns.count // lanes)]
            factor_bits = [_bit(builder, arguments[4], i) for i in range(factors)]
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


@lru_cache
def add_each(flush: bool) -> Any:
    """``add_each(flush)(totals, numbers, there)``: the totals with the numbers whose bit is 1 added one after another.

    As many numbers at a time as there are totals; totals in float64 take float32 numbers as well.  With *flush*,
    denormals are zero, in float32.
    """

    @intrinsic
    def add_numbers(typingctx, totals, numbers, there):
        lanes = totals.count
        double = totals.dtype == _types.float64

        def generate(context, builder, signature, arguments):
            sums = [builder.extract_value(arguments[0], lane) for lane in range(lanes)]
            for i in range(numbers.count):
                number = builder.extract_value(arguments[1], i)
                if double:
                    number = context.cast(builder, number, numbers.dtype, _types.float64)
                    longer = builder.fadd(sums[i % lanes], number)
                else:
                    name = "llvm.nvvm.add.rn.ftz.f" if flush else "llvm.nvvm.add.rn.f"
                    longer = _call(builder, name, sums[i % lanes], number)
                sums[i % lanes] = builder.select(_bit(builder, arguments[2], i // lanes), longer, sums[i % lanes])
            return context.make_tuple(builder, signature.return_type, sums)

        return totals(totals, numbers, _types.int32), generate

    return add_numbers


@intrinsic
def add_at(typingctx, totals, numbers, indices, position):
    """The totals, with the numbers added whose index is *position*."""

    def generate(context, builder, signature, arguments):
        sums = []
        for lane in range(totals.count):
            total, number, index = (builder.extract_value(side, lane) for side in arguments[:3])
            chosen = builder.icmp_signed("==", index, arguments[3])
            sums.append(builder.select(chosen, _call(builder, "llvm.nvvm.add.rn.f", total, number), total))
        return context.make_tuple(builder, signature.return_type, sums)

    return totals(totals, numbers, indices, _types.int64), generate


@intrinsic
def larger(typingctx, best, where, numbers, sign, place, step, there):
    """The largest of *best* and of ``sign * numbers`` in turn, as many at a time as there are best ones, and its place.

    A number wins only if it is larger, or NaN, and if its bit is 1; the places lie *step* apart.
    """
    lanes = best.count

    def generate(context, builder, signature, arguments):
        bests, wheres = ([builder.extract_value(side, lane) for lane in range(lanes)] for side in arguments[:2])
        place = arguments[4]
        for i in range(numbers.count):
            lane = i % lanes
            number = builder.fmul(builder.extract_value(arguments[2], i), arguments[3])
            wins = builder.or_(
                builder.fcmp_ordered(">", number, bests[lane]), builder.fcmp_unordered("uno", number, number)
            )
            wins = builder.and_(wins, _bit(builder, arguments[6], i // lanes))
            bests[lane] = builder.select(wins, number, bests[lane])
            wheres[lane] = builder.select(wins, place, wheres[lane])
            if lane == lanes - 1:
                place = builder.add(place, arguments[5])
        return context.make_tuple(
            builder,
            signature.return_type,
            [context.make_tuple(builder, kind, side) for kind, side in ((best, bests), (where, wheres))],
        )

    i32, f32 = _types.int32, _types.float32
    return _types.Tuple((best, where))(best, where, numbers, f32, i32, i32, i32), generate


@lru_cache
def same(count: int) -> Any:
    """``same(count)(number)``: a tuple of one number, several times."""

    @intrinsic
    def repeat(typingctx, number):
        def generate(context, builder, signature, arguments):
            return context.make_tuple(builder, signature.return_type, [arguments[0]] * count)

        return _types.UniTuple(number, count)(number), generate

    return repeat


@intrinsic
def times(typingctx, numbers, factor):
    """The products of the numbers of a tuple with one factor."""

    def generate(context, builder, signature, arguments):
        values = [builder.extract_value(arguments[0], i) for i in range(numbers.count)]
        return context.make_tuple(builder, numbers, [builder.fmul(value, arguments[1]) for value in values])

    return numbers(numbers, _types.float32), generate


@intrinsic
def quotients(typingctx, numbers, divisor):
    """The numbers of a tuple divided by one, rounded as on the CPU."""

    def generate(context, builder, signature, arguments):
        values = [builder.extract_value(arguments[0], i) for i in range(numbers.count)]
        found = [_call(builder, "llvm.nvvm.div.rn.f", value, arguments[1]) for value in values]
        return context.make_tuple(builder, numbers, found)

    return numbers(numbers, _types.float32), generate


@lru_cache
def load_places(lanes: int) -> Any:
    """``load_places(lanes)(array, at)``: *lanes* neighbours among 64-bit integers, two at a time."""
    together = min(lanes, 2)

    @intrinsic
    def load_integers(typingctx, array, at):
        def generate(context, builder, signature, arguments):
            found = []
            for lane in range(0, lanes, together):
                pointer = _pointer(
                    context, builder, array, arguments[0], at, builder.add(arguments[1], _like(at, lane))
                )
                found += _load_numbers(context, builder, array, pointer, together)
            return context.make_tuple(builder, signature.return_type, found)

        return _types.UniTuple(array.dtype, lanes)(array, at), generate

    return load_integers


@intrinsic
def store_places(typingctx, array, at, places):
    """Write the 32-bit integers of a tuple to neighbours among 64-bit ones, two at a time."""
    together = min(places.count, 2)

    def generate(context, builder, signature, arguments):
        for lane in range(0, places.count, together):
            pointer = _pointer(context, builder, array, arguments[0], at, builder.add(arguments[1], _like(at, lane)))
            vector = ir.VectorType(ir.IntType(64), together)
            value = ir.Constant(vector, ir.Undefined)
            for i in range(together):
                place = builder.sext(builder.extract_value(arguments[2], lane + i), ir.IntType(64))
                value = builder.insert_element(value, place, _I32(i))
            pointer = builder.bitcast(pointer, vector.as_pointer(pointer.type.addrspace))
            builder.store(value, pointer, align=8 * together)
        return context.get_dummy_value()

    return _types.void(array, at, places), generate


def _like(integer: Any, value: int) -> Any:
    return ir.Constant(ir.IntType(integer.bitwidth), value)


def _bit(builder: Any, bits: Any, number: int) -> Any:
    return builder.trunc(builder.lshr(bits, _I32(number)), ir.IntType(1))
