"""The door: every kind of array comes in, results go out as they came, inputs stay as they are."""

import numpy as np
import pytest
from cases import BY_NAME, exact_arrays

from fastconv.cpu import conv_direct
from fastconv.functional.conv import conv2d, conv2d_backward, conv2d_grad_bias, conv2d_grad_weight, conv2d_grad_x

CASE = BY_NAME["same, even kernel, stride 2"]
OPTIONS = CASE.options
ARRAYS = exact_arrays(CASE.geometry)


def unaligned(array):
    """The same numbers one byte behind a multiple of their size, in memory that nobody may write."""
    shifted = np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(array.dtype).reshape(array.shape)
    assert not shifted.flags.aligned
    assert not shifted.flags.writeable
    return shifted


def read_only(array):
    frozen = array.copy()
    frozen.setflags(write=False)
    return frozen


def every_second(array):
    """A view of every second number of a larger array."""
    larger = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
    larger[..., ::2] = array
    return larger[..., ::2]


class Subclass(np.ndarray):
    """An array of another type, as other libraries make."""


KINDS = {
    "strided": every_second,
    "Fortran order": np.asfortranarray,
    "negative strides": lambda array: np.flip(np.ascontiguousarray(np.flip(array))),
    "read-only": read_only,
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "unaligned": unaligned,
    "subclass": lambda array: array.view(Subclass),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_any_kind_of_array_gives_the_same_bits_and_stays_as_it_is(kind):
    a = ARRAYS
    before = [kind(array) for array in (a.x, a.weight, a.bias, a.residual, a.grad_out)]
    x, weight, bias, residual, grad_out = [kind(array) for array in (a.x, a.weight, a.bias, a.residual, a.grad_out)]
    out = conv2d(x, weight, bias, residual=residual, activation="relu", **OPTIONS)
    expected = conv2d(a.x, a.weight, a.bias, residual=a.residual, activation="relu", **OPTIONS)
    np.testing.assert_array_equal(out, expected)
    expected = conv2d_backward(a.grad_out, a.x, a.weight, **OPTIONS)
    for ours, theirs in zip(conv2d_backward(grad_out, x, weight, **OPTIONS), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert type(out) is np.ndarray
    assert out.dtype == np.float32
    assert out.dtype.isnative
    assert out.flags.c_contiguous
    for array, copy in zip((x, weight, bias, residual, grad_out), before, strict=True):
        np.testing.assert_array_equal(array, copy)
        assert array.flags.writeable == copy.flags.writeable


def test_no_kind_of_array_makes_a_kernel_compile_again():
    a = ARRAYS
    conv2d(a.x, a.weight, a.bias, **OPTIONS)
    kernel = conv_direct.conv2d_forward_direct_serial
    compiled = list(kernel.signatures)
    assert compiled
    for kind in KINDS.values():
        conv2d(kind(a.x), a.weight, kind(a.bias), **OPTIONS)
        conv2d(a.x, kind(a.weight), a.bias, residual=kind(a.residual), **OPTIONS)
    assert kernel.signatures == compiled


def test_channels_first_is_the_same_convolution():
    a = ARRAYS
    x, residual, grad_out = (
        np.ascontiguousarray(array.transpose(0, 3, 1, 2)) for array in (a.x, a.residual, a.grad_out)
    )
    weight = np.ascontiguousarray(a.weight.transpose(3, 2, 0, 1))
    options = {**OPTIONS, "layout": "NCHW"}
    out = conv2d(x, weight, a.bias, residual=residual, **options)
    assert out.flags.c_contiguous
    expected = conv2d(a.x, a.weight, a.bias, residual=a.residual, **OPTIONS)
    np.testing.assert_array_equal(out, expected.transpose(0, 3, 1, 2))
    expected = conv2d_backward(a.grad_out, a.x, a.weight, **OPTIONS)
    grad_x, grad_weight, grad_bias = conv2d_backward(grad_out, x, weight, **options)
    np.testing.assert_array_equal(grad_x, expected[0].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(grad_weight, expected[1].transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(grad_bias, expected[2])
    np.testing.assert_array_equal(conv2d_grad_x(grad_out, weight, x.shape, **options), grad_x)
    np.testing.assert_array_equal(conv2d_grad_weight(grad_out, x, weight.shape, **options), grad_weight)
    np.testing.assert_array_equal(conv2d_grad_bias(grad_out, layout="NCHW"), grad_bias)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_an_image_without_batch_axis_comes_back_without_one(layout):
    to_layout = (0, 1, 2, 3) if layout == "NHWC" else (0, 3, 1, 2)
    x, residual, grad_out = (array.transpose(to_layout) for array in (ARRAYS.x, ARRAYS.residual, ARRAYS.grad_out))
    weight = ARRAYS.weight if layout == "NHWC" else ARRAYS.weight.transpose(3, 2, 0, 1)
    options = {**OPTIONS, "layout": layout}
    batch = conv2d(x, weight, residual=residual, **options)
    np.testing.assert_array_equal(conv2d(x[1], weight, residual=residual[1], **options), batch[1])
    grad_x, grad_weight, _ = conv2d_backward(grad_out[1], x[1], weight, **options)
    np.testing.assert_array_equal(grad_x, conv2d_grad_x(grad_out, weight, x.shape, **options)[1])
    np.testing.assert_array_equal(conv2d_grad_x(grad_out[1], weight, x[1].shape, **options), grad_x)
    np.testing.assert_array_equal(conv2d_grad_weight(grad_out[1:], x[1:], weight.shape, **options), grad_weight)


@pytest.mark.parametrize("name", ["plain", "depthwise", "1x1"])
@pytest.mark.parametrize("algorithm", ["auto", "reference"])
def test_an_empty_batch_gives_an_empty_result_and_zero_gradients(name, algorithm):
    case = BY_NAME[name]
    a = exact_arrays(case.geometry)
    options = {**case.options, "algorithm": algorithm}
    out = conv2d(a.x[:0], a.weight, a.bias, activation="relu", **options)
    assert (out.shape, out.dtype) == ((0, *a.grad_out.shape[1:]), np.float32)
    grad_x, grad_weight, grad_bias = conv2d_backward(a.grad_out[:0], a.x[:0], a.weight, **options)
    assert grad_x.shape == (0, *a.x.shape[1:])
    assert grad_weight.shape == a.weight.shape
    assert not grad_weight.any()
    assert not grad_bias.any()


# ---- out ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("memory", ["contiguous", "strided"])
def test_out_receives_the_result_and_is_returned(layout, memory):
    a = ARRAYS
    x, weight, grad_out = a.x, a.weight, a.grad_out
    if layout == "NCHW":
        x, weight, grad_out = x.transpose(0, 3, 1, 2), weight.transpose(3, 2, 0, 1), grad_out.transpose(0, 3, 1, 2)
    options = {**OPTIONS, "layout": layout}
    for call, expected in (
        (lambda out: conv2d(x, weight, a.bias, out=out, **options), conv2d(x, weight, a.bias, **options)),
        (
            lambda out: conv2d_grad_x(grad_out, weight, x.shape, out=out, **options),
            conv2d_grad_x(grad_out, weight, x.shape, **options),
        ),
    ):
        out = np.full(expected.shape, np.nan, np.float32)
        out = every_second(out) if memory == "strided" else out
        assert call(out) is out
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("algorithm", ["direct", "depthwise", "reference"])
def test_out_may_be_an_operand(algorithm):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 9, 7, 5)).astype(np.float32), rng.normal(size=(3, 3, 1, 5)).astype(np.float32)
    options = {"padding": 1, "groups": 5, "algorithm": algorithm}
    expected = conv2d(x, weight, residual=x, **options)
    of_x = conv2d_grad_x(x, weight, x.shape, **options)
    for call, result in (
        (lambda out: conv2d(out, weight, residual=x, out=out, **options), expected),
        (lambda out: conv2d(x, weight, residual=out, out=out, **options), expected),
        (lambda out: conv2d_grad_x(out, weight, x.shape, out=out, **options), of_x),
    ):
        out = x.copy()
        assert call(out) is out
        np.testing.assert_array_equal(out, result)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((2, 6, 7, 4), np.float32),
        np.zeros((2, 6, 7, 5), np.float64),
        np.zeros((2, 6, 7, 5), np.dtype(np.float32).newbyteorder()),
        read_only(np.zeros((2, 6, 7, 5), np.float32)),
        [[0.0]],
    ],
    ids=["shape", "dtype", "byte order", "read-only", "list"],
)
def test_an_out_that_does_not_fit_is_refused(out):
    message = r"out must be a writeable float32 array of shape \(2, 6, 7, 5\). Received: "
    with pytest.raises(ValueError, match=message):
        conv2d(ARRAYS.x, ARRAYS.weight, out=out, **OPTIONS)


