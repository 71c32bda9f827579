"""Transposed convolution: the gradient of a convolution with respect to its input, as an operation of its own."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastconv.arrays import IMAGES, FloatArray, image_format, leave, weight_in, weight_out
from fastconv.cpu.activation import activation_code
from fastconv.functional.conv import bias_in, convolve, input_gradient, weight_gradient
from fastconv.geometry import IntOrPair, Padding, conv_transpose2d_geometry
from fastconv.packed_weight import enter_weight
from fastconv.rooms import room


def conv_transpose2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    output_padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    activation: str | None = None,
    layout: str = "NHWC",
    algorithm: str = "auto",
    out: FloatArray | None = None,
) -> FloatArray:
    """Spread each input pixel over the output through the kernel: the transpose of `conv2d`.

    ``out[n, ih * stride + kh * dilation - top, iw * stride + kw * dilation - left, oc] += x[n, ih, iw, ic] *
    weight[kh, kw, oc, ic]`` for all ih, iw, ic, kh, kw that land inside, then bias and activation.

    Parameters
    ----------
    x : ndarray of shape (N, IH, IW, IC) or (IH, IW, IC), float32 or float64
    weight : ndarray of shape (KH, KW, OC / groups, IC), dtype of x, or a `PackedWeight`
        Keras's order.  With ``layout="NCHW"``: (IC, OC / groups, KH, KW), as in PyTorch.
    bias : ndarray of shape (OC,), optional
    stride : int or pair, default 1
        Output pixels from one input pixel to the next.
    padding : int, (h, w), ((top, bottom), (left, right)), "valid" or "same", default 0
        Rows and columns cut off the result.  "same" gives ``IH * stride`` rows.
    output_padding : int or pair, default 0
        Rows and columns added at the end; smaller than stride or dilation.
    dilation, groups, activation, layout, algorithm, out
        As in `conv2d`.

    Returns
    -------
    ndarray of shape (N, OH, OW, OC)
        ``OH = (IH - 1) * stride - top - bottom + (KH - 1) * dilation + 1 + output_padding``.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Notes
    -----
    Computed as `conv2d_grad_x`, with its algorithms, accuracy and determinism.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([1, 2], np.float32).reshape(1, 2, 1)
    >>> conv_transpose2d(x, np.ones((1, 3, 1, 1), np.float32), stride=(1, 2)).ravel()
    array([1., 1., 3., 2., 2.], dtype=float32)

    References
    ----------
    V. Dumoulin and F. Visin, A guide to convolution arithmetic for deep learning, arXiv:1603.07285, section 4.
    """
    images = image_format("x", x, layout, IMAGES)
    x = images.enter("x", x)
    weight, forms = enter_weight("weight", weight, layout, x)
    g = conv_transpose2d_geometry(
        x.shape,
        weight.shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
    )
    if bias is not None:
        bias = bias_in(bias, g.IC, x)
    code = activation_code(activation)
    result = images.result(g.x_shape, x.dtype, out, (x, weight))
    input_gradient(g, x, weight, algorithm, result, forms)
    if bias is not None or code:
        room(x).activation.activation_forward(result, bias, result, code)
    return images.leave(result, out)


def conv_transpose2d_backward(
    grad_out: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    output_padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    layout: str = "NHWC",
    algorithm: str = "auto",
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gradients of `conv_transpose2d` with respect to x, weight and bias.

    With the roles of x and grad_out exchanged these are the passes of `conv2d`: grad_x is a convolution of grad_out,
    and grad_weight is `conv2d_grad_weight` with grad_out as the image and x as the gradient.

    Parameters
    ----------
    grad_out : ndarray of shape (N, OH, OW, OC)
        Gradient with respect to the result before its activation.
    x, weight, stride, padding, output_padding, dilation, groups, layout, algorithm
        As given to `conv_transpose2d`.

    Returns
    -------
    grad_x : ndarray of the shape of x
    grad_weight : ndarray of the shape of weight
    grad_bias : ndarray of shape (OC,)

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose2d`, and if *grad_out* does not have the shape of the result.

    Notes
    -----
    Algorithms, accuracy and determinism are those of the passes of `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([1, 2], np.float32).reshape(1, 2, 1)
    >>> weight = np.ones((1, 3, 1, 1), np.float32)
    >>> grad_x, grad_weight, grad_bias = conv_transpose2d_backward(np.ones((1, 4, 1), np.float32), x, weight)
    >>> grad_x.ravel(), grad_weight.ravel(), grad_bias
    (array([3., 3.], dtype=float32), array([3., 3., 3.], dtype=float32), array([4.], dtype=float32))
    """
    images = image_format("x", x, layout, IMAGES)
    x = images.enter("x", x)
    grad_out = images.enter("grad_out", grad_out, x)
    weight = weight_in("weight", weight, layout, x)
    g = conv_transpose2d_geometry(
        x.shape,
        weight.shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
    )
    if grad_out.shape != g.x_shape:
        raise ValueError(
            f"grad_out must have the shape of the result, {g.x_shape}. Received: grad_out.shape={grad_out.shape}"
        )
    grad_x = room(x).empty(x.shape, x.dtype)
    convolve(g, grad_out, weight, None, None, None, algorithm, grad_x)
    grad_weight = weight_gradient(g, grad_out, x, algorithm)
    grad_bias = room(x).reduction.column_sums(grad_out.reshape(-1, g.IC))
    return images.leave(grad_x), weight_out(grad_weight, layout), leave(grad_bias)
