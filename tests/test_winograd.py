"""Winograd convolution: the transforms, all passes against float64, the published error bound, NaN."""

import numpy as np
import pytest
from cases import BY_NAME, CASES, ConvCase, normal_arrays
from hypothesis import given, note, settings, strategies as st

from fastconv import threads
from fastconv.cpu import codegen, conv_winograd_scatter, conv_winograd_weight, winograd
from fastconv.cpu.winograd_plan import forward_job, reads_backwards
from fastconv.cpu.winograd_tiles import count_of, grid_of, long_of, pieces_of, start_of, whole_of
from fastconv.dispatch import CONV2D
from fastconv.functional.conv import conv2d, conv2d_grad_weight, conv2d_grad_x
from fastconv.geometry import conv2d_geometry
from fastconv.packed_weight import PackedWeight
from fastconv.reference import conv as reference

(WINOGRAD,) = (one for one in CONV2D if one.name == "winograd")
ACCEPTED = [case for case in CASES if WINOGRAD.refuses(case.geometry, 4) is None]


def test_the_matrices_compute_a_convolution_of_one_axis():
    rng = np.random.default_rng(0)
    x, taps = rng.normal(size=winograd.INPUTS), rng.normal(size=winograd.TAPS)
    to_inputs, to_taps, to_outputs = winograd.INPUT_MATRIX, winograd.TAP_MATRIX, winograd.OUTPUT_MATRIX
    out = to_outputs.T @ ((to_taps @ taps) * (to_inputs @ x))
    np.testing.assert_allclose(out, np.correlate(x, taps, "valid"), rtol=1e-13)
    # and read backwards, the gradient of the taps
    grad_out = rng.normal(size=winograd.OUTPUTS)
    grad_taps = to_taps.T @ ((to_inputs @ x) * (to_outputs @ grad_out))
    np.testing.assert_allclose(grad_taps, np.correlate(x, grad_out, "valid"), rtol=1e-12)
    # and that of x
    grad_x = to_inputs.T @ ((to_taps @ taps) * (to_outputs @ grad_out))
    np.testing.assert_allclose(grad_x, np.convolve(taps, grad_out), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("length", "apart"), [(4, 1), (4, 3), (3, 1), (3, 4)])
@pytest.mark.parametrize("extent", [*range(1, 20), 56])
def test_tiles_and_pieces_hold_every_output_and_tap_once(extent, length, apart):
    steps = (apart, apart)
    if length == winograd.OUTPUTS:
        count, whole = grid_of(extent, extent, steps)[0], whole_of(extent, extent, steps)[0]
    else:
        count, whole = pieces_of((extent, extent), steps)[0], long_of((extent, extent), steps)[0]
    held = []
    for place in range(count):
        start = start_of(place, apart, length, whole)
        held += [start + i * apart for i in range(count_of(start, place, apart, length, whole, extent))]
    assert sorted(held) == list(range(extent))


