"""The rectifier with corners and slopes to choose, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rectify(x: Any, negative_slope: float, max_value: float | None, threshold: float) -> NDArray[Any]:
    """``negative_slope * (x - threshold)`` below *threshold*, at most *max_value*, and x between."""
    number = x.dtype.type
    below = number(negative_slope) * (x - number(threshold)) if negative_slope else 0
    out: NDArray[Any] = np.where(x < threshold, below, x).astype(x.dtype, copy=False)
    return out if max_value is None else np.minimum(out, number(max_value), out=out)


def rectify_backward(
    grad_out: Any, x: Any, negative_slope: float, max_value: float | None, threshold: float
) -> NDArray[Any]:
    """``grad_out * slope(x)``."""
    grad_x: NDArray[Any] = np.where(x <= threshold, x.dtype.type(negative_slope) * grad_out, grad_out)
    if max_value is not None:
        grad_x[x >= max_value] = 0
    return grad_x
