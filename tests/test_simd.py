"""Vectors and register tiles: each instruction against NumPy, tails, and the bounds check."""

import numpy as np
import pytest

from fastconv import _jit
from fastconv.cpu import codegen, simd, tiles

LANES = codegen.VECTOR_BYTES // 4
ROWS, VECTORS = tiles.TILE_ROWS, tiles.TILE_VECTORS


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@_jit.kernel
def every_vector_instruction(a, b, c, out, count):
    """Row by row of *out*, one vector each."""
    a, b, c, out = simd.span(a), simd.span(b), simd.span(c), simd.span(out)
    lanes = simd.lane_count(out)
    simd.store(out, 0, simd.load(a, 1))
    simd.store(out, lanes, simd.load_first(a, 1, count))
    simd.store_first(out, 2 * lanes, simd.load(a, 1), count)
    simd.store(out, 3 * lanes, simd.splat(out, a[2]))
    simd.store(out, 4 * lanes, simd.zeros(out))
    simd.store(out, 5 * lanes, simd.add(simd.load(a, 0), simd.load(b, 0)))
    simd.store(out, 6 * lanes, simd.multiply(simd.load(a, 0), simd.load(b, 0)))
    simd.store(out, 7 * lanes, simd.divide(simd.load(a, 0), simd.load(b, 0)))
    simd.store(out, 8 * lanes, simd.fma(simd.load(a, 0), simd.load(b, 0), simd.load(c, 0)))
    simd.store(out, 9 * lanes, simd.relu(simd.load(a, 0)))
    mask = simd.exceeds(simd.load(a, 0), simd.load(b, 0))
    simd.store(out, 10 * lanes, simd.select(mask, simd.load(a, 0), simd.load(b, 0)))
    simd.store(out, 11 * lanes, simd.insert(simd.load(b, 3), lanes - count, c, 5, count))
    out[12 * lanes] = a[3]
    return lanes


@pytest.mark.parametrize("count", [0, 1, LANES - 1, LANES])
def test_vector_instructions_are_those_of_numpy(count):
    a, b, c = numbers(2 * LANES), numbers(2 * LANES, seed=1), numbers(2 * LANES, seed=2)
    a[1], b[2] = np.nan, np.nan
    out = np.full((13, LANES), 7, np.float32)
    assert every_vector_instruction(a, b, c, out.reshape(-1), count) == LANES
    first, second, third = a[:LANES], b[:LANES], c[:LANES]
    fused = (first.astype(np.float64) * second + third).astype(np.float32)
    expected = [
        a[1 : LANES + 1],
        np.where(np.arange(LANES) < count, a[1 : LANES + 1], 0),
        np.where(np.arange(LANES) < count, a[1 : LANES + 1], 7),
        np.full(LANES, a[2]),
        np.zeros(LANES),
        first + second,
        first * second,
        first / second,
        fused,
        np.where(first < 0, 0, first),
        np.where((first > second) | np.isnan(first), first, second),
        [*b[3 : 3 + LANES - count], *c[5 : 5 + count]],
        np.where(np.arange(LANES) < 1, a[3], 7),
    ]
    np.testing.assert_array_equal(out, expected)


def test_multiply_add_rounds_once():
    """(1 + e)**2 - (1 + 2 e) is e**2, which a product rounded to float32 has already lost."""
    e = np.float32(2.0**-12)
    a, c = np.full(2 * LANES, 1 + e), np.full(2 * LANES, -1 - 2 * e)
    out = np.empty(13 * LANES, np.float32)
    every_vector_instruction(a, a, c, out, 1)
    np.testing.assert_array_equal(out[8 * LANES : 9 * LANES], e * e)
    assert not (a * a + c).any()


