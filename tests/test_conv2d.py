"""Forward convolution: every algorithm on every problem, fused bias, residual and activation, accuracy, NaN.

Winograd, which rounds whole numbers, has tests of its own: `test_winograd`.
"""

import numpy as np
import pytest
from cases import ACCEPTED, BY_NAME, assert_exact, exact_algorithm, exact_arrays, normal_arrays, rounding

from fastconv.cpu.activation import ACTIVATIONS
from fastconv.functional.activation import activation as apply_activation
from fastconv.functional.conv import conv2d
from fastconv.reference import conv as reference
from fastconv.reference.elementwise import ACTIVATION


@pytest.mark.parametrize(("case", "algorithm"), ACCEPTED)
def test_every_algorithm_computes_every_case_exactly(case, algorithm):
    g = case.geometry
    a, wide = exact_arrays(g), exact_arrays(g, np.float64)
    plain = reference.conv2d(g, wide.x, wide.weight)
    assert_exact(conv2d(a.x, a.weight, algorithm=algorithm, **case.options), plain, g)
    fused = conv2d(a.x, a.weight, a.bias, residual=a.residual, activation="relu", algorithm=algorithm, **case.options)
    assert fused.dtype == np.float32
    assert_exact(fused, np.maximum(plain + wide.bias + wide.residual, 0), g)


@pytest.mark.parametrize(
    "name", ["no padding", "over one block of depth", "grouped, strided tail", "depthwise multiplier"]
)
def test_float64_is_exact_too(name):
    g = BY_NAME[name].geometry
    a = exact_arrays(g, np.float64)
    out = conv2d(a.x, a.weight, a.bias, residual=a.residual, **BY_NAME[name].options)
    assert out.dtype == np.float64
    assert_exact(out, reference.conv2d(g, a.x, a.weight) + a.bias + a.residual, g)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name is not None])
@pytest.mark.parametrize(("name", "algorithm"), [("channel tail", "direct"), ("depthwise channel tail", "depthwise")])
def test_a_fused_activation_has_the_bits_of_one_applied_afterwards(name, algorithm, activation):
    case = BY_NAME[name]
    a = normal_arrays(case.geometry)
    problem = {**case.options, "algorithm": algorithm}
    plain = conv2d(a.x, a.weight, a.bias, **problem)
    fused = conv2d(a.x, a.weight, a.bias, activation=activation, **problem)
    np.testing.assert_array_equal(fused, apply_activation(plain, activation))
    np.testing.assert_allclose(fused, ACTIVATION[activation](plain.astype(np.float64)), rtol=1e-6, atol=1e-30)


def test_the_reference_applies_bias_residual_and_activation_as_the_kernels_do():
    case = BY_NAME["depthwise"]
    a = exact_arrays(case.geometry)
    results = [
        conv2d(a.x, a.weight, a.bias, residual=a.residual, activation="leaky_relu", algorithm=name, **case.options)
        for name in ("depthwise", "direct", "reference")
    ]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize(
    "name", ["plain", "strided tail", "first layer, colour", "depthwise", "over one block of depth and columns"]
)
def test_the_error_of_float32_is_within_the_published_bounds(name):
    case = BY_NAME[name]
    g = case.geometry
    a = normal_arrays(g)
    out = conv2d(a.x, a.weight, **case.options).astype(np.float64)
    x, weight = a.x.astype(np.float64), a.weight.astype(np.float64)
    exact = reference.conv2d(g, x, weight)
    error = abs(out - exact)
    length = g.KH * g.KW * (g.IC // g.G)
    assert error.max() <= rounding(exact, length), str(g)
    worst_case = np.finfo(np.float32).eps * length * reference.conv2d(g, abs(x), abs(weight))
    assert np.all(error <= worst_case), str(g)
    # The yardstick measures something: the same sum in half the precision is far outside.
    assert abs(out.astype(np.float16) - exact).max() > 10 * rounding(exact, length)


@pytest.mark.parametrize("name", ["plain", "first layer, grey", "depthwise channel tail"])
def test_nan_stays_where_the_kernel_sees_it(name):
    case = BY_NAME[name]
    g = case.geometry
    a = exact_arrays(g)
    a.x[0, g.IH // 2, g.IW // 3, 0] = np.nan
    seen = reference.conv2d(g, np.isnan(a.x).astype(float), np.ones(g.weight_shape)) > 0
    out = conv2d(a.x, a.weight, a.bias, activation="relu", algorithm=exact_algorithm(g), **case.options)
    np.testing.assert_array_equal(np.isnan(out), seen)


@pytest.mark.parametrize("name", ["channel tail", "dilated strided", "grouped", "depthwise", "1x1 padded"])
def test_nan_and_infinity_pass_through_as_in_pytorch(name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    case = BY_NAME[name]
    g = case.geometry
    a = exact_arrays(g)
    chance = np.random.default_rng(1).random(a.x.shape)
    a.x[chance < 0.01], a.x[chance > 0.995], a.x[(chance > 0.5) & (chance < 0.505)] = np.nan, np.inf, -np.inf
    ours = conv2d(a.x, a.weight, algorithm=exact_algorithm(g), **case.options)
    theirs = torch.nn.functional.conv2d(
        torch.from_numpy(a.x.transpose(0, 3, 1, 2).astype(np.float64)),
        torch.from_numpy(a.weight.transpose(3, 2, 0, 1).astype(np.float64)),
        stride=g.stride,
        dilation=g.dilation,
        groups=g.G,
        padding=tuple(side[0] for side in g.padding),
    )
    assert not np.isfinite(ours).all()
    np.testing.assert_array_equal(ours, theirs.numpy().transpose(0, 2, 3, 1))


def test_an_activation_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"activation must be one of .*'relu'.*Received: activation='ReLU'"):
        conv2d(np.zeros((3, 3, 1)), np.zeros((2, 2, 1, 1)), activation="ReLU")


def test_bias_and_residual_must_fit_the_result():
    x, weight = np.zeros((2, 5, 4, 3), np.float32), np.zeros((3, 2, 3, 7), np.float32)
    with pytest.raises(ValueError, match=r"bias must have shape \(7,\). Received: bias.shape=\(3,\)"):
        conv2d(x, weight, np.zeros(3, np.float32))
    with pytest.raises(
        ValueError, match=r"residual must have the shape of the result, \(2, 3, 3, 7\). Received: .*1\)"
    ):
        conv2d(x, weight, residual=np.zeros((2, 3, 3, 1), np.float32))
