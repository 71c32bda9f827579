"""exp, tanh, sigmoid and the normal distribution, for one number inside a kernel.

The float32 versions are arithmetic only: a range reduction, a polynomial of fused multiply-adds, selections instead of
branches, no call into a mathematics library.  So LLVM vectorises a loop around any of them, and an element has the same
bits in a vector of 16, in a vector of 8 and in a loop's tail.  Errors against exact arithmetic: exp 1.1 ulp, tanh and
sigmoid 3 ulp, the normal distribution 5e-7 of its value, in both tails.  NaN stays NaN.

The float64 versions call the C library, one element at a time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from fastconv import _jit

# float32 constants leave float32 arithmetic in float32, and these are exact in float64.
ZERO, HALF, ONE, TWO, FOUR = (np.float32(number) for number in (0, 0.5, 1, 2, 4))

_LOG2_E = np.float32(math.log2(math.e))
# ln 2 in two parts (Cody and Waite; the split is that of Cephes' expf): n * _LN2_HIGH is exact for every exponent n.
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(math.log(2) - 0.693359375)
# Adding 1.5 * 2**23 to a small float32 rounds it to an integer, which then lies in the low bits of the sum.
_ROUNDER = np.float32(1.5 * 2**23)
_EXPONENT_BIAS = 127
_MANTISSA_BITS = 23
# exp of the first is 0 in float32, exp of the second infinite.
_EXP_LOWEST = np.float32(-104)
_EXP_HIGHEST = np.float32(89)
# tanh(10) is 1 in float32.
_TANH_SATURATED = np.float32(10)

# 1/7! ... 1/2!: the Taylor series of exp, whose next term is below 1/10 of an ulp for abs(r) <= ln(2) / 2.
_EXP_SERIES = tuple(np.float32(1 / math.factorial(k)) for k in range(7, 1, -1))

# (1 - cdf(a)) * exp(a * a / 2) = t * polynomial(t) with t = 1 / (1 + a / 4), for 0 <= a <= 15: a minimax fit of degree
# 9 with a relative error of 1e-8, in the form of Abramowitz and Stegun 7.1.26.  Highest power first.
_TAIL_SLOPE = np.float32(0.25)
_TAIL_SERIES = tuple(
    np.float32(coefficient)
    for coefficient in (
        0.0171772087, -0.0661193169, 0.059693325, 0.0173845272, 0.0222131954,
        0.0813674472, 0.0739026817, 0.0950896015, 0.0995463449, 0.09974499,
    )
)  # fmt: skip
# The tail behind 15 is 0 in float32.
_TAIL_END = np.float32(15)


# ---- float32 ------------------------------------------------------------------------------------------------------


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` with one rounding; LLVM's loop vectoriser widens it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        function_type = ir.FunctionType(kind, [kind] * 3)
        function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.fma.f{a.bitwidth}")
        return builder.call(function, arguments)

    return a(a, a, a), generate


@intrinsic
def power_of_two(typingctx: Any, n: Any) -> Any:
    """2**n for a float32 n that is an integer from -126 to 127, put together from its bits.

    ``n + 127 + 1.5 * 2**23`` has ``n + 127`` in its low bits; moved up by the length of the mantissa they are 2**n.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        biased = builder.fadd(arguments[0], ir.Constant(ir.FloatType(), float(_ROUNDER) + _EXPONENT_BIAS))
        bits = builder.bitcast(biased, ir.IntType(32))
        return builder.bitcast(builder.shl(bits, ir.Constant(ir.IntType(32), _MANTISSA_BITS)), ir.FloatType())

    return types.float32(types.float32), generate


@_jit.inline
def product(a, b):
    """``a * b``, rounded before something is added to it.

    LLVM does that on a CPU anyway; `fastconv.cuda.elementary`, which compiles this file for GPUs, has to ask for it.
    """
    return a * b


@_jit.inline
def round_to_integer(x):
    """The integer nearest to a float32 x of a size below 2**22, as a float32."""
    return (x + _ROUNDER) - _ROUNDER


@_jit.inline
def polynomial(x, coefficients):
    """Horner's scheme, highest power first."""
    value = coefficients[0]
    for k in range(1, len(coefficients)):
        value = fma(value, x, coefficients[k])
    return value


