"""``cvt``: between integers, floats, bfloat16, tf32 and packed pairs (PTX ISA, cvt)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastconv.cuda.ptx.floating import flush, narrow, saturate
from fastconv.cuda.ptx.operations import Array, Form, Operation, builds, kind_of
from fastconv.cuda.ptx.types import DTYPE, DType, bits_of

# Rounding to an integer, kept as a float.
_TO_INTEGRAL: dict[str, Callable[[Array], Array]] = {
    "rni": np.rint,
    "rzi": np.trunc,
    "rmi": np.floor,
    "rpi": np.ceil,
}
_DIRECTIONS = ("rn", "rz", "rm", "rp", "rna")

Conversion = Callable[[Array], Array]


def float_to_integer(x: Array, dtype: DType, rounding: str) -> Array:
    """Rounded, then clamped to the range of the integer; NaN becomes 0."""
    whole = _TO_INTEGRAL[rounding](x.astype(np.float64))
    limits = np.iinfo(dtype)
    # the upper limit of 64 bits is not a float64: compare with the power of two above it
    above, below = whole >= float(limits.max + 1), whole <= float(limits.min)
    inside = np.where(above | below | np.isnan(whole), 0.0, whole).astype(dtype)
    return np.where(above, dtype.type(limits.max), np.where(below, dtype.type(limits.min), inside))


def to_bfloat16(x: Array, rounding: str) -> Array:
    """The upper half of a float32's bits, rounded to nearest even or towards zero; NaN is 0x7fff."""
    bits = x.view(np.uint32)
    if rounding == "rn":
        bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.where(np.isnan(x), np.uint16(0x7FFF), (bits >> np.uint32(16)).astype(np.uint16))


def from_bfloat16(bits: Array) -> Array:
    """bfloat16 is the upper half of a float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_tf32(x: Array, rounding: str) -> Array:
    """A float32 whose significand has 10 bits: ``rna`` rounds ties away from zero, ``rn`` to even."""
    bits = x.view(np.uint32)
    if rounding == "rna":
        rounded = bits + np.uint32(0x1000)
    elif rounding == "rn":
        rounded = bits + np.uint32(0x0FFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    else:
        rounded = bits
    return np.where(np.isfinite(x), rounded & np.uint32(0xFFFFE000), bits)


def _integer_to_float(dtype: DType, rounding: str, form: Form) -> Conversion:
    def nearest(x: Array) -> Array:
        return x.astype(dtype)

    if rounding in ("rn", ""):
        return nearest
    if "64" in form.types[1] and dtype != np.float64:
        raise form.unsupported(f"64-bit integers rounded .{rounding}")
    return lambda x: narrow(x.astype(np.float64), dtype, rounding)


def _to_small(target: str, rounding: str, form: Form) -> Conversion:
    """float32 to half or bfloat16."""
    if target.startswith("bf16"):
        if rounding not in ("rn", "rz"):
            raise form.unsupported(f"rounding .{rounding}")
        return lambda x: to_bfloat16(x, rounding)
    half = DTYPE["f16"]
    return lambda x: narrow(x.astype(np.float64), half, rounding)


def _positive_part(convert: Conversion) -> Conversion:
    return lambda x: convert(np.where(x > 0, x, np.where(np.isnan(x), x, x.dtype.type(0))))


@builds("cvt")
def _convert(form: Form) -> Operation:
    target, source = form.types
    rounding = form.choice(*_DIRECTIONS)
    integral = form.choice(*_TO_INTEGRAL)
    flushes, saturates, relu = form.flag("ftz"), form.flag("sat"), form.flag("relu")
    form.flag("satfinite")  # the targets that it matters for (fp8) are not supported

    if target in ("f16x2", "bf16x2") and source == "f32":
        convert = _to_small(target, rounding, form)
        if relu:
            convert = _positive_part(convert)

        def pair(high: Array, low: Array) -> Array:
            upper, lower = (np.ascontiguousarray(convert(x)).view(np.uint16).astype(np.uint32) for x in (high, low))
            return (upper << np.uint32(16)) | lower

        return Operation(pair, (target,), ("f32", "f32"))

    convert = _single(target, source, rounding, integral, saturates, form)
    if relu:
        convert = _positive_part(convert)
    if flushes:
        inner = convert
        convert = lambda x: flush(inner(flush(x)))  # noqa: E731
    return Operation(convert, (target,), (source,))


def _single(target: str, source: str, rounding: str, integral: str, saturates: bool, form: Form) -> Conversion:
    """One value to one value."""
    dtype = DTYPE[target]
    if target == "tf32" and source == "f32":
        return lambda x: to_tf32(x, rounding)
    if target == "bf16" and source == "f32":
        return _to_small(target, rounding, form)
    if source == "bf16" and target == "f32":
        return from_bfloat16
    if "bf16" in (target, source) or "tf32" in (target, source):
        raise form.unsupported()
    from_float, to_float = kind_of(source) == "f", kind_of(target) == "f"
    if from_float and not to_float:
        return lambda x: float_to_integer(x, dtype, integral)
    if to_float and not from_float:
        return _clamped(_integer_to_float(dtype, rounding, form), saturates)
    if from_float:
        return _clamped(_between_floats(target, source, rounding, integral), saturates)
    if saturates:
        limits = np.iinfo(dtype)

        def clip(x: Array) -> Array:
            low, high = np.iinfo(x.dtype).min, np.iinfo(x.dtype).max
            return np.clip(x, max(limits.min, low), min(limits.max, high)).astype(dtype)

        return clip
    return lambda x: x.astype(dtype)


def _clamped(convert: Conversion, saturates: bool) -> Conversion:
    return (lambda x: saturate(convert(x))) if saturates else convert


def _between_floats(target: str, source: str, rounding: str, integral: str) -> Conversion:
    dtype = DTYPE[target]
    if integral:
        return lambda x: _TO_INTEGRAL[integral](x).astype(dtype)
    if bits_of(target) >= bits_of(source):
        return lambda x: x.astype(dtype)
    return lambda x: narrow(x.astype(np.float64), dtype, rounding)
