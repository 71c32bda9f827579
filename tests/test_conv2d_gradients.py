"""Gradients of convolution: every algorithm on every problem, the adjoint identity on random ones, PyTorch."""

import numpy as np
import pytest
from cases import ACCEPTED, BY_NAME, CASES, assert_exact, exact_algorithm, exact_arrays, normal_arrays, rounding
from hypothesis import given, note, settings, strategies as st

from fastconv.cpu.chains import starts_of_chains
from fastconv.cpu.shape import forward_shape
from fastconv.functional.conv import conv2d, conv2d_backward, conv2d_grad_bias, conv2d_grad_weight, conv2d_grad_x
from fastconv.geometry import conv2d_geometry
from fastconv.reference import conv as reference


@pytest.mark.parametrize(("case", "algorithm"), ACCEPTED)
def test_every_algorithm_computes_every_gradient_exactly(case, algorithm):
    g = case.geometry
    a, wide = exact_arrays(g), exact_arrays(g, np.float64)
    grad_x, grad_weight, grad_bias = conv2d_backward(a.grad_out, a.x, a.weight, algorithm=algorithm, **case.options)
    assert grad_x.dtype == grad_weight.dtype == grad_bias.dtype == np.float32
    assert_exact(grad_x, reference.conv2d_grad_x(g, wide.grad_out, wide.weight), g)
    assert_exact(grad_weight, reference.conv2d_grad_weight(g, wide.x, wide.grad_out), g)
    assert_exact(grad_bias, wide.grad_out.sum(axis=(0, 1, 2)), g)


@pytest.mark.parametrize("name", ["grouped, strided tail", "over one block of pixels", "depthwise multiplier"])
def test_float64_is_exact_too(name):
    case = BY_NAME[name]
    g = case.geometry
    a = exact_arrays(g, np.float64)
    grad_x, grad_weight, grad_bias = conv2d_backward(a.grad_out, a.x, a.weight, **case.options)
    assert grad_x.dtype == grad_weight.dtype == grad_bias.dtype == np.float64
    assert_exact(grad_x, reference.conv2d_grad_x(g, a.grad_out, a.weight), g)
    assert_exact(grad_weight, reference.conv2d_grad_weight(g, a.x, a.grad_out), g)


@pytest.mark.parametrize("columns", [1, 7, 100, 448, 449, 512, 513, 5000])
@pytest.mark.parametrize("images", [1, 3, 8, 300])
def test_every_chain_of_grad_weight_has_pixels(images, columns):
    """With more splits than rows, some would have none."""
    g = conv2d_geometry((images, 1, columns + 1, 1), (1, 2, 1, 1))
    starts = starts_of_chains(forward_shape(g))
    assert (np.diff(starts) > 0).all()
    assert (starts[0], starts[-1]) == (0, images * columns)
    ones = np.ones(g.x_shape, np.float32)
    out = conv2d_grad_weight(np.ones(g.out_shape, np.float32), ones, g.weight_shape, algorithm="direct")
    assert (out == images * columns).all()


@pytest.mark.parametrize("channels", [3, 5, 64, 67])
def test_the_sign_of_a_zero_does_not_depend_on_the_vector_it_is_in(channels):
    """What is rounded to -0 stays -0, in the last few channels as well."""
    g = conv2d_geometry((2, 5, 7, 3), (2, 2, 3, channels))
    x, grad_out = np.full(g.x_shape, -1e-30, np.float32), np.full(g.out_shape, 1e-20, np.float32)
    out = conv2d_grad_weight(grad_out, x, g.weight_shape, algorithm="direct")
    assert (out == 0).all()
    assert np.signbit(out).all()


def test_the_three_gradients_can_be_asked_for_one_by_one():
    case = BY_NAME["same, even kernel, stride 2"]
    a = normal_arrays(case.geometry)
    grad_x, grad_weight, grad_bias = conv2d_backward(a.grad_out, a.x, a.weight, **case.options)
    np.testing.assert_array_equal(conv2d_grad_x(a.grad_out, a.weight, a.x.shape, **case.options), grad_x)
    np.testing.assert_array_equal(conv2d_grad_weight(a.grad_out, a.x, a.weight.shape, **case.options), grad_weight)
    np.testing.assert_array_equal(conv2d_grad_bias(a.grad_out), grad_bias)


