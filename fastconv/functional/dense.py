"""The fully connected layer: a 1x1 convolution of one long row of pixels."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastconv.arrays import FloatArray, float_array, leave, shape_of
from fastconv.cpu.activation import activation_code
from fastconv.cpu.shape import Forms
from fastconv.dispatch import choose
from fastconv.functional.conv import bias_in
from fastconv.geometry import Conv2dGeometry, conv2d_geometry
from fastconv.packed_weight import enter_weight
from fastconv.rooms import room


def dense(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, activation: str | None = None
) -> FloatArray:
    """Matrix product over the last axis: ``out = activation(x @ weight + bias)``.

    Parameters
    ----------
    x : ndarray of shape (..., IC), float32 or float64
    weight : ndarray of shape (IC, OC), the dtype of *x*, or a `PackedWeight`
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
    The same kernels as a 1x1 `conv2d`, and so the same bits for any number of threads and rows, which a BLAS library
    does not promise; nor do its threads wait in the way of the kernels before and behind it.

    Examples
    --------
    >>> import numpy as np
    >>> dense(np.array([[1.0, 2.0]]), np.array([[3.0], [-4.0]]), np.array([1.0]), activation="relu")
    array([[0.]])
    """
    code = activation_code(activation)
    inputs, matrix, forms = _operands(x, weight)
    IC, OC = matrix.shape
    if bias is not None:
        bias = bias_in(bias, OC, inputs)
    here = room(inputs)
    out = here.empty((*inputs.shape[:-1], OC), inputs.dtype)
    if out.size:
        g = product_geometry(out.size // OC, IC, OC)
        compute = choose("conv2d_forward", g, inputs.itemsize, "auto", here.engine)
        compute(g, inputs, matrix, bias, None, out, code, forms)
    return leave(out)


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

    Notes
    -----
    The same kernels as the gradients of a 1x1 `conv2d`: the same bits for any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> dense_backward(np.array([[1.0]]), np.array([[2.0, 3.0]]), np.array([[4.0], [5.0]]))
    (array([[4., 5.]]), array([[2.],
           [3.]]), array([1.]))
    """
    inputs, matrix, _ = _operands(x, weight)
    IC, OC = matrix.shape
    if shape_of(grad_out) != (*inputs.shape[:-1], OC):
        raise ValueError(
            f"grad_out must have the shape of dense(x, weight), {(*inputs.shape[:-1], OC)}. "
            f"Received: grad_out.shape={shape_of(grad_out)}, x.shape={inputs.shape}, weight.shape={matrix.shape}"
        )
    rows = float_array("grad_out", grad_out, inputs)
    here = room(inputs)
    grad_x = here.empty(inputs.shape, inputs.dtype)
    if not rows.size:
        grad_weight = here.zeros(matrix.shape, matrix.dtype)
    else:
        grad_weight = here.empty(matrix.shape, matrix.dtype)
        g = product_geometry(rows.size // OC, IC, OC)
        backward = choose("conv2d_grad_x", g, rows.itemsize, "auto", here.engine)
        backward(g, rows, matrix.reshape(g.weight_shape), grad_x)
        choose("conv2d_grad_weight", g, inputs.itemsize, "auto", here.engine)(g, inputs, rows, grad_weight)
    return leave(grad_x), leave(grad_weight), leave(here.reduction.column_sums(rows.reshape(-1, OC)))


def product_geometry(rows: int, IC: int, OC: int) -> Conv2dGeometry:
    """The product of a (rows x IC) and an (IC x OC) matrix as a convolution."""
    return conv2d_geometry((1, 1, rows, IC), (1, 1, IC, OC))


def _operands(x: ArrayLike, weight: ArrayLike) -> tuple[FloatArray, FloatArray, Forms | None]:
    check_shapes(shape_of(x), shape_of(weight))
    inputs = float_array("x", x)
    return inputs, *enter_weight("weight", weight, "NC", inputs)


def check_shapes(shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> None:
    """The last axis of *x* meets the first of a matrix."""
    if len(weight_shape) != 2 or min(weight_shape) < 1:
        raise ValueError(
            f"weight must have 2 dimensions (IC, OC), none of them 0. Received: weight.shape={weight_shape}"
        )
    if not shape or shape[-1] != weight_shape[0]:
        raise ValueError(
            f"the last axis of x must have weight.shape[0] = {weight_shape[0]} elements. "
            f"Received: x.shape={shape}, weight.shape={weight_shape}"
        )
