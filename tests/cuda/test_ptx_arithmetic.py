"""Every arithmetic opcode of the PTX interpreter against plain Python integers, exact fractions and NumPy."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from fastconv.cuda.ptx import ParseError, Unsupported, evaluate
from fastconv.cuda.ptx.floating import fma32, sum_to_odd
from fastconv.cuda.ptx.parse import constant

PATTERNS = (0, 1, 2, 3, 7, 8, 31, 0x55555555, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xDEADBEEF, 0xFFFFFFFE, 0xFFFFFFFF)
WIDE = (*PATTERNS, 1 << 33, 0x7FFFFFFFFFFFFFFF, 1 << 63, 0x123456789ABCDEF0, (1 << 64) - 1)


def _integers(type_name: str) -> list[int]:
    """Edge values as Python integers in the range of the type."""
    bits = int(type_name[1:])
    values = {value & ((1 << bits) - 1) for value in WIDE}
    return sorted(value - (1 << bits) if type_name[0] == "s" and value >> (bits - 1) else value for value in values)


def _wrapped(value: int, type_name: str) -> int:
    bits = int(type_name[1:])
    value &= (1 << bits) - 1
    return value - (1 << bits) if type_name[0] == "s" and value >> (bits - 1) else value


def _pairs(type_name: str) -> tuple[list[int], list[int]]:
    values = _integers(type_name)
    return [x for x in values for _ in values], [y for _ in values for y in values]


def _dtype(type_name: str) -> np.dtype:
    return np.dtype(f"{'i' if type_name[0] == 's' else 'u'}{int(type_name[1:]) // 8}")


def _truncated(x: int, y: int) -> int:
    return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


BINARY = {
    "add": lambda x, y, w: x + y,
    "sub": lambda x, y, w: x - y,
    "mul.lo": lambda x, y, w: x * y,
    "mul.hi": lambda x, y, w: (x * y) >> w,
    "min": lambda x, y, w: min(x, y),
    "max": lambda x, y, w: max(x, y),
}


@pytest.mark.parametrize("type_name", ["u16", "s16", "u32", "s32", "u64", "s64"])
@pytest.mark.parametrize("opcode", BINARY)
def test_integer_arithmetic_wraps(opcode: str, type_name: str) -> None:
    left, right = _pairs(type_name)
    got = evaluate(f"{opcode}.{type_name}", np.array(left, _dtype(type_name)), np.array(right, _dtype(type_name)))
    bits = int(type_name[1:])
    want = [_wrapped(BINARY[opcode](x, y, bits), type_name) for x, y in zip(left, right, strict=True)]
    assert [int(value) for value in got] == want


@pytest.mark.parametrize("type_name", ["u16", "s16", "u32", "s32", "u64", "s64"])
def test_division_truncates_and_remainder_has_the_sign_of_the_dividend(type_name: str) -> None:
    left, right = _pairs(type_name)
    left, right = zip(*((x, y) for x, y in zip(left, right, strict=True) if y), strict=True)
    arrays = np.array(left, _dtype(type_name)), np.array(right, _dtype(type_name))
    want = [_truncated(x, y) for x, y in zip(left, right, strict=True)]
    assert [int(v) for v in evaluate(f"div.{type_name}", *arrays)] == [_wrapped(q, type_name) for q in want]
    remainders = [_wrapped(x - q * y, type_name) for x, y, q in zip(left, right, want, strict=True)]
    assert [int(v) for v in evaluate(f"rem.{type_name}", *arrays)] == remainders


@pytest.mark.parametrize("type_name", ["u16", "s16", "u32", "s32"])
def test_wide_products(type_name: str) -> None:
    left, right = _pairs(type_name)
    arrays = np.array(left, _dtype(type_name)), np.array(right, _dtype(type_name))
    want = [x * y for x, y in zip(left, right, strict=True)]
    assert [int(v) for v in evaluate(f"mul.wide.{type_name}", *arrays)] == want
    wide = f"{type_name[0]}{int(type_name[1:]) * 2}"
    got = evaluate(f"mad.wide.{type_name}", *arrays, np.full(len(left), 5))
    assert [int(v) for v in got] == [_wrapped(value + 5, wide) for value in want]


def test_multiply_add_of_each_half() -> None:
    x, y, z = np.uint32(0xFFFFFFFF), np.uint32(0xFFFFFFFE), np.uint32(9)
    product = 0xFFFFFFFF * 0xFFFFFFFE
    assert evaluate("mad.lo.u32", x, y, z)[0] == (product + 9) & 0xFFFFFFFF
    assert evaluate("mad.hi.u32", x, y, z)[0] == (product >> 32) + 9 - 2**32
    assert evaluate("add.sat.s32", [2**31 - 1, -(2**31)], [1, -1]).tolist() == [2**31 - 1, -(2**31)]


def test_sums_of_parts() -> None:
    assert evaluate("sad.s32", [-5, 7], [7, -5], [1, 1]).tolist() == [13, 13]
    assert evaluate("sad.u32", [1], [0xFFFFFFFF], [0])[0] == 0xFFFFFFFE
    x, y = np.array([[1, -2, 3, -4], [5, 6, 7, 8]], np.int8).view(np.int32)
    assert evaluate("dp4a.s32.s32", x, y, [100])[0] == 100 + 5 - 12 + 21 - 32


def test_logic() -> None:
    x, y = np.array([0b1100], np.uint32), np.array([0b1010], np.uint32)
    results = [int(evaluate(f"{name}.b32", x, y)[0]) for name in ("and", "or", "xor")]
    assert results == [0b1000, 0b1110, 0b0110]
    assert evaluate("not.b32", x)[0] == 0xFFFFFFF3
    assert evaluate("cnot.b32", [0, 5]).tolist() == [1, 0]
    assert evaluate("not.pred", [True, False]).tolist() == [False, True]


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_shifts_beyond_the_width(bits: int) -> None:
    amounts = np.array([0, 1, bits - 1, bits, bits + 1, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32)
    ones = (1 << bits) - 1
    for opcode, value, want in (
        (f"shl.b{bits}", ones, [(ones << min(int(n), bits)) & ones for n in amounts]),
        (f"shr.u{bits}", ones, [ones >> min(int(n), bits) for n in amounts]),
        (f"shr.s{bits}", -2, [-2 >> min(int(n), bits) for n in amounts]),
    ):
        assert [int(v) for v in evaluate(opcode, np.full(len(amounts), value, "O"), amounts)] == want, opcode


def test_funnel_shifts() -> None:
    low, high = 0x89ABCDEF, 0x01234567
    both = high << 32 | low
    for n in (0, 1, 31, 32, 33, 63):
        clamped, wrapped = min(n, 32), n & 31
        assert evaluate("shf.l.clamp.b32", low, high, n)[0] == (both << clamped >> 32) & 0xFFFFFFFF
        assert evaluate("shf.l.wrap.b32", low, high, n)[0] == (both << wrapped >> 32) & 0xFFFFFFFF
        assert evaluate("shf.r.clamp.b32", low, high, n)[0] == both >> clamped & 0xFFFFFFFF
        assert evaluate("shf.r.wrap.b32", low, high, n)[0] == both >> wrapped & 0xFFFFFFFF


def _extracted(value: int, start: int, length: int, bits: int, signed: bool) -> int:
    """The pseudo-code of bfe in the PTX ISA, bit by bit."""
    start, length = start & 0xFF, length & 0xFF
    top = bits - 1
    sign = 0 if not signed or length == 0 else value >> min(start + length - 1, top) & 1
    result = 0
    for i in range(bits):
        bit = value >> (start + i) & 1 if i < length and start + i <= top else sign
        result |= bit << i
    return result


def _inserted(field: int, base: int, start: int, length: int, bits: int) -> int:
    """The pseudo-code of bfi in the PTX ISA."""
    start, length = start & 0xFF, length & 0xFF
    for i in range(length):
        if start + i < bits:
            base = base & ~(1 << (start + i)) | (field >> i & 1) << (start + i)
    return base


@pytest.mark.parametrize("bits", [32, 64])
def test_bit_fields(bits: int) -> None:
    rng = np.random.default_rng(0)
    cases = [(s, n) for s in (0, 1, 5, 31, 32, 63, 64, 200) for n in (0, 1, 4, 31, 32, 33, 64, 255)]
    for start, length in cases:
        value, base = (int(rng.integers(0, 1 << 63)) * 2 + 1 & ((1 << bits) - 1) for _ in range(2))
        value |= 1 << (bits - 1) if length & 1 else 0
        unsigned = evaluate(f"bfe.u{bits}", value, start, length)[0]
        assert int(unsigned) == _extracted(value, start, length, bits, False), (start, length)
        signed = evaluate(f"bfe.s{bits}", _wrapped(value, f"s{bits}"), start, length)[0]
        assert int(signed) & ((1 << bits) - 1) == _extracted(value, start, length, bits, True), (start, length)
        merged = evaluate(f"bfi.b{bits}", value, base, start, length)[0]
        assert int(merged) == _inserted(value, base, start, length, bits), (start, length)


@pytest.mark.parametrize("bits", [32, 64])
def test_bit_counts(bits: int) -> None:
    values = _integers(f"u{bits}")
    array = np.array(values, _dtype(f"u{bits}"))
    texts = [format(value, f"0{bits}b") for value in values]
    assert evaluate(f"popc.b{bits}", array).tolist() == [text.count("1") for text in texts]
    assert evaluate(f"clz.b{bits}", array).tolist() == [bits - value.bit_length() for value in values]
    assert [int(v) for v in evaluate(f"brev.b{bits}", array)] == [int(text[::-1], 2) for text in texts]
    none = 0xFFFFFFFF
    assert evaluate(f"bfind.u{bits}", array).tolist() == [v.bit_length() - 1 if v else none for v in values]
    signed = [_wrapped(value, f"s{bits}") for value in values]
    positions = [(v if v >= 0 else ~v).bit_length() - 1 for v in signed]
    assert evaluate(f"bfind.s{bits}", signed).tolist() == [p if p >= 0 else none for p in positions]


def test_lop3_is_any_function_of_three_bits() -> None:
    a, b, c = 0xF0, 0xCC, 0xAA  # by the ISA: the table of f is f(0xF0, 0xCC, 0xAA)
    for table in (0x80, 0xFE, 0x96, 0x1B, 0x00, 0xFF):
        assert int(evaluate("lop3.b32", a, b, c, table)[0]) & 0xFF == table


def test_byte_permutations() -> None:
    a, b = 0x83828180, 0x07060504  # byte i of b:a is 0x80 + i, then i
    assert evaluate("prmt.b32", a, b, 0x7210)[0] == 0x07828180
    assert evaluate("prmt.b32", a, b, 0x3210 | 0x8)[0] == 0x838281FF  # the sign of byte 0
    assert evaluate("prmt.b32", a, b, 0xC210)[0] == 0x00828180
    assert evaluate("prmt.b32.f4e", a, b, 1)[0] == 0x04838281
    assert evaluate("prmt.b32.b4e", a, b, 1)[0] == 0x06078081
    assert evaluate("prmt.b32.rc16", a, b, 1)[0] == 0x83828382


# ---------------------------------------------------------------------------------------------- floats
SPECIALS = [0.0, -0.0, 1.0, -1.5, 3.0e38, 1e-40, -1e-45, math.inf, -math.inf, math.nan, 16777217.0]


def _same(got: np.ndarray, want: np.ndarray) -> None:
    """Equal bits, or both NaN."""
    bits = f"u{got.itemsize}"
    assert got.dtype == want.dtype
    assert ((got.view(bits) == want.view(bits)) | (np.isnan(got) & np.isnan(want))).all(), (got, want)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_float_arithmetic_is_numpys(name: str, dtype: type) -> None:
    with np.errstate(all="ignore"):
        values = np.array(SPECIALS, dtype)
        x, y = np.repeat(values, len(values)), np.tile(values, len(values))
        want = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}[name](x, y)
    _same(evaluate(f"{name}.rn.f{x.itemsize * 8}", x, y), want)


def _rounded_fraction(value: Fraction, direction: str = "rn") -> np.float32:
    """An exact value to float32, from the definition: the candidates around it are compared as fractions."""
    with np.errstate(over="ignore"):
        near = np.float32(float(value))
        below, above = np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))
    candidates = [c for c in (below, near, above) if np.isfinite(c)]
    if direction == "rm":
        candidates = [c for c in candidates if Fraction(float(c)) <= value]
    elif direction == "rp":
        candidates = [c for c in candidates if Fraction(float(c)) >= value]
    elif direction == "rz":
        candidates = [c for c in candidates if abs(Fraction(float(c))) <= abs(value)]
    return min(candidates, key=lambda c: (abs(Fraction(float(c)) - value), int(c.view(np.uint32)) & 1))


def _hard_triples() -> list[tuple[float, float, float]]:
    """Products and addends whose sum lies next to a tie of float32, on either side; some are subnormal."""
    one = 1 + 2.0**-23
    tie = 1 + 2.0**-12
    triples = [
        (tie, tie, 2.0**-60),  # 1 + 2^-11 + 2^-24: a tie, and a grain above it
        (tie, tie, -(2.0**-60)),
        (tie, tie, 0.0),
        (one, 2.0**-24, 1.0),
        (-one, 2.0**-24, 1.0),
        (one, 2.0**-24, -1.0),
        (2.0**-75, 2.0**-75, 2.0**-149),  # the product is half of the smallest subnormal
        (2.0**-75, 2.0**-75, 0.0),
        (2.0**-75, 2.0**-75 * one, 0.0),
        (2.0**-75 * one, 2.0**-75 * one, -(2.0**-149)),
        (2.0**-100, 2.0**-100, 2.0**-126 * one),
        (2.0**-100, -(2.0**-100), 2.0**-126),
    ]
    for power in range(-126, 100, 25):
        scale = 2.0**power
        triples += [(tie, tie * scale, sign * 2.0 ** max(power - 50, -149)) for sign in (1, -1)]
    return [(float(np.float32(x)), float(np.float32(y)), float(np.float32(z))) for x, y, z in triples]


def test_fma_of_single_precision_rounds_once() -> None:
    """The triples defeat a float64 product and sum rounded to float32, which is rounded twice."""
    triples = _hard_triples()
    x, y, z = np.array(triples, np.float32).T.copy()
    want = np.array([_rounded_fraction(Fraction(a) * Fraction(b) + Fraction(c)) for a, b, c in triples])
    got = evaluate("fma.rn.f32", x, y, z)
    assert (got == want).all()
    twice = (x.astype(float) * y.astype(float) + z.astype(float)).astype(np.float32)
    assert (twice != want).any(), "the triples must be hard for the naive way"


def test_fma_of_single_precision_on_random_bits() -> None:
    rng = np.random.default_rng(1)
    mantissas = rng.integers(-(1 << 24), 1 << 24, (3, 4000))
    exponents = rng.integers(-30, 30, (3, 4000))
    exponents[2] = exponents[0] + exponents[1] + rng.integers(-30, 30, 4000)  # the addend meets the product
    x, y, z = np.ldexp(mantissas.astype(float), exponents).astype(np.float32)
    want = [
        _rounded_fraction(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))
        for a, b, c in zip(x, y, z, strict=True)
    ]
    assert (evaluate("fma.rn.f32", x, y, z) == np.array(want)).all()


def test_fma_of_single_precision_on_any_finite_bits() -> None:
    """All exponents: subnormal operands and results, products far above or below the addend."""
    x, y, z = np.random.default_rng(6).integers(0, 1 << 32, (3, 3000), dtype=np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        # a third of the addends are brought near their product
        z[::3] = np.ldexp(z[::3], np.frexp(x[::3] * y[::3])[1] - np.frexp(z[::3])[1])
        total = x.astype(float) * y.astype(float) + z.astype(float)
        ordinary = np.isfinite(z) & (np.abs(total) < 3.4e38)
    x, y, z = x[ordinary], y[ordinary], z[ordinary]
    want = [
        _rounded_fraction(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))
        for a, b, c in zip(x, y, z, strict=True)
    ]
    assert len(want) > 1000
    assert (np.abs(want) < 2.0**-126).any(), "some results are subnormal"
    assert (evaluate("fma.rn.f32", x, y, z) == np.array(want)).all()


@pytest.mark.parametrize("direction", ["rz", "rm", "rp"])
def test_directed_rounding(direction: str) -> None:
    triples = _hard_triples()
    x, y, z = np.array(triples, np.float32).T.copy()
    fused = [_rounded_fraction(Fraction(a) * Fraction(b) + Fraction(c), direction) for a, b, c in triples]
    assert (evaluate(f"fma.{direction}.f32", x, y, z) == np.array(fused)).all()
    sums = [_rounded_fraction(Fraction(a) + Fraction(c), direction) for a, _, c in triples]
    assert (evaluate(f"add.{direction}.f32", x, z) == np.array(sums)).all()
    products = [_rounded_fraction(Fraction(a) * Fraction(b), direction) for a, b, _ in triples]
    assert (evaluate(f"mul.{direction}.f32", x, y) == np.array(products)).all()


def test_fma_of_special_values() -> None:
    values = np.array(SPECIALS, np.float32)
    x, y, z = (a.ravel() for a in np.meshgrid(values, values, values))
    with np.errstate(all="ignore"):
        wide = x.astype(float) * y.astype(float) + z.astype(float)
        special = ~np.isfinite(wide) | (wide == 0)
        _same(evaluate("fma.rn.f32", x, y, z)[special], wide.astype(np.float32)[special])
        # in double precision nothing overflows that is infinite here
        _same(evaluate("fma.rn.f64", x, y, z)[special], wide[special])


def test_fma_of_double_precision_rounds_once() -> None:
    rng = np.random.default_rng(2)
    scale = np.ldexp(1.0, rng.integers(-40, 40, (3, 300)))
    x, y, z = rng.standard_normal((3, 300)) * scale
    z[:100] = -(x * y)[:100]  # leaves the rounding error of the product
    x[-4:], y[-4:], z[-4:] = (
        [1e300, 1e-200, 5e-324, 1e308],
        [1e300, 1e-200, 0.5, 10.0],
        [-np.inf, 1e-310, 5e-324, -1e308],
    )
    want = []
    for a, b, c in zip(x, y, z, strict=True):
        if not math.isfinite(c):
            want.append(c)
            continue
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        try:
            want.append(exact.numerator / exact.denominator)
        except OverflowError:
            want.append(math.inf if exact > 0 else -math.inf)
    _same(evaluate("fma.rn.f64", x, y, z), np.array(want))


def test_round_to_odd_never_loses_the_direction() -> None:
    total = sum_to_odd(np.array([1.0, 1.0, -1.0]), np.array([2.0**-80, -(2.0**-80), 2.0**-80]))
    assert total.tolist() == [1 + 2.0**-52, 1 - 2.0**-53, -1 + 2.0**-53]


def test_fma_alone_keeps_its_inputs() -> None:
    x, y, z = (np.array([value], np.float32) for value in (2.0, 3.0, 4.0))
    assert fma32(x, y, z) == 10
    assert (x[0], y[0], z[0]) == (2, 3, 4)


def test_half_precision() -> None:
    rng = np.random.default_rng(3)
    x, y, z = rng.standard_normal((3, 500)).astype(np.float16)
    want = [
        min(
            (np.float16(float(exact)), np.nextafter(np.float16(float(exact)), np.float16(9))),
            key=lambda c: abs(Fraction(float(c)) - exact),
        )
        for exact in (
            Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)) for a, b, c in zip(x, y, z, strict=True)
        )
    ]
    assert (evaluate("fma.rn.f16", x, y, z) == np.array(want)).all()
    pairs = x.view(np.uint32), y.view(np.uint32)
    assert (evaluate("add.f16x2", *pairs).view(np.float16) == x + y).all()
    assert (evaluate("mul.rn.f16x2", *pairs).view(np.float16) == x * y).all()


def test_pairs_of_single_precision() -> None:
    x, y, z = np.random.default_rng(5).standard_normal((3, 100)).astype(np.float32)
    pairs = [array.view(np.uint64) for array in (x, y, z)]
    assert (evaluate("fma.rn.f32x2", *pairs).view(np.float32) == evaluate("fma.rn.f32", x, y, z)).all()


def test_flush_to_zero_and_saturation() -> None:
    tiny = np.float32(1e-40)
    _same(evaluate("add.ftz.f32", [tiny, -tiny], [0.0, 0.0]), np.array([0.0, 0.0], np.float32))
    _same(evaluate("mul.ftz.f32", [1e-20, -1e-20], [1e-20, 1e-20]), np.array([0.0, -0.0], np.float32))
    assert evaluate("mul.f32", [1e-20], [1e-20])[0] != 0
    _same(evaluate("add.sat.f32", [0.5, 2.0, -3.0, math.nan], [0.25, 0, 0, 0]), np.array([0.75, 1, 0, 0], np.float32))
    assert evaluate("fma.rn.relu.f16", [-2.0], [1.0], [0.5])[0] == 0


def test_minimum_and_maximum_of_nan_and_zeros() -> None:
    nan = math.nan
    _same(evaluate("min.f32", [nan, 1, 0.0, -0.0], [1, nan, -0.0, 0.0]), np.array([1, 1, -0.0, -0.0], np.float32))
    _same(evaluate("max.f32", [nan, 1, 0.0, -0.0], [1, nan, -0.0, 0.0]), np.array([1, 1, 0.0, 0.0], np.float32))
    assert np.isnan(evaluate("max.NaN.f32", [nan, 1], [1, nan])).all()
    assert np.isnan(evaluate("max.f32", nan, nan)).all()


def test_signs() -> None:
    _same(evaluate("neg.f32", [0.0, -2.0]), np.array([-0.0, 2.0], np.float32))
    _same(evaluate("abs.f32", [-0.0, -math.inf]), np.array([0.0, math.inf], np.float32))
    _same(evaluate("copysign.f32", [-1.0, 1.0], [3.0, -3.0]), np.array([-3.0, 3.0], np.float32))
    assert evaluate("abs.s32", [-5, -(2**31)]).tolist() == [5, -(2**31)]
    assert evaluate("neg.bf16x2", [0x3F80BF80])[0] == 0xBF803F80


FUNCTIONS = {"ex2": np.exp2, "lg2": np.log2, "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "sqrt": np.sqrt}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_approximate_functions_are_within_the_documented_error(name: str) -> None:
    x = np.linspace(0.01, 3, 500, dtype=np.float32)
    got = evaluate(f"{name}.approx.ftz.f32", x)
    np.testing.assert_allclose(got, FUNCTIONS[name](x.astype(float)), rtol=2.0**-22, atol=2.0**-21.4)


def test_roots_and_reciprocals_are_exact() -> None:
    x = np.random.default_rng(4).uniform(0.1, 9, 1000).astype(np.float32)
    assert (evaluate("sqrt.rn.f32", x) == np.sqrt(x)).all()
    assert (evaluate("rcp.rn.f32", x) == np.float32(1) / x).all()
    assert evaluate("rsqrt.approx.f32", np.float32(0.25))[0] == 2
    assert evaluate("rcp.approx.ftz.f64", 4.0)[0] == 0.25


# ---------------------------------------------------------------------------------------------- comparison
@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons_with_nan(name: str) -> None:
    x = [1.0, 2.0, 2.0, math.nan, 1.0, math.nan]
    y = [2.0, 2.0, 1.0, 1.0, math.nan, math.nan]
    compare = {"eq": "__eq__", "ne": "__ne__", "lt": "__lt__", "le": "__le__", "gt": "__gt__", "ge": "__ge__"}[name]
    ordered = [getattr(a, compare)(b) for a, b in zip(x[:3], y[:3], strict=True)]
    assert evaluate(f"setp.{name}.f32", x, y).tolist() == [*ordered, False, False, False]
    assert evaluate(f"setp.{name}u.f32", x, y).tolist() == [*ordered, True, True, True]


def test_comparisons_of_integers_and_predicates() -> None:
    assert evaluate("setp.lt.s32", [-1], [1])[0]
    assert not evaluate("setp.lt.u32", [0xFFFFFFFF], [1])[0]
    assert evaluate("setp.hi.u32", [0xFFFFFFFF], [1])[0]
    assert evaluate("setp.num.f32", [1.0, math.nan], [2.0, 2.0]).tolist() == [True, False]
    assert evaluate("setp.nan.f32", [1.0, math.nan], [2.0, 2.0]).tolist() == [False, True]
    for name, want in (("and", [True, False]), ("or", [True, True]), ("xor", [False, True])):
        assert evaluate(f"setp.lt.{name}.s32", [1, 1], [2, 2], [True, False]).tolist() == want
    assert evaluate("set.lt.u32.f32", [1.0, 2.0], [2.0, 1.0]).tolist() == [0xFFFFFFFF, 0]
    assert evaluate("set.lt.f32.f32", [1.0, 2.0], [2.0, 1.0]).tolist() == [1.0, 0.0]
    assert evaluate("selp.f32", [1.0, 1.0], [2.0, 2.0], [True, False]).tolist() == [1.0, 2.0]
    assert evaluate("slct.f32.s32", [1.0, 1.0], [2.0, 2.0], [0, -1]).tolist() == [1.0, 2.0]
    assert evaluate("testp.subnormal.f32", [1e-40, 1.0, 0.0]).tolist() == [True, False, False]


# ---------------------------------------------------------------------------------------------- conversion
def test_float_to_integer() -> None:
    x = [2.5, -2.5, 3.5, 1e20, -1e20, math.nan, math.inf]
    low, high = -(2**31), 2**31 - 1
    assert evaluate("cvt.rni.s32.f32", x).tolist() == [2, -2, 4, high, low, 0, high]
    assert evaluate("cvt.rzi.s32.f32", x).tolist() == [2, -2, 3, high, low, 0, high]
    assert evaluate("cvt.rmi.s32.f32", x).tolist() == [2, -3, 3, high, low, 0, high]
    assert evaluate("cvt.rpi.s32.f32", x).tolist() == [3, -2, 4, high, low, 0, high]
    assert evaluate("cvt.rzi.u32.f32", x).tolist() == [2, 0, 3, 2**32 - 1, 0, 0, 2**32 - 1]
    assert evaluate("cvt.rzi.s64.f64", [1e30, -1e30, 5e18]).tolist() == [2**63 - 1, -(2**63), 5 * 10**18]
    assert evaluate("cvt.rzi.u64.f64", [1e30, -1.0]).tolist() == [2**64 - 1, 0]
    assert evaluate("cvt.rni.f32.f32", [2.5, -0.3]).tolist() == [2.0, 0.0]


def test_integer_to_float_in_every_direction() -> None:
    x = [16777217, -16777217, 2**31 - 1]
    assert evaluate("cvt.rn.f32.s32", x).tolist() == [16777216.0, -16777216.0, 2.0**31]
    assert evaluate("cvt.rz.f32.s32", x).tolist() == [16777216.0, -16777216.0, 2.0**31 - 128]
    assert evaluate("cvt.rp.f32.s32", x).tolist() == [16777218.0, -16777216.0, 2.0**31]
    assert evaluate("cvt.rm.f32.s32", x).tolist() == [16777216.0, -16777218.0, 2.0**31 - 128]
    assert evaluate("cvt.rn.f64.u64", [2**64 - 1])[0] == 2.0**64


def test_integer_to_integer() -> None:
    assert evaluate("cvt.s64.s32", [-1])[0] == -1
    assert evaluate("cvt.u64.u32", [0xFFFFFFFF])[0] == 0xFFFFFFFF
    assert evaluate("cvt.u16.u32", [0x12345])[0] == 0x2345
    assert evaluate("cvt.s32.s8", [-5])[0] == -5
    assert evaluate("cvt.sat.s8.s32", [300, -300]).tolist() == [127, -128]
    assert evaluate("cvt.sat.u8.s32", [300, -300]).tolist() == [255, 0]


def test_between_float_formats() -> None:
    x = [1.0 + 2.0**-30, -1.0 - 2.0**-30]
    one, above = 1.0, 1.0 + 2.0**-23
    assert evaluate("cvt.rn.f32.f64", x).tolist() == [one, -one]
    assert evaluate("cvt.rp.f32.f64", x).tolist() == [above, -one]
    assert evaluate("cvt.rm.f32.f64", x).tolist() == [one, -above]
    assert evaluate("cvt.rz.f16.f32", [1 + 2.0**-11 + 2.0**-12])[0] == 1
    assert evaluate("cvt.rn.f16.f32", [65520.0])[0] == math.inf
    assert evaluate("cvt.f32.f16", [np.float16(0.1)])[0] == np.float32(np.float16(0.1))
    assert evaluate("cvt.sat.f32.f32", [2.0, -1.0, math.nan]).tolist() == [1.0, 0.0, 0.0]


def test_bfloat16_and_tf32() -> None:
    # bfloat16 keeps 8 bits of significand: 1 + 2^-8 is a tie to even
    x = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-8 + 2.0**-20, -2.0], np.float32)
    assert evaluate("cvt.rn.bf16.f32", x).tolist() == [0x3F80, 0x3F82, 0x3F81, 0xC000]
    assert evaluate("cvt.rz.bf16.f32", x).tolist() == [0x3F80, 0x3F81, 0x3F80, 0xC000]
    assert evaluate("cvt.rn.bf16.f32", [math.nan])[0] == 0x7FFF
    assert evaluate("cvt.f32.bf16", [0x3F81])[0] == 1 + 2.0**-7
    assert evaluate("cvt.rn.bf16x2.f32", [1.0], [-2.0])[0] == 0x3F80C000
    assert evaluate("cvt.rn.f16x2.f32", [1.0], [-2.0])[0] == 0x3C00C000
    assert evaluate("cvt.rn.relu.f16x2.f32", [1.0], [-2.0])[0] == 0x3C000000
    tie = np.float32(1 + 2.0**-11)
    assert evaluate("cvt.rna.tf32.f32", [tie]).view(np.float32)[0] == 1 + 2.0**-10
    assert evaluate("cvt.rn.tf32.f32", [tie]).view(np.float32)[0] == 1


# ---------------------------------------------------------------------------------------------- text
def test_immediates() -> None:
    assert constant("0f3F800000", "f32") == 1.0
    assert constant("0d4000000000000000", "f64") == 2.0
    assert constant("0f3F800000", "b32") == 0x3F800000
    assert constant("-1", "u32") == 0xFFFFFFFF
    assert constant("0xFFU", "s32") == 255
    assert constant("017", "u32") == 15
    assert constant("0b101", "u32") == 5


@pytest.mark.parametrize("opcode", ["wgmma.mma_async.sync", "add.bf16", "fma.rn.f32.magic", "div.rz.f32", "mul.f99"])
def test_what_is_not_known_is_refused(opcode: str) -> None:
    with pytest.raises(Unsupported, match="not supported"):
        evaluate(opcode, 1.0, 2.0, 3.0)


def test_parse_errors_name_the_line() -> None:
    from fastconv.cuda.ptx.parse import parse

    with pytest.raises(ParseError, match="line 3"):
        parse(".visible .entry k()\n{\n  mov.b32 #;\n}")