@pytest.mark.parametrize("name", ["first layer, grey", "first layer, colour"])
def test_few_input_channels_make_one_chain_over_outputs_and_one_over_pixels(name):
    """The order of sums that `conv_scatter` documents, number by number."""
    case = BY_NAME[name]
    g = case.geometry
    a = exact_arrays(g)
    grad_out = (a.grad_out * np.float32(2**-12) + 1).astype(np.float32)
    grad_x = conv2d_grad_x(grad_out, a.weight, g.x_shape, **case.options)
    n, ih, iw, ic = 1, g.IH // 2, 1, g.IC - 1
    total = np.float32(0)
    for oh in range(g.OH):
        for ow in range(g.OW):
            kh = ih + g.padding[0][0] - oh * g.stride[0]
            kw = iw + g.padding[1][0] - ow * g.stride[1]
            if 0 <= kh < g.KH and 0 <= kw < g.KW:
                part = np.float32(0)
                for oc in range(g.OC):
                    # a product of whole numbers below 2**24 and its sum are exact in float64: one rounding, as fused
                    product = np.float64(grad_out[n, oh, ow, oc]) * np.float64(a.weight[kh, kw, ic, oc])
                    part = np.float32(np.float64(part) + product)
                total = np.float32(total + part)
    assert grad_x[n, ih, iw, ic] == total


# ---- random problems ------------------------------------------------------------------------------------------------


