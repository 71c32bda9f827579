"""The rectifier with corners and slopes to choose, forward and backward."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastconv.arrays import FloatArray, float_array, leave
from fastconv.cpu.activation import LEAKY_SLOPE
from fastconv.functional.activation import activation, activation_backward
from fastconv.rooms import room


def rectify(
    x: ArrayLike, *, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> FloatArray:
    """x between *threshold* and *max_value*, constant above, ``negative_slope * (x - threshold)`` below.

    Parameters
    ----------
    x : ndarray of any shape, float32 or float64
    negative_slope : float, at least 0
    max_value : float, optional
        No limit if left out.
    threshold : float, at least 0

    Returns
    -------
    out : ndarray of the shape and dtype of *x*

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64.

    Notes
    -----
    ``relu``, ``relu6`` and ``leaky_relu`` are the kernels of these names.  NaN stays NaN.

    Examples
    --------
    >>> import numpy as np
    >>> rectify(np.array([-2.0, 3.0, 9.0]), negative_slope=0.5, max_value=8)
    array([-1.,  3.,  8.])
    """
    name = _kernel(negative_slope, max_value, threshold)
    if name is not None:
        return activation(x, name)
    values = float_array("x", x)
    out = room(values).rectify.rectify(values, negative_slope, max_value, threshold)
    return leave(out.reshape(np.shape(x)))


def rectify_backward(
    grad_out: ArrayLike,
    x: ArrayLike,
    *,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
) -> FloatArray:
    """Gradient of `rectify`: ``grad_x = grad_out * slope(x)``.

    Parameters
    ----------
    grad_out : ndarray of the shape and dtype of *x*
    x, negative_slope, max_value, threshold
        As given to `rectify`.

    Returns
    -------
    grad_x : ndarray of the shape and dtype of *x*

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64, or *grad_out* has another dtype.
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> rectify_backward(np.ones(3), np.array([-2.0, 3.0, 9.0]), negative_slope=0.5, max_value=8)
    array([0.5, 1. , 0. ])
    """
    name = _kernel(negative_slope, max_value, threshold)
    if name is not None:
        return activation_backward(grad_out, x, name)
    if np.shape(grad_out) != np.shape(x):
        raise ValueError(
            f"grad_out must have the shape of x. Received: grad_out.shape={np.shape(grad_out)}, x.shape={np.shape(x)}"
        )
    values = float_array("x", x)
    cotangent = float_array("grad_out", grad_out, values)
    grad_x = room(values).rectify.rectify_backward(cotangent, values, negative_slope, max_value, threshold)
    return leave(grad_x.reshape(np.shape(x)))


def _kernel(negative_slope: float, max_value: float | None, threshold: float) -> str | None:
    """The activation of these corners, where there is a kernel for it."""
    named = {(0.0, None, 0.0): "relu", (0.0, 6.0, 0.0): "relu6", (LEAKY_SLOPE, None, 0.0): "leaky_relu"}
    return named.get((negative_slope, max_value, threshold))
