"""One-dimensional convolution: the two-dimensional one on images of height 1."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from fastconv.arrays import SERIES, FloatArray, image_format, leave, planes, weight_in, weight_out
from fastconv.functional.conv import convolve, input_gradient, weight_gradient
from fastconv.geometry import Conv2dGeometry, conv2d_geometry
from fastconv.packed_weight import enter_weight
from fastconv.rooms import room


def _geometry(
    x: FloatArray, weight: FloatArray, stride: int, padding: int | str | tuple[int, int], dilation: int, groups: int
) -> Conv2dGeometry:
    """The geometry with a height of 1; *padding* is one number, (left, right) or a rule."""
    if not isinstance(padding, Sequence):
        padding = (padding, padding)
    return conv2d_geometry(
        (x.shape[0], 1, *x.shape[1:]),
        (1, *weight.shape),
        stride=(1, stride),
        padding=padding if isinstance(padding, str) else ((0, 0), padding),
        dilation=(1, dilation),
        groups=groups,
    )


def conv1d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: int = 1,
    padding: int | str | tuple[int, int] = 0,
    dilation: int = 1,
    groups: int = 1,
    activation: str | None = None,
    residual: ArrayLike | None = None,
    layout: str = "NWC",
    algorithm: str = "auto",
    out: FloatArray | None = None,
) -> FloatArray:
    """Convolve a batch of series with a set of kernels.

    ``out[n, o, oc] = activation(bias[oc] + residual[n, o, oc] + sum over k, ic of
    padded[n, o * stride + k * dilation, ic] * weight[k, ic, oc])``.

    Parameters
    ----------
    x : ndarray of shape (N, I, IC) or (I, IC), float32 or float64
    weight : ndarray of shape (K, IC / groups, OC), dtype of x, or a `PackedWeight`
    bias : ndarray of shape (OC,), optional
    padding : int, (left, right), "valid", "same" or "same_lower"
    layout : {"NWC", "NCW"}
        With "NCW", x and the result have shape (N, C, W) and weight is (OC, IC / groups, K), as in PyTorch.
    stride, dilation, groups, activation, residual, algorithm, out
        As in `conv2d`, each one number.

    Returns
    -------
    ndarray of shape (N, O, OC)
        ``O = (I + left + right - (K - 1) * dilation - 1) // stride + 1``.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Notes
    -----
    The same kernels as `conv2d`, on images of height 1.

    Examples
    --------
    >>> import numpy as np
    >>> conv1d(np.arange(5.0).reshape(5, 1), np.array([-1.0, 0, 1]).reshape(3, 1, 1)).ravel()
    array([2., 2., 2.])
    """
    series = image_format("x", x, layout, SERIES)
    x = series.enter("x", x)
    weight, forms = enter_weight("weight", weight, layout, x)
    g = _geometry(x, weight, stride, padding, dilation, groups)
    if residual is not None:
        residual = series.enter("residual", residual, x)
    result = series.result((g.N, g.OW, g.OC), x.dtype, out, (x, weight, residual))
    convolve(g, x, weight, bias, residual, activation, algorithm, result, forms)
    return series.leave(result, out)


def conv1d_backward(
    grad_out: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    stride: int = 1,
    padding: int | str | tuple[int, int] = 0,
    dilation: int = 1,
    groups: int = 1,
    layout: str = "NWC",
    algorithm: str = "auto",
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gradients of `conv1d` with respect to x, weight and bias.

    Parameters
    ----------
    grad_out : ndarray of shape (N, O, OC)
        Gradient with respect to the result before its activation.
    x, weight, stride, padding, dilation, groups, layout, algorithm
        As given to `conv1d`.

    Returns
    -------
    grad_x : ndarray of the shape of x
    grad_weight : ndarray of the shape of weight
    grad_bias : ndarray of shape (OC,)

    Raises
    ------
    TypeError, ValueError
        As `conv1d`, and if *grad_out* does not have the shape of the result.

    Notes
    -----
    The same kernels as `conv2d_backward`, on images of height 1.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.arange(4.0).reshape(4, 1), np.array([-1.0, 0, 1]).reshape(3, 1, 1)
    >>> grad_x, grad_weight, grad_bias = conv1d_backward(np.ones((2, 1)), x, weight)
    >>> grad_x.ravel(), grad_weight.ravel(), grad_bias
    (array([-1., -1.,  1.,  1.]), array([1., 3., 5.]), array([2.]))
    """
    series = image_format("x", x, layout, SERIES)
    x = series.enter("x", x)
    weight = weight_in("weight", weight, layout, x)
    g = _geometry(x, weight, stride, padding, dilation, groups)
    gradient: FloatArray = planes(series.enter("grad_out", grad_out, x))
    grad_x = room(x).empty(x.shape, x.dtype)
    input_gradient(g, gradient, weight.reshape(g.weight_shape), algorithm, planes(grad_x))
    grad_weight = weight_gradient(g, planes(x), gradient, algorithm).reshape(weight.shape)
    grad_bias = room(x).reduction.column_sums(gradient.reshape(-1, g.OC))
    return series.leave(grad_x), weight_out(grad_weight, layout), leave(grad_bias)
