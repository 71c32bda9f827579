"""Vectors and register tiles as values of a Numba program.

LLVM's own vectoriser does well on loops with one or two streams and gives up on the rest.  Here a kernel says what it
wants held in registers: a `vector` is one machine register of ``lanes`` numbers, a `tile` is ``rows x vectors`` of
them. Both are plain values inside an ``@njit`` function, so the loops around them stay readable Python.

The width follows the CPU: 16 float32 lanes with AVX-512, 8 with AVX2, 4 with NEON.  A tile uses all but a few of the
registers: 14 x 2 of 32, or 6 x 2 of 16.  Every lane sums its own output element, one fused multiply-add after the
other, so neither the width nor the tile size changes a single bit of the result.

Kernels address memory by element offsets into a `Span`, a flat array without its reference count: Numba counts
references around every call that an array is passed to, which costs more than many of the loops in question.  With
``NUMBA_BOUNDSCHECK=1`` every access is checked.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import binding as llvm, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, make_attribute_wrapper, models, overload, register_model

_PROBE = """
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
define <16 x float> @probe(<16 x float> %a, <16 x float> %b, <16 x float> %c) {
  %r = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %c)
  ret <16 x float> %r
}
"""


def _register_file() -> tuple[int, int]:
    """Bytes in a vector register of the CPU that Numba compiles for, and how many there are.

    LLVM knows; a CPU name set by ``NUMBA_CPU_NAME`` has no feature list to read, so ask by compiling one multiply-add.
    """
    cpu = config.CPU_NAME or llvm.get_host_cpu_name()
    features = config.CPU_FEATURES
    if features is None:
        features = "" if config.CPU_NAME else llvm.get_host_cpu_features().flatten()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    assembly = target.create_target_machine(cpu=cpu, features=features).emit_assembly(llvm.parse_assembly(_PROBE))
    if "zmm" in assembly:
        return 64, 32
    if "ymm" in assembly:
        return 32, 16
    return 16, 32 if target.triple.startswith(("aarch64", "arm64")) else 16


VECTOR_BYTES, _REGISTERS = _register_file()
TILE_VECTORS = 2
# Two registers hold the row of b, one the broadcast element of a, and one is left to the compiler.
TILE_ROWS = (_REGISTERS - 4) // TILE_VECTORS


class Vector(types.Type):
    """One machine register of ``lanes`` numbers."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.lanes = lanes_of(dtype)
        super().__init__(f"vector({dtype}x{self.lanes})")


class Tile(types.Type):
    """``rows x vectors`` machine registers, the accumulators of a matrix product."""

    def __init__(self, dtype: types.Float, rows: int, vectors: int) -> None:
        self.vector = Vector(dtype)
        self.rows = rows
        self.vectors = vectors
        super().__init__(f"tile({rows}x{vectors} of {self.vector})")


