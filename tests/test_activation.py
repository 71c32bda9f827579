"""Activations and softmax: accuracy, limits, bits, gradients, arrays of any kind, errors."""

import re

import numba
import numpy as np
import pytest

from fastconv import _jit, functional, threads
from fastconv.cpu.activation import ACTIVATIONS, TASK_ELEMENTS, activate, backward_tasks
from fastconv.reference import elementwise as reference

NAMES = [name for name in ACTIVATIONS if name is not None]
# Below the smallest normal float32, 1e-38, numbers have fewer bits; x times such a tail is off by up to this.
UNDERFLOW = 100 * float(np.finfo(np.float32).smallest_subnormal)


def grid(dtype=np.float32):
    """Dense where the functions bend, and out to where they are 0 or 1."""
    rng = np.random.default_rng(1)
    return np.concatenate([rng.normal(0, scale, 20_000) for scale in (0.01, 1, 6, 30)]).astype(dtype)


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_correct_to_5e_7_of_the_value(name):
    x = grid()
    expected = reference.ACTIVATION[name](x.astype(np.float64))
    np.testing.assert_allclose(functional.activation(x, name), expected, rtol=5e-7, atol=UNDERFLOW)


@pytest.mark.parametrize("name", NAMES)
def test_float64_agrees_with_numpy(name):
    x = grid(np.float64)[::20]
    np.testing.assert_allclose(functional.activation(x, name), reference.ACTIVATION[name](x), rtol=1e-12, atol=1e-200)
    grad_out = np.random.default_rng(2).normal(size=x.size)
    expected = grad_out * reference.SLOPE[name](x)
    np.testing.assert_allclose(functional.activation_backward(grad_out, x, name), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_float32_gradient_is_cotangent_times_slope(name):
    x = grid()
    grad_out = np.random.default_rng(3).normal(size=x.size).astype(np.float32)
    slope = reference.SLOPE[name](x.astype(np.float64))
    error = abs(functional.activation_backward(grad_out, x, name) - grad_out * slope)
    # The slopes of silu and gelu cross 0; the others are accurate relative to their own size.
    size = np.maximum(abs(slope), 0.1) if name in ("silu", "gelu") else abs(slope)
    assert np.all(error <= 1.2e-6 * size * abs(grad_out) + UNDERFLOW)


@pytest.mark.parametrize("name", ["relu", "relu6", "leaky_relu"])
def test_the_output_of_a_piecewise_linear_activation_has_the_same_slope(name):
    x = np.array([-3, -0.0, 0, 1e-30, 2, 6, 7], np.float32)
    grad_out = np.arange(1, 8, dtype=np.float32)
    from_x = functional.activation_backward(grad_out, x, name)
    np.testing.assert_array_equal(
        functional.activation_backward(grad_out, functional.activation(x, name), name), from_x
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "at_minus_infinity", "at_infinity"),
    [
        ("relu", 0, np.inf),
        ("relu6", 0, 6),
        ("leaky_relu", -np.inf, np.inf),
        ("sigmoid", 0, 1),
        ("tanh", -1, 1),
        ("silu", 0, np.inf),
        ("gelu", 0, np.inf),
    ],
)
def test_limits_at_infinity_and_nan(name, at_minus_infinity, at_infinity, dtype):
    largest = np.finfo(dtype).max
    x = np.array([-np.inf, np.inf, np.nan, -largest, largest], dtype)
    out = functional.activation(x, name)
    np.testing.assert_array_equal(out[:3], [at_minus_infinity, at_infinity, np.nan])
    assert np.isfinite(out[3:]).all()
    slopes = {"leaky_relu": (0.2, 1), "relu": (0, 1), "silu": (0, 1), "gelu": (0, 1)}.get(name, (0, 0))
    np.testing.assert_allclose(functional.activation_backward(np.ones_like(x), x, name)[:2], slopes, rtol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_an_element_has_the_same_bits_at_any_place(name):
    x = grid()[::500]
    whole = functional.activation(x, name)
    grad = functional.activation_backward(x, x, name)
    for start in (0, 1, 5):
        for count in (1, 2, 3, 7, 8, 9, 31, 33):
            part = slice(start, start + count)
            np.testing.assert_array_equal(functional.activation(x[part], name), whole[part])
            np.testing.assert_array_equal(functional.activation_backward(x[part], x[part], name), grad[part])


@_jit.kernel
def activate_run(values, start, count, code):
    activate(values, start, count, code)


@pytest.mark.parametrize("name", NAMES)
def test_activate_touches_only_its_run(name):
    x = grid()[:40]
    values = x.copy()
    activate_run(values, 7, 21, ACTIVATIONS[name])
    np.testing.assert_array_equal(values[7:28], functional.activation(x[7:28], name))
    np.testing.assert_array_equal(np.delete(values, range(7, 28)), np.delete(x, range(7, 28)))


def test_bits_do_not_depend_on_the_number_of_workers(monkeypatch):
    x = np.random.default_rng(4).normal(size=(700, 101)).astype(np.float32)
    assert x.size > 3 * TASK_ELEMENTS
    results = []
    for workers in (1, 3):
        monkeypatch.setattr(threads, "worker_count", lambda work, workers=workers: workers)
        out = functional.softmax(x)
        results.append(
            (functional.gelu(x), functional.activation_backward(x, x, "gelu"), out, functional.softmax_backward(x, out))
        )
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_float32_kernels_stay_in_float32_and_call_no_library():
    kernel = numba.njit(nogil=True, error_model="numpy")(backward_tasks.dispatcher.py_func)  # uncached: readable
    kernel(*np.ones((3, 3), np.float32), ACTIVATIONS["gelu"], 0, 1)
    (assembly,) = kernel.inspect_asm().values()
    assert re.search(r"v?mulps|fmul", assembly)
    assert not re.search(r"cvtss2sd|cvtps2pd|\b(exp|tanh|erf)\w*@|fcvt\s+d", assembly)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "linear"])
