"""Integer and bit instructions (PTX ISA: Integer Arithmetic, Extended-Precision, Logic and Shift Instructions).

NumPy's integer arithmetic wraps as PTX's does, so most opcodes are one NumPy function; what is written out here is
the rest: the high half of a product, bit fields, byte permutations, shifts by more than the width, carries.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastconv.cuda.ptx.operations import Array, Form, Operation, builds, kind_of, scalar
from fastconv.cuda.ptx.types import DTYPE, UNSIGNED, bits_of

_LOW_32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def simple(function: Callable[..., Array], type_name: str, arity: int) -> Operation:
    """An operation whose operands and result all have one type."""
    return Operation(function, (type_name,), (type_name,) * arity)


# ---------------------------------------------------------------------------------------------- arithmetic
def high_product(x: Array, y: Array) -> Array:
    """The upper half of the double-width product."""
    dtype = x.dtype
    bits = dtype.itemsize * 8
    if bits < 64:
        wide = np.dtype(f"{dtype.kind}{dtype.itemsize * 2}")
        return np.asarray((x.astype(wide) * y.astype(wide)) >> wide.type(bits)).astype(dtype)
    # 64 bits: four products of 32-bit halves; a negative operand counts 2**64 too much, times the other one
    a, b = x.astype(np.uint64), y.astype(np.uint64)
    a_low, a_high, b_low, b_high = a & _LOW_32, a >> _32, b & _LOW_32, b >> _32
    middle = a_high * b_low + ((a_low * b_low) >> _32)
    carry = (a_low * b_high + (middle & _LOW_32)) >> _32
    high = a_high * b_high + (middle >> _32) + carry
    if dtype.kind == "i":
        high -= np.where(x < 0, b, np.uint64(0)) + np.where(y < 0, a, np.uint64(0))
    return high.astype(dtype)


def _widen(type_name: str) -> str:
    if bits_of(type_name) not in (16, 32):
        raise ValueError(type_name)
    return f"{type_name[0]}{bits_of(type_name) * 2}"


def integer_product(form: Form, type_name: str) -> Operation:
    """mul and mad with .lo, .hi or .wide."""
    half = form.choice("lo", "hi", "wide")
    adds = form.base in ("mad", "madc")
    carry_out, carry_in = form.flag("cc"), form.base == "madc"
    if carry_out or carry_in:
        return _carrying(form, half, carry_in, carry_out)
    if half == "wide":
        wide = _widen(type_name)
        dtype = DTYPE[wide]

        def product(x: Array, y: Array) -> Array:
            return x.astype(dtype) * y

        def product_sum(x: Array, y: Array, z: Array) -> Array:
            return x.astype(dtype) * y + z

        if adds:
            return Operation(product_sum, (wide,), (type_name, type_name, wide))
        return Operation(product, (wide,), (type_name, type_name))
    multiply = high_product if half == "hi" else np.multiply
    if not adds:
        return simple(multiply, type_name, 2)
    if form.flag("sat"):
        raise form.unsupported("saturation")
    return simple(lambda x, y, z: multiply(x, y) + z, type_name, 3)


def integer_sum(form: Form, type_name: str) -> Operation:
    """add and sub, with .cc, with a carry in (addc, subc), with saturation (.s32 only)."""
    carry_out, carry_in = form.flag("cc"), form.base in ("addc", "subc")
    if carry_out or carry_in:
        return _carrying(form, "lo", carry_in, carry_out)
    function = np.add if form.base == "add" else np.subtract
    if form.flag("sat"):
        limits = np.iinfo(np.int32)

        def saturated(x: Array, y: Array) -> Array:
            return np.clip(function(x.astype(np.int64), y), limits.min, limits.max).astype(np.int32)

        return simple(saturated, type_name, 2)
    return simple(function, type_name, 2)


def _carrying(form: Form, half: str, carry_in: bool, carry_out: bool) -> Operation:
    """Extended precision: add.cc, addc, sub.cc, subc, mad.cc, madc (PTX ISA, Extended-Precision)."""
    type_name = f"u{bits_of(form.type())}"
    dtype = DTYPE[type_name]
    product, subtracts = form.base in ("mad", "madc"), form.base in ("sub", "subc")

    def extended(*operands: Array) -> Array | tuple[Array, Array]:
        *values, carry = operands if carry_in else (*operands, np.zeros(1, np.uint32))
        first, last = values[0], values[-1]
        if product:
            first = high_product(values[0], values[1]) if half == "hi" else values[0] * values[1]
        carry = carry.astype(dtype)
        if subtracts:
            partial = first - last
            total = partial - carry
            out = (first < last) | (partial < carry)
        else:
            partial = first + last
            total = partial + carry
            out = (partial < first) | (total < partial)
        return (total, out.astype(np.uint32)) if carry_out else total

    sources = (type_name,) * (3 if product else 2)
    return Operation(extended, (type_name,), sources, reads_carry=carry_in, writes_carry=carry_out)


def quotient(x: Array, y: Array) -> Array:
    """Division that truncates, as in C; 0 where the divisor is 0 (the caller reports it)."""
    if x.dtype.kind == "u":
        return np.floor_divide(x, np.where(y == 0, scalar(1, f"u{x.dtype.itemsize * 8}"), y)) * (y != 0)
    unsigned = UNSIGNED[x.dtype.itemsize * 8]
    magnitude = quotient(np.abs(x).view(unsigned), np.abs(y).view(unsigned)).astype(x.dtype)
    return np.where((x < 0) != (y < 0), -magnitude, magnitude)


def integer_division(form: Form, type_name: str) -> Operation:
    """div and rem."""
    if form.base == "div":
        function = quotient
    else:

        def function(x: Array, y: Array) -> Array:
            return x - quotient(x, y) * y

    return Operation(function, (type_name,), (type_name, type_name), may_divide_by_zero=True)


@builds("sad", "dp4a")
def _sums_of_parts(form: Form) -> Operation:
    """``sad``: |a - b| + c.  ``dp4a``: the dot product of four bytes each, plus c."""
    type_name = form.types[0]
    if form.base == "sad":
        return simple(lambda x, y, z: np.where(x > y, x - y, y - x) + z, type_name, 3)
    if form.types[0] != form.types[1]:
        raise form.unsupported("bytes of different signs")
    byte = np.dtype(f"{kind_of(type_name)}1")

    def dot(x: Array, y: Array, z: Array) -> Array:
        a, b = (np.ascontiguousarray(v).view(byte).reshape(-1, 4).astype(z.dtype) for v in (x, y))
        return (a * b).sum(axis=1, dtype=z.dtype) + z

    return simple(dot, type_name, 3)


# ---------------------------------------------------------------------------------------------- bits
@builds("and", "or", "xor")
def _logic(form: Form) -> Operation:
    function = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[form.base]
    return simple(function, form.type(), 2)


@builds("not", "cnot")
def _not(form: Form) -> Operation:
    type_name = form.type()
    if form.base == "not":
        return simple(np.invert, type_name, 1)
    return simple(lambda x: (x == 0).astype(DTYPE[type_name]), type_name, 1)


@builds("shl", "shr")
def _shift(form: Form) -> Operation:
    """Amounts above the width count as the width (PTX ISA, shl and shr); NumPy's shifts do the same."""
    type_name = form.type()
    dtype, limit = DTYPE[type_name], np.uint32(bits_of(type_name))
    shift = np.left_shift if form.base == "shl" else np.right_shift
    return Operation(lambda x, n: shift(x, np.minimum(n, limit).astype(dtype)), (type_name,), (type_name, "u32"))