@_jit.kernel
def outer_products(left, left_step, right, sums, stride, length):
    """``sums += left.T @ right`` in one register tile."""
    left, right, sums = simd.span(left), simd.span(right), simd.span(sums)
    tile = tiles.load(sums, 1, stride, ROWS, VECTORS)
    width = VECTORS * simd.lane_count(sums)
    for k in range(length):
        tile = tiles.rank1(tile, left, k, left_step, right, k * width)
    tiles.store(tile, sums, 1, stride)


def test_a_tile_is_a_sum_of_outer_products():
    rng = np.random.default_rng(0)
    length, stride, width = 5, VECTORS * LANES + 3, VECTORS * LANES
    left = rng.integers(-9, 10, (ROWS, length)).astype(np.float32)
    right = rng.integers(-9, 10, (length, width)).astype(np.float32)
    sums = rng.integers(-9, 10, 1 + ROWS * stride).astype(np.float32)
    expected = sums.copy()
    expected[1:].reshape(ROWS, stride)[:, :width] += left @ right
    outer_products(left.reshape(-1), length, right.reshape(-1), sums, stride, length)
    np.testing.assert_array_equal(sums, expected)


@_jit.kernel
def placed_products(left, places, right, bias, residual, out, out_places, length):
    """`outer_products` with every row at a place of its own, plus bias and residual, through relu."""
    left, places, right = simd.span(left), simd.span(places), simd.span(right)
    bias, residual, out, out_places = simd.span(bias), simd.span(residual), simd.span(out), simd.span(out_places)
    tile = tiles.zeros(out, ROWS, VECTORS)
    width = VECTORS * simd.lane_count(out)
    for k in range(length):
        tile = tiles.rank1_placed(tile, left, places, 1, k, right, k * width)
    tile = tiles.add_row(tile, bias, 1)
    tile = tiles.add_placed(tile, residual, out_places, 1, 2)
    tiles.put_placed(tiles.relu(tile), out, out_places, 1, 2, False)


def test_the_rows_of_a_tile_may_lie_anywhere():
    rng = np.random.default_rng(0)
    length, width = 5, VECTORS * LANES
    places = rng.permutation(ROWS + 1) * (length + 2)
    out_places = rng.permutation(ROWS + 1) * (width + 3)
    left, bias = (rng.integers(-9, 10, size).astype(np.float32) for size in ((ROWS + 1) * (length + 2), 1 + width))
    right = rng.integers(-9, 10, (length, width)).astype(np.float32)
    residual = rng.integers(-9, 10, (ROWS + 1) * (width + 3)).astype(np.float32)
    residual[out_places[2] + 2] = np.nan
    out = np.full_like(residual, 7)
    expected = out.copy()
    for row in range(1, ROWS + 1):
        at = slice(out_places[row] + 2, out_places[row] + 2 + width)
        total = left[places[row] : places[row] + length] @ right + bias[1:] + residual[at]
        expected[at] = np.where(total < 0, 0, total)
    placed_products(left, places, right.reshape(-1), bias, residual, out, out_places, length)
    np.testing.assert_array_equal(out, expected)


@_jit.kernel
def rows_times_a_row(a, a_stride, b, out):
    """The tile of depthwise convolution: 4 rows of *a*, 2 vectors each, times one row."""
    a, b, out = simd.span(a), simd.span(b), simd.span(out)
    simd.prefetch_for_read(a, a.size + 1)
    simd.prefetch_for_write(out, -1)
    tile = tiles.multiply_add(tiles.full(out, 7, 4, 2), a, 1, a_stride, b, 2)
    tiles.store(tile, out, 0, 2 * simd.lane_count(out))


def test_rows_of_a_tile_are_multiplied_with_one_row():
    rng = np.random.default_rng(0)
    stride = 2 * LANES + 3
    a, b = (rng.integers(-9, 10, size).astype(np.float32) for size in (1 + 4 * stride, 2 + 2 * LANES))
    out = np.empty((4, 2 * LANES), np.float32)
    rows_times_a_row(a, stride, b, out.reshape(-1))
    np.testing.assert_array_equal(out, 7 + a[1:].reshape(4, stride)[:, : 2 * LANES] * b[2:])


