"""The public functions on device arrays: the bits of the same call on NumPy arrays, whatever the layout."""

from typing import Any

import numpy as np
import pytest
from emulator import needs_target

import fastconv
from fastconv import dispatch
from fastconv.cuda import Array, asarray
from fastconv.cuda.emulator import Emulator
from fastconv.geometry import conv2d_geometry

needs_target()

ENGINE = Emulator()
RNG = np.random.default_rng(0)


def numbers(*shape: int) -> Any:
    return RNG.standard_normal(shape, np.float32)


def to_device(value: Any) -> Any:
    return asarray(value, ENGINE) if isinstance(value, np.ndarray) else value


def assert_same_bits(computed: Any, expected: Any) -> None:
    if isinstance(expected, tuple):
        assert len(computed) == len(expected)
        for one, other in zip(computed, expected, strict=True):
            assert_same_bits(one, other)
        return
    assert type(computed) is Array
    host = computed.numpy()
    assert (host.shape, host.dtype) == (expected.shape, expected.dtype)
    assert np.array_equal(host.view(np.uint8), expected.view(np.uint8))


def check(name: str, arguments: tuple[Any, ...], options: dict[str, Any], **on_host: Any) -> None:
    function = getattr(fastconv, name)
    expected = function(*arguments, **options, **on_host)
    there = {key: to_device(value) for key, value in options.items()}
    assert_same_bits(function(*map(to_device, arguments), **there), expected)


X, WEIGHT, BIAS, GRAD = numbers(2, 5, 7, 4), numbers(3, 3, 4, 8), numbers(8), numbers(2, 5, 7, 8)
X_FIRST, WEIGHT_FIRST = X.transpose(0, 3, 1, 2).copy(), WEIGHT.transpose(3, 2, 0, 1).copy()
SERIES, KERNELS = numbers(2, 9, 4), numbers(3, 4, 8)
DEPTHWISE = numbers(3, 3, 1, 4)
POOLED, WHERE = fastconv.max_pool2d(X, 2, return_indices=True)
SHARES, CHANNEL_WHERE = fastconv.global_max_pool2d(X, return_indices=True)

# By name on the CPU, so that the one that "auto" takes on the GPU is known.
CONVOLUTIONS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("conv2d", (X, WEIGHT, BIAS), {"padding": 1, "activation": "relu", "residual": GRAD}),
    ("conv2d", (X[0], WEIGHT), {"stride": 2, "padding": "same"}),
    ("conv2d", (X_FIRST, WEIGHT_FIRST, BIAS), {"padding": 1, "layout": "NCHW"}),
    ("conv2d", (X, DEPTHWISE), {"groups": 4}),
    ("conv2d", (X[:0], WEIGHT), {}),
    ("conv2d_grad_x", (GRAD, WEIGHT, X.shape), {"padding": 1}),
    ("conv2d_grad_x", (GRAD[..., :4].copy(), DEPTHWISE, X.shape), {"padding": 1, "groups": 4}),
    ("conv2d_grad_weight", (GRAD, X, WEIGHT.shape), {"padding": 1}),
    ("conv2d_grad_weight", (GRAD[:0], X[:0], WEIGHT.shape), {"padding": 1}),
    ("conv1d", (SERIES, KERNELS, BIAS), {"padding": 1}),
    ("conv_transpose2d", (X, numbers(3, 3, 5, 4)), {"stride": 2}),
]
POOLING: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("max_pool2d", (X, 2), {"return_indices": True}),
    ("max_pool2d", (X_FIRST, 3), {"stride": 2, "padding": 1, "layout": "NCHW", "return_indices": True}),
    ("min_pool2d", (X[0], 2), {}),
    ("max_pool1d", (SERIES, 2), {"return_indices": True}),
    ("adaptive_max_pool2d", (X, (2, 3)), {}),
    ("global_max_pool2d", (X,), {"return_indices": True}),
    ("max_pool2d_backward", (POOLED, WHERE, X.shape), {}),
    ("max_pool2d_backward", (SHARES, CHANNEL_WHERE, X.shape), {}),
    ("max_pool2d_backward", (POOLED, WHERE, X.shape), {"kernel_size": 2}),
    ("max_unpool2d", (POOLED, WHERE, (5, 7)), {}),
    ("max_unpool2d_backward", (X, WHERE), {}),
    ("upsample2d", (X, (2, 3)), {}),
    ("upsample2d", (X_FIRST, 2), {"layout": "NCHW", "interpolation": "bilinear"}),
    ("upsample2d_backward", (X[:, :4, :6].copy(), 2), {}),
    ("upsample2d_backward", (X[0, :4, :6].copy(), (4, 3)), {"interpolation": "bilinear"}),
    ("avg_pool2d", (X, 2), {"padding": 1, "count_include_pad": False}),
    ("avg_pool2d_backward", (numbers(2, 3, 4, 4), X.shape, 2), {"padding": 1, "count_include_pad": False}),
    ("avg_pool1d", (SERIES, 2), {}),
    ("avg_pool1d_backward", (numbers(2, 4, 4), SERIES.shape, 2), {}),
    ("adaptive_avg_pool2d", (X, (2, 3)), {}),
    ("adaptive_avg_pool2d_backward", (numbers(2, 2, 3, 4), X.shape), {}),
    ("global_avg_pool2d", (X,), {"keepdims": True}),
    ("global_avg_pool2d_backward", (numbers(2, 4), X.shape), {}),
]