# ---- dtypes ---------------------------------------------------------------------------------------------------------


def test_lists_of_floats_are_float64():
    x, weight = [[[1.0], [2.0], [4.0]]], [[[[1.0]], [[-1.0]]]]
    out = conv2d(x, weight)
    assert out.dtype == np.float64
    np.testing.assert_array_equal(out, [[[-1.0], [-2.0]]])


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.uint8, np.bool_, np.complex64, np.longdouble, object])
def test_other_dtypes_are_refused_by_the_name_of_the_argument(dtype):
    a = ARRAYS
    if np.dtype(dtype) == np.float64:
        pytest.skip("long double is float64 on this platform")
    kind = np.dtype(dtype)
    for name, call in {
        "x": lambda: conv2d(a.x.astype(dtype), a.weight, **OPTIONS),
        "weight": lambda: conv2d(a.x, a.weight.astype(dtype), **OPTIONS),
        "bias": lambda: conv2d(a.x, a.weight, a.bias.astype(dtype), **OPTIONS),
        "residual": lambda: conv2d(a.x, a.weight, residual=a.residual.astype(dtype), **OPTIONS),
        "grad_out": lambda: conv2d_grad_bias(a.grad_out.astype(dtype)),
    }.items():
        with pytest.raises(TypeError, match=f"{name} must be float32 or float64. Received: {name}.dtype={kind}"):
            call()