@builds("shf")
def _funnel_shift(form: Form) -> Operation:
    """The 64 bits ``high:low`` shifted, one half kept."""
    left = form.choice("l", "r") == "l"
    clamps = form.choice("clamp", "wrap") == "clamp"

    def funnel(low: Array, high: Array, amount: Array) -> Array:
        n = (np.minimum(amount, np.uint32(32)) if clamps else amount & np.uint32(31)).astype(np.uint64)
        both = (high.astype(np.uint64) << _32) | low
        return (((both << n) >> _32) if left else (both >> n)).astype(np.uint32)

    form.type()
    return simple(funnel, "u32", 3)


@builds("bfe")
def _extract_field(form: Form) -> Operation:
    type_name = form.type()
    bits, signed = bits_of(type_name), kind_of(type_name) == "i"

    def extract(x: Array, start: Array, length: Array) -> Array:
        # the field moves to the top of the word and back down, which also extends its sign; a field that reaches past
        # the top is extended from the top bit
        first = np.minimum(start & np.uint32(255), np.uint32(bits)).astype(np.int64)
        count = np.minimum(length & np.uint32(255), np.uint32(bits)).astype(np.int64)
        kept = np.minimum(count, bits - first)
        unsigned = x.view(UNSIGNED[bits])
        field = np.left_shift(unsigned, (bits - first - kept).astype(unsigned.dtype))
        field = np.right_shift(field.view(x.dtype), (bits - kept).astype(x.dtype))
        beyond = np.where(x < 0, -1, 0).astype(x.dtype) if signed else np.zeros_like(x)
        return np.where(count == 0, scalar(0, type_name), np.where(first >= bits, beyond, field))

    return Operation(extract, (type_name,), (type_name, "u32", "u32"))


