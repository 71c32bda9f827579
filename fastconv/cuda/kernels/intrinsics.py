"""Machine operations that Numba's CUDA target has no words for, each a few lines of LLVM.

- Loads and stores of one or four numbers at a flat position.  Numba's own indexing handles negative positions and never
  makes a vector of neighbouring loads: four instructions in place of one.
- Unsigned division of 32-bit integers.  Python's ``//`` becomes a 64-bit division, a subroutine of a hundred
  instructions.
- Multiply-add and addition that take denormals as zero, as the convolutions on the CPU do (`fastconv.denormals`).
- Products that are rounded.  Compilers for GPUs fuse ``a * b + c`` wherever they see it, which moves the last bit; the
  CPU's do not.

Values that live in registers are tuples.  A tuple must not be indexed by a variable: that puts it into memory.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir

from fastconv.cpu.activation import ACTIVATIONS, LEAKY_SLOPE
from fastconv.cuda.device import target

_cuda = target()
_types, _cgutils, intrinsic = _cuda.types, _cuda.cgutils, _cuda.extending.intrinsic

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index_type: Any, index: Any) -> Any:
    """The address of number *index* of a contiguous array."""
    data = _cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    if index_type.bitwidth < 64:
        index = builder.sext(index, _I64) if index_type.signed else builder.zext(index, _I64)
    return builder.gep(data, [index])


def _load_numbers(context: Any, builder: Any, array_type: Any, pointer: Any, count: int) -> list[Any]:
    if count == 1:
        return [builder.load(pointer)]
    vector = ir.VectorType(context.get_value_type(array_type.dtype), count)
    bytes_of_vector = count * array_type.dtype.bitwidth // 8
    value = builder.load(builder.bitcast(pointer, vector.as_pointer(pointer.type.addrspace)), align=bytes_of_vector)
    return [builder.extract_element(value, _I32(lane)) for lane in range(count)]


@lru_cache
def load(count: int) -> Any:
    """``load(count)(array, at)``: *count* neighbours as a tuple; four are one instruction and must be aligned."""

    @intrinsic
    def load_numbers(typingctx, array, at):
        def generate(context, builder, signature, arguments):
            pointer = _pointer(context, builder, signature.args[0], arguments[0], signature.args[1], arguments[1])
            numbers = _load_numbers(context, builder, signature.args[0], pointer, count)
            return context.make_tuple(builder, signature.return_type, numbers)

        return _types.UniTuple(array.dtype, count)(array, at), generate

    return load_numbers


@lru_cache
def load_or(count: int) -> Any:
    """``load_or(count)(array, at, there, fill)``: *count* neighbours if they are *there*, else *fill*, nothing read."""

    @intrinsic
    def load_numbers_or(typingctx, array, at, there, fill):
        def generate(context, builder, signature, arguments):
            array_type, at_type = signature.args[:2]
            pointer = _pointer(context, builder, array_type, arguments[0], at_type, arguments[1])
            before = builder.block
            with builder.if_then(arguments[2]):
                loaded = _load_numbers(context, builder, array_type, pointer, count)
                after = builder.block
            numbers = []
            for number in loaded:
                merged = builder.phi(number.type)
                merged.add_incoming(arguments[3], before)
                merged.add_incoming(number, after)
                numbers.append(merged)
            return context.make_tuple(builder, signature.return_type, numbers)

        return _types.UniTuple(array.dtype, count)(array, at, _types.boolean, array.dtype), generate

    return load_numbers_or


@intrinsic
def store(typingctx, array, at, numbers):
    """Write the numbers of a tuple to neighbours; four are one instruction and must be aligned."""

    def generate(context, builder, signature, arguments):
        array_type, at_type, tuple_type = signature.args
        pointer = _pointer(context, builder, array_type, arguments[0], at_type, arguments[1])
        if tuple_type.count == 1:
            builder.store(builder.extract_value(arguments[2], 0), pointer)
            return context.get_dummy_value()
        vector = ir.VectorType(context.get_value_type(array_type.dtype), tuple_type.count)
        value = ir.Constant(vector, ir.Undefined)
        for lane in range(tuple_type.count):
            value = builder.insert_element(value, builder.extract_value(arguments[2], lane), _I32(lane))
        bytes_of_vector = tuple_type.count * array_type.dtype.bitwidth // 8
        target_pointer = builder.bitcast(pointer, vector.as_pointer(pointer.type.addrspace))
        builder.store(value, target_pointer, align=bytes_of_vector)
        return context.get_dummy_value()

    return _types.void(array, at, numbers), generate


@lru_cache
def load_each(count: int) -> Any:
    """``load_each(count)(array, at)``: the same one by one, from an array that is to stay in registers."""

    @intrinsic
    def load_numbers(typingctx, array, at):
        def generate(context, builder, signature, arguments):
            first = _pointer(context, builder, signature.args[0], arguments[0], signature.args[1], arguments[1])
            numbers = [builder.load(builder.gep(first, [_I64(i)])) for i in range(count)]
            return context.make_tuple(builder, signature.return_type, numbers)

        return _types.UniTuple(array.dtype, count)(array, at), generate

    return load_numbers


@lru_cache
def store_each(step: int) -> Any:
    """``store_each(step)(array, at, numbers)``: write the numbers of a tuple one by one, *step* apart."""

    @intrinsic
    def store_numbers(typingctx, array, at, numbers):
        def generate(context, builder, signature, arguments):
            first = _pointer(context, builder, signature.args[0], arguments[0], signature.args[1], arguments[1])
            for i in range(numbers.count):
                builder.store(builder.extract_value(arguments[2], i), builder.gep(first, [_I64(i * step)]))
            return context.get_dummy_value()

        return _types.void(array, at, numbers), generate

    return store_numbers


def _special_register(name: str) -> Any:
    """Read a special register anew.

    LLVM would read it once and keep what follows from it in registers all the time, which the sums of a tile need.
    """

    @intrinsic
    def read(typingctx):
        def generate(context, builder, signature, arguments):
            kind = ir.FunctionType(_I32, [])
            return builder.call(ir.InlineAsm(kind, f"mov.u32 $0, %{name};", "=r", side_effect=True), [])

        return _types.int32(), generate

    return read


thread_index = _special_register("tid.x")
block_index = _special_register("ctaid.x")


@intrinsic
def within(typingctx, value, extent):
    """``0 <= value < extent`` in one comparison."""

    def generate(context, builder, signature, arguments):
        return builder.icmp_unsigned("<", *arguments)

    return _types.boolean(_types.int32, _types.int32), generate


@intrinsic
def divide(typingctx, dividend, divisor):
    """The quotient of two non-negative 32-bit integers, without a test for zero."""

    def generate(context, builder, signature, arguments):
        return builder.udiv(*arguments)

    return _types.int32(_types.int32, _types.int32), generate


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    kind = ir.FunctionType(_F32, [_F32] * len(arguments))
    return builder.call(_cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """The multiply-add of `multiply_add`, for those that generate many."""
    return _call(builder, "llvm.nvvm.fma.rn.ftz.f", a, b, c)


@intrinsic
def multiply_add(typingctx, a, b, c):
    """``a * b + c``, rounded once; denormals are zero."""

    def generate(context, builder, signature, arguments):
        return fused(builder, *arguments)

    return _types.float32(_types.float32, _types.float32, _types.float32), generate


@intrinsic
def product(typingctx, a, b):
    """``a * b``, rounded, whatever is added to it afterwards; denormals are numbers like others."""
    name = "llvm.nvvm.mul.rn.f" if a == _types.float32 else "llvm.nvvm.mul.rn.d"

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(arguments[0].type, [arguments[0].type] * 2)
        return builder.call(_cgutils.get_or_insert_function(builder.module, kind, name), arguments)

    return a(a, a), generate


def _flushing(name: str, operands: int, negated: bool = False) -> Any:
    """One operation on float32 numbers, rounded once, that takes denormals as zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # the older code generator has no instruction that negates
        minus_zero = ir.Constant(_F32, -0.0)
        values = [*arguments[:-1], builder.fsub(minus_zero, arguments[-1])] if negated else arguments
        return _call(builder, f"llvm.nvvm.{name}.rn.ftz.f", *values)

    signature = _types.float32(*[_types.float32] * operands)
    if operands == 1:
        return intrinsic(lambda typingctx, a: (signature, generate))
    return intrinsic(lambda typingctx, a, b: (signature, generate))