class Span(types.Type):
    """Address and size of the numbers of a flat array, which somebody else keeps alive."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(f"span({dtype})")


def lanes_of(dtype: types.Float) -> int:
    """How many numbers of *dtype* one register holds."""
    return int(VECTOR_BYTES // (dtype.bitwidth // 8))


def _llvm_vector(vector: Vector) -> ir.VectorType:
    element = ir.FloatType() if vector.dtype.bitwidth == 32 else ir.DoubleType()
    return ir.VectorType(element, vector.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, _llvm_vector(vector))


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, tile: Tile) -> None:
        super().__init__(manager, tile, ir.ArrayType(_llvm_vector(tile.vector), tile.rows * tile.vectors))


@register_model(Span)
class _SpanModel(models.StructModel):
    def __init__(self, manager: Any, span: Span) -> None:
        super().__init__(manager, span, [("data", types.CPointer(span.dtype)), ("size", types.intp)])


make_attribute_wrapper(Span, "size", "size")


# ---- building blocks of the code generators below ---------------------------------------------------------------


def _index(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(64), value)


def _address(context: Any, builder: Any, span_type: Any, span: Any, offset: Any, count: Any) -> Any:
    """Pointer to element *offset* of a span; in bounds-checked mode [offset, offset + count) must lie inside."""
    view = cgutils.create_struct_proxy(span_type)(context, builder, value=span)
    if config.BOUNDSCHECK:
        end = builder.add(offset, count)
        outside = builder.or_(builder.icmp_signed("<", offset, _index(0)), builder.icmp_signed(">", end, view.size))
        with builder.if_then(builder.and_(outside, builder.icmp_signed(">", count, _index(0))), likely=False):
            context.call_conv.return_user_exc(builder, IndexError, ("access outside the array",))
    return builder.gep(view.data, [offset])


def _load(builder: Any, pointer: Any, vector: Vector) -> Any:
    kind = _llvm_vector(vector)
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=vector.dtype.bitwidth // 8)


def _store(builder: Any, value: Any, pointer: Any, vector: Vector) -> None:
    kind = _llvm_vector(vector)
    builder.store(value, builder.bitcast(pointer, kind.as_pointer()), align=vector.dtype.bitwidth // 8)


def _broadcast(builder: Any, scalar: Any, vector: Vector) -> Any:
    kind = _llvm_vector(vector)
    undefined = ir.Constant(kind, ir.Undefined)
    lane_zero = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), [0] * vector.lanes)
    return builder.shuffle_vector(
        builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0)), undefined, lane_zero
    )


def _intrinsic(builder: Any, name: str, vector: Vector, result: Any, arguments: list[Any]) -> Any:
    suffix = f"v{vector.lanes}f{vector.dtype.bitwidth}"
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.{suffix}")
    return builder.call(function, arguments)


def _fma(builder: Any, a: Any, b: Any, c: Any, vector: Vector) -> Any:
    return _intrinsic(builder, "fma", vector, _llvm_vector(vector), [a, b, c])


def _first_lanes(builder: Any, count: Any, vector: Vector) -> Any:
    """Mask of the lanes below *count*."""
    wide = ir.VectorType(ir.IntType(32), vector.lanes)
    undefined = ir.Constant(wide, ir.Undefined)
    limit = builder.trunc(count, ir.IntType(32))
    lane_zero = ir.Constant(wide, [0] * vector.lanes)
    limits = builder.shuffle_vector(
        builder.insert_element(undefined, limit, ir.Constant(ir.IntType(32), 0)), undefined, lane_zero
    )
    return builder.icmp_signed("<", ir.Constant(wide, list(range(vector.lanes))), limits)


# ---- spans ------------------------------------------------------------------------------------------------------


@intrinsic
def span(typingctx: Any, array: Any) -> Any:
    """The span of a flat contiguous array; only for arrays received as arguments, whose owner is the caller."""
    span_type = Span(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        result = cgutils.create_struct_proxy(span_type)(context, builder)
        result.data = view.data
        result.size = view.nitems
        return result._getvalue()

    return span_type(array), generate


@intrinsic
def _get(typingctx: Any, span: Any, offset: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], arguments[0], arguments[1], _index(1)))

    return span.dtype(span, types.intp), generate


@intrinsic
def _set(typingctx: Any, span: Any, offset: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        span, offset, value = arguments
        builder.store(value, _address(context, builder, signature.args[0], span, offset, _index(1)))
        return context.get_dummy_value()

    return types.void(span, types.intp, span.dtype), generate


@overload(operator.getitem)
def _span_getitem(span, offset):
    if isinstance(span, Span):
        return lambda span, offset: _get(span, offset)
    return None


@overload(operator.setitem)
def _span_setitem(span, offset, value):
    if isinstance(span, Span):
        return lambda span, offset, value: _set(span, offset, value)
    return None


# ---- vectors ----------------------------------------------------------------------------------------------------


@intrinsic
def lane_count(typingctx: Any, span: Any) -> Any:
    """Lanes of a vector of the span's dtype (a constant of the compiled kernel)."""
    lanes = lanes_of(span.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _index(lanes)

    return types.intp(span), generate


@intrinsic
def load(typingctx: Any, span: Any, offset: Any) -> Any:
    """The vector at ``span[offset : offset + lanes]``."""
    vector = Vector(span.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _address(context, builder, signature.args[0], arguments[0], arguments[1], _index(vector.lanes))
        return _load(builder, pointer, vector)

    return vector(span, types.intp), generate


@intrinsic
def load_first(typingctx: Any, span: Any, offset: Any, count: Any) -> Any:
    """The first *count* lanes from ``span[offset:]``, zero in the others; memory behind them is not read."""
    vector = Vector(span.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        span, offset, count = arguments
        pointer = _address(context, builder, signature.args[0], span, offset, count)
        kind = _llvm_vector(vector)
        pointer = builder.bitcast(pointer, kind.as_pointer())
        align = ir.Constant(ir.IntType(32), vector.dtype.bitwidth // 8)
        zeros = ir.Constant(kind, None)
        mask = _first_lanes(builder, count, vector)
        return _masked(builder, "load", vector, kind, [pointer, align, mask, zeros])

    return vector(span, types.intp, types.intp), generate


@intrinsic
def store(typingctx: Any, span: Any, offset: Any, value: Any) -> Any:
    """``span[offset : offset + lanes] = value``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        span, offset, value = arguments
        vector = signature.args[2]
        pointer = _address(context, builder, signature.args[0], span, offset, _index(vector.lanes))
        _store(builder, value, pointer, vector)
        return context.get_dummy_value()

    return types.void(span, types.intp, value), generate


@intrinsic
def store_first(typingctx: Any, span: Any, offset: Any, value: Any, count: Any) -> Any:
    """``span[offset : offset + count] = value[:count]``; memory behind it keeps its content."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        span, offset, value, count = arguments
        vector = signature.args[2]
        pointer = _address(context, builder, signature.args[0], span, offset, count)
        pointer = builder.bitcast(pointer, _llvm_vector(vector).as_pointer())
        align = ir.Constant(ir.IntType(32), vector.dtype.bitwidth // 8)
        mask = _first_lanes(builder, count, vector)
        _masked(builder, "store", vector, ir.VoidType(), [value, pointer, align, mask])
        return context.get_dummy_value()

    return types.void(span, types.intp, value, types.intp), generate


def _masked(builder: Any, name: str, vector: Vector, result: Any, arguments: list[Any]) -> Any:
    suffix = f"v{vector.lanes}f{vector.dtype.bitwidth}.p0"
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.masked.{name}.{suffix}")
    return builder.call(function, arguments)


@intrinsic
def prefetch_for_write(typingctx: Any, span: Any, offset: Any) -> Any:
    """Ask for the cache line of an element that will be written soon; the offset may lie outside the span."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        prefetch_type = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, prefetch_type, "llvm.prefetch.p0")
        write, into_all_caches, of_data = (ir.Constant(number, value) for value in (1, 3, 1))
        builder.call(function, [pointer, write, into_all_caches, of_data])
        return context.get_dummy_value()

    return types.void(span, types.intp), generate


@intrinsic
def zeros(typingctx: Any, span: Any) -> Any:
    """A vector of the span's dtype with zero in every lane."""
    vector = Vector(span.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(_llvm_vector(vector), None)

    return vector(span), generate


@intrinsic
def splat(typingctx: Any, span: Any, value: Any) -> Any:
    """A vector of the span's dtype with *value* in every lane."""
    vector = Vector(span.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _broadcast(builder, arguments[1], vector)

    return vector(span, span.dtype), generate


@intrinsic
def add(typingctx: Any, a: Any, b: Any) -> Any:
    """``a + b``, lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments)

    return a(a, a), generate


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` with one rounding, lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fma(builder, arguments[0], arguments[1], arguments[2], signature.return_type)

    return a(a, a, a), generate


@intrinsic
def relu(typingctx: Any, value: Any) -> Any:
    """``max(value, 0)``, lane by lane; NaN stays NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros = ir.Constant(_llvm_vector(signature.return_type), None)
        negative = builder.fcmp_ordered("<", arguments[0], zeros)
        return builder.select(negative, zeros, arguments[0])

    return value(value), generate


# ---- register tiles ---------------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def tile_zeros(typingctx: Any, span: Any, rows: Any, vectors: Any) -> Any:
    """A tile of zeros of the span's dtype; *rows* and *vectors* are constants."""
    tile = Tile(span.dtype, rows.literal_value, vectors.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(tile), None)

    return tile(span, rows, vectors), generate


def _each_row(builder: Any, pointer: Any, stride: Any, tile: Tile) -> Any:
    """Pairs (position in the tile, pointer) of all vectors of a tile whose rows lie *stride* elements apart."""
    for row in range(tile.rows):
        start = builder.gep(pointer, [builder.mul(stride, _index(row))])
        for column in range(tile.vectors):
            yield row * tile.vectors + column, builder.gep(start, [_index(column * tile.vector.lanes)])


def _tile_extent(builder: Any, stride: Any, tile: Tile) -> Any:
    """Elements from the first to the last of a tile in memory."""
    columns = _index(tile.vectors * tile.vector.lanes)
    return builder.add(builder.mul(stride, _index(tile.rows - 1)), columns)


@intrinsic(prefer_literal=True)
def tile_load(typingctx: Any, span: Any, offset: Any, stride: Any, rows: Any, vectors: Any) -> Any:
    """The tile whose row m starts at ``span[offset + m * stride]``; *rows* and *vectors* are constants."""
    tile = Tile(span.dtype, rows.literal_value, vectors.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        span, offset, stride, _, _ = arguments
        extent = _tile_extent(builder, stride, tile)
        pointer = _address(context, builder, signature.args[0], span, offset, extent)
        value = ir.Constant(context.get_value_type(tile), ir.Undefined)
        for position, element in _each_row(builder, pointer, stride, tile):
            value = builder.insert_value(value, _load(builder, element, tile.vector), position)
        return value

    return tile(span, types.intp, types.intp, rows, vectors), generate


@intrinsic
def tile_store(typingctx: Any, tile: Any, span: Any, offset: Any, stride: Any) -> Any:
    """Row m of the tile goes to ``span[offset + m * stride :]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, span, offset, stride = arguments
        extent = _tile_extent(builder, stride, tile)
        pointer = _address(context, builder, signature.args[1], span, offset, extent)
        for position, element in _each_row(builder, pointer, stride, tile):
            _store(builder, builder.extract_value(value, position), element, tile.vector)
        return context.get_dummy_value()

    return types.void(tile, span, types.intp, types.intp), generate


@intrinsic
def tile_rank1(typingctx: Any, tile: Any, a: Any, a_offset: Any, a_stride: Any, b: Any, b_offset: Any) -> Any:
    """``tile[m] += a[a_offset + m * a_stride] * b[b_offset : b_offset + columns]``: the outer product of two vectors.

    The whole library's arithmetic: rows x vectors fused multiply-adds on registers for rows + vectors loads.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, a, a_offset, a_stride, b, b_offset = arguments
        vector = tile.vector
        a_extent = builder.add(builder.mul(a_stride, _index(tile.rows - 1)), _index(1))
        a_pointer = _address(context, builder, signature.args[1], a, a_offset, a_extent)
        b_pointer = _address(context, builder, signature.args[4], b, b_offset, _index(tile.vectors * vector.lanes))
        row_of_b = [
            _load(builder, builder.gep(b_pointer, [_index(column * vector.lanes)]), vector)
            for column in range(tile.vectors)
        ]
        for row in range(tile.rows):
            scalar = builder.load(builder.gep(a_pointer, [builder.mul(a_stride, _index(row))]))
            multiplier = _broadcast(builder, scalar, vector)
            for column in range(tile.vectors):
                position = row * tile.vectors + column
                accumulator = builder.extract_value(value, position)
                accumulator = _fma(builder, multiplier, row_of_b[column], accumulator, vector)
                value = builder.insert_value(value, accumulator, position)
        return value

    return tile(tile, a, types.intp, types.intp, b, types.intp), generate


# ---- comparing vectors, and remembering where --------------------------------------------------------------------


class Mask(types.Type):
    """One truth value for every lane of a vector."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(f"mask({lanes})")


class Positions(types.Type):
    """One int64 for every lane of a vector."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(f"positions({lanes})")


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, mask: Mask) -> None:
        super().__init__(manager, mask, ir.VectorType(ir.IntType(1), mask.lanes))


@register_model(Positions)
class _PositionsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, positions: Positions) -> None:
        super().__init__(manager, positions, ir.VectorType(ir.IntType(64), positions.lanes))


@intrinsic
def multiply(typingctx: Any, a: Any, b: Any) -> Any:
    """``a * b``, lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fmul(*arguments)

    return a(a, a), generate


@intrinsic
def divide(typingctx: Any, a: Any, b: Any) -> Any:
    """``a / b``, lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fdiv(*arguments)

    return a(a, a), generate


@intrinsic
def exceeds(typingctx: Any, a: Any, b: Any) -> Any:
    """``a > b or isnan(a)``, lane by lane: a running maximum with this rule keeps NaN once it has met one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b = arguments
        return builder.or_(builder.fcmp_ordered(">", a, b), builder.fcmp_unordered("uno", a, a))

    return Mask(a.lanes)(a, a), generate


@intrinsic
def select(typingctx: Any, mask: Any, a: Any, b: Any) -> Any:
    """``a`` where the mask is true and ``b`` elsewhere, lane by lane; vectors or positions."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return a(mask, a, a), generate


@intrinsic
def splat_position(typingctx: Any, span: Any, position: Any) -> Any:
    """The same *position* for every lane of a vector of the span's dtype."""
    positions = Positions(lanes_of(span.dtype))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_value_type(positions)
        undefined = ir.Constant(kind, ir.Undefined)
        lane_zero = ir.Constant(ir.VectorType(ir.IntType(32), positions.lanes), [0] * positions.lanes)
        first = builder.insert_element(undefined, arguments[1], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(first, undefined, lane_zero)

    return positions(span, types.intp), generate


@intrinsic
def store_positions(typingctx: Any, span: Any, offset: Any, positions: Any, count: Any) -> Any:
    """``span[offset : offset + count] = positions[:count]`` for an int64 span."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        span, offset, value, count = arguments
        pointer = _address(context, builder, signature.args[0], span, offset, count)
        vector = builder.bitcast(pointer, value.type.as_pointer())
        full = builder.icmp_signed("==", count, _index(positions.lanes))
        mask = _first_lanes(builder, count, positions)
        with builder.if_else(full) as (whole, part):
            with whole:
                builder.store(value, vector, align=8)
            with part:
                kind = ir.FunctionType(ir.VoidType(), [value.type, vector.type, ir.IntType(32), mask.type])
                name = f"llvm.masked.store.v{positions.lanes}i64.p0"
                masked_store = cgutils.get_or_insert_function(builder.module, kind, name)
                builder.call(masked_store, [value, vector, ir.Constant(ir.IntType(32), 8), mask])
        return context.get_dummy_value()

    return types.void(span, types.intp, positions, types.intp), generate


@intrinsic
def tile_multiply_add(typingctx: Any, tile: Any, a: Any, a_offset: Any, a_stride: Any, b: Any, count: Any) -> Any:
    """``tile[m] += a[a_offset + m * a_stride :][:count] * b`` for a tile one vector wide and a vector b."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, a, a_offset, a_stride, b, count = arguments
        vector = tile.vector
        extent = builder.add(builder.mul(a_stride, _index(tile.rows - 1)), count)
        start = _address(context, builder, signature.args[1], a, a_offset, extent)
        kind = _llvm_vector(vector)
        align = ir.Constant(ir.IntType(32), vector.dtype.bitwidth // 8)
        mask = _first_lanes(builder, count, vector)
        for position, pointer in _each_row(builder, start, a_stride, tile):
            pointer = builder.bitcast(pointer, kind.as_pointer())
            row = _masked(builder, "load", vector, kind, [pointer, align, mask, ir.Constant(kind, None)])
            accumulator = _fma(builder, row, b, builder.extract_value(value, position), vector)
            value = builder.insert_value(value, accumulator, position)
        return value

    return tile(tile, a, types.intp, types.intp, b, types.intp), generate


@intrinsic
def tile_multiply_add_rows(typingctx: Any, tile: Any, a: Any, a_offset: Any, b: Any, b_offset: Any) -> Any:
    """``tile += a[a_offset :] * b[b_offset :]``, the vectors of a tile one vector wide taken one after the other."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, a, a_offset, b, b_offset = arguments
        lanes = _index(tile.vector.lanes)
        extent = _index(tile.rows * tile.vector.lanes)
        a_start = _address(context, builder, signature.args[1], a, a_offset, extent)
        b_start = _address(context, builder, signature.args[3], b, b_offset, extent)
        b_pointers = dict(_each_row(builder, b_start, lanes, tile))
        for position, pointer in _each_row(builder, a_start, lanes, tile):
            row_of_a = _load(builder, pointer, tile.vector)
            row_of_b = _load(builder, b_pointers[position], tile.vector)
            accumulator = _fma(builder, row_of_a, row_of_b, builder.extract_value(value, position), tile.vector)
            value = builder.insert_value(value, accumulator, position)
        return value

    return tile(tile, a, types.intp, b, types.intp), generate


@intrinsic
def tile_row(typingctx: Any, tile: Any, row: Any) -> Any:
    """Row *row* of a tile one vector wide."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, row = arguments
        memory = cgutils.alloca_once_value(builder, value)
        return builder.load(builder.gep(memory, [_index(0), row]))

    return tile.vector(tile, types.intp), generate


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
        rows = _each_row(
            builder,
            _address(
                context, builder, signature.args[0], source, source_offset, _tile_extent(builder, source_stride, block)
            ),
            source_stride,
            block,
        )
        values = [_load(builder, pointer, vector) for _, pointer in rows]
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
        start = _address(
            context, builder, signature.args[3], target, target_offset, _tile_extent(builder, target_stride, block)
        )
        for position, pointer in _each_row(builder, start, target_stride, block):
            _store(builder, values[position], pointer, vector)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate
