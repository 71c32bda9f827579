"""Floating-point instructions (chapters of that name in the PTX ISA), rounded once, as the hardware does.

NumPy has no fused multiply-add, so it is built from exact pieces.  For float32 the product of two operands is exact in
float64 (48 bits of 53), and only the sum with the third operand is rounded there.  Rounding that sum to float32
afterwards gives the right result unless the float64 sum, itself inexact, lies exactly between two float32 values: then
the sum is rounded *to odd* first, which cannot land between (Boldo and Melquiond, "Emulation of a FMA and correctly
rounded sums", IEEE Transactions on Computers 57, 2008).

NaN payloads are NumPy's; the PTX ISA leaves them open.  The ``approx`` instructions give the correctly rounded result,
where the hardware is allowed 1 or 2 units in the last place (and 2**-21.4 absolute for sin and cos): a comparison
with a real GPU needs that tolerance.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from fastconv.cuda.ptx.integer import (
    integer_division,
    integer_extreme,
    integer_product,
    integer_sign,
    integer_sum,
    simple,
)
from fastconv.cuda.ptx.operations import Array, Form, Operation, builds
from fastconv.cuda.ptx.types import DTYPE, UNSIGNED, DType

_F32, _F64 = np.dtype(np.float32), np.dtype(np.float64)
_ROUNDINGS = ("rn", "rz", "rm", "rp")

# A float64 lies between two neighbouring float32 values when bit 28 of its significand is set and the bits below are
# not: shifted to the top of the word, that is the most negative integer.
_TIE_SHIFT = 35
_TIE = np.iinfo(np.int64).min


class _UnderflowWatch(threading.local):
    """Set by NumPy, in the thread at work, when a conversion to a smaller format gave a subnormal, inexact result."""

    seen = False

    def __call__(self, kind: str, flag: int) -> None:
        self.seen = True


_underflow = _UnderflowWatch()


@contextlib.contextmanager
def floating_point_rules() -> Iterator[None]:
    """Every operation of this file runs inside: overflow and NaN are values, underflow is watched."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="call", call=_underflow):
        yield


# ---------------------------------------------------------------------------------------------- exact sums
def two_sum(x: Array, y: Array) -> tuple[Array, Array]:
    """``x + y`` rounded, and what the rounding lost (Knuth)."""
    total = x + y
    virtual = total - x
    return total, (x - (total - virtual)) + (y - virtual)


def sum_to_odd(x: Array, y: Array) -> Array:
    """``x + y`` in float64: the exact sum where it fits, else the neighbour whose last bit is one."""
    total, lost = two_sum(x, y)
    bits = total.view(np.int64)
    wrong = (lost != 0) & np.isfinite(total) & ((bits & 1) == 0)
    # one unit away from zero where the loss has the sum's sign, else towards zero
    step = np.where((lost > 0) == (total > 0), 1, -1)
    return np.asarray(bits + np.where(wrong, step, 0)).view(np.float64)


def narrow(value: Array, dtype: DType, rounding: str) -> Array:
    """A float64 (exact, or rounded to odd) in a smaller format, rounded to nearest even or in one direction."""
    result = value.astype(dtype)
    if rounding == "rn":
        return result
    back = result.astype(np.float64)
    down, up = back > value, back < value
    if rounding == "rz":
        down, up = down & (value > 0), up & (value < 0)
    elif rounding == "rm":
        up = np.zeros_like(up)
    else:
        down = np.zeros_like(down)
    result = np.where(down, np.nextafter(result, dtype.type(-np.inf)), result)
    return np.where(up, np.nextafter(result, dtype.type(np.inf)), result)


def fma32(x: Array, y: Array, z: Array) -> Array:
    """``x * y + z`` in float32, rounded once to nearest even."""
    _underflow.seen = False
    product = x.astype(_F64)
    product *= y.astype(_F64)
    addend = z.astype(_F64)
    total = product + addend
    result = total.astype(_F32)
    shifted = np.left_shift(total.view(np.int64), _TIE_SHIFT)
    if _underflow.seen or np.minimum.reduce(shifted, axis=None) == _TIE:
        result = sum_to_odd(product, addend).astype(_F32)
    return result


def _fma_in(dtype: DType, rounding: str) -> Callable[[Array, Array, Array], Array]:
    """Formats whose products are exact in float64: half and single."""

    def fma(x: Array, y: Array, z: Array) -> Array:
        return narrow(sum_to_odd(x.astype(_F64) * y.astype(_F64), z.astype(_F64)), dtype, rounding)

    return fma


# Between these magnitudes nothing in fma64 overflows or underflows on the way.
_SAFE_LOW, _SAFE_HIGH = 2.0**-450, 2.0**450


