"""Arrays of more than 2**31 numbers: an offset that passed through 32 bits anywhere would read another place."""

import os

import numpy as np
import pytest

from fastconv.functional.conv import conv2d, conv2d_grad_weight
from fastconv.functional.pool import max_pool2d
from fastconv.geometry import conv2d_geometry
from fastconv.reference import conv as reference

# 8.6 GB of zeros.  The strides are almost as large as an image, so only its corners are ever read.
SHAPE = (2, 32771, 16391, 2)
STRIDE = (32768, 16384)
KERNEL = (3, 5)
SMALL = (2, 6, 10, 2)


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """x in a sparse file, of which only the pages that are touched exist, and the same corners put together."""
    path = tmp_path_factory.mktemp("large") / "x"
    size = 4 * int(np.prod(SHAPE, dtype=np.int64))
    try:
        with path.open("wb") as file:
            file.truncate(size)
        if path.stat().st_blocks * 512 > size // 100:
            pytest.skip("this file system has no sparse files")
        x = np.memmap(path, np.float32, "r+", shape=SHAPE)
    except (OSError, AttributeError, OverflowError, ValueError) as error:
        pytest.skip(f"no room for a file or a mapping of {size / 1e9:.1f} GB: {error}")
    assert x.size > 2**31
    corners = np.random.default_rng(0).integers(-3, 4, SMALL).astype(np.float32)
    for row in range(2):
        for column in range(2):
            h, w = row * STRIDE[0], column * STRIDE[1]
            part = corners[:, 3 * row : 3 * row + 3, 5 * column : 5 * column + 5]
            x[:, h : h + 3, w : w + 5] = part
    yield x, corners
    del x
    os.unlink(path)


def test_convolution_reads_beyond_two_to_the_31_numbers(huge):
    x, corners = huge
    weight = np.random.default_rng(1).integers(-3, 4, (*KERNEL, 2, 3)).astype(np.float32)
    expected = reference.conv2d(conv2d_geometry(SMALL, weight.shape, stride=KERNEL), corners, weight)
    np.testing.assert_array_equal(conv2d(x, weight, stride=STRIDE), expected)
    grad_out = np.random.default_rng(2).integers(-3, 4, expected.shape).astype(np.float32)
    expected = reference.conv2d_grad_weight(conv2d_geometry(SMALL, weight.shape, stride=KERNEL), corners, grad_out)
    np.testing.assert_array_equal(conv2d_grad_weight(grad_out, x, weight.shape, stride=STRIDE), expected)


def test_depthwise_convolution_reads_beyond_two_to_the_31_numbers(huge):
    x, corners = huge
    weight = np.random.default_rng(1).integers(-3, 4, (*KERNEL, 1, 2)).astype(np.float32)
    g = conv2d_geometry(SMALL, weight.shape, stride=KERNEL, groups=2)
    expected = reference.conv2d(g, corners, weight)
    np.testing.assert_array_equal(conv2d(x, weight, stride=STRIDE, groups=2), expected)
    grad_out = np.random.default_rng(2).integers(-3, 4, expected.shape).astype(np.float32)
    expected = reference.conv2d_grad_weight(g, corners, grad_out)
    np.testing.assert_array_equal(conv2d_grad_weight(grad_out, x, weight.shape, stride=STRIDE, groups=2), expected)


def test_pooling_reads_beyond_two_to_the_31_numbers(huge):
    x, corners = huge
    expected = corners.reshape(2, 2, 3, 2, 5, 2).max(axis=(2, 4))
    pooled, indices = max_pool2d(x, KERNEL, stride=STRIDE, return_indices=True)
    np.testing.assert_array_equal(pooled, expected)
    assert indices[:, 1].min() >= STRIDE[0] * SHAPE[2]