def pieces_of_kernel(geometry):
    """Pieces of 3x3 taps, a stride apart: counted one by one."""
    first_taps = [
        {tap - (tap // step % 3) * step for tap in range(taps)}
        for taps, step in zip((geometry.KH, geometry.KW), geometry.stride, strict=True)
    ]
    return len(first_taps[0]) * len(first_taps[1])


def all_passes(geometry, x, weight, grad_out):
    """(result in float32, exact result, how many numbers are summed between the transforms) for each pass."""
    g = geometry
    pieces = pieces_of_kernel(g)
    problem = {"padding": g.padding, "stride": g.stride, "dilation": g.dilation, "algorithm": "winograd"}
    wide = [array.astype(np.float64) for array in (x, weight, grad_out)]
    return [
        (conv2d(x, weight, **problem), reference.conv2d(g, wide[0], wide[1]), pieces * g.IC),
        (
            conv2d_grad_x(grad_out, weight, x.shape, **problem),
            reference.conv2d_grad_x(g, wide[2], wide[1]),
            pieces * g.OC,
        ),
        (
            conv2d_grad_weight(grad_out, x, weight.shape, **problem),
            reference.conv2d_grad_weight(g, wide[0], wide[2]),
            g.N * g.OH * g.OW,
        ),
    ]


@pytest.mark.parametrize("case", ACCEPTED, ids=str)
def test_all_passes_are_within_5e_6_of_the_scale_on_random_data(case):
    a = normal_arrays(case.geometry)
    for result, exact, _ in all_passes(case.geometry, a.x, a.weight, a.grad_out):
        assert result.shape == exact.shape
        assert result.dtype == np.float32
        assert abs(result - exact).max() <= 5e-6 * abs(exact).max()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(0, 3),
    image=st.tuples(st.integers(7, 14), st.integers(7, 14)),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    channels=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    padding=st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_problems_are_within_the_worst_case_bound(n, image, kernel, stride, dilation, channels, padding, seed):
    dilation = [
        min(step, 6 // max(taps - 1, 1)) if move == 1 else 1
        for move, step, taps in zip(stride, dilation, kernel, strict=True)
    ]
    place = {"padding": padding, "stride": stride, "dilation": dilation}
    g = conv2d_geometry((n, *image, channels[0]), (*kernel, *channels), **place)
    note(f"replay: {g}")
    a = normal_arrays(g, seed=seed)
    if n == 0:
        for result, exact, _ in all_passes(g, a.x, a.weight, a.grad_out):
            np.testing.assert_array_equal(result, exact)
        return
    sizes = [
        pieces_of_kernel(g) * (np.abs(a.x).max(axis=(0, 1, 2)) @ np.abs(a.weight).max(axis=(0, 1))),
        pieces_of_kernel(g) * (np.abs(a.grad_out).max(axis=(0, 1, 2)) @ np.abs(a.weight).max(axis=(0, 1)).T),
        g.N * g.OH * g.OW * np.outer(np.abs(a.x).max(axis=(0, 1, 2)), np.abs(a.grad_out).max(axis=(0, 1, 2))),
    ]
    for (result, exact, length), size in zip(all_passes(g, a.x, a.weight, a.grad_out), sizes, strict=True):
        assert np.all(abs(result - exact) <= winograd.error_bound(length, size))


def _alternating(g, rng):
    """Neighbours of opposite sign and equal size: what the transforms add is large and cancels."""
    sign = (-1.0) ** (np.arange(g.IH)[:, None] + np.arange(g.IW))[..., None]
    return (np.ones(g.x_shape) * sign).astype(np.float32), np.ones(g.weight_shape, np.float32)


def _badly_scaled(g, rng):
    """One pixel a million times as large as its neighbours."""
    x = rng.normal(size=g.x_shape)
    x[:, 1::5, 2::5] *= 1e6
    return x.astype(np.float32), rng.normal(size=g.weight_shape).astype(np.float32)


def _scaled_channels(g, rng):
    """Channels from 1e-6 to 1e6."""
    return (
        (rng.normal(size=g.x_shape) * np.logspace(-6, 6, g.IC)).astype(np.float32),
        rng.normal(size=g.weight_shape).astype(np.float32),
    )


@pytest.mark.parametrize("make", [_alternating, _badly_scaled, _scaled_channels])
def test_the_bound_holds_for_hostile_data_and_2e_5_of_the_scale(make):
    g = BY_NAME["winograd, many tiles"].geometry
    x, weight = make(g, np.random.default_rng(0))
    exact = reference.conv2d(g, x.astype(np.float64), weight.astype(np.float64))
    error = abs(conv2d(x, weight, padding=g.padding, algorithm="winograd") - exact)
    size = np.abs(x).max(axis=(0, 1, 2)) @ np.abs(weight).max(axis=(0, 1))
    assert np.all(error <= winograd.error_bound(g.IC, size))
    # of the largest sum of absolute products, the scale of the results
    scale = reference.conv2d(g, abs(x).astype(np.float64), abs(weight).astype(np.float64)).max()
    assert error.max() <= 2e-5 * scale


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_bias_residual_and_activation_have_the_bits_of_ones_applied_afterwards(activation):
    case = BY_NAME["winograd, many tiles"]
    a = normal_arrays(case.geometry)
    fused = conv2d(
        a.x, a.weight, a.bias, residual=a.residual, activation=activation, algorithm="winograd", **case.options
    )
    plain = conv2d(a.x, a.weight, algorithm="winograd", **case.options)
    identity = np.eye(case.geometry.OC, dtype=np.float32)[None, None]
    afterwards = conv2d(plain, identity, a.bias, residual=a.residual, activation=activation, algorithm="direct")
    np.testing.assert_array_equal(fused, afterwards)


def test_a_number_that_is_not_finite_stays_in_the_tiles_that_see_it():
    g = BY_NAME["winograd, many tiles"].geometry
    a = normal_arrays(g)
    clean = conv2d(a.x, a.weight, padding=1, algorithm="winograd")
    a.x[1, 13, 14, 3] = np.inf
    out = conv2d(a.x, a.weight, padding=1, algorithm="winograd")
    # the pixel is seen by outputs 12 to 14 x 13 to 15, which lie in the tiles of rows 12 to 15 and columns 12 to 15
    hit = np.zeros(g.out_shape, bool)
    hit[1, 12:16, 12:16] = True
    assert not np.isfinite(out[1, 12:15, 13:16]).any()
    np.testing.assert_array_equal(out[~hit], clean[~hit])


def test_grad_x_is_read_backwards_where_that_multiplies_less():
    def backwards(image, padding=0, **options):
        return reads_backwards(conv2d_geometry((1, *image, 32), (3, 3, 32, 64), padding=padding, **options))

    assert all(backwards(image) for image in ((4, 4), (5, 5), (6, 6), (13, 13), (12, 8), (22, 22)))
    assert not any(backwards(image) for image in ((3, 3), (15, 15), (26, 26)))  # 13 x 13 outputs, 15 x 15 pixels: 441
    assert not backwards((13, 13), padding=1)
    assert not backwards((13, 13), stride=2)
    assert not backwards((13, 13), dilation=2)


def test_threads_share_the_channels_of_few_images(monkeypatch):
    case = ConvCase("", (1, 13, 13, 100), (3, 3, 100, 7))
    a = normal_arrays(case.geometry)
    results = []
    for workers, in_grad_x, in_grad_weight in ((1, 1, 2), (2, 2, 2), (4, 2, 4)):
        monkeypatch.setattr(threads, "worker_count", lambda work, workers=workers: workers)
        results.append(
            conv2d_grad_x(a.grad_out, a.weight, case.x_shape, algorithm="winograd").tobytes()
            + conv2d_grad_weight(a.grad_out, a.x, case.weight_shape, algorithm="winograd").tobytes()
        )
        lanes = codegen.VECTOR_BYTES // 4
        assert conv_winograd_scatter._job(case.geometry, 4, workers).workers >= in_grad_x
        assert conv_winograd_weight._plan(case.geometry, lanes, workers)[0].tasks == in_grad_weight
    assert results[0] == results[1] == results[2]


def test_a_gradient_that_is_not_finite_stays_in_the_pixels_of_its_tile():
    """7 = 4 + 3: the tiles with three rows or columns find nothing at infinity, whatever the others have there."""
    case = ConvCase("", (2, 9, 9, 16), (3, 3, 16, 16))
    a = normal_arrays(case.geometry)
    clean = conv2d_grad_x(a.grad_out, a.weight, case.x_shape, algorithm="winograd")
    a.grad_out[0, 3, 3, 5] = np.nan
    grad_x = conv2d_grad_x(a.grad_out, a.weight, case.x_shape, algorithm="winograd")
    hit = np.zeros(case.x_shape, bool)
    hit[0, :6, :6] = True
    assert np.isnan(grad_x[0, 3:6, 3:6]).all()
    np.testing.assert_array_equal(grad_x[~hit], clean[~hit])


@pytest.mark.parametrize(("side", "kernel", "channels"), [(28, 9, 16), (36, 15, 16), (25, 7, 37), (30, 9, 70)])
def test_the_weight_of_many_pieces_is_right_over_many_tiles(side, kernel, channels):
    """Sums of pieces lie side by side; a register tile over the end of one must leave the next as it was."""
    rng = np.random.default_rng(side)
    x, weight_shape = rng.standard_normal((2, side, side, channels)), (kernel, kernel, channels, 18)
    g = conv2d_geometry(x.shape, weight_shape, padding=kernel // 2)
    grad_out = rng.standard_normal(g.out_shape)
    expected = reference.conv2d_grad_weight(g, x, grad_out)
    found = conv2d_grad_weight(
        grad_out.astype(np.float32), x.astype(np.float32), weight_shape, padding=kernel // 2, algorithm="winograd"
    )
    assert abs(found - expected).max() < 1e-5 * abs(expected).max()


@pytest.mark.parametrize(("side", "options"), [(7, {}), (8, {}), (3, {}), (4, {"dilation": 2}), (6, {"bias": True})])
def test_few_tiles_have_the_bits_of_many(side, options, monkeypatch):
    """With a large weight, four tiles or fewer transform it in registers, if there are enough."""
    channels, outputs = 185, 300  # no multiples of the blocks and vectors; more than a block of outputs
    rng = np.random.default_rng(side)
    x = rng.standard_normal((5, side, side, channels), np.float32)
    weight = rng.standard_normal((3, 3, channels, outputs), np.float32)
    dilation = options.get("dilation", 1)
    bias = rng.standard_normal(outputs, np.float32) if options.get("bias") else None
    arguments = {"padding": dilation, "dilation": dilation, "algorithm": "winograd"}
    one, many = (conv2d_geometry((n, *x.shape[1:]), weight.shape, padding=dilation, dilation=dilation) for n in (1, 5))
    assert forward_job(one, 4, 1, True).few
    assert forward_job(one, 4, 1, False).few == (codegen.REGISTERS >= 32)
    assert not forward_job(many, 4, 1, True).few
    out, kept = conv2d(x, weight, bias, **arguments), PackedWeight(weight)
    expected = reference.conv2d(many, x.astype(np.float64), weight.astype(np.float64))
    np.testing.assert_allclose(out, expected + (0 if bias is None else bias), atol=1e-5 * abs(expected).max())
    grad_x = conv2d_grad_x(out, weight, x.shape, **arguments)
    for workers in (1, 2, 3):
        monkeypatch.setattr(threads, "worker_count", lambda work, workers=workers: workers)
        for n in (0, 3):
            for one_weight in (weight, kept, kept):
                assert conv2d(x[n], one_weight, bias, **arguments).tobytes() == out[n].tobytes()
            assert conv2d_grad_x(out[n], weight, x.shape[1:], **arguments).tobytes() == grad_x[n].tobytes()