#: Arithmetic of optimizers: each operation rounded by itself, denormals are zero.
flushed_sum = _flushing("add", 2)
flushed_difference = _flushing("add", 2, negated=True)
flushed_product = _flushing("mul", 2)
flushed_quotient = _flushing("div", 2)
flushed_root = _flushing("sqrt", 1)


@intrinsic
def add(typingctx, left, right):
    """The sums of the numbers of two tuples; denormals are zero."""

    def generate(context, builder, signature, arguments):
        pairs = [[builder.extract_value(side, i) for side in arguments] for i in range(left.count)]
        sums = [_call(builder, "llvm.nvvm.add.rn.ftz.f", *pair) for pair in pairs]
        return context.make_tuple(builder, signature.return_type, sums)

    return left(left, right), generate


@intrinsic
def relu(typingctx, numbers):
    """``max(number, 0)`` for the numbers of a tuple; NaN stays NaN."""

    def generate(context, builder, signature, arguments):
        zero = ir.Constant(_F32, 0.0)
        values = [builder.extract_value(arguments[0], i) for i in range(numbers.count)]
        kept = [builder.select(builder.fcmp_ordered("<", value, zero), zero, value) for value in values]
        return context.make_tuple(builder, signature.return_type, kept)

    return numbers(numbers), generate


