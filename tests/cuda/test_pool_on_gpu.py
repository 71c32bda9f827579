"""Pooling on the GPU: its PTX, executed, against the bits of the CPU and against the reference."""

from typing import Any

import numpy as np
import pytest
from emulator import Emulator, needs_target

from fastconv import functional
from fastconv.arrays import ImageFormat
from fastconv.cpu import pool as cpu
from fastconv.cuda import asarray, pool
from fastconv.cuda.array import Array
from fastconv.cuda.ptx import OutOfBounds
from fastconv.functional.average_pool import average_backward
from fastconv.geometry import Pool2dGeometry, adaptive_pool2d_geometry, pool2d_geometry

needs_target()

GEOMETRIES = {
    "plain": pool2d_geometry((2, 7, 9, 5), 2),
    "overlapping, padded": pool2d_geometry((2, 11, 7, 3), 3, stride=2, padding=1),
    "dilated": pool2d_geometry((1, 13, 11, 4), (3, 2), stride=(2, 1), padding=(1, 0), dilation=(2, 3)),
    "ceil_mode": pool2d_geometry((1, 8, 6, 3), 3, stride=2, ceil_mode=True, count_include_pad=False),
    "adaptive": adaptive_pool2d_geometry((2, 7, 11, 6), (3, 4)),
    "global": adaptive_pool2d_geometry((3, 9, 5, 7), (1, 1)),
    "more rows and columns than a run": adaptive_pool2d_geometry((1, 67, 131, 1), (1, 1)),
    "more rows than a band, four channels": adaptive_pool2d_geometry((1, 67, 70, 4), (2, 1)),
    "windows of 2 columns, four channels": pool2d_geometry((2, 7, 9, 8), 2),
    "windows of 3 columns, four channels": pool2d_geometry((1, 9, 11, 12), 3, stride=2, padding=1),
    "one pixel": pool2d_geometry((1, 1, 1, 1), 1),
    "empty batch": pool2d_geometry((0, 7, 9, 5), 2),
}
GEOMETRY = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)


def images(shape: tuple[int, ...], seed: int = 0) -> Any:
    """Random numbers with ties, NaN and infinities among them."""
    x = np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32) / 3
    specials = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    x.reshape(-1)[:: max(x.size // 7, 23)] = np.resize(specials, x.reshape(-1)[:: max(x.size // 7, 23)].size)
    return x


def same_bits(left: Any, right: Any) -> bool:
    return bool(np.array_equal(left.view(np.int32), right.view(np.int32)))


@GEOMETRY
@pytest.mark.parametrize("sign", [1, -1])
def test_largest_and_smallest(geometry: Pool2dGeometry, sign: int) -> None:
    x = images(geometry.x_shape)
    out, expected = np.full((2, *geometry.out_shape), np.nan, np.float32)
    where, expected_where = np.full((2, *geometry.out_shape), -1, np.int64)
    pool.extreme(Emulator(), x, geometry.rows, geometry.columns, sign, out, where)
    cpu.extreme(x, geometry.rows, geometry.columns, sign, expected, expected_where)
    np.testing.assert_array_equal(out, expected)
    assert np.array_equal(where, expected_where)
    values_only = np.full_like(out, 7)
    pool.extreme(Emulator(), x, geometry.rows, geometry.columns, sign, values_only)
    np.testing.assert_array_equal(values_only, expected)


@GEOMETRY
def test_gradient_of_the_largest(geometry: Pool2dGeometry) -> None:
    x, rng = images(geometry.x_shape), np.random.default_rng(1)
    grad_out = rng.normal(size=geometry.out_shape).astype(np.float32)
    indices = np.empty(geometry.out_shape, np.int64)
    cpu.extreme(x, geometry.rows, geometry.columns, 1, np.empty_like(grad_out), indices)
    grad_x, expected = np.full((2, *geometry.x_shape), np.nan, np.float32)
    pool.extreme_backward(Emulator("sm_100"), geometry, grad_out, indices, grad_x)
    cpu.scatter(grad_out, indices, True, expected)
    assert same_bits(grad_x, expected)


def test_known_windows_are_the_only_ones_looked_at() -> None:
    """With its windows the gradient has the CPU's bits, too, and reads less than when it looks for each index."""
    x, engine = images((2, 16, 18, 40)), Emulator(traffic=True)
    windows: dict[str, Any] = {"kernel_size": 3, "stride": 2, "padding": 1}
    out, indices = functional.max_pool2d(x, **windows, return_indices=True)
    grad_out = np.random.default_rng(4).normal(size=out.shape).astype(np.float32)
    expected = functional.max_pool2d_backward(grad_out, indices, x.shape)
    assert same_bits(functional.max_pool2d_backward(grad_out, indices, x.shape, **windows), expected)
    there = [asarray(array, engine) for array in (grad_out, indices)]
    for options in ({}, windows):
        assert same_bits(functional.max_pool2d_backward(*there, x.shape, **options).numpy(), expected)
    anywhere, known = (counters.global_sectors for counters in engine.counters)
    assert known < anywhere / 1.3
    series = functional.max_pool1d(x[0], 3, stride=2, return_indices=True)[1]
    gradient = functional.max_pool2d_backward(np.ones(series.shape, np.float32), series, x[0].shape, layout="NWC")
    there = [asarray(array, engine) for array in (np.ones(series.shape, np.float32), series)]
    found = functional.max_pool2d_backward(*there, x[0].shape, layout="NWC", kernel_size=3, stride=2)
    assert same_bits(found.numpy(), gradient)
    with pytest.raises(ValueError, match="shape of the windows' results"):
        functional.max_pool2d_backward(grad_out, indices, x.shape, kernel_size=4)


@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "dilated"])
def test_average_and_its_gradient(name: str) -> None:
    geometry, rng = GEOMETRIES[name], np.random.default_rng(2)
    x = rng.normal(size=geometry.x_shape).astype(np.float32)
    grad_out = rng.normal(size=geometry.out_shape).astype(np.float32)
    out, expected = np.full((2, *geometry.out_shape), np.nan, np.float32)
    pool.average(Emulator(), x, geometry.rows, geometry.columns, out)
    cpu.average(x, geometry.rows, geometry.columns, expected)
    assert same_bits(out, expected)

    image, engine = ImageFormat("NHWC", batched=True), Emulator()
    expected = average_backward(grad_out, geometry, image)
    computed = average_backward(Array(engine, engine.upload(grad_out), grad_out.shape), geometry, image)
    assert same_bits(computed.numpy(), expected)