@st.composite
def geometries(draw):
    """A convolution of any kind of padding, stride, dilation and groups, small enough to try many."""
    small = st.integers(1, 3)
    KH, KW = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    stride, dilation = (draw(small), draw(small)), (draw(small), draw(small))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
    of_group = draw(st.sampled_from([1, 1, 2, 3, 7, 17]))
    outputs = groups * draw(st.sampled_from([1, 2, 5, 11, 17, 33]))
    side = st.tuples(st.integers(0, 4), st.integers(0, 4))
    padding = draw(st.sampled_from(["same", "same_lower", "valid"]) | st.integers(0, 4) | side | st.tuples(side, side))
    # without padding, the image must hold the kernel
    IH = (KH - 1) * dilation[0] + draw(st.integers(1, 12))
    IW = (KW - 1) * dilation[1] + draw(st.integers(1, 12))
    return conv2d_geometry(
        (draw(small), IH, IW, groups * of_group),
        (KH, KW, of_group, outputs),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


def whole(array):
    """As integers, whose sums of products are exact."""
    assert np.array_equal(array, np.rint(array))
    return array.astype(np.int64)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(geometry=geometries(), seed=st.integers(0, 2**32 - 1))
def test_random_problems_are_exact_and_the_three_passes_are_adjoint(geometry, seed):
    """``<conv2d(x, weight), grad_out> = <x, grad_x> = <weight, grad_weight>``, without any tolerance."""
    g = geometry
    note(f"replay: {g}")
    a, wide = exact_arrays(g, seed=seed), exact_arrays(g, np.float64, seed)
    problem = {"stride": g.stride, "padding": g.padding, "dilation": g.dilation, "groups": g.G}
    problem["algorithm"] = exact_algorithm(g)
    out = conv2d(a.x, a.weight, **problem)
    grad_x = conv2d_grad_x(a.grad_out, a.weight, a.x.shape, **problem)
    grad_weight = conv2d_grad_weight(a.grad_out, a.x, a.weight.shape, **problem)
    assert_exact(out, reference.conv2d(g, wide.x, wide.weight), g)
    assert_exact(grad_x, reference.conv2d_grad_x(g, wide.grad_out, wide.weight), g)
    assert_exact(grad_weight, reference.conv2d_grad_weight(g, wide.x, wide.grad_out), g)
    product = np.sum(whole(out) * whole(a.grad_out))
    assert product == np.sum(whole(a.x) * whole(grad_x))
    assert product == np.sum(whole(a.weight) * whole(grad_weight))


@pytest.mark.parametrize(
    "name", ["one channel in and out", "grouped, strided tail", "depthwise strided", "dilated strided"]
)
def test_the_adjoint_identity_holds_for_float64_up_to_rounding(name):
    case = BY_NAME[name]
    a = normal_arrays(case.geometry, np.float64)
    grad_x, grad_weight, _ = conv2d_backward(a.grad_out, a.x, a.weight, **case.options)
    terms = conv2d(a.x, a.weight, **case.options) * a.grad_out
    scale = np.sqrt(np.sum(np.square(terms)))
    assert abs(np.sum(a.x * grad_x) - terms.sum()) <= 1e-13 * scale
    assert abs(np.sum(a.weight * grad_weight) - terms.sum()) <= 1e-13 * scale


# ---- size of the error ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "strided tail", "grad_weight over splits and chains", "depthwise strided"])
def test_the_error_of_float32_grows_with_the_root_of_the_sum_length(name):
    case = BY_NAME[name]
    g = case.geometry
    a, wide = normal_arrays(g), normal_arrays(g)
    x, weight, grad_out = (array.astype(np.float64) for array in (wide.x, wide.weight, wide.grad_out))
    grad_x, grad_weight, grad_bias = conv2d_backward(a.grad_out, a.x, a.weight, **case.options)
    exact = reference.conv2d_grad_x(g, grad_out, weight)
    assert abs(grad_x - exact).max() <= rounding(exact, g.KH * g.KW * (g.OC // g.G)), str(g)
    exact = reference.conv2d_grad_weight(g, x, grad_out)
    assert abs(grad_weight - exact).max() <= rounding(exact, g.N * g.OH * g.OW), str(g)
    exact = grad_out.sum(axis=(0, 1, 2))
    # summed in float64: only the result is rounded
    np.testing.assert_allclose(grad_bias, exact, rtol=np.finfo(np.float32).eps)


# ---- PyTorch --------------------------------------------------------------------------------------------------------

SYMMETRIC = [case for case in CASES if all(before == after for before, after in case.geometry.padding)]


@pytest.mark.parametrize("case", SYMMETRIC, ids=str)
def test_forward_and_gradients_agree_with_pytorch(case):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    g = case.geometry
    a = exact_arrays(g)
    x, grad_out = (np.ascontiguousarray(array.transpose(0, 3, 1, 2)) for array in (a.x, a.grad_out))
    weight = np.ascontiguousarray(a.weight.transpose(3, 2, 0, 1))
    theirs = [torch.from_numpy(array.astype(np.float64)).requires_grad_() for array in (x, weight, a.bias)]
    options = {"stride": g.stride, "dilation": g.dilation, "groups": g.G}
    expected = torch.nn.functional.conv2d(*theirs, padding=tuple(side[0] for side in g.padding), **options)
    expected.backward(torch.from_numpy(grad_out.astype(np.float64)))
    problem = {"layout": "NCHW", "algorithm": exact_algorithm(g), **case.options}
    out = conv2d(x, weight, a.bias, **problem)
    assert_exact(out, expected.detach().numpy(), g)
    gradients = conv2d_backward(grad_out, x, weight, **problem)
    for ours, operand in zip(gradients, theirs, strict=True):
        assert_exact(ours, operand.grad.numpy(), g)


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "bias", "options"),
    [
        ((1, 3, 5, 4), (2, 3, 6, 2), None, {}),
        ((1, 3, 5, 4), (2, 4, 3, 3), None, {}),
        ((1, 4, 5, 4), (3, 2, 2, 2), None, {"groups": 2}),
        ((1, 3, 5, 4), (2, 3, 3, 3), None, {"stride": 0}),
        ((1, 3, 5, 4), (2, 3, 3, 3), None, {"dilation": 0}),
        ((1, 3, 5, 4), (2, 3, 3, 3), None, {"padding": -1}),
        ((1, 3, 5, 4), (2, 3, 3, 3), None, {"stride": (1, 1, 1)}),
        ((1, 3, 5, 4), (2, 3, 3), None, {}),
        ((3, 5), (2, 3, 3, 3), None, {}),
        ((1, 3, 5, 4), (2, 3, 3, 3), 3, {}),
        ((1, 3, 5, 4), (2, 3, 3, 3), None, {"groups": 0}),
    ],
)
def test_what_pytorch_refuses_is_refused(x_shape, weight_shape, bias, options):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    x, weight = np.zeros(x_shape, np.float32), np.zeros(weight_shape, np.float32)
    bias = None if bias is None else np.zeros(bias, np.float32)
    theirs = [None if array is None else torch.from_numpy(array) for array in (x, weight, bias)]
    with pytest.raises(RuntimeError):
        torch.nn.functional.conv2d(*theirs, **options)
    with pytest.raises(ValueError, match="Received: "):
        conv2d(x, weight, bias, layout="NCHW", **options)


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_a_gradient_of_the_wrong_shape_is_refused():
    x, weight = np.zeros((2, 5, 4, 3), np.float32), np.zeros((3, 2, 3, 7), np.float32)
    grad_out = np.zeros((2, 3, 4, 7), np.float32)
    message = r"grad_out must have the shape of the result, \(2, 3, 3, 7\). Received: grad_out.shape=\(2, 3, 4, 7\)"
    for call in (
        lambda: conv2d_backward(grad_out, x, weight),
        lambda: conv2d_grad_x(grad_out, weight, x.shape),
        lambda: conv2d_grad_weight(grad_out, x, weight.shape),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_shapes_given_as_arguments_are_checked():
    grad_out, x = np.zeros((2, 3, 3, 7), np.float32), np.zeros((2, 5, 4, 3), np.float32)
    with pytest.raises(ValueError, match=r"x_shape must have 4 numbers. Received: x_shape=\(5, 4, 3\)"):
        conv2d_grad_x(grad_out, np.zeros((3, 2, 3, 7), np.float32), (5, 4, 3))
    with pytest.raises(ValueError, match=r"weight_shape must have 4 numbers .*Received: weight_shape=\(3, 2\)"):
        conv2d_grad_weight(grad_out, x, (3, 2))
