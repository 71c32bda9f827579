"""LLVM code for vectors, spans and tiles: the types, and the pieces from which the intrinsics are put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import binding as llvm, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import make_attribute_wrapper, models, register_model

_PROBE = """
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
define <16 x float> @probe(<16 x float> %a, <16 x float> %b, <16 x float> %c) {
  %r = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %c)
  ret <16 x float> %r
}
"""


def _register_file() -> tuple[int, int]:
    """Bytes in a vector register of the CPU that Numba compiles for, and how many there are.

    LLVM knows, so ask by compiling one multiply-add.  Numba gives a CPU named by ``NUMBA_CPU_NAME`` the features of
    this one; what counts are the registers that both have.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    own = llvm.get_host_cpu_features().flatten() if config.CPU_FEATURES is None else config.CPU_FEATURES
    code = [
        # not optimised, it has the same registers sooner
        target.create_target_machine(
            cpu=config.CPU_NAME or llvm.get_host_cpu_name(), features=features, opt=0
        ).emit_assembly(llvm.parse_assembly(_PROBE))
        for features in ({own, ""} if config.CPU_NAME and config.CPU_FEATURES is None else {own})
    ]
    if all("zmm" in assembly for assembly in code):
        return 64, 32
    if all("zmm" in assembly or "ymm" in assembly for assembly in code):
        return 32, 16
    return 16, 32 if target.triple.startswith(("aarch64", "arm64")) else 16


VECTOR_BYTES, REGISTERS = _register_file()


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


def llvm_vector(vector: Vector) -> ir.VectorType:
    element = ir.FloatType() if vector.dtype.bitwidth == 32 else ir.DoubleType()
    return ir.VectorType(element, vector.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, llvm_vector(vector))


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, tile: Tile) -> None:
        super().__init__(manager, tile, ir.ArrayType(llvm_vector(tile.vector), tile.rows * tile.vectors))


@register_model(Span)
class _SpanModel(models.StructModel):
    def __init__(self, manager: Any, span: Span) -> None:
        super().__init__(manager, span, [("data", types.CPointer(span.dtype)), ("size", types.intp)])


make_attribute_wrapper(Span, "size", "size")


# ---- pieces of code, each appended to what the builder has emitted ------------------------------------------------


def constant(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(64), value)


def address(context: Any, builder: Any, span_type: Any, span: Any, offset: Any, count: Any) -> Any:
    """Pointer to element *offset* of a span; in bounds-checked mode [offset, offset + count) must lie inside."""
    view = cgutils.create_struct_proxy(span_type)(context, builder, value=span)
    if config.BOUNDSCHECK:
        end = builder.add(offset, count)
        outside = builder.or_(builder.icmp_signed("<", offset, constant(0)), builder.icmp_signed(">", end, view.size))
        with builder.if_then(builder.and_(outside, builder.icmp_signed(">", count, constant(0))), likely=False):
            context.call_conv.return_user_exc(builder, IndexError, ("access outside the array",))
    return builder.gep(view.data, [offset])


def load_vector(builder: Any, pointer: Any, vector: Vector) -> Any:
    kind = llvm_vector(vector)
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=vector.dtype.bitwidth // 8)


def store_vector(builder: Any, value: Any, pointer: Any, vector: Vector) -> None:
    kind = llvm_vector(vector)
    builder.store(value, builder.bitcast(pointer, kind.as_pointer()), align=vector.dtype.bitwidth // 8)


def put_vectors(builder: Any, values: Sequence[Any], pointers: Sequence[Any], vector: Vector, stream: Any) -> None:
    """Store all *values*; where *stream* is true past the caches, to multiples of a vector's bytes."""
    kind = llvm_vector(vector)
    targets = [builder.bitcast(pointer, kind.as_pointer()) for pointer in pointers]
    with builder.if_else(stream) as (past_the_caches, as_usual):
        with past_the_caches:
            for value, target in zip(values, targets, strict=True):
                store = builder.store(value, target, align=VECTOR_BYTES)
                store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        with as_usual:
            for value, target in zip(values, targets, strict=True):
                builder.store(value, target, align=vector.dtype.bitwidth // 8)


def broadcast(builder: Any, scalar: Any, vector: Vector) -> Any:
    return splat(builder, scalar, llvm_vector(vector))


def splat(builder: Any, scalar: Any, kind: ir.VectorType) -> Any:
    """A vector of any numbers with *scalar* in every lane."""
    undefined = ir.Constant(kind, ir.Undefined)
    lane_zero = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(
        builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0)), undefined, lane_zero
    )


def call_vector_intrinsic(builder: Any, name: str, vector: Vector, result: Any, arguments: list[Any]) -> Any:
    suffix = f"v{vector.lanes}f{vector.dtype.bitwidth}"
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.{suffix}")
    return builder.call(function, arguments)


def fused_multiply_add(builder: Any, a: Any, b: Any, c: Any, vector: Vector) -> Any:
    return call_vector_intrinsic(builder, "fma", vector, llvm_vector(vector), [a, b, c])


def first_lanes(builder: Any, count: Any, vector: Vector) -> Any:
    """Mask of the lanes below *count*."""
    wide = ir.VectorType(ir.IntType(32), vector.lanes)
    undefined = ir.Constant(wide, ir.Undefined)
    limit = builder.trunc(count, ir.IntType(32))
    lane_zero = ir.Constant(wide, [0] * vector.lanes)
    limits = builder.shuffle_vector(
        builder.insert_element(undefined, limit, ir.Constant(ir.IntType(32), 0)), undefined, lane_zero
    )
    return builder.icmp_signed("<", ir.Constant(wide, list(range(vector.lanes))), limits)


def call_masked(builder: Any, name: str, vector: Vector, result: Any, arguments: list[Any]) -> Any:
    suffix = f"v{vector.lanes}f{vector.dtype.bitwidth}.p0"
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.masked.{name}.{suffix}")
    return builder.call(function, arguments)


def each_row(builder: Any, pointer: Any, stride: Any, tile: Tile) -> Any:
    """Pairs (position in the tile, pointer) of all vectors of a tile whose rows lie *stride* elements apart."""
    for row in range(tile.rows):
        start = builder.gep(pointer, [builder.mul(stride, constant(row))])
        for column in range(tile.vectors):
            yield row * tile.vectors + column, builder.gep(start, [constant(column * tile.vector.lanes)])


def tile_extent(builder: Any, stride: Any, tile: Tile) -> Any:
    """Elements from the first to the last of a tile in memory."""
    columns = constant(tile.vectors * tile.vector.lanes)
    return builder.add(builder.mul(stride, constant(tile.rows - 1)), columns)