@builds("bfi")
def _insert_field(form: Form) -> Operation:
    type_name = f"u{bits_of(form.type())}"
    dtype, bits = DTYPE[type_name], bits_of(type_name)

    def insert(field: Array, base: Array, start: Array, length: Array) -> Array:
        first = (start & np.uint32(255)).astype(dtype)
        count = np.minimum(length & np.uint32(255), np.uint32(bits)).astype(dtype)
        ones = np.right_shift(~np.zeros_like(base), dtype.type(bits) - count)
        mask = np.left_shift(ones, first)
        return (base & ~mask) | (np.left_shift(field, first) & mask)

    return Operation(insert, (type_name,), (type_name, type_name, "u32", "u32"))


def _bit_matrix(x: Array) -> Array:
    """One row of 0s and 1s per element, lowest bit first."""
    octets = np.ascontiguousarray(x).view(np.uint8).reshape(len(x), -1)
    return np.unpackbits(octets, axis=1, bitorder="little")


def leading_zeros(x: Array) -> Array:
    rows = _bit_matrix(x)[:, ::-1]
    return np.where(rows.any(axis=1), rows.argmax(axis=1), rows.shape[1]).astype(np.uint32)


@builds("popc", "clz", "brev", "bfind")
def _bits(form: Form) -> Operation:
    type_name = form.type()
    bits = bits_of(type_name)
    unsigned = f"u{bits}"
    if form.base == "popc":
        return Operation(lambda x: _bit_matrix(x).sum(axis=1, dtype=np.uint32), ("u32",), (unsigned,))
    if form.base == "clz":
        return Operation(leading_zeros, ("u32",), (unsigned,))
    if form.base == "brev":

        def reverse(x: Array) -> Array:
            octets = np.packbits(_bit_matrix(x)[:, ::-1], axis=1, bitorder="little")
            return octets.view(DTYPE[unsigned]).reshape(len(x))

        return simple(reverse, unsigned, 1)
    as_shift = form.flag("shiftamt")

    def find(x: Array) -> Array:
        """The highest bit that differs from the sign; all ones where there is none."""
        zeros = leading_zeros(np.where(x < 0, ~x, x) if x.dtype.kind == "i" else x)
        position = zeros if as_shift else np.uint32(bits - 1) - zeros
        return np.where(zeros == bits, np.uint32(0xFFFFFFFF), position)

    return Operation(find, ("u32",), (type_name,))


@builds("lop3")
def _lop3(form: Form) -> Operation:
    """Any function of three bits: bit ``4a + 2b + c`` of the table is the result."""
    form.type()

    def lookup(a: Array, b: Array, c: Array, table: Array) -> Array:
        result = np.zeros_like(a)
        for row in range(8):
            if (int(table[0]) >> row) & 1:
                result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
        return result

    return simple(lookup, "u32", 4)


# Byte selections of the named modes of prmt, for a selector of 0 to 3 (PTX ISA, prmt).
_PERMUTATIONS = {
    "f4e": (0x3210, 0x4321, 0x5432, 0x6543),
    "b4e": (0x5670, 0x6701, 0x7012, 0x0123),
    "rc8": (0x0000, 0x1111, 0x2222, 0x3333),
    "ecl": (0x3210, 0x3211, 0x3222, 0x3333),
    "ecr": (0x0000, 0x1110, 0x2210, 0x3210),
    "rc16": (0x1010, 0x3232, 0x1010, 0x3232),
}


@builds("prmt")
def _permute(form: Form) -> Operation:
    """Four bytes picked out of the eight of ``b:a``; bit 3 of a pick spreads the byte's sign instead."""
    form.type()
    named = _PERMUTATIONS.get(form.choice(*_PERMUTATIONS))

    def permute(a: Array, b: Array, selector: Array) -> Array:
        octets = np.stack([a, b], axis=1).view(np.uint8)
        selector = np.broadcast_to(selector, a.shape)
        if named is not None:
            selector = np.array(named, np.uint32)[selector & np.uint32(3)]
        result = np.empty((len(a), 4), np.uint8)
        for place in range(4):
            pick = (selector >> np.uint32(4 * place)) & np.uint32(15)
            byte = np.take_along_axis(octets, (pick & np.uint32(7)).astype(np.intp)[:, None], axis=1)[:, 0]
            sign = np.where(byte & 0x80, 0xFF, 0).astype(np.uint8)
            result[:, place] = np.where(pick & np.uint32(8), sign, byte)
        return result.view(np.uint32)[:, 0]

    return simple(permute, "u32", 3)


def integer_extreme(form: Form, type_name: str) -> Operation:
    """min and max of integers."""
    function = np.minimum if form.base == "min" else np.maximum
    if form.flag("relu"):
        return simple(lambda x, y: np.maximum(function(x, y), scalar(0, type_name)), type_name, 2)
    return simple(function, type_name, 2)


def integer_sign(form: Form, type_name: str) -> Operation:
    """abs and neg."""
    return simple(np.abs if form.base == "abs" else np.negative, type_name, 1)