def test_agrees_with_torch(name):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    functions = {"leaky_relu": lambda x: torch.nn.functional.leaky_relu(x, 0.2)}
    function = functions.get(name) or getattr(torch.nn.functional, name)
    rng = np.random.default_rng(5)
    x, grad_out = rng.normal(0, 3, (2, 1000)).astype(np.float32)
    x[:4] = [0, 6, -0.0, np.nan]
    tensor = torch.from_numpy(x).requires_grad_()
    out = function(tensor)
    out.backward(torch.from_numpy(grad_out))
    np.testing.assert_allclose(functional.activation(x, name), out.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        functional.activation_backward(grad_out, x, name), tensor.grad.numpy(), rtol=1e-5, atol=2e-6
    )


# ---- softmax ------------------------------------------------------------------------------------------------------


def test_softmax_and_its_gradient():
    rng = np.random.default_rng(6)
    x, grad_out = rng.normal(0, 4, (2, 3, 5, 11)).astype(np.float32)
    out = reference.softmax(x.astype(np.float64))
    np.testing.assert_allclose(functional.softmax(x), out, rtol=1e-6)
    # The Jacobian of one row, written out: diag(p) - p p'.
    jacobian = np.einsum("...c,cd->...cd", out, np.eye(11)) - out[..., :, np.newaxis] * out[..., np.newaxis, :]
    expected = np.einsum("...c,...cd->...d", grad_out, jacobian)
    np.testing.assert_allclose(
        functional.softmax_backward(grad_out, functional.softmax(x)), expected, rtol=0, atol=4e-6
    )


def test_softmax_of_huge_logits_nan_and_masked_classes():
    x = np.array([[3e38, 3e38, -3e38], [0, -np.inf, 0], [0, np.nan, 0]], np.float32)
    np.testing.assert_array_equal(functional.softmax(x), [[0.5, 0.5, 0], [0.5, 0, 0.5], [np.nan] * 3])


# ---- arrays and errors --------------------------------------------------------------------------------------------


