"""Vectors as values of a Numba program.

LLVM's own vectoriser does well on loops with one or two streams and gives up on the rest.  Here a kernel says itself
what it wants held in a register: a vector is one machine register of ``lanes`` numbers, a plain value inside an
``@njit`` function, so the loops around it stay readable Python.  `tiles` has whole blocks of them.

The width follows the CPU: 16 float32 lanes with AVX-512, 8 with AVX2, 4 with NEON.  Every lane computes its own output
element, so the width does not change a bit of the result.

Kernels address memory by element offsets into a `span`, a flat array without its reference count: Numba counts
references around every call that an array is passed to, which costs more than many of the loops in question.  With
``NUMBA_BOUNDSCHECK=1`` every access is checked.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from fastconv import _jit, memory
from fastconv.cpu import codegen
from fastconv.cpu.codegen import Span, Vector, lanes_of

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
def part(typingctx: Any, span: Any, start: Any, size: Any) -> Any:
    """The *size* numbers of a span from *start* on, as a span of their own."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        span, start, size = arguments
        result = cgutils.create_struct_proxy(signature.return_type)(context, builder)
        result.data = codegen.address(context, builder, signature.args[0], span, start, size)
        result.size = size
        return result._getvalue()

    return span(span, types.intp, types.intp), generate