@_jit.kernel
def lane_by_lane(a, b, out):
    """Row by row of *out*, what two tiles of a row of two vectors give."""
    a, b, out = simd.span(a), simd.span(b), simd.span(out)
    width = 2 * simd.lane_count(out)
    first, second = tiles.load(a, 0, 0, 1, 2), tiles.load(b, 0, 0, 1, 2)
    tiles.store(tiles.add(first, second), out, 0, 0)
    tiles.store(tiles.multiply(first, second), out, width, 0)
    tiles.store(tiles.divide(first, second), out, 2 * width, 0)
    tiles.store(tiles.larger(first, second), out, 3 * width, 0)


def test_tiles_are_combined_lane_by_lane():
    """``larger`` keeps NaN from either side, and the second of two equal numbers: a zero shows it by its sign."""
    a, b = numbers(2 * LANES), numbers(2 * LANES, seed=1)
    a[0], b[1], a[2], b[2], a[3], b[3] = np.nan, np.nan, 0.0, -0.0, -0.0, 0.0
    out = np.empty((4, 2 * LANES), np.float32)
    lane_by_lane(a, b, out.reshape(-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.stack([a + b, a * b, a / b, np.where((a > b) | np.isnan(a), a, b)])
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.signbit(out[3, 2:4]), [True, False])


@_jit.kernel
def transpose(source, source_stride, target, target_stride):
    tiles.transpose_block(simd.span(source), 1, source_stride, simd.span(target), 2, target_stride)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_block_is_transposed(dtype):
    lanes = codegen.VECTOR_BYTES // np.dtype(dtype).itemsize
    source = np.arange(1 + lanes * (lanes + 3), dtype=dtype)
    target = np.full(2 + lanes * (lanes + 1), -1, dtype)
    expected = target.copy()
    expected[2:].reshape(lanes, lanes + 1)[:, :lanes] = source[1:].reshape(lanes, lanes + 3)[:, :lanes].T
    transpose(source, lanes + 3, target, lanes + 1)
    np.testing.assert_array_equal(target, expected)


CHECKED = """
import numpy as np
from fastconv import _jit
from fastconv.cpu import simd, tiles

@_jit.kernel
def read(numbers, at, count, kind):
    view = simd.span(numbers)
    if kind == 0:
        simd.store(view, at, simd.zeros(view))
    elif kind == 1:
        simd.store(view, 0, simd.load(view, at))
    elif kind == 2:
        simd.store(view, 0, simd.load_first(view, at, count))
    elif kind == 3:
        simd.store_first(view, at, simd.zeros(view), count)
    elif kind == 5:
        simd.store(view, 0, simd.insert(simd.zeros(view), 1, view, at, count))
    else:
        tiles.store(tiles.load(view, at, count, 2, 1), view, 0, count)
    return simd.lane_count(view)

size = 40
numbers = np.zeros(size, np.float32)
lanes = read(numbers, 0, 0, 2)
last = size - lanes
inside = [(last, 0, 0), (last, 0, 1), (size - 1, 1, 2), (size, 0, 2), (size - 1, 1, 3), (last - 1, 1, 4), (0, 2, 5)]
outside = [(-1, 0, 0), (last + 1, 0, 0), (last + 1, 0, 1), (-1, 1, 2), (size, 1, 2), (size - 1, 2, 3), (last, 1, 4)]
outside.append((size - 1, 2, 5))
for arguments in inside:
    read(numbers, *arguments)
refused = 0
for arguments in outside:
    try:
        read(numbers, *arguments)
    except IndexError as error:
        assert str(error) == "access outside the array"
        refused += 1
print(refused, "of", len(outside))
"""


def test_the_bounds_check_refuses_every_access_outside_and_no_other(run_python):
    assert run_python(CHECKED, NUMBA_BOUNDSCHECK="1") == "8 of 8"