def _split(x: Array) -> tuple[Array, Array]:
    """The upper 26 and lower 27 bits (Dekker)."""
    scaled = x * 134217729.0  # 2**27 + 1
    high = scaled - (scaled - x)
    return high, x - high


def fma64(x: Array, y: Array, z: Array) -> Array:
    """``x * y + z`` in float64, rounded once (Boldo and Melquiond, figure 5); extreme lanes in exact fractions."""
    x, y, z = np.broadcast_arrays(x, y, z)
    product = x * y
    (x_high, x_low), (y_high, y_low) = _split(x), _split(y)
    lost = ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low
    upper, upper_lost = two_sum(z, lost)
    total, total_lost = two_sum(product, upper)
    result = total + sum_to_odd(upper_lost, total_lost)
    sizes = np.abs(np.stack([x, y, z]))
    safe = ((sizes > _SAFE_LOW) & (sizes < _SAFE_HIGH) | (sizes == 0)).all(axis=0)
    # a zero factor leaves the plain sum, which also has the right sign of zero; an infinite or NaN addend wins over a
    # product that only overflowed
    result = np.where((x == 0) | (y == 0), product + z, result)
    finite_factors = np.isfinite(x) & np.isfinite(y)
    result = np.where(finite_factors & np.isfinite(z), result, np.where(finite_factors, z, product + z))
    for lane in np.flatnonzero(~safe & finite_factors & np.isfinite(z)):
        result[lane] = _fma_exact(float(x[lane]), float(y[lane]), float(z[lane]))
    return result


def _fma_exact(x: float, y: float, z: float) -> float:
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    if exact == 0:
        return x * y + z  # the sign of a zero is that of the plain sum
    try:
        return exact.numerator / exact.denominator  # Python rounds this quotient once
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


# ---------------------------------------------------------------------------------------------- modifiers
_SMALLEST_NORMAL = np.float32(2.0**-126)


def flush(x: Array) -> Array:
    """Subnormals become zeros of their sign (``.ftz``)."""
    if x.dtype != _F32:
        return x
    return np.where(np.abs(x) < _SMALLEST_NORMAL, np.copysign(np.float32(0), x), x)


def saturate(x: Array) -> Array:
    """Into [0, 1]; NaN becomes 0 (``.sat``)."""
    return np.where(x > 0, np.minimum(x, x.dtype.type(1)), x.dtype.type(0))


def finished(form: Form, function: Callable[..., Array], type_name: str, arity: int) -> Operation:
    """*function* with the modifiers around it that all floating-point opcodes share."""
    flushes, saturates, at_least_zero = form.flag("ftz"), form.flag("sat"), form.flag("relu")
    if not (flushes or saturates or at_least_zero):
        return simple(function, type_name, arity)

    def modified(*operands: Array) -> Array:
        if flushes:
            operands = tuple(flush(operand) for operand in operands)
        result = function(*operands)
        if flushes:
            result = flush(result)
        if saturates:
            result = saturate(result)
        if at_least_zero:
            result = np.where(result > 0, result, result.dtype.type(0))
        return result

    return simple(modified, type_name, arity)


def _is_float(type_name: str) -> bool:
    return type_name.startswith(("f", "bf"))


def _element(form: Form, type_name: str) -> DType:
    """The format that the arithmetic is done in: the type itself, or half of a packed pair."""
    if type_name.startswith("bf16"):
        raise form.unsupported("bfloat16 arithmetic (convert to f32)")
    return DTYPE[type_name.removesuffix("x2")]


def _for(form: Form, type_name: str, function: Callable[..., Array]) -> Callable[..., Array]:
    """A function of single values; for a packed type, as a function of pairs in one register."""
    single, pair = _element(form, type_name), DTYPE[type_name]
    if single == pair:
        return function

    def on_pairs(*operands: Array) -> Array:
        singles = [np.ascontiguousarray(operand).view(single) for operand in operands]
        return np.ascontiguousarray(function(*singles)).view(pair)

    return on_pairs


# ---------------------------------------------------------------------------------------------- opcodes
_PLAIN = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}


def _rounded(base: str, dtype: DType, rounding: str, form: Form) -> Callable[..., Array]:
    """add, sub, mul or div in the format, in one of the four rounding directions."""
    if rounding == "rn":
        return _PLAIN[base]
    if dtype == _F64 or base == "div":
        raise form.unsupported(f"{base} rounded .{rounding}")

    def directed(x: Array, y: Array) -> Array:
        a, b = x.astype(_F64), y.astype(_F64)
        exact = a * b if base == "mul" else sum_to_odd(a, -b if base == "sub" else b)
        return narrow(exact, dtype, rounding)

    return directed


