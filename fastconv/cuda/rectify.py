"""The rectifier with corners and slopes to choose on the GPU, with the bits of `fastconv.cpu.rectify`."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np

from fastconv.cuda.device import Engine, flat


def rectify(engine: Engine, x: Any, negative_slope: float, max_value: float | None, threshold: float) -> Any:
    """``negative_slope * (x - threshold)`` below *threshold*, at most *max_value*, and x between."""
    from fastconv.cuda.kernels import elements, rectify as kernels

    out = engine.empty(x.shape, np.float32)
    elements.launch(
        engine, kernels.forward(), out.size, flat(x), flat(out), *_corners(negative_slope, max_value, threshold)
    )
    return out


def rectify_backward(
    engine: Engine, grad_out: Any, x: Any, negative_slope: float, max_value: float | None, threshold: float
) -> Any:
    """``grad_out * slope(x)``."""
    from fastconv.cuda.kernels import elements, rectify as kernels

    grad_x = engine.empty(x.shape, np.float32)
    corners = _corners(negative_slope, max_value, threshold)
    elements.launch(engine, kernels.backward(), grad_x.size, flat(grad_out), flat(x), flat(grad_x), *corners)
    return grad_x


def _corners(negative_slope: float, max_value: float | None, threshold: float) -> tuple[Any, Any, Any]:
    """As numbers of the kernels, where nothing is larger than NaN: no limit."""
    return np.float32(negative_slope), np.float32(nan if max_value is None else max_value), np.float32(threshold)