@_jit.inline
def reduced_exp(x):
    """n and q with ``exp(x) = 2**n * (1 + q)`` and ``abs(q) < 0.42``, for a float32 x from -104 to 89."""
    n = round_to_integer(product(x, _LOG2_E))
    r = fma(n, -_LN2_LOW, fma(n, -_LN2_HIGH, x))
    return n, fma(r * r, polynomial(r, _EXP_SERIES), r)


@_jit.inline
def exp_float32(x):
    """exp, gradual underflow included."""
    x = _EXP_LOWEST if x < _EXP_LOWEST else x
    x = _EXP_HIGHEST if x > _EXP_HIGHEST else x
    n, q = reduced_exp(x)
    # 2**n itself can lie outside float32 at both ends; its two halves cannot.
    half = round_to_integer(HALF * n)
    return product((ONE + q) * power_of_two(half), power_of_two(n - half))


@_jit.inline
def tanh_float32(x):
    """``expm1(2 a) / (expm1(2 a) + 2)`` for ``a = abs(x)``, with the sign of x: nothing cancels near 0."""
    a = abs(x)
    a = _TANH_SATURATED if a > _TANH_SATURATED else a
    n, q = reduced_exp(a + a)
    scale = power_of_two(n)
    expm1 = fma(scale, q, scale - ONE)
    return math.copysign(expm1 / (expm1 + TWO), x)


@_jit.inline
def normal_bell_float32(x):
    """``exp(-x * x / 2)``; the rounding error of the square, up to 40 ulp of the result, is put back."""
    a = abs(x)
    a = _TAIL_END if a > _TAIL_END else a
    half = HALF * a
    square = half * a
    return exp_float32(-square) * (ONE - fma(half, a, -square))


@_jit.inline
def normal_cdf_float32(x):
    """The tail behind ``abs(x)`` as bell times polynomial, and 1 minus that for a positive x."""
    a = abs(x)
    a = _TAIL_END if a > _TAIL_END else a
    t = ONE / fma(_TAIL_SLOPE, a, ONE)
    tail = product(normal_bell_float32(a), t * polynomial(t, _TAIL_SERIES))
    return ONE - tail if x > ZERO else tail


# ---- float64 ------------------------------------------------------------------------------------------------------


@_jit.inline
def exp_float64(x):
    return math.exp(x)


@_jit.inline
def tanh_float64(x):
    return math.tanh(x)


@_jit.inline
def normal_bell_float64(x):
    return math.exp(-0.5 * x * x)


@_jit.inline
def normal_cdf_float64(x):
    return 0.5 * math.erfc(-math.sqrt(0.5) * x)


# ---- either, by the type of the argument --------------------------------------------------------------------------


def _by_type(name: str, float32_version: Any, float64_version: Any) -> Any:
    """A function for kernels that is one of two; the choice is made when a kernel is compiled."""

    def function(x):
        raise NotImplementedError(f"{name} exists inside kernels only")

    @overload(function)
    def choose(x):
        if x == types.float32:
            return lambda x: float32_version(x)
        return lambda x: float64_version(x)

    return function


exp = _by_type("exp", exp_float32, exp_float64)
tanh = _by_type("tanh", tanh_float32, tanh_float64)
#: ``exp(-x * x / 2)``: the density of the normal distribution, times ``sqrt(2 * pi)``.
normal_bell = _by_type("normal_bell", normal_bell_float32, normal_bell_float64)
#: The share of the standard normal distribution below x.
normal_cdf = _by_type("normal_cdf", normal_cdf_float32, normal_cdf_float64)


@_jit.inline
def sigmoid(x):
    """``1 / (1 + exp(-x))``, with exp of a negative number only: it cannot overflow."""
    e = exp(-abs(x))
    return (ONE if x > ZERO else e) / (ONE + e)


@_jit.inline
def sigmoid_slope(x):
    """``sigmoid(x) * (1 - sigmoid(x))`` without the cancellation for large x."""
    e = exp(-abs(x))
    return e / ((ONE + e) * (ONE + e))