@GEOMETRY
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("accumulate", [True, False])
def test_scatter(geometry: Pool2dGeometry, bands: int, accumulate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x, rng = images(geometry.x_shape), np.random.default_rng(3)
    values = rng.normal(size=geometry.out_shape).astype(np.float32)
    indices = np.empty(geometry.out_shape, np.int64)
    cpu.extreme(x, geometry.rows, geometry.columns, 1, np.empty_like(values), indices)
    out, expected = np.full((2, *geometry.x_shape), np.nan, np.float32)
    monkeypatch.setattr(pool, "_THREADS_OF_SCATTER", bands * max(1, geometry.N * geometry.C))
    assert pool.scatter(Emulator(), values, indices, accumulate, out)
    cpu.scatter(values, indices, accumulate, expected)
    assert same_bits(out, expected)


@pytest.mark.parametrize("short", [0, 1, 2])
def test_an_array_too_short_is_caught(short: int) -> None:
    values, out = np.ones((1, 1, 3, 1), np.float32), np.ones((1, 2, 2, 1), np.float32)
    arrays: list[Any] = [values, np.array([0, 3, 2]).reshape(values.shape), out]
    whole = arrays[short]
    arrays[short] = Array(Emulator(), whole.reshape(-1)[:-1].copy(), whole.shape)
    with pytest.raises(OutOfBounds):
        pool.scatter(Emulator(), *arrays[:2], True, arrays[2])


def test_scatter_leaves_out_what_lies_outside() -> None:
    values, indices = np.ones((1, 1, 3, 1), np.float32), np.array([-1, 4, 2]).reshape(1, 1, 3, 1)
    out = np.full((1, 2, 2, 1), np.nan, np.float32)
    pool.scatter(Emulator(), values, indices, True, out)
    assert out.ravel().tolist() == [0, 0, 1, 0]


def test_take_leaves_out_what_lies_outside() -> None:
    values, indices = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1) + 1, np.array([-1, 4, 2]).reshape(1, 1, 3, 1)
    out = np.full(indices.shape, np.nan, np.float32)
    pool.take(Emulator(), values, indices, out)
    assert out.ravel().tolist() == [0, 0, 3]


def test_too_large_an_array_is_refused() -> None:
    huge = np.broadcast_to(np.float32(0), 2**31)
    with pytest.raises(ValueError, match="pooling on the GPU takes fewer than"):
        pool._check_size(huge)
