"""Register tiles as values of a Numba program: the accumulators of a matrix product.

A tile is ``rows x vectors`` machine registers, updated by rank-1 steps.  It uses all but a few of the registers: 14 x 2
of 32, or 6 x 2 of 16.  Every lane sums its own output element, one fused multiply-add after the other, so neither the
width of a vector nor the size of a tile changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastconv.cpu import codegen
from fastconv.cpu.codegen import Tile, Vector

TILE_VECTORS = 2
# Two registers hold the row of b, one the broadcast element of a, and one is left to the compiler.
TILE_ROWS = (codegen.REGISTERS - 4) // TILE_VECTORS


@intrinsic(prefer_literal=True)
def zeros(typingctx: Any, span: Any, rows: Any, vectors: Any) -> Any:
    """A tile of zeros of the span's dtype; *rows* and *vectors* are constants."""
    tile = Tile(span.dtype, rows.literal_value, vectors.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(tile), None)

    return tile(span, rows, vectors), generate


@intrinsic(prefer_literal=True)
def load(typingctx: Any, span: Any, offset: Any, stride: Any, rows: Any, vectors: Any) -> Any:
    """The tile whose row m starts at ``span[offset + m * stride]``; *rows* and *vectors* are constants."""
    tile = Tile(span.dtype, rows.literal_value, vectors.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        span, offset, stride, _, _ = arguments
        extent = codegen.tile_extent(builder, stride, tile)
        pointer = codegen.address(context, builder, signature.args[0], span, offset, extent)
        value = ir.Constant(context.get_value_type(tile), ir.Undefined)
        for position, element in codegen.each_row(builder, pointer, stride, tile):
            value = builder.insert_value(value, codegen.load_vector(builder, element, tile.vector), position)
        return value

    return tile(span, types.intp, types.intp, rows, vectors), generate


@intrinsic
def store(typingctx: Any, tile: Any, span: Any, offset: Any, stride: Any) -> Any:
    """Row m of the tile goes to ``span[offset + m * stride :]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, span, offset, stride = arguments
        extent = codegen.tile_extent(builder, stride, tile)
        pointer = codegen.address(context, builder, signature.args[1], span, offset, extent)
        for position, element in codegen.each_row(builder, pointer, stride, tile):
            codegen.store_vector(builder, builder.extract_value(value, position), element, tile.vector)
        return context.get_dummy_value()

    return types.void(tile, span, types.intp, types.intp), generate


@intrinsic
def put(typingctx: Any, tile: Any, span: Any, offset: Any, stride: Any, stream: Any) -> Any:
    """`store` for a part of the result, past the caches if `simd.streams` says so."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, span, offset, stride, stream = arguments
        extent = codegen.tile_extent(builder, stride, tile)
        pointer = codegen.address(context, builder, signature.args[1], span, offset, extent)
        positions, elements = zip(*codegen.each_row(builder, pointer, stride, tile), strict=True)
        values = [builder.extract_value(value, position) for position in positions]
        codegen.put_vectors(builder, values, elements, tile.vector, stream)
        return context.get_dummy_value()

    return types.void(tile, span, types.intp, types.intp, types.boolean), generate


@intrinsic
def rank1(typingctx: Any, tile: Any, a: Any, a_offset: Any, a_stride: Any, b: Any, b_offset: Any) -> Any:
    """``tile[m] += a[a_offset + m * a_stride] * b[b_offset : b_offset + columns]``: the outer product of two vectors.

    The whole library's arithmetic: rows x vectors fused multiply-adds on registers for rows + vectors loads.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, a, a_offset, a_stride, b, b_offset = arguments
        vector = tile.vector
        a_extent = builder.add(builder.mul(a_stride, codegen.constant(tile.rows - 1)), codegen.constant(1))
        a_pointer = codegen.address(context, builder, signature.args[1], a, a_offset, a_extent)
        b_pointer = codegen.address(
            context, builder, signature.args[4], b, b_offset, codegen.constant(tile.vectors * vector.lanes)
        )
        row_of_b = [
            codegen.load_vector(builder, builder.gep(b_pointer, [codegen.constant(column * vector.lanes)]), vector)
            for column in range(tile.vectors)
        ]
        for row in range(tile.rows):
            scalar = builder.load(builder.gep(a_pointer, [builder.mul(a_stride, codegen.constant(row))]))
            multiplier = codegen.broadcast(builder, scalar, vector)
            for column in range(tile.vectors):
                position = row * tile.vectors + column
                accumulator = builder.extract_value(value, position)
                accumulator = codegen.fused_multiply_add(builder, multiplier, row_of_b[column], accumulator, vector)
                value = builder.insert_value(value, accumulator, position)
        return value

    return tile(tile, a, types.intp, types.intp, b, types.intp), generate


@intrinsic
def multiply_add(typingctx: Any, tile: Any, a: Any, a_offset: Any, a_stride: Any, b: Any, b_offset: Any) -> Any:
    """``tile[m] += a[a_offset + m * a_stride :][:columns] * b[b_offset:][:columns]``: rows of a times one row b.

    The arithmetic of depthwise convolution, element by element: rows are pixels and b the weight, or rows are taps of
    the kernel and b the gradient.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, a, a_offset, a_stride, b, b_offset = arguments
        vector = tile.vector
        columns = codegen.constant(tile.vectors * vector.lanes)
        extent = codegen.tile_extent(builder, a_stride, tile)
        a_start = codegen.address(context, builder, signature.args[1], a, a_offset, extent)
        b_start = codegen.address(context, builder, signature.args[4], b, b_offset, columns)
        row_of_b = [
            codegen.load_vector(builder, builder.gep(b_start, [codegen.constant(column * vector.lanes)]), vector)
            for column in range(tile.vectors)
        ]
        for position, pointer in codegen.each_row(builder, a_start, a_stride, tile):
            element = codegen.load_vector(builder, pointer, vector)
            accumulator = builder.extract_value(value, position)
            accumulator = codegen.fused_multiply_add(
                builder, element, row_of_b[position % tile.vectors], accumulator, vector
            )
            value = builder.insert_value(value, accumulator, position)
        return value

    return tile(tile, a, types.intp, types.intp, b, types.intp), generate


@intrinsic(prefer_literal=True)
def slide(
    typingctx: Any, tile: Any, a: Any, a_offset: Any, a_stride: Any, b: Any, b_offset: Any, b_stride: Any, taps: Any,
    step: Any,
) -> Any:  # fmt: skip
    """``tile[m] += a[m * step + k] * b[k]``, k from 0 to the constant *taps*; row i of a is that at i times its stride.

    Several rounds of `multiply_add` in one, with the same bits: rows of a that overlap are loaded once for all rows of
    the tile, because those are computed side by side and none has a later tap before an earlier one.
    """
    count, apart = taps.literal_value, step.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, a, a_offset, a_stride, b, b_offset, b_stride, _, _ = arguments
        vector = tile.vector

        def row_of(kind: Any, span: Any, offset: Any, stride: Any, number: int) -> list[Any]:
            offset = builder.add(offset, builder.mul(stride, codegen.constant(number)))
            extent = codegen.constant(tile.vectors * vector.lanes)
            start = codegen.address(context, builder, kind, span, offset, extent)
            places = [builder.gep(start, [codegen.constant(column * vector.lanes)]) for column in range(tile.vectors)]
            return [codegen.load_vector(builder, place, vector) for place in places]

        kernel = [row_of(signature.args[4], b, b_offset, b_stride, tap) for tap in range(count)]
        for number in range((tile.rows - 1) * apart + count):
            elements = row_of(signature.args[1], a, a_offset, a_stride, number)
            for m in range(tile.rows):
                tap = number - m * apart
                for column in range(tile.vectors if 0 <= tap < count else 0):
                    position = m * tile.vectors + column
                    accumulator = builder.extract_value(value, position)
                    accumulator = codegen.fused_multiply_add(
                        builder, elements[column], kernel[tap][column], accumulator, vector
                    )
                    value = builder.insert_value(value, accumulator, position)
        return value

    return tile(tile, a, types.intp, types.intp, b, types.intp, types.intp, taps, step), generate


@intrinsic
def fused(typingctx: Any, total: Any, a: Any, b: Any) -> Any:
    """``total += a * b``, number by number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, *factors = arguments
        for position in range(total.rows * total.vectors):
            first, second = (builder.extract_value(factor, position) for factor in factors)
            accumulator = builder.extract_value(value, position)
            accumulator = codegen.fused_multiply_add(builder, first, second, accumulator, total.vector)
            value = builder.insert_value(value, accumulator, position)
        return value

    return total(total, a, b), generate


@intrinsic(prefer_literal=True)
def full(typingctx: Any, span: Any, value: Any, rows: Any, vectors: Any) -> Any:
    """A tile of the span's dtype with *value* in every lane; *rows* and *vectors* are constants."""
    tile = Tile(span.dtype, rows.literal_value, vectors.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = codegen.broadcast(builder, arguments[1], tile.vector)
        result = ir.Constant(context.get_value_type(tile), ir.Undefined)
        for position in range(tile.rows * tile.vectors):
            result = builder.insert_value(result, vector, position)
        return result

    return tile(span, span.dtype, rows, vectors), generate


def _lane_by_lane(operation: Callable[[Any, Any, Any], Any]) -> Any:
    """A function of two tiles that applies *operation* to each pair of vectors."""

    @intrinsic
    def apply(typingctx: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result = ir.Constant(context.get_value_type(a), ir.Undefined)
            for position in range(a.rows * a.vectors):
                pair = (builder.extract_value(argument, position) for argument in arguments)
                result = builder.insert_value(result, operation(builder, *pair), position)
            return result

        return a(a, a), generate

    return apply


def _larger(builder: Any, value: Any, best: Any) -> Any:
    """*value* where it is larger than *best* or NaN; the machine's own maximum, which drops NaN, is put right."""
    larger = builder.select(builder.fcmp_ordered(">", value, best), value, best)
    return builder.select(builder.fcmp_unordered("uno", value, value), value, larger)


add = _lane_by_lane(lambda builder, a, b: builder.fadd(a, b))
multiply = _lane_by_lane(lambda builder, a, b: builder.fmul(a, b))
divide = _lane_by_lane(lambda builder, a, b: builder.fdiv(a, b))
larger = _lane_by_lane(_larger)


# ---- rows at places that a table tells ------------------------------------------------------------------------------


def _placed_rows(
    context: Any, builder: Any, kinds: tuple[Any, Any], span: Any, places: Any, first: Any, offset: Any, tile: Tile,
    columns: int,
) -> Any:  # fmt: skip
    """Pairs (row, pointer to ``span[places[first + row] + offset]``) for *columns* elements each."""
    span_type, places_type = kinds
    table = codegen.address(context, builder, places_type, places, first, codegen.constant(tile.rows))
    for row in range(tile.rows):
        place = builder.load(builder.gep(table, [codegen.constant(row)]))
        if config.BOUNDSCHECK:
            codegen.address(context, builder, span_type, span, builder.add(place, offset), codegen.constant(columns))
        # the place first: a loop over the offset then has one address per row, and adds the offset to all of them
        data = cgutils.create_struct_proxy(span_type)(context, builder, value=span).data
        yield row, builder.gep(builder.gep(data, [place]), [offset])


@intrinsic
def rank1_placed(typingctx: Any, tile: Any, a: Any, places: Any, first: Any, k: Any, b: Any, b_offset: Any) -> Any:
    """`rank1` with row m of a at ``places[first + m]``: ``tile[m] += a[places[first + m] + k] * b[b_offset :]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, a, places, first, k, b, b_offset = arguments
        vector = tile.vector
        b_pointer = codegen.address(
            context, builder, signature.args[5], b, b_offset, codegen.constant(tile.vectors * vector.lanes)
        )
        row_of_b = [
            codegen.load_vector(builder, builder.gep(b_pointer, [codegen.constant(column * vector.lanes)]), vector)
            for column in range(tile.vectors)
        ]
        kinds = (signature.args[1], signature.args[2])
        for row, pointer in _placed_rows(context, builder, kinds, a, places, first, k, tile, 1):
            multiplier = codegen.broadcast(builder, builder.load(pointer), vector)
            for column in range(tile.vectors):
                position = row * tile.vectors + column
                accumulator = builder.extract_value(value, position)
                accumulator = codegen.fused_multiply_add(builder, multiplier, row_of_b[column], accumulator, vector)
                value = builder.insert_value(value, accumulator, position)
        return value

    return tile(tile, a, places, types.intp, types.intp, b, types.intp), generate


@intrinsic
def add_row(typingctx: Any, tile: Any, span: Any, offset: Any) -> Any:
    """Every row of the tile plus ``span[offset:]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, span, offset = arguments
        lanes = tile.vector.lanes
        columns = codegen.constant(tile.vectors * lanes)
        pointer = codegen.address(context, builder, signature.args[1], span, offset, columns)
        for column in range(tile.vectors):
            start = builder.gep(pointer, [codegen.constant(column * lanes)])
            addend = codegen.load_vector(builder, start, tile.vector)
            for position in range(column, tile.rows * tile.vectors, tile.vectors):
                total = builder.fadd(builder.extract_value(value, position), addend)
                value = builder.insert_value(value, total, position)
        return value

    return tile(tile, span, types.intp), generate


@intrinsic
def add_placed(typingctx: Any, tile: Any, span: Any, places: Any, first: Any, column: Any) -> Any:
    """Row m of the tile plus ``span[places[first + m] + column :]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, span, places, first, offset = arguments
        lanes = tile.vector.lanes
        kinds = (signature.args[1], signature.args[2])
        rows = _placed_rows(context, builder, kinds, span, places, first, offset, tile, tile.vectors * lanes)
        for row, pointer in rows:
            for column in range(tile.vectors):
                position = row * tile.vectors + column
                start = builder.gep(pointer, [codegen.constant(column * lanes)])
                addend = codegen.load_vector(builder, start, tile.vector)
                value = builder.insert_value(
                    value, builder.fadd(builder.extract_value(value, position), addend), position
                )
        return value

    return tile(tile, span, places, types.intp, types.intp), generate


@intrinsic
def relu(typingctx: Any, tile: Any) -> Any:
    """``max(tile, 0)``; NaN stays NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        zero = ir.Constant(codegen.llvm_vector(tile.vector), None)
        for position in range(tile.rows * tile.vectors):
            accumulator = builder.extract_value(value, position)
            negative = builder.fcmp_ordered("<", accumulator, zero)
            value = builder.insert_value(value, builder.select(negative, zero, accumulator), position)
        return value

    return tile(tile), generate


@intrinsic
def put_placed(typingctx: Any, tile: Any, span: Any, places: Any, first: Any, column: Any, stream: Any) -> Any:
    """Row m of the tile goes to ``span[places[first + m] + column :]``, past the caches if `simd.streams` says so."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, span, places, first, offset, stream = arguments
        lanes = tile.vector.lanes
        kinds = (signature.args[1], signature.args[2])
        rows = _placed_rows(context, builder, kinds, span, places, first, offset, tile, tile.vectors * lanes)
        starts = [
            builder.gep(pointer, [codegen.constant(column * lanes)])
            for _, pointer in rows
            for column in range(tile.vectors)
        ]
        values = [builder.extract_value(value, position) for position in range(len(starts))]
        codegen.put_vectors(builder, values, starts, tile.vector, stream)
        return context.get_dummy_value()

    return types.void(tile, span, places, types.intp, types.intp, types.boolean), generate


# ---- transposing ------------------------------------------------------------------------------------------------


@intrinsic
def transpose_block(
    typingctx: Any,
    source: Any,
    source_offset: Any,
    source_stride: Any,
    target: Any,
    target_offset: Any,
    target_stride: Any,
) -> Any:
    """``target[j * target_stride + i] = source[i * source_stride + j]`` for a block of lanes x lanes numbers.

    lanes vectors are loaded and, in log2(lanes) rounds, pairs of them exchange the halves of ever smaller pieces.
    """
    vector = Vector(source.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, source_offset, source_stride, target, target_offset, target_stride = arguments
        block = Tile(signature.args[0].dtype, vector.lanes, 1)
        rows = codegen.each_row(
            builder,
            codegen.address(
                context,
                builder,
                signature.args[0],
                source,
                source_offset,
                codegen.tile_extent(builder, source_stride, block),
            ),
            source_stride,
            block,
        )
        values = [codegen.load_vector(builder, pointer, vector) for _, pointer in rows]
        half = vector.lanes // 2
        while half:
            # lane l of the pair (low, high): pieces of `half` lanes that belong to the other vector change places
            kind = ir.VectorType(ir.IntType(32), vector.lanes)
            lanes = range(vector.lanes)
            to_low = ir.Constant(kind, [lane if not lane & half else lane - half + vector.lanes for lane in lanes])
            to_high = ir.Constant(kind, [lane + half if not lane & half else lane + vector.lanes for lane in lanes])
            for low in (row for row in lanes if not row & half):
                high = low + half
                values[low], values[high] = (
                    builder.shuffle_vector(values[low], values[high], to_low),
                    builder.shuffle_vector(values[low], values[high], to_high),
                )
            half //= 2
        start = codegen.address(
            context,
            builder,
            signature.args[3],
            target,
            target_offset,
            codegen.tile_extent(builder, target_stride, block),
        )
        for position, pointer in codegen.each_row(builder, start, target_stride, block):
            codegen.store_vector(builder, values[position], pointer, vector)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate
