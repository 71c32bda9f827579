"""Pooling: against the reference on awkward shapes, the adjoint identity, NaN and ties, any array, any thread count."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fastconv.cpu import pool as kernels
from fastconv.functional import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    adaptive_max_pool2d,
    avg_pool2d,
    avg_pool2d_backward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
    global_max_pool2d,
    max_pool2d,
    max_pool2d_backward,
    max_unpool2d,
    max_unpool2d_backward,
    min_pool2d,
)
from fastconv.geometry import pair, sides
from fastconv.reference import pool as reference


class Case(NamedTuple):
    """One pooling of (N, IH, IW, C) images."""

    shape: tuple[int, int, int, int]
    kernel_size: int | tuple[int, int]
    stride: int | tuple[int, int] | None = None
    padding: object = 0
    dilation: int | tuple[int, int] = 1
    ceil_mode: bool = False

    @property
    def options(self):
        return {"stride": self.stride, "padding": self.padding, "ceil_mode": self.ceil_mode}

    def windows(self, count_include_pad=True):
        """The reference's windows along both axes."""
        kernel, dilation = pair("kernel_size", self.kernel_size), pair("dilation", self.dilation)
        stride = kernel if self.stride is None else pair("stride", self.stride)
        both = sides(self.padding, self.shape[1:3], kernel, stride, dilation)
        return [
            reference.windows(*axis, self.ceil_mode, count_include_pad)
            for axis in zip(self.shape[1:3], kernel, stride, both, dilation, strict=True)
        ]


CASES = {
    "plain": Case((2, 8, 6, 16), 2),
    "grey": Case((3, 9, 7, 1), 2),
    "colour": Case((2, 7, 10, 3), 3, 2, 1),
    "one channel more than a vector": Case((2, 6, 5, 17), (2, 3), 1),
    "strided tail": Case((1, 13, 17, 35), (3, 2), (2, 3), (1, 0)),
    "stride above kernel": Case((1, 11, 13, 5), 2, (3, 5)),
    "dilation": Case((2, 13, 11, 4), 3, 1, (2, 1), (3, 2)),
    "ceil": Case((1, 7, 10, 3), 2, (2, 3), 0, 1, True),
    "ceil that drops a window": Case((1, 5, 8, 2), 2, 3, 1, 1, True),
    "ceil over an image below the kernel": Case((1, 2, 9, 2), 3, 2, 0, 1, True),
    "one side": Case((1, 7, 6, 3), 3, 2, ((1, 0), (0, 1))),
    "same": Case((2, 5, 8, 6), 3, 2, "same"),
    "same lower": Case((1, 6, 7, 2), (2, 4), 1, "same_lower"),
    "one pixel": Case((2, 1, 1, 3), 1),
    "few tall windows": Case((1, 37, 19, 3), (31, 4), (6, 3)),
    "large windows that overlap": Case((2, 23, 24, 2), 13, 1, 6),
    "windows above a block of the sum": Case((1, 3, 150, 2), (3, 140), (1, 10)),
    "one window, two counts": Case((1, 3, 3, 16), 7, 3, 3, 1, True),
    "many pixels of many channels": Case((1, 9, 11, 75), (6, 5), (3, 2)),
    "many rows of many channels": Case((1, 70, 3, 67), (66, 3), 1),
    "cells with a rest": Case((2, 11, 9, 37), (2, 4)),
    "cells with gaps": Case((1, 10, 13, 33), 2, (3, 4)),
}

named = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
undilated = pytest.mark.parametrize(
    "case", [c for c in CASES.values() if c.dilation == 1], ids=[k for k, c in CASES.items() if c.dilation == 1]
)


def integers(shape, seed=0, dtype=np.float32):
    """Small integers with many ties: sums are exact in float32."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@named
def test_largest_and_smallest_pixels_are_those_of_the_reference(case):
    x = integers(case.shape)
    expected, expected_indices = reference.max_pool2d(x, *case.windows())
    out, indices = max_pool2d(x, case.kernel_size, dilation=case.dilation, return_indices=True, **case.options)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(max_pool2d(x, case.kernel_size, dilation=case.dilation, **case.options), expected)
    assert (out.dtype, indices.dtype) == (np.float32, np.int64)
    low, low_indices = min_pool2d(-x, case.kernel_size, dilation=case.dilation, return_indices=True, **case.options)
    np.testing.assert_array_equal(low, -expected)
    np.testing.assert_array_equal(low_indices, expected_indices)


@undilated
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_averages_are_those_of_the_reference(case, count_include_pad):
    x = normal(case.shape)
    out = avg_pool2d(x, case.kernel_size, count_include_pad=count_include_pad, **case.options)
    expected = reference.avg_pool2d(x.astype(np.float64), *case.windows(count_include_pad))
    assert (out.shape, out.dtype) == (expected.shape, np.float32)
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6)


@named
def test_gradient_of_a_maximum_goes_to_the_pixel_taken(case):
    x = integers(case.shape)
    out, indices = max_pool2d(x, case.kernel_size, dilation=case.dilation, return_indices=True, **case.options)
    grad_out = integers(out.shape, 1)
    grad_x = max_pool2d_backward(grad_out, indices, x.shape)
    np.testing.assert_array_equal(grad_x, reference.max_pool2d_backward(grad_out, indices, x.shape))
    # the maximum of k * x is k * max(x), so <grad_x, x> = <grad_out, out>, exactly on integers
    assert np.vdot(grad_x, x) == np.vdot(grad_out, out)


@pytest.mark.parametrize("channels", [5, 37])
def test_an_index_may_lie_anywhere_in_the_image(channels):
    # windows of 3 x 3 side by side as far as the shapes tell
    indices = np.random.default_rng(0).integers(0, 81, (2, 3, 3, channels))
    grad_out = integers(indices.shape, 1)
    expected = reference.max_pool2d_backward(grad_out, indices, (2, 9, 9, channels))
    np.testing.assert_array_equal(max_pool2d_backward(grad_out, indices, (2, 9, 9, channels)), expected)
    # the first windows do hold their pixels
    indices[0] = (27 * np.arange(3)[:, np.newaxis] + 3 * np.arange(3))[..., np.newaxis]
    expected = reference.max_pool2d_backward(grad_out, indices, (2, 9, 9, channels))
    np.testing.assert_array_equal(max_pool2d_backward(grad_out, indices, (2, 9, 9, channels)), expected)


@pytest.mark.parametrize("channels", [5, 37])
def test_a_gradient_of_minus_zero_is_added_to_zero_and_an_unpooled_one_stays(channels):
    indices = np.zeros((1, 1, 1, channels), np.int64)
    values = np.full(indices.shape, -0.0, np.float32)
    assert not np.signbit(max_pool2d_backward(values, indices, (1, 2, 2, channels))).any()
    assert np.signbit(max_unpool2d(values, indices, 2)[0, 0, 0]).all()
    assert not np.signbit(max_unpool2d(values, indices, 2)[0, 1]).any()


@undilated
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_gradient_of_an_average_is_that_of_the_reference(case, count_include_pad):
    windows = case.windows(count_include_pad)
    grad_out = normal((case.shape[0], len(windows[0]), len(windows[1]), case.shape[3]))
    grad_x = avg_pool2d_backward(
        grad_out, case.shape, case.kernel_size, count_include_pad=count_include_pad, **case.options
    )
    expected = reference.avg_pool2d_backward(grad_out.astype(np.float64), case.shape, *windows)
    np.testing.assert_allclose(grad_x, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding"), [((2, 4), 1, 0), (4, (3, 2), (2, 1)), ((1, 2), 2, "same")]
)
def test_average_and_its_gradient_are_adjoint_exactly(kernel_size, stride, padding):
    # counts are powers of two, so nothing is rounded
    x = integers((2, 9, 11, 5))
    options = {"stride": stride, "padding": padding}
    out = avg_pool2d(x, kernel_size, **options)
    grad_out = integers(out.shape, 1)
    assert np.vdot(grad_out, out) == np.vdot(avg_pool2d_backward(grad_out, x.shape, kernel_size, **options), x)


@pytest.mark.parametrize("output_size", [1, (3, 2), (7, 5), (9, 13), (20, 1)])
def test_adaptive_pooling_is_that_of_the_reference(output_size):
    x = integers((2, 7, 10, 5))
    OH, OW = pair("output_size", output_size)
    windows = reference.adaptive_windows(7, OH), reference.adaptive_windows(10, OW)
    out, indices = adaptive_max_pool2d(x, output_size, return_indices=True)
    for found, expected in zip((out, indices), reference.max_pool2d(x, *windows), strict=True):
        np.testing.assert_array_equal(found, expected)
    averages = adaptive_avg_pool2d(x, output_size)
    np.testing.assert_allclose(averages, reference.avg_pool2d(x.astype(np.float64), *windows), atol=1e-6)
    grad_out = integers(out.shape, 1)
    grad_x = adaptive_avg_pool2d_backward(grad_out, x.shape)
    expected = reference.avg_pool2d_backward(grad_out.astype(np.float64), x.shape, *windows)
    np.testing.assert_allclose(grad_x, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 130, 70, 1), (5, 4, 3)])
def test_global_pooling_is_one_window(shape):
    x = integers(shape)
    spatial = (-3, -2)
    np.testing.assert_array_equal(global_max_pool2d(x), x.max(spatial))
    np.testing.assert_array_equal(global_max_pool2d(x, keepdims=True), x.max(spatial, keepdims=True))
    np.testing.assert_allclose(global_avg_pool2d(x), x.mean(spatial, dtype=np.float64), rtol=1e-6, atol=1e-7)
    assert global_avg_pool2d(x, keepdims=True).shape == x.mean(spatial, keepdims=True).shape
    out, indices = global_max_pool2d(x, return_indices=True)
    grad_out = integers(out.shape, 1)
    grad_x = max_pool2d_backward(grad_out, indices, x.shape)
    assert np.vdot(grad_x, x) == np.vdot(grad_out, out)
    share = np.broadcast_to(np.expand_dims(grad_out / (x.shape[-3] * x.shape[-2]), spatial), x.shape)
    np.testing.assert_allclose(global_avg_pool2d_backward(grad_out, x.shape), share, rtol=1e-6)


@pytest.mark.parametrize(
    ("kernel_size", "options"),
    [(2, {}), (3, {"stride": 1, "padding": 1}), (3, {"stride": 2, "padding": "same"}), ((67, 2), {"stride": 1})],
)
def test_windows_that_run_in_pairs_have_the_bits_of_windows_alone(kernel_size, options):
    """64 channels of float32 fill four cache lines; with three more there are no pairs."""
    x = np.random.default_rng(0).normal(size=(2, 71, 9, 64)).astype(np.float32)
    more = np.concatenate([x, x[..., :3]], axis=-1)
    for count_include_pad in (True, False):
        pairs, alone = (
            avg_pool2d(images, kernel_size, count_include_pad=count_include_pad, **options) for images in (x, more)
        )
        np.testing.assert_array_equal(pairs, alone[..., :64])
    np.testing.assert_array_equal(global_avg_pool2d(x), global_avg_pool2d(more)[..., :64])


def test_average_of_a_large_plane_keeps_its_digits():
    x = np.random.default_rng(0).random((1, 1, 300_000, 1), dtype=np.float32)
    for image in (x, x.reshape(1, 300, 1000, 1), x.reshape(1, 300_000, 1, 1)):
        np.testing.assert_allclose(global_avg_pool2d(image), image.mean(dtype=np.float64), rtol=1e-6)


def test_two_passes_change_no_bit(monkeypatch):
    x = normal((2, 90, 75, 3))
    x[0, 1, 1, 0] = np.nan
    options = {"stride": (2, 3), "padding": (3, 2)}
    results = []
    for gain in (0, np.inf):  # two passes always, or never
        monkeypatch.setattr(kernels, "OVERLAP_GAIN", gain)
        monkeypatch.setattr(kernels, "TALL", np.inf)
        results.append((*max_pool2d(x, (80, 70), return_indices=True, **options), avg_pool2d(x, (80, 70), **options)))
    for one, two in zip(*results, strict=True):
        assert one.tobytes() == two.tobytes()


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_any_geometry_agrees_with_the_reference(data):
    draw = data.draw
    kernel, stride, dilation = (draw(st.tuples(*[st.integers(1, top)] * 2)) for top in (4, 4, 3))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    IH, IW = (draw(st.integers(r, r + 9)) for r in reach)
    padding = tuple(draw(st.tuples(*[st.integers(0, r // 2)] * 2)) for r in reach)
    case = Case(
        (draw(st.integers(1, 2)), IH, IW, draw(st.integers(1, 20))),
        kernel,
        stride,
        padding,
        dilation,
        draw(st.booleans()),
    )
    x = integers(case.shape, draw(st.integers(0, 99)))
    found = max_pool2d(x, kernel, dilation=dilation, return_indices=True, **case.options)
    for one, expected in zip(found, reference.max_pool2d(x, *case.windows()), strict=True):
        np.testing.assert_array_equal(one, expected)
    case, included = case._replace(dilation=1), draw(st.booleans())
    case = case._replace(
        padding=tuple((min(a, k // 2), min(b, k // 2)) for (a, b), k in zip(padding, kernel, strict=True))
    )
    windows = case.windows(included)
    averages = avg_pool2d(x, kernel, count_include_pad=included, **case.options)
    np.testing.assert_allclose(averages, reference.avg_pool2d(x.astype(np.float64), *windows), atol=1e-6)
    grad_x = avg_pool2d_backward(averages, x.shape, kernel, count_include_pad=included, **case.options)
    expected = reference.avg_pool2d_backward(averages.astype(np.float64), x.shape, *windows)
    np.testing.assert_allclose(grad_x, expected, atol=1e-5)


# ---- NaN, infinity and ties -------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 16, 35])
@pytest.mark.parametrize("function", [max_pool2d, min_pool2d])
def test_nan_wins_in_every_lane_and_the_last_nan_is_taken(function, channels):
    x = integers((1, 4, 6, channels))
    x[0, 0, 1], x[0, 1, 0], x[0, 2, 2] = np.nan, np.nan, np.nan
    out, indices = function(x, 2, return_indices=True)
    assert np.isnan(out[0, 0, 0]).all()
    assert np.isnan(out[0, 1, 1]).all()
    assert np.isnan(out).sum() == 2 * channels
    assert (indices[0, 0, 0] == 6).all()
    assert (indices[0, 1, 1] == 14).all()


@pytest.mark.parametrize("channels", [1, 17])
def test_a_window_of_minus_infinity_takes_its_first_pixel_in_the_image(channels):
    x = np.full((1, 4, 4, channels), -np.inf, np.float32)
    out, indices = max_pool2d(x, 3, stride=2, padding=1, return_indices=True)
    assert (out == -np.inf).all()
    assert indices[0, :, :, channels - 1].tolist() == [[0, 1], [4, 5]]
    assert (min_pool2d(-x, 3, stride=2, padding=1) == np.inf).all()


def test_the_first_of_equal_pixels_receives_the_gradient():
    x = np.ones((1, 4, 4, 3), np.float32)
    out, indices = max_pool2d(x, 2, return_indices=True)
    assert indices[0, :, :, 2].tolist() == [[0, 2], [8, 10]]
    grad_x = max_pool2d_backward(out, indices, x.shape)
    assert (grad_x[0, ::2, ::2] == 1).all()
    assert grad_x.sum() == 12


def test_infinity_passes_through_an_average():
    x = integers((1, 2, 6, 17))
    x[0, 0, 0], x[0, 0, 2], x[0, 1, 3], x[0, 0, 4] = np.inf, np.inf, -np.inf, np.nan
    out = avg_pool2d(x, 2)[0, 0]
    assert (out[0] == np.inf).all()
    assert np.isnan(out[1:]).all()


# ---- unpooling and indices --------------------------------------------------------------------------------------


def test_unpooling_puts_the_maxima_back():
    x = normal((2, 6, 8, 17))
    out, indices = max_pool2d(x, 2, return_indices=True)
    image = max_unpool2d(out, indices, (6, 8))
    np.testing.assert_array_equal(image, np.where(image != 0, x, 0))
    assert np.count_nonzero(image) == out.size
    grad_out = integers(image.shape)
    assert np.vdot(max_unpool2d_backward(grad_out, indices), integers(out.shape, 1)) == np.vdot(
        grad_out, max_unpool2d(integers(out.shape, 1), indices, (6, 8))
    )


def test_unpooling_keeps_the_last_of_several_values():
    values, indices = np.array([[[1.0], [2.0]]]), np.array([[[3], [3]]])
    assert max_unpool2d(values, indices, 2).ravel().tolist() == [0, 0, 0, 2]


@pytest.mark.parametrize("channels", [3, 40])
@pytest.mark.parametrize("wrong", [-1, 24, 2**40])
def test_an_index_outside_the_image_is_an_error(wrong, channels):
    indices = np.zeros((1, 2, 2, channels), np.int64)
    indices[0, 1, 1, 2] = wrong
    values = np.ones(indices.shape, np.float32)
    message = rf"indices must lie in the image: 0 <= index < 24. Received: .*{wrong}"
    with pytest.raises(ValueError, match=message):
        max_pool2d_backward(values, indices, (1, 4, 6, channels))
    with pytest.raises(ValueError, match=message):
        max_unpool2d(values, indices, (4, 6))
    with pytest.raises(ValueError, match=message):
        max_unpool2d_backward(np.ones((1, 4, 6, channels), np.float32), indices)