@builds("add", "sub", "mul", "div", "addc", "subc", "rem")
def _binary(form: Form) -> Operation:
    type_name = form.type()
    if not _is_float(type_name):
        if form.base == "mul":
            return integer_product(form, type_name)
        if form.base in ("div", "rem"):
            return integer_division(form, type_name)
        return integer_sum(form, type_name)
    form.flag("full")  # div.full: like div.approx, 2 units in the last place
    form.flag("approx")
    rounding = form.choice(*_ROUNDINGS, default="rn")
    dtype = _element(form, type_name)
    function = _rounded(form.base, dtype, rounding, form)
    return finished(form, _for(form, type_name, function), type_name, 2)


@builds("fma", "mad", "madc")
def _fused(form: Form) -> Operation:
    type_name = form.type()
    if not _is_float(type_name):
        return integer_product(form, type_name)
    rounding = form.choice(*_ROUNDINGS, default="rn")
    dtype = _element(form, type_name)
    function: Callable[[Array, Array, Array], Array]
    if dtype == _F32 and rounding == "rn":
        function = fma32
    elif dtype != _F64:
        function = _fma_in(dtype, rounding)
    elif rounding == "rn":
        function = fma64
    else:
        raise form.unsupported(f"fma.f64 rounded .{rounding}")
    return finished(form, _for(form, type_name, function), type_name, 3)


def _extreme(minimum: bool, propagates_nan: bool) -> Callable[[Array, Array], Array]:
    """min and max: one NaN gives the other operand (or NaN, with .NaN), and -0 is less than +0."""
    choose = (np.minimum if minimum else np.maximum) if propagates_nan else (np.fmin if minimum else np.fmax)

    def extreme(x: Array, y: Array) -> Array:
        bits = UNSIGNED[x.dtype.itemsize * 8]
        # equal values differ at most in the sign of zero: min takes a set sign bit, max a clear one
        join = np.bitwise_or if minimum else np.bitwise_and
        equal = np.asarray(join(x.view(bits), y.view(bits))).view(x.dtype)
        return np.where(x == y, equal, choose(x, y))

    return extreme


@builds("min", "max")
def _min_max(form: Form) -> Operation:
    type_name = form.type()
    if not _is_float(type_name):
        return integer_extreme(form, type_name)
    function = _extreme(form.base == "min", form.flag("NaN"))
    if form.flag("xorsign"):
        raise form.unsupported("xorsign.abs")
    return finished(form, _for(form, type_name, function), type_name, 2)


def _clear_sign(x: Array) -> Array:
    bits = UNSIGNED[x.dtype.itemsize * 8]
    return np.asarray(x.view(bits) & bits.type((1 << (x.dtype.itemsize * 8 - 1)) - 1)).view(x.dtype)


@builds("abs", "neg")
def _sign(form: Form) -> Operation:
    type_name = form.type()
    if type_name.startswith("bf16"):  # the sign is one bit in any format
        mask = {"bf16": 0x8000, "bf16x2": 0x80008000}[type_name]
        sign = DTYPE[type_name].type(mask)
        return simple((lambda x: x ^ sign) if form.base == "neg" else (lambda x: x & ~sign), type_name, 1)
    if not _is_float(type_name):
        return integer_sign(form, type_name)
    function = _clear_sign if form.base == "abs" else np.negative
    return finished(form, _for(form, type_name, function), type_name, 1)


@builds("copysign")
def _copy_sign(form: Form) -> Operation:
    """``copysign d, a, b``: the magnitude of b with the sign of a."""
    return simple(lambda sign, magnitude: np.copysign(magnitude, sign), form.type(), 2)


_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "rcp": lambda x: 1 / x,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
}


@builds(*_FUNCTIONS)
def _function(form: Form) -> Operation:
    """Evaluated in float64 and rounded: exact for sqrt.rn and rcp.rn, and closer than the hardware for the others."""
    type_name = form.type()
    form.flag("approx")
    rounding = form.choice(*_ROUNDINGS, default="rn")
    if rounding != "rn":
        raise form.unsupported(f"rounding .{rounding}")
    evaluate, dtype = _FUNCTIONS[form.base], _element(form, type_name)

    def function(x: Array) -> Array:
        return evaluate(x.astype(_F64)).astype(dtype)

    return finished(form, _for(form, type_name, function), type_name, 1)


_PROPERTIES: dict[str, Callable[[Array], Array]] = {
    "finite": np.isfinite,
    "infinite": np.isinf,
    "number": lambda x: ~np.isnan(x),
    "notanumber": np.isnan,
    "normal": lambda x: np.isfinite(x) & (np.abs(x) >= np.finfo(x.dtype).smallest_normal),
    "subnormal": lambda x: (x != 0) & (np.abs(x) < np.finfo(x.dtype).smallest_normal),
}


@builds("testp")
def _test_property(form: Form) -> Operation:
    return Operation(_PROPERTIES[form.choice(*_PROPERTIES)], ("pred",), (form.type(),))
