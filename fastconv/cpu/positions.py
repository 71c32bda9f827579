"""Positions in the lanes of tiles: which pixel of its window a maximum is.

A position is counted from the first pixel of a window, so that it fits an integer as wide as a lane; to and from memory
it is an int64 of the whole image.  Tiles have no integers, so a lane holds one bit by bit.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastconv.cpu import codegen
from fastconv.cpu.codegen import Tile, Vector


@intrinsic
def larger_and_where(typingctx: Any, value: Any, best: Any, where: Any, place: Any) -> Any:
    """`tiles.larger`, and beside it *place*, as an integer of a lane's width, in the lanes where *value* was taken."""
    pair = types.UniTuple(best, 2)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, best, where, place = arguments
        lane = ir.IntType(best_type.vector.dtype.bitwidth)
        scalar = builder.trunc(place, lane) if lane.width < place.type.width else place
        scalar = builder.bitcast(scalar, codegen.llvm_vector(best_type.vector).element)
        places = codegen.broadcast(builder, scalar, best_type.vector)
        for position in range(best_type.rows * best_type.vectors):
            new, old = (builder.extract_value(tile, position) for tile in (value, best))
            better = builder.or_(builder.fcmp_ordered(">", new, old), builder.fcmp_unordered("uno", new, new))
            before = builder.extract_value(where, position)
            best = builder.insert_value(best, builder.select(better, new, old), position)
            where = builder.insert_value(where, builder.select(better, places, before), position)
        return context.make_tuple(builder, pair, (best, where))

    best_type = best
    return pair(value, best, where, types.intp), generate


def _integers(vector: Vector) -> ir.VectorType:
    """Integers of the width of a vector's lanes."""
    return ir.VectorType(ir.IntType(vector.dtype.bitwidth), vector.lanes)


def _splat_integer(builder: Any, number: Any, kind: ir.VectorType) -> Any:
    """An int64 in every lane of a vector of integers."""
    return codegen.splat(builder, builder.trunc(number, kind.element) if kind.element.width < 64 else number, kind)


@intrinsic
def store(typingctx: Any, tile: Any, addend: Any, span: Any, offset: Any) -> Any:
    """``span[offset:] = addend + tile`` for a tile of one row that holds integers, and an int64 span."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, addend, span, offset = arguments
        vector = tile.vector
        narrow = _integers(vector)
        wide = ir.VectorType(ir.IntType(64), vector.lanes)
        addends = codegen.splat(builder, addend, wide)
        columns = codegen.constant(tile.vectors * vector.lanes)
        start = codegen.address(context, builder, signature.args[2], span, offset, columns)
        for position in range(tile.vectors):
            integers = builder.bitcast(builder.extract_value(value, position), narrow)
            if narrow.element.width < 64:
                integers = builder.sext(integers, wide)
            target = builder.bitcast(builder.gep(start, [codegen.constant(position * vector.lanes)]), wide.as_pointer())
            builder.store(builder.add(integers, addends), target, align=8)
        return context.get_dummy_value()

    return types.void(tile, types.intp, span, types.intp), generate


@intrinsic(prefer_literal=True)
def load(typingctx: Any, like: Any, span: Any, offset: Any, subtrahend: Any, vectors: Any) -> Any:
    """``span[offset:] - subtrahend`` for an int64 span, as a tile of one row like those of *like*.

    A lane of 32 bits is -1 where the difference is negative or does not fit.
    """
    tile = Tile(like.dtype, 1, vectors.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, span, offset, subtrahend, _ = arguments
        vector = tile.vector
        narrow = _integers(vector)
        wide = ir.VectorType(ir.IntType(64), vector.lanes)
        subtrahends = codegen.splat(builder, subtrahend, wide)
        start = codegen.address(
            context, builder, signature.args[1], span, offset, codegen.constant(tile.vectors * vector.lanes)
        )
        value = ir.Constant(context.get_value_type(tile), ir.Undefined)
        for position in range(tile.vectors):
            pointer = builder.gep(start, [codegen.constant(position * vector.lanes)])
            integers = builder.load(builder.bitcast(pointer, wide.as_pointer()), align=8)
            integers = builder.sub(integers, subtrahends)
            if narrow.element.width < 64:
                high = builder.trunc(builder.lshr(integers, ir.Constant(wide, [32] * vector.lanes)), narrow)
                fits = builder.icmp_signed("==", high, ir.Constant(narrow, None))
                minus_one = ir.Constant(narrow, [-1] * vector.lanes)
                integers = builder.select(fits, builder.trunc(integers, narrow), minus_one)
            lanes = builder.bitcast(integers, codegen.llvm_vector(vector))
            value = builder.insert_value(value, lanes, position)
        return value

    return tile(like, span, types.intp, types.intp, vectors), generate


@intrinsic
def where_equal(typingctx: Any, value: Any, where: Any, found: Any, place: Any) -> Any:
    """*value* in the lanes where the integers *where* equal *place*, else 0; and the integers *found*, one more there.

    *found* is one vector, which counts for all vectors of the tile: a register, where a mask for each would take many.
    """
    tile, count = value, found
    pair = types.Tuple((tile, count))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, where, found, place = arguments
        vector = codegen.llvm_vector(tile.vector)
        integers = _integers(tile.vector)
        places = _splat_integer(builder, place, integers)
        kept = ir.Constant(context.get_value_type(tile), ir.Undefined)
        total = builder.bitcast(builder.extract_value(found, 0), integers)
        for position in range(tile.rows * tile.vectors):
            here = builder.bitcast(builder.extract_value(where, position), integers)
            minus_one = builder.sext(builder.icmp_signed("==", here, places), integers)
            numbers = builder.bitcast(builder.extract_value(value, position), integers)
            kept = builder.insert_value(kept, builder.bitcast(builder.and_(numbers, minus_one), vector), position)
            total = builder.sub(total, minus_one)
        found = builder.insert_value(found, builder.bitcast(total, vector), 0)
        return context.make_tuple(builder, pair, (kept, found))

    return pair(value, where, found, types.intp), generate


@intrinsic
def all_equal(typingctx: Any, tile: Any, number: Any) -> Any:
    """Whether all integers of a tile of one vector are *number*."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, number = arguments
        integers = _integers(tile.vector)
        numbers = builder.bitcast(builder.extract_value(value, 0), integers)
        differ = builder.icmp_signed("!=", numbers, _splat_integer(builder, number, integers))
        mask = builder.bitcast(differ, ir.IntType(tile.vector.lanes))
        return builder.icmp_unsigned("==", mask, ir.Constant(mask.type, 0))

    return types.boolean(tile, types.intp), generate