def names(calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]]) -> list[str]:
    return [f"{name} {' '.join(options)}" for name, _, options in calls]


@pytest.mark.parametrize(("name", "arguments", "options"), CONVOLUTIONS, ids=names(CONVOLUTIONS))
def test_convolutions(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    check(name, arguments, options, algorithm="depthwise" if "groups" in options else "direct")


@pytest.mark.parametrize(("name", "arguments", "options"), POOLING, ids=names(POOLING))
def test_pooling(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    check(name, arguments, options)


def test_dense() -> None:
    check("dense", (numbers(2, 3, 7), numbers(7, 5), numbers(5)), {"activation": "relu"})


def test_inputs_are_not_modified() -> None:
    x, weight = asarray(X, ENGINE), asarray(WEIGHT, ENGINE)
    fastconv.conv2d(x, weight, activation="relu")
    assert_same_bits(x, X)
    assert_same_bits(weight, WEIGHT)


def test_what_has_no_kernel_says_so() -> None:
    with pytest.raises(NotImplementedError, match="PackedWeight takes arrays in host memory only"):
        fastconv.PackedWeight(to_device(WEIGHT))


# ---- which implementation ---------------------------------------------------------------------------------------


def test_the_choice_does_not_depend_on_the_batch() -> None:
    for operation in dispatch.OPERATIONS:
        for x_shape, weight_shape, options in (
            ((1, 13, 13, 64), (3, 3, 64, 64), {}),
            ((1, 13, 13, 64), (3, 3, 1, 64), {"groups": 64}),
            ((1, 13, 13, 64), (3, 3, 64, 64), {"stride": 2}),
        ):
            chosen = {
                next(
                    one.name
                    for one in dispatch.conv2d_on_gpu()
                    if not (one.refuses(g, 4) or one.declines(operation, g, None))
                )
                for g in (
                    conv2d_geometry((N, *x_shape[1:]), weight_shape, **options)  # type: ignore[arg-type]
                    for N in (1, 128)
                )
            }
            assert len(chosen) == 1


def test_an_algorithm_can_be_asked_for() -> None:
    x, weight = asarray(X, ENGINE), asarray(DEPTHWISE, ENGINE)
    expected = fastconv.conv2d(X, DEPTHWISE, groups=4, algorithm="direct")
    assert_same_bits(fastconv.conv2d(x, weight, groups=4, algorithm="direct"), expected)
    with pytest.raises(ValueError, match='algorithm must be one of "auto", "fastest", "depthwise"'):
        fastconv.conv2d(x, weight, groups=4, algorithm="reference")
    with pytest.raises(ValueError, match='algorithm="depthwise" needs one input and one output channel'):
        fastconv.conv2d(x, asarray(WEIGHT, ENGINE), algorithm="depthwise")
