"""The fully connected layer: NumPy's matrix product, with bias and activation in one pass behind it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastconv.arrays import FloatArray, float_array
from fastconv.cpu.activation import activation_code, activation_forward
from fastconv.cpu.reduction import column_sums


def dense(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, activation: str | None = None
) -> FloatArray:
    """Matrix product over the last axis: ``out = activation(x @ weight + bias)``.

    Parameters
    ----------
    x : ndarray of shape (..., IC), float32 or float64
    weight : ndarray of shape (IC, OC), the dtype of *x*
    bias : ndarray of shape (OC,), the dtype of *x*, optional
    activation : "relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "gelu", "linear" or None

    Returns
    -------
    out : ndarray of shape (..., OC), the dtype of *x*

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64, or the dtypes differ.
    ValueError
        If the shapes do not fit, or there is no element-wise activation of that name.

    Notes
    -----
    The product is done by the BLAS library that NumPy was built with, and so are its last bits and its threads.

    Examples
    --------
    >>> import numpy as np
    >>> dense(np.array([[1.0, 2.0]]), np.array([[3.0], [-4.0]]), np.array([1.0]), activation="relu")
    array([[0.]])
    """
    code = activation_code(activation)
    inputs, matrix = _operands(x, weight)
    OC = matrix.shape[1]
    if bias is not None:
        if np.shape(bias) != (OC,):
            raise ValueError(
                f"bias must have shape (OC,) = ({OC},). "
                f"Received: bias.shape={np.shape(bias)}, weight.shape={matrix.shape}"
            )
        bias = float_array("bias", bias, inputs)
    out: FloatArray = inputs.reshape(-1, len(matrix)) @ matrix
    if bias is not None or code:
        activation_forward(out, bias, out, code)
    return out.reshape(*inputs.shape[:-1], OC)


def dense_backward(grad_out: ArrayLike, x: ArrayLike, weight: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gradients of `dense` without an activation.

    ``grad_x = grad_out @ weight.T``, ``grad_weight = x.T @ grad_out``, ``grad_bias = sum of grad_out over the rows``.
    Where an activation follows, pass *grad_out* through `activation_backward` first.

    Parameters
    ----------
    grad_out : ndarray of shape (..., OC), the dtype of *x*
    x : ndarray of shape (..., IC), float32 or float64
    weight : ndarray of shape (IC, OC), the dtype of *x*

    Returns
    -------
    grad_x : ndarray of shape (..., IC)
    grad_weight : ndarray of shape (IC, OC)
    grad_bias : ndarray of shape (OC,)

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64, or the dtypes differ.
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> dense_backward(np.array([[1.0]]), np.array([[2.0, 3.0]]), np.array([[4.0], [5.0]]))
    (array([[4., 5.]]), array([[2.],
           [3.]]), array([1.]))
    """
    inputs, matrix = _operands(x, weight)
    IC, OC = matrix.shape
    if np.shape(grad_out) != (*inputs.shape[:-1], OC):
        raise ValueError(
            f"grad_out must have the shape of dense(x, weight), {(*inputs.shape[:-1], OC)}. "
            f"Received: grad_out.shape={np.shape(grad_out)}, x.shape={inputs.shape}, weight.shape={matrix.shape}"
        )
    rows = float_array("grad_out", grad_out, inputs).reshape(-1, OC)
    return (rows @ matrix.T).reshape(inputs.shape), inputs.reshape(-1, IC).T @ rows, column_sums(rows)


def _operands(x: ArrayLike, weight: ArrayLike) -> tuple[FloatArray, FloatArray]:
    shape, weight_shape = np.shape(x), np.shape(weight)
    if len(weight_shape) != 2 or min(weight_shape) < 1:
        raise ValueError(
            f"weight must have 2 dimensions (IC, OC), none of them 0. Received: weight.shape={weight_shape}"
        )
    if not shape or shape[-1] != weight_shape[0]:
        raise ValueError(
            f"the last axis of x must have weight.shape[0] = {weight_shape[0]} elements. "
            f"Received: x.shape={shape}, weight.shape={weight_shape}"
        )
    inputs = float_array("x", x)
    return inputs, float_array("weight", weight, inputs)
