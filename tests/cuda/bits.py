"""What the tests of element-wise kernels compare with, and the numbers that are different from all others."""

from typing import Any

import numpy as np

#: NaN, infinities, zeros, denormals, the smallest normal number, corners of activations, and what overflows in them.
SPECIAL = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 1.2e-38, 6.0, -104.0, 89.0, 10.0, 15.0, -1001.0, 3e38, -3e38],
    np.float32,
)


def same_numbers(left: Any, right: Any) -> bool:
    """The same shape and the same bits; NaN is NaN, whose other bits CPUs and GPUs choose differently."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    bits = np.dtype(f"i{left.dtype.itemsize}")
    return bool(((left.view(bits) == right.view(bits)) | (np.isnan(left) & np.isnan(right))).all())


def normal_numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def all_kinds(count: int, seed: int = 0) -> Any:
    """Numbers of many magnitudes, and the special ones."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=count) * 10 ** rng.uniform(-6, 3, count)
    return np.concatenate([numbers.astype(np.float32), rng.permutation(SPECIAL)])