def variants(x):
    yield "strided", np.repeat(x, 2, axis=1)[:, ::2]
    yield "reversed", x[::-1].copy()[::-1]
    yield "Fortran", np.asfortranarray(x)
    yield "byte-swapped", x.astype(x.dtype.newbyteorder())
    read_only = x.copy()
    read_only.flags.writeable = False
    yield "read-only", read_only


def test_any_kind_of_array():
    x = np.random.default_rng(7).normal(size=(4, 6)).astype(np.float32)
    silu, softmax, grad = functional.silu(x), functional.softmax(x), functional.activation_backward(x, x, "silu")
    for kind, array in variants(x):
        np.testing.assert_array_equal(functional.silu(array), silu, err_msg=kind)
        np.testing.assert_array_equal(functional.softmax(array), softmax, err_msg=kind)
        np.testing.assert_array_equal(functional.activation_backward(array, array, "silu"), grad, err_msg=kind)
        np.testing.assert_array_equal(array, x, err_msg=kind)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0), ()])
def test_empty_and_zero_dimensional_arrays(shape):
    x = np.ones(shape, np.float32)
    assert functional.tanh(x).shape == functional.activation_backward(x, x, "tanh").shape == shape
    if shape:
        assert functional.softmax(x).shape == functional.softmax_backward(x, x).shape == shape


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: functional.activation(x, "swish"),
            ValueError,
            "activation must be one of .*'gelu'. Received: activation='swish'",
        ),
        (lambda x: functional.activation(x, ["relu"]), ValueError, r"Received: activation=\['relu'\]"),
        (lambda x: functional.relu(x.astype(int)), TypeError, "x must be float32 or float64. Received: x.dtype=int64"),
        (
            lambda x: functional.activation_backward(x[1:], x, "relu"),
            ValueError,
            r"grad_out must have the shape of x. Received: grad_out.shape=\(2,\), x.shape=\(3,\)",
        ),
        (
            lambda x: functional.activation_backward(x.astype(np.float64), x, "relu"),
            TypeError,
            "grad_out must have the dtype of the first array, float32. Received: float64",
        ),
        (lambda x: functional.softmax(x[0]), ValueError, r"x must have at least one dimension. Received: x.shape=\(\)"),
        (lambda x: functional.softmax_backward(x[1:], x), ValueError, r"grad_out must have the shape of out. Received"),
    ],
)
def test_errors_name_the_argument_and_the_rule(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones(3, np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("negative_slope", "max_value", "threshold"),
    [(0.0, None, 0.0), (0.0, 6.0, 0.0), (0.2, None, 0.0), (0.3, None, 0.0), (0.25, 2.0, 0.5), (0.0, 1.0, 1.0)],
)
def test_rectify_has_the_corners_and_slopes_it_is_given(negative_slope, max_value, threshold, dtype):
    x = np.concatenate([np.linspace(-8, 8, 1000), [np.inf, -np.inf if negative_slope else -1e30, np.nan]]).astype(dtype)
    options = {"negative_slope": negative_slope, "max_value": max_value, "threshold": threshold}
    out = functional.rectify(x, **options)
    below = np.minimum(x, dtype(threshold))  # no infinity times a slope of 0
    expected = np.where(x >= threshold, x, dtype(negative_slope) * (below - dtype(threshold)))
    expected = expected if max_value is None else np.minimum(expected, dtype(max_value))
    assert out.dtype == dtype
    np.testing.assert_array_equal(out[:-1], expected[:-1])
    assert np.isnan(out[-1])
    grad_out = np.random.default_rng(0).standard_normal(x.size).astype(dtype)
    slope = np.where(x > threshold, 1, dtype(negative_slope))
    slope = slope if max_value is None else np.where(x >= max_value, 0, slope)
    grad_x = functional.rectify_backward(grad_out, x, **options)
    np.testing.assert_array_equal(grad_x[:-1], (grad_out * slope)[:-1])
    with pytest.raises(ValueError, match="grad_out must have the shape of x"):
        functional.rectify_backward(grad_out[1:], x, **options)
