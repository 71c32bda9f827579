"""Winograd's transforms: 4x4 outputs of a 3x3 kernel from 36 products in place of 144.

A polynomial product of degree 5 is known from its values at 6 points, and a value costs one product.  So a tile of 6x6
inputs, a kernel of 3x3 and a tile of 4x4 outputs are related by

    out = A' ((B' x B) * (G weight G')) A        (' transposes, * multiplies number by number)

and channels are summed between the transforms, where they have become 36 matrix products: `conv_winograd`.  The
gradient of the weight is the same relation read backwards: ``G' ((B' x B) * (A grad_out A')) G``.  So is that of x, as
`conv_winograd_scatter` computes it: ``B ((G weight G') * (A grad_out A')) B'``.

Only the last output of a tile, and only the third tap, are seen at infinity: the value there is the coefficient of the
highest power.  So three outputs, or two taps, need the other 5 points alone: 30 products where one axis is short, 25
where both are, and their bits are those that all 36 would give.

The points are 0, infinity and the pairs +-sqrt(1/2) and +-sqrt(2).  With the 0, +-1, +-2 of the textbook, whose powers
spread from 1 to 8, the largest error on random data is 5 times as large.  A pair of points also halves the work: even
and odd powers are summed once for both.

A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308, sections 3 and 4.1.
B. Barabasz et al., Error Analysis and Improving the Accuracy of Winograd Convolution, arXiv:1803.10986: on points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastconv.cpu import codegen
from fastconv.cpu.codegen import Vector

#: Taps of the kernel along one axis.
TAPS = 3

Matrix = NDArray[np.float64]


class Transforms(NamedTuple):
    """Three matrices, each with a row for every point, the last one infinity.

    Row p of *taps* (G) and of *outputs* (A) holds the powers of point p; row p of *inputs* (B') the coefficients of the
    polynomial that is zero at all other points.  The value of that polynomial at point p is divided out of *taps*.
    """

    inputs: Matrix
    taps: Matrix
    outputs: Matrix

    @property
    def tile(self) -> int:
        """Outputs of a tile along one axis."""
        return self.outputs.shape[1]

    @property
    def points(self) -> int:
        """Points along one axis, as many as inputs of a tile."""
        return len(self.inputs)

    @property
    def amplification(self) -> float:
        """The largest sum of absolute coefficients that a product passes through, in any of the three passes."""
        rows = [abs(matrix).sum(axis=1) for matrix in self]
        forward = (abs(self.outputs).T * rows[0] * rows[1]).sum(axis=1)
        backward = (abs(self.taps).T * rows[0] * rows[2]).sum(axis=1)
        return float(max(forward.max(), backward.max()) ** 2)


def _transforms(*pairs: float) -> Transforms:
    """The matrices for the points 0, infinity, and +-p for each of *pairs*."""
    finite = np.array([0.0, *(sign * point for point in pairs for sign in (1, -1))])
    inputs = len(finite) + 1
    outputs = inputs - TAPS + 1
    to_inputs, to_taps, to_outputs = (np.zeros((inputs, columns)) for columns in (inputs, TAPS, outputs))
    for row, point in enumerate(finite):
        others = np.delete(finite, row)
        to_inputs[row, : inputs - 1] = np.poly(others)[::-1]
        to_taps[row] = point ** np.arange(TAPS) / np.prod(point - others)
        to_outputs[row] = point ** np.arange(outputs)
    to_inputs[-1] = np.poly(finite)[::-1]
    to_taps[-1, -1] = to_outputs[-1, -1] = 1
    return Transforms(to_inputs, to_taps, to_outputs)


#: By the outputs of a tile: F(4x4, 3x3), and F(2x2, 3x3), which only the GPU uses.
TRANSFORMS = {4: _transforms(np.sqrt(0.5), np.sqrt(2.0)), 2: _transforms(1.0)}

INPUT_MATRIX, TAP_MATRIX, OUTPUT_MATRIX = TRANSFORMS[4]
#: Outputs of a tile along one axis, and inputs of a tile.
OUTPUTS, INPUTS = TRANSFORMS[4].tile, TRANSFORMS[4].points
#: Points of a tile: so many matrix products.
PLANES = INPUTS * INPUTS

# What rounding leaves of a coefficient that is zero.
_TINY = 1e-12


class Arithmetic(NamedTuple):
    """How a sum is computed, or code for it generated, on values of any kind: each operation rounds once."""

    add: Callable[[Any, Any], Any]
    subtract: Callable[[Any, Any], Any]
    #: ``coefficient * value`` and ``coefficient * value + addend``; the coefficient is a Python float.
    scale: Callable[[float, Any], Any]
    scale_add: Callable[[float, Any, Any], Any]


def _sum_of(of: Arithmetic, coefficients: Matrix, values: list[Any]) -> Any:
    """``sum of coefficients * values``, those with coefficient 1 first, from then on by fused multiply-adds."""
    terms = [term for term in zip(coefficients, values, strict=True) if abs(term[0]) > _TINY]
    terms.sort(key=lambda term: bool(abs(term[0] - 1) > _TINY))
    total = None
    for coefficient, value in terms:
        if abs(coefficient - 1) <= _TINY:
            total = value if total is None else of.add(total, value)
        elif total is None:
            total = of.scale(float(coefficient), value)
        else:
            total = of.scale_add(float(coefficient), value, total)
    return total


def to_points(of: Arithmetic, matrix: Matrix, values: list[Any]) -> list[Any]:
    """``matrix @ values`` for a matrix with a row for each point.

    The rows of +p and -p have the same even columns and opposite odd ones: one sum of each serves both.
    """
    products = [_sum_of(of, matrix[0], values)]
    for plus in range(1, len(matrix) - 1, 2):
        even = _sum_of(of, matrix[plus, ::2], values[::2])
        scale = matrix[plus, 1::2][np.abs(matrix[plus, 1::2]) > _TINY][-1]
        odd = _sum_of(of, matrix[plus, 1::2] / scale, values[1::2])
        products.extend(of.scale_add(float(signed), odd, even) for signed in (scale, -scale))
    return [*products, _sum_of(of, matrix[-1], values)]


def from_points(of: Arithmetic, matrix: Matrix, values: list[Any]) -> list[Any]:
    """``matrix.T @ values`` for a matrix with a row for each point: the values at +p and -p are added and subtracted.

    Even powers need the sum, odd ones the difference.
    """
    pairs = range(1, len(matrix) - 1, 2)
    sums = [of.add(values[plus], values[plus + 1]) for plus in pairs]
    differences = [of.subtract(values[plus], values[plus + 1]) for plus in pairs]
    found = []
    for power in range(matrix.shape[1]):
        folded = [values[0], *(differences if power % 2 else sums), values[-1]]
        found.append(_sum_of(of, matrix[[0, *pairs, -1], power], folded))
    return found


def on_vectors(builder: Any, vector: Vector) -> Arithmetic:
    """Code for vectors of the CPU."""

    def constant(number: float) -> Any:
        return ir.Constant(codegen.llvm_vector(vector), [number] * vector.lanes)

    return Arithmetic(
        builder.fadd,
        builder.fsub,
        lambda coefficient, value: builder.fmul(constant(coefficient), value),
        lambda coefficient, value, addend: codegen.fused_multiply_add(
            builder, constant(coefficient), value, addend, vector
        ),
    )


def _kind(row: int, column: int) -> int:
    """Which of the four kinds of points this one is: infinity on neither axis, on the second, on the first, on both."""
    return 2 * (row == INPUTS - 1) + (column == INPUTS - 1)


#: Kinds of the points of a tile.
KINDS = tuple(_kind(row, column) for row in range(INPUTS) for column in range(INPUTS))
#: For points that lie in the same line of every plane.
EVERYWHERE = (0, 0, 0)


def _on_both_axes(along_axis: Any, matrix: Matrix, inputs: int, outputs: int, parts: int = 1) -> Any:
    """The transform of a tile of *inputs* x *inputs* vectors to *outputs* x *outputs*: first columns, then rows.

    One intrinsic emits all of it: as separate calls in a kernel it would take Numba ten times as long to compile.  Rows
    of results are computed in so many *parts*, each from all vectors, where more would not stay in the registers.
    """
    points_are_source = along_axis is from_points

    @intrinsic
    def transform(
        typingctx: Any,
        source: Any,
        at: Any,
        row_stride: Any,
        column_stride: Any,
        target: Any,
        target_at: Any,
        target_stride: Any,
        shifts: Any,
    ) -> Any:
        """Vectors (i, j) of *source* lie at ``at + i * row_stride + j * column_stride``, results one stride apart.

        Points of the other three kinds lie so far from where those of the first kind would.
        """
        vector = Vector(source.dtype)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            source, at, row_stride, column_stride, target, target_at, target_stride, shifts = arguments
            shift_of = [codegen.constant(0), *cgutils.unpack_tuple(builder, shifts)]

            def times(stride: Any, count: int) -> Any:
                return builder.mul(stride, codegen.constant(count))

            def extent(*steps: Any) -> Any:
                total = codegen.constant(vector.lanes)
                for step in steps:
                    total = builder.add(total, step)
                return total

            def place(offset: Any, row: int, column: int, of_points: bool) -> Any:
                return builder.add(offset, shift_of[_kind(row, column)]) if of_points else offset

            reach = extent(times(row_stride, inputs - 1), times(column_stride, inputs - 1))
            start = codegen.address(context, builder, signature.args[0], source, at, reach)
            reach = extent(times(target_stride, outputs * outputs - 1))
            target_start = codegen.address(context, builder, signature.args[4], target, target_at, reach)
            of = on_vectors(builder, vector)
            for part in range(parts):
                of_part = range(outputs * part // parts, outputs * (part + 1) // parts)
                columns = []
                for j in range(inputs):
                    steps = (builder.add(times(column_stride, j), times(row_stride, i)) for i in range(inputs))
                    places = [place(step, i, j, points_are_source) for i, step in enumerate(steps)]
                    values = [codegen.load_vector(builder, builder.gep(start, [at]), vector) for at in places]
                    columns.append(along_axis(of, matrix, values))
                for i in of_part:
                    row = along_axis(of, matrix, [column[i] for column in columns])
                    for j, value in enumerate(row):
                        to = place(times(target_stride, i * outputs + j), i, j, not points_are_source)
                        codegen.store_vector(builder, value, builder.gep(target_start, [to]), vector)
            return context.get_dummy_value()

        integer = types.intp
        return types.void(source, integer, integer, integer, target, integer, integer, shifts), generate

    return transform


# Roundings on the way through three transforms on two axes.
_TRANSFORM_LENGTH = 36


def error_bound(length: int, size: Any, tile: int = OUTPUTS) -> Any:
    """Largest possible error of a result in float32.

    Parameters
    ----------
    length : int
        Channels of all pieces, or pixels for the gradient of the weight, that are summed.
    size : float or ndarray
        Sum over them of the product of the largest absolute number of each operand.
    tile : int
        Outputs of a tile along one axis.
    """
    return TRANSFORMS[tile].amplification * (length + _TRANSFORM_LENGTH) * np.finfo(np.float32).eps * size


# Parts in which the points of a tile of x are computed.  In two, each from all pixels, what is between stays in 32
# registers: forward is 1.01 to 1.07 times as fast, grad_weight 1.02 to 1.09 (128 and 64 channels, 14 to 56 pixels wide,
# one and 8 images).  In 16 registers nothing does, and parts cost 2 to 10%.
_PARTS = 2 if codegen.REGISTERS >= 32 else 1
#: 6x6 pixels of x to 36 points.
transform_input = _on_both_axes(to_points, INPUT_MATRIX, INPUTS, INPUTS, _PARTS)
#: 3x3 taps of weight to 36 points.
transform_taps = _on_both_axes(to_points, TAP_MATRIX, TAPS, INPUTS)
#: 36 points to 4x4 pixels of out.
transform_output = _on_both_axes(from_points, OUTPUT_MATRIX, INPUTS, OUTPUTS)
#: 4x4 pixels of grad_out to 36 points.
transform_grad_out = _on_both_axes(to_points, OUTPUT_MATRIX, OUTPUTS, INPUTS)
#: 36 points to 6x6 pixels of grad_x.
transform_pixels = _on_both_axes(from_points, INPUT_MATRIX, INPUTS, INPUTS, _PARTS)
#: 36 points to 3x3 taps of grad_weight.
transform_grad_taps = _on_both_axes(from_points, TAP_MATRIX, INPUTS, TAPS)
