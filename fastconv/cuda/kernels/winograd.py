"""Winograd's transforms on the numbers of one tile, which one thread holds in registers.

The matrices, and the order in which a sum is taken, are those of `cpu.winograd`: so are the bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from llvmlite import ir

from fastconv.cpu.winograd import TAPS, TRANSFORMS, Arithmetic, Matrix, from_points, to_points
from fastconv.cuda.device import target

_cuda = target()
_types, _cgutils, intrinsic = _cuda.types, _cuda.cgutils, _cuda.extending.intrinsic
_F32 = ir.FloatType()


def _on_numbers(builder: Any) -> Arithmetic:
    """Code for single numbers; denormals are zero, as on the CPU."""

    def call(operation: str, *arguments: Any) -> Any:
        kind = ir.FunctionType(_F32, [_F32] * len(arguments))
        function = _cgutils.get_or_insert_function(builder.module, kind, f"llvm.nvvm.{operation}.rn.ftz.f")
        return builder.call(function, arguments)

    return Arithmetic(
        lambda left, right: call("add", left, right),
        # left - right: the product with -1 is exact
        lambda left, right: call("fma", _F32(-1.0), right, left),
        lambda coefficient, value: call("mul", _F32(coefficient), value),
        lambda coefficient, value, addend: call("fma", _F32(coefficient), value, addend),
    )


def _on_both_axes(along_axis: Callable[..., Any], matrix: Matrix, inputs: int, outputs: int) -> Any:
    """The transform of a tile of *inputs* x *inputs* numbers, a tuple, to *outputs* x *outputs*: columns, then rows."""

    @intrinsic
    def transform(typingctx, numbers):
        def generate(context, builder, signature, arguments):
            of = _on_numbers(builder)
            values = [builder.extract_value(arguments[0], i) for i in range(inputs * inputs)]
            columns = [along_axis(of, matrix, values[column::inputs]) for column in range(inputs)]
            rows = [along_axis(of, matrix, [column[row] for column in columns]) for row in range(outputs)]
            return context.make_tuple(builder, signature.return_type, [value for row in rows for value in row])

        return _types.UniTuple(_types.float32, outputs * outputs)(numbers), generate

    return transform


@lru_cache
def transform_input(tile: int) -> Any:
    """Pixels of x to points, for tiles of *tile* x *tile* outputs."""
    t = TRANSFORMS[tile]
    return _on_both_axes(to_points, t.inputs, t.points, t.points)


@lru_cache
def transform_taps(tile: int) -> Any:
    """3x3 taps of weight to points."""
    t = TRANSFORMS[tile]
    return _on_both_axes(to_points, t.taps, TAPS, t.points)


@lru_cache
def transform_output(tile: int) -> Any:
    """Points to pixels of out."""
    t = TRANSFORMS[tile]
    return _on_both_axes(from_points, t.outputs, t.points, tile)


@lru_cache
def transform_grad_out(tile: int) -> Any:
    """Pixels of grad_out to points."""
    t = TRANSFORMS[tile]
    return _on_both_axes(to_points, t.outputs, tile, t.points)


@lru_cache
def transform_pixels(tile: int) -> Any:
    """Points to pixels of grad_x."""
    t = TRANSFORMS[tile]
    return _on_both_axes(from_points, t.inputs, t.points, t.points)


@lru_cache
def transform_grad_taps(tile: int) -> Any:
    """Points to 3x3 taps of grad_weight."""
    t = TRANSFORMS[tile]
    return _on_both_axes(from_points, t.taps, t.points, TAPS)