@pytest.mark.parametrize("name", ["weight", "bias", "residual"])
def test_dtypes_are_not_mixed(name):
    a = ARRAYS
    arrays = {"weight": a.weight, "bias": a.bias, "residual": a.residual}
    arrays[name] = arrays[name].astype(np.float64)
    with pytest.raises(TypeError, match=f"{name} must have the dtype of the first array, float32. Received: float64"):
        conv2d(a.x, **arrays, **OPTIONS)


# ---- shapes ---------------------------------------------------------------------------------------------------------


def test_the_number_of_dimensions_is_checked_for_every_array():
    a = ARRAYS
    with pytest.raises(ValueError, match=r"x must have 4 dimensions \(NHWC\), or one less .*x.shape=\(11, 14\)"):
        conv2d(a.x[0, ..., 0], a.weight)
    with pytest.raises(
        ValueError, match=r'weight must have 4 dimensions with layout="NCHW". .*weight.shape=\(4, 2, 7\)'
    ):
        conv2d(a.x, a.weight[..., 0], layout="NCHW")
    with pytest.raises(ValueError, match=r"grad_out must have 3 dimensions \(HWC\). Received: grad_out.shape=\(2, 6"):
        conv2d_backward(a.grad_out, a.x[0], a.weight, **OPTIONS)
    with pytest.raises(ValueError, match=r"layout must be one of NHWC, NCHW. Received: layout='HWCN'"):
        conv2d(a.x, a.weight, layout="HWCN")
