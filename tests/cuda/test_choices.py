"""Algorithms and precisions that have to be asked for, by the public functions on device arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulator import Emulator, needs_target

import fastconv as fc
from fastconv import cuda
from fastconv.reference import conv as reference

needs_target()

RNG = np.random.default_rng(7)
X, WEIGHT, GRAD = (
    RNG.integers(-8, 9, shape).astype(np.float32) for shape in ((2, 6, 5, 8), (3, 3, 8, 16), (2, 6, 5, 16))
)
GEOMETRY = fc.geometry.conv2d_geometry(X.shape, WEIGHT.shape, padding=1)
EXPECTED = (
    reference.conv2d_grad_x(GEOMETRY, GRAD, WEIGHT),
    reference.conv2d_grad_weight(GEOMETRY, X, GRAD),
    GRAD.sum(axis=(0, 1, 2)),
)


def there(*arrays: Any) -> list[Any]:
    engine = Emulator()
    return [cuda.asarray(array, engine) for array in arrays]


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_small_whole_numbers_are_exact_on_tensor_cores(precision: str) -> None:
    x, weight, grad_out = there(X, WEIGHT, GRAD)
    out = fc.conv2d(x, weight, padding=1, precision=precision)
    assert np.array_equal(out.numpy(), reference.conv2d(GEOMETRY, X, WEIGHT))
    found = fc.conv2d_backward(grad_out, x, weight, padding=1, precision=precision)
    for gradient, expected in zip(found, EXPECTED, strict=True):
        assert np.array_equal(gradient.numpy(), expected)


def test_precision_takes_every_activation() -> None:
    x, weight = there(X, WEIGHT)
    out = fc.conv2d(x, weight, padding=1, precision="tf32", activation="sigmoid")
    expected = fc.sigmoid(reference.conv2d(GEOMETRY, X, WEIGHT))
    assert np.array_equal(out.numpy(), expected)


def test_precision_is_refused_with_a_sentence() -> None:
    x, weight = there(X, WEIGHT)
    with pytest.raises(ValueError, match="precision is for arrays on a GPU"):
        fc.conv2d(X, WEIGHT, precision="tf32")
    with pytest.raises(ValueError, match="needs a precision of tf32, bf16, fp16"):
        fc.conv2d(x, weight, precision="int8")
    with pytest.raises(ValueError, match="precision takes the algorithm of the tensor cores"):
        fc.conv2d(x, weight, precision="tf32", algorithm="direct")
    with pytest.raises(ValueError, match="needs multiples of 8 input and output channels"):
        fc.conv2d(*there(X[..., :3].copy(), WEIGHT[:, :, :3].copy()), precision="tf32")
    turing = Emulator("sm_75")
    with pytest.raises(ValueError, match=r"needs compute capability 8\.0"):
        fc.conv2d(cuda.asarray(X, turing), cuda.asarray(WEIGHT, turing), precision="bf16")


def test_winograd_by_name_has_the_bits_of_the_cpu() -> None:
    x, weight = (RNG.standard_normal(array.shape, dtype=np.float32) for array in (X, WEIGHT))
    out = fc.conv2d(*there(x, weight), padding=1, algorithm="winograd", activation="relu")
    expected = fc.conv2d(x, weight, padding=1, algorithm="winograd", activation="relu")
    assert np.array_equal(out.numpy().view(np.int32), expected.view(np.int32))


def test_auto_has_the_bits_of_the_cpu_where_it_takes_winograd() -> None:
    """`test_winograd_choice` has all passes and many shapes, and compares choices."""
    x, weight = (RNG.standard_normal(shape, dtype=np.float32) for shape in ((1, 13, 11, 32), (3, 3, 32, 32)))
    out = fc.conv2d(*there(x, weight), padding=1)
    assert np.array_equal(out.numpy(), fc.conv2d(x, weight, padding=1))
    assert not np.array_equal(out.numpy(), fc.conv2d(x, weight, padding=1, algorithm="direct"))


def test_winograd_in_one_kernel_is_exact_for_whole_numbers() -> None:
    x, weight, grad_out = there(X, 4 * WEIGHT, GRAD)
    for algorithm in ("winograd_fused", "fastest"):
        out = fc.conv2d(x, weight, padding=1, algorithm=algorithm)
        assert np.array_equal(out.numpy(), 4 * reference.conv2d(GEOMETRY, X, WEIGHT))
    grad_x = fc.conv2d_grad_x(grad_out, weight, X.shape, padding=1, algorithm="winograd_fused")
    assert np.array_equal(grad_x.numpy(), 4 * EXPECTED[0])