@intrinsic
def rectify(typingctx, numbers, activation):
    """relu, relu6 or leaky_relu of the numbers of a tuple, by the code of the activation; NaN stays NaN."""

    def generate(context, builder, signature, arguments):
        zero, six, slope = (ir.Constant(_F32, number) for number in (0.0, 6.0, float(np.float32(LEAKY_SLOPE))))
        limited = builder.icmp_signed("==", arguments[1], _I32(ACTIVATIONS["relu6"]))
        leaks = builder.icmp_signed("==", arguments[1], _I32(ACTIVATIONS["leaky_relu"]))
        kept = []
        for i in range(numbers.count):
            value = builder.extract_value(arguments[0], i)
            below = builder.select(leaks, builder.fmul(slope, value), zero)
            value = builder.select(builder.fcmp_ordered("<", value, zero), below, value)
            above = builder.and_(limited, builder.fcmp_ordered(">", value, six))
            kept.append(builder.select(above, six, value))
        return context.make_tuple(builder, signature.return_type, kept)

    return numbers(numbers, _types.int32), generate


@lru_cache
def zeros(count: int) -> Any:
    """``zeros(count)()``: a tuple of zeros."""

    @intrinsic
    def make_zeros(typingctx):
        def generate(context, builder, signature, arguments):
            return context.make_tuple(builder, signature.return_type, [ir.Constant(_F32, 0.0)] * count)

        return _types.UniTuple(_types.float32, count)(), generate

    return make_zeros


@lru_cache
def take(count: int) -> Any:
    """``first, numbers = take(count)(numbers)``: the first numbers of a tuple, which go to its end.

    So a loop can walk through a tuple whose index would have to be a constant.
    """

    @intrinsic
    def take_first(typingctx, numbers):
        first = _types.UniTuple(numbers.dtype, count)

        def generate(context, builder, signature, arguments):
            values = [builder.extract_value(arguments[0], i) for i in range(numbers.count)]
            taken = context.make_tuple(builder, first, values[:count])
            rotated = context.make_tuple(builder, numbers, values[count:] + values[:count])
            return context.make_tuple(builder, signature.return_type, [taken, rotated])

        return _types.Tuple((first, numbers))(numbers), generate

    return take_first


@lru_cache
def for_each(count: int) -> Any:
    """``for_each(count)(function, numbers, arguments)``: ``function(i, part i, *arguments)`` for parts of a tuple.

    The calls follow one another, not in a loop, whose index would have to choose from registers.
    """

    @intrinsic
    def call_for_each(typingctx, function, numbers, arguments):
        part = _types.UniTuple(numbers.dtype, count)
        called = typingctx.resolve_function_type(function, (_types.int32, part, *arguments.types), {})

        def generate(context, builder, signature, values):
            call = context.get_function(function, called)
            others = [builder.extract_value(values[2], i) for i in range(arguments.count)]
            for i in range(numbers.count // count):
                of_part = [builder.extract_value(values[1], i * count + j) for j in range(count)]
                call(builder, [_I32(i), context.make_tuple(builder, part, of_part), *others])
            return context.get_dummy_value()

        return _types.void(function, numbers, arguments), generate

    return call_for_each


@lru_cache
def collect(count: int) -> Any:
    """``collect(count)(function, arguments)``: the tuple of ``function(i, *arguments)``, as many calls in a row."""

    @intrinsic
    def collect_results(typingctx, function, arguments):
        called = typingctx.resolve_function_type(function, (_types.int32, *arguments.types), {})

        def generate(context, builder, signature, values):
            call = context.get_function(function, called)
            others = [builder.extract_value(values[1], i) for i in range(arguments.count)]
            results = [call(builder, [_I32(i), *others]) for i in range(count)]
            return context.make_tuple(builder, signature.return_type, results)

        return _types.UniTuple(called.return_type, count)(function, arguments), generate

    return collect_results
