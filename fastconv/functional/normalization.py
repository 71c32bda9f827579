"""Batch normalisation over all axes but the last, forward and backward."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastconv.arrays import FloatArray, float_array, leave, shape_of
from fastconv.rooms import room

#: Added to the variance: Keras's default.
EPSILON = 1e-3


def batch_norm(
    x: ArrayLike,
    gamma: ArrayLike,
    beta: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    *,
    epsilon: float = EPSILON,
) -> FloatArray:
    """Normalise each channel with given statistics: ``gamma * (x - mean) / sqrt(variance + epsilon) + beta``.

    This is inference, where *mean* and *variance* are the moving averages of training.

    Parameters
    ----------
    x : ndarray of shape (..., C), float32 or float64
    gamma, beta, mean, variance : ndarray of shape (C,), the dtype of *x*
    epsilon : float, at least 0

    Returns
    -------
    out : ndarray of the shape and dtype of *x*

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64, or the dtypes differ.
    ValueError
        If the shapes do not fit, or *epsilon* is negative.

    Notes
    -----
    One fused multiply-add for each element, after *mean* is taken off: a large mean costs no accuracy.

    Examples
    --------
    >>> import numpy as np
    >>> batch_norm(np.array([[3.0], [7.0]]), [2.0], [1.0], [5.0], [4.0], epsilon=0).ravel()
    array([-1.,  3.])
    """
    rows = _rows(x, epsilon)
    scale, offset, center, spread = _channels(
        rows, ("gamma", gamma), ("beta", beta), ("mean", mean), ("variance", variance)
    )
    out = room(rows).normalization.batch_norm(rows, scale, offset, center, spread, epsilon)
    return leave(out.reshape(shape_of(x)))


def batch_norm_training(
    x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, *, epsilon: float = EPSILON
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Normalise each channel with the mean and variance that it has in the batch.

    ``out = gamma * (x - mean) / sqrt(variance + epsilon) + beta``, statistics over all axes but the last.

    Parameters
    ----------
    x : ndarray of shape (..., C), float32 or float64
    gamma, beta : ndarray of shape (C,), the dtype of *x*
    epsilon : float, at least 0

    Returns
    -------
    out : ndarray of the shape and dtype of *x*
    mean, variance : ndarray of shape (C,)
        Statistics of the batch; the variance is divided by the number of rows (not by one less).  Both are 0 for an
        empty batch.

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64, or the dtypes differ.
    ValueError
        If the shapes do not fit, or *epsilon* is negative.

    Notes
    -----
    Two passes: the mean, then the squared distances from it, both summed in float64 over fixed blocks of rows.  So a
    large mean costs no accuracy, and the bits do not depend on the number of threads.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift", ICML 2015.

    Examples
    --------
    >>> import numpy as np
    >>> out, mean, variance = batch_norm_training(np.array([[3.0], [7.0]]), [1.0], [0.0], epsilon=0)
    >>> out.ravel(), mean, variance
    (array([-1.,  1.]), array([5.]), array([4.]))
    """
    rows = _rows(x, epsilon)
    scale, offset = _channels(rows, ("gamma", gamma), ("beta", beta))
    out, mean, variance = room(rows).normalization.batch_norm_training(rows, scale, offset, epsilon)
    return leave(out.reshape(shape_of(x))), leave(mean), leave(variance)


def batch_norm_backward(
    grad_out: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    *,
    epsilon: float = EPSILON,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gradients of `batch_norm_training`.

    With ``normal = (x - mean) / sqrt(variance + epsilon)`` and sums and means over all axes but the last:
    ``grad_beta = sum(grad_out)``, ``grad_gamma = sum(grad_out * normal)`` and
    ``grad_x = gamma / sqrt(variance + epsilon) * (grad_out - mean(grad_out) - normal * mean(grad_out * normal))``.

    Parameters
    ----------
    grad_out : ndarray of the shape and dtype of *x*
    x : ndarray of shape (..., C), float32 or float64
    gamma : ndarray of shape (C,), the dtype of *x*
    mean, variance : ndarray of shape (C,), the dtype of *x*
        The statistics that `batch_norm_training` returned.
    epsilon : float
        As in the forward call.

    Returns
    -------
    grad_x : ndarray of the shape and dtype of *x*
    grad_gamma, grad_beta : ndarray of shape (C,)

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64, or the dtypes differ.
    ValueError
        If the shapes do not fit, or *epsilon* is negative.

    Notes
    -----
    Sums are taken in float64 over fixed blocks of rows: the bits do not depend on the number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[3.0], [7.0]])
    >>> grad_x, grad_gamma, grad_beta = batch_norm_backward(x, x, [1.0], [5.0], [4.0], epsilon=0)
    >>> grad_gamma, grad_beta
    (array([4.]), array([10.]))
    """
    rows = _rows(x, epsilon)
    if shape_of(grad_out) != shape_of(x):
        raise ValueError(
            f"grad_out must have the shape of x. Received: grad_out.shape={shape_of(grad_out)}, x.shape={shape_of(x)}"
        )
    cotangent = float_array("grad_out", grad_out, rows).reshape(rows.shape)
    scale, center, spread = _channels(rows, ("gamma", gamma), ("mean", mean), ("variance", variance))
    backward = room(rows).normalization.batch_norm_backward
    grad_x, grad_gamma, grad_beta = backward(cotangent, rows, scale, center, spread, epsilon)
    return leave(grad_x.reshape(shape_of(x))), leave(grad_gamma), leave(grad_beta)


def _rows(x: ArrayLike, epsilon: float) -> FloatArray:
    """x as a contiguous (rows, C) matrix."""
    shape = shape_of(x)
    if not shape or shape[-1] == 0:
        raise ValueError(f"x must have a last axis of at least one channel. Received: x.shape={shape}")
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be at least 0. Received: epsilon={epsilon!r}")
    return float_array("x", x).reshape(-1, shape[-1])


def _channels(rows: FloatArray, *named: tuple[str, ArrayLike]) -> list[FloatArray]:
    """The per-channel arguments, checked."""
    C = rows.shape[1]
    for name, value in named:
        if shape_of(value) != (C,):
            raise ValueError(
                f"{name} must have one number for each of the {C} channels. Received: {name}.shape={shape_of(value)}"
            )
    return [float_array(name, value, rows) for name, value in named]
