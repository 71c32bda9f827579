"""Activation functions, forward and backward.

Forward: one function each.  Backward: `activation_backward` for those that work element by element, `softmax_backward`
for softmax, which couples the elements of a row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastconv.arrays import FloatArray, float_array, leave, shape_of
from fastconv.cpu.activation import activation_code
from fastconv.rooms import room


def activation(x: ArrayLike, name: str | None) -> FloatArray:
    """The activation function called *name*, element by element.

    ``"relu"`` and so on: see the function of that name.  None and ``"linear"`` return a copy.

    Parameters
    ----------
    x : ndarray of any shape, float32 or float64
    name : "linear", "relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "gelu" or None

    Returns
    -------
    out : ndarray of the shape and dtype of *x*

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64.
    ValueError
        If there is no element-wise activation called *name*.

    Notes
    -----
    In float32 every function is correct to 5e-7 of its value, far in the tails too, and has the same bits for any
    number of threads, any vector width and any place of the element in the array.  float64 uses the C library.  NaN
    stays NaN.

    Examples
    --------
    >>> import numpy as np
    >>> activation(np.array([-1.0, 2.0]), "relu")
    array([0., 2.])
    """
    code = activation_code(name)
    values = float_array("x", x)
    here = room(values)
    out = here.empty(values.shape, values.dtype)
    here.activation.activation_forward(values, None, out, code)
    return leave(out.reshape(shape_of(x)))


def activation_backward(grad_out: ArrayLike, x: ArrayLike, name: str | None) -> FloatArray:
    """Gradient of an element-wise activation: ``grad_x = grad_out * slope(x)``.

    Parameters
    ----------
    grad_out : ndarray of the shape and dtype of *x*
        Gradient of the loss by the output.
    x : ndarray of any shape, float32 or float64
        What went into the activation.  For ``"relu"``, ``"relu6"`` and ``"leaky_relu"`` the output may stand in its
        place: the slope is the same there.
    name : "linear", "relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "gelu" or None

    Returns
    -------
    grad_x : ndarray of the shape and dtype of *x*

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64, or *grad_out* has another dtype.
    ValueError
        If there is no element-wise activation called *name*, or the shapes differ.

    Notes
    -----
    At the corner at 0 the slope is that on the left; at the corner of ``relu6`` at 6, that on the right; as in PyTorch.
    The same bits for any number of threads, any vector width and any place of the element in the array.

    Examples
    --------
    >>> import numpy as np
    >>> activation_backward(np.array([3.0, 3.0]), np.array([-1.0, 2.0]), "relu")
    array([0., 3.])
    """
    code = activation_code(name)
    values = float_array("x", x)
    cotangent = _like("grad_out", grad_out, "x", values, shape_of(x))
    here = room(values)
    grad_x = here.empty(values.shape, values.dtype)
    here.activation.activation_backward(cotangent, values, grad_x, code)
    return leave(grad_x.reshape(shape_of(x)))


def relu(x: ArrayLike) -> FloatArray:
    """``max(x, 0)``; otherwise as `activation`.

    Examples
    --------
    >>> import numpy as np
    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    return activation(x, "relu")


def relu6(x: ArrayLike) -> FloatArray:
    """``min(max(x, 0), 6)``; otherwise as `activation`.

    Examples
    --------
    >>> import numpy as np
    >>> relu6(np.array([-1.0, 2.0, 7.0]))
    array([0., 2., 6.])
    """
    return activation(x, "relu6")


def leaky_relu(x: ArrayLike) -> FloatArray:
    """x where it is positive and ``0.2 * x`` elsewhere; otherwise as `activation`.

    The slope is that of Keras's activation of this name (PyTorch's default is 0.01).

    Examples
    --------
    >>> import numpy as np
    >>> leaky_relu(np.array([-1.0, 2.0]))
    array([-0.2,  2. ])
    """
    return activation(x, "leaky_relu")


def sigmoid(x: ArrayLike) -> FloatArray:
    """``1 / (1 + exp(-x))``; otherwise as `activation`.

    Examples
    --------
    >>> import numpy as np
    >>> sigmoid(np.array([0.0, np.inf]))
    array([0.5, 1. ])
    """
    return activation(x, "sigmoid")


def tanh(x: ArrayLike) -> FloatArray:
    """Hyperbolic tangent; otherwise as `activation`.

    Examples
    --------
    >>> import numpy as np
    >>> tanh(np.array([0.0, np.inf]))
    array([0., 1.])
    """
    return activation(x, "tanh")


def silu(x: ArrayLike) -> FloatArray:
    """``x * sigmoid(x)``, also called swish; otherwise as `activation`.

    At minus infinity it is its limit, 0.

    Examples
    --------
    >>> import numpy as np
    >>> silu(np.array([0.0, 100.0]))
    array([  0., 100.])
    """
    return activation(x, "silu")


def gelu(x: ArrayLike) -> FloatArray:
    """``x * cdf(x)`` with the standard normal distribution, not its tanh approximation; otherwise as `activation`.

    ``cdf(x) = (1 + erf(x / sqrt(2))) / 2``.  At minus infinity it is its limit, 0.

    Examples
    --------
    >>> import numpy as np
    >>> gelu(np.array([0.0, 100.0]))
    array([  0., 100.])
    """
    return activation(x, "gelu")


def softmax(x: ArrayLike) -> FloatArray:
    """``exp(x) / sum(exp(x))`` over the last axis.

    Parameters
    ----------
    x : ndarray of shape (..., C), float32 or float64

    Returns
    -------
    out : ndarray of the shape and dtype of *x*
        Each row sums to 1.

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64.
    ValueError
        If *x* has no axis.

    Notes
    -----
    The largest number of a row is taken off first, so that no size overflows.  The sum is taken in float64 in the order
    of the row: the same bits for any number of threads.  A row with NaN or plus infinity becomes NaN.

    Examples
    --------
    >>> import numpy as np
    >>> softmax(np.array([1000.0, 1000.0]))
    array([0.5, 0.5])
    """
    rows = _rows("x", x)
    return leave(room(rows).softmax.softmax_forward(rows))


def softmax_backward(grad_out: ArrayLike, out: ArrayLike) -> FloatArray:
    """Gradient of `softmax` from its output: ``grad_x = out * (grad_out - sum(grad_out * out))`` over the last axis.

    Parameters
    ----------
    grad_out : ndarray of the shape and dtype of *out*
    out : ndarray of shape (..., C), float32 or float64
        The result of `softmax`.

    Returns
    -------
    grad_x : ndarray of the shape and dtype of *out*

    Raises
    ------
    TypeError
        If *out* is neither float32 nor float64, or *grad_out* has another dtype.
    ValueError
        If *out* has no axis, or the shapes differ.

    Notes
    -----
    The sum is taken in float64 in the order of the row: the same bits for any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> softmax_backward(np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    array([ 0.25, -0.25])
    """
    probabilities = _rows("out", out)
    cotangent = _like("grad_out", grad_out, "out", probabilities, probabilities.shape)
    return leave(room(probabilities).softmax.softmax_backward(cotangent, probabilities))


def _rows(name: str, value: ArrayLike) -> FloatArray:
    if np.ndim(value) == 0:
        raise ValueError(f"{name} must have at least one dimension. Received: {name}.shape=()")
    return float_array(name, value)


def _like(name: str, value: ArrayLike, like_name: str, like: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    if shape_of(value) != shape:
        raise ValueError(
            f"{name} must have the shape of {like_name}. "
            f"Received: {name}.shape={shape_of(value)}, {like_name}.shape={shape}"
        )
    return float_array(name, value, like, like_name)