@intrinsic
def _get(typingctx: Any, span: Any, offset: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(
            codegen.address(context, builder, signature.args[0], arguments[0], arguments[1], codegen.constant(1))
        )

    return span.dtype(span, types.intp), generate


@intrinsic
def _set(typingctx: Any, span: Any, offset: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        span, offset, value = arguments
        builder.store(value, codegen.address(context, builder, signature.args[0], span, offset, codegen.constant(1)))
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
        return codegen.constant(lanes)

    return types.intp(span), generate


@intrinsic
def load(typingctx: Any, span: Any, offset: Any) -> Any:
    """The vector at ``span[offset : offset + lanes]``."""
    vector = Vector(span.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = codegen.address(
            context, builder, signature.args[0], arguments[0], arguments[1], codegen.constant(vector.lanes)
        )
        return codegen.load_vector(builder, pointer, vector)

    return vector(span, types.intp), generate


@intrinsic
def load_first(typingctx: Any, span: Any, offset: Any, count: Any) -> Any:
    """The first *count* lanes from ``span[offset:]``, zero in the others; memory behind them is not read."""
    vector = Vector(span.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        span, offset, count = arguments
        pointer = codegen.address(context, builder, signature.args[0], span, offset, count)
        kind = codegen.llvm_vector(vector)
        pointer = builder.bitcast(pointer, kind.as_pointer())
        align = ir.Constant(ir.IntType(32), vector.dtype.bitwidth // 8)
        zeros = ir.Constant(kind, None)
        mask = codegen.first_lanes(builder, count, vector)
        return codegen.call_masked(builder, "load", vector, kind, [pointer, align, mask, zeros])

    return vector(span, types.intp, types.intp), generate


@intrinsic
def insert(typingctx: Any, value: Any, first: Any, span: Any, offset: Any, count: Any) -> Any:
    """*value* with lanes [first, first + count) from ``span[offset : offset + count]``; no other memory is read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, first, span, offset, count = arguments
        vector = signature.args[0]
        kind = codegen.llvm_vector(vector)
        pointer = codegen.address(context, builder, signature.args[2], span, offset, count)
        pointer = builder.bitcast(builder.gep(pointer, [builder.neg(first)]), kind.as_pointer())
        align = ir.Constant(ir.IntType(32), vector.dtype.bitwidth // 8)
        below = codegen.first_lanes(builder, first, vector)
        mask = builder.and_(codegen.first_lanes(builder, builder.add(first, count), vector), builder.not_(below))
        return codegen.call_masked(builder, "load", vector, kind, [pointer, align, mask, value])

    return value(value, types.intp, span, types.intp, types.intp), generate


@intrinsic
def store(typingctx: Any, span: Any, offset: Any, value: Any) -> Any:
    """``span[offset : offset + lanes] = value``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        span, offset, value = arguments
        vector = signature.args[2]
        pointer = codegen.address(context, builder, signature.args[0], span, offset, codegen.constant(vector.lanes))
        codegen.store_vector(builder, value, pointer, vector)
        return context.get_dummy_value()

    return types.void(span, types.intp, value), generate


@intrinsic
def store_first(typingctx: Any, span: Any, offset: Any, value: Any, count: Any) -> Any:
    """``span[offset : offset + count] = value[:count]``; memory behind it keeps its content."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        span, offset, value, count = arguments
        vector = signature.args[2]
        pointer = codegen.address(context, builder, signature.args[0], span, offset, count)
        pointer = builder.bitcast(pointer, codegen.llvm_vector(vector).as_pointer())
        align = ir.Constant(ir.IntType(32), vector.dtype.bitwidth // 8)
        mask = codegen.first_lanes(builder, count, vector)
        codegen.call_masked(builder, "store", vector, ir.VoidType(), [value, pointer, align, mask])
        return context.get_dummy_value()

    return types.void(span, types.intp, value, types.intp), generate


@intrinsic
def _begins_line(typingctx: Any, array: Any) -> Any:
    """Whether the first number of an array begins a cache line."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        rest = builder.and_(builder.ptrtoint(data, ir.IntType(64)), codegen.constant(memory.ALIGNMENT - 1))
        return builder.icmp_unsigned("==", rest, codegen.constant(0))

    return types.boolean(array), generate


@_jit.inline
def streams(out, run):
    """Whether to write the whole vectors of a result past the caches.

    A cache line that is written is read before, and a large result has left the caches before anybody reads it.  Only
    for runs of *run* numbers that fill whole lines, because a part of a line goes to memory on its own.
    """
    return out.nbytes >= memory.LARGE and run * out.itemsize % memory.ALIGNMENT == 0 and _begins_line(out)


def _prefetch(for_write: bool) -> Any:
    @intrinsic
    def prefetch(typingctx: Any, span: Any, offset: Any) -> Any:
        """Ask for the cache line of an element that will be used soon; the offset may lie outside the span."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=arguments[0]).data
            pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
            number = ir.IntType(32)
            prefetch_type = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
            function = cgutils.get_or_insert_function(builder.module, prefetch_type, "llvm.prefetch.p0")
            into_all_caches, of_data = 3, 1
            settings = [ir.Constant(number, value) for value in (int(for_write), into_all_caches, of_data)]
            builder.call(function, [pointer, *settings])
            return context.get_dummy_value()

        return types.void(span, types.intp), generate

    return prefetch


prefetch_for_read = _prefetch(for_write=False)
prefetch_for_write = _prefetch(for_write=True)


@intrinsic
def zeros(typingctx: Any, span: Any) -> Any:
    """A vector of the span's dtype with zero in every lane."""
    vector = Vector(span.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(codegen.llvm_vector(vector), None)

    return vector(span), generate


@intrinsic
def splat(typingctx: Any, span: Any, value: Any) -> Any:
    """A vector of the span's dtype with *value* in every lane."""
    vector = Vector(span.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return codegen.broadcast(builder, arguments[1], vector)

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
        return codegen.fused_multiply_add(builder, arguments[0], arguments[1], arguments[2], signature.return_type)

    return a(a, a, a), generate


@intrinsic
def relu(typingctx: Any, value: Any) -> Any:
    """``max(value, 0)``, lane by lane; NaN stays NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros = ir.Constant(codegen.llvm_vector(signature.return_type), None)
        negative = builder.fcmp_ordered("<", arguments[0], zeros)
        return builder.select(negative, zeros, arguments[0])

    return value(value), generate


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
        return codegen.splat(builder, arguments[1], context.get_value_type(positions))

    return positions(span, types.intp), generate


@intrinsic
def store_positions(typingctx: Any, span: Any, offset: Any, positions: Any, count: Any) -> Any:
    """``span[offset : offset + count] = positions[:count]`` for an int64 span."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        span, offset, value, count = arguments
        pointer = codegen.address(context, builder, signature.args[0], span, offset, count)
        vector = builder.bitcast(pointer, value.type.as_pointer())
        full = builder.icmp_signed("==", count, codegen.constant(positions.lanes))
        mask = codegen.first_lanes(builder, count, positions)
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
