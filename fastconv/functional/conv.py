"""Two-dimensional convolution and its gradients.

"Convolution" means cross-correlation, as in every deep-learning library: the kernel is not flipped.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastconv.arrays import (
    IMAGES,
    FloatArray,
    float_array,
    image_format,
    leave,
    weight_in,
    weight_out,
    weight_shape_in,
)
from fastconv.cpu.activation import activation_code
from fastconv.cpu.shape import Forms
from fastconv.dispatch import choose
from fastconv.geometry import Conv2dGeometry, IntOrPair, Padding, conv2d_geometry
from fastconv.packed_weight import enter_weight
from fastconv.rooms import room


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    activation: str | None = None,
    residual: ArrayLike | None = None,
    layout: str = "NHWC",
    algorithm: str = "auto",
    precision: str | None = None,
    out: FloatArray | None = None,
) -> FloatArray:
    """Convolve a batch of images with a set of kernels.

    ``out[n, oh, ow, oc] = activation(bias[oc] + residual[n, oh, ow, oc] + sum over kh, kw, ic of
    padded[n, oh * stride + kh * dilation, ow * stride + kw * dilation, ic] * weight[kh, kw, ic, oc])``,
    where ``padded`` is x with zeros around it.

    Parameters
    ----------
    x : ndarray of shape (N, IH, IW, IC) or (IH, IW, IC), float32 or float64
        The images, with or without a batch axis.
    weight : ndarray of shape (KH, KW, IC / groups, OC), dtype of x
        The kernels; a `PackedWeight` where they serve many calls.
    bias : ndarray of shape (OC,), dtype of x, optional
        Added to every pixel.
    stride : int or pair, default 1
        Input pixels from one output pixel to the next.
    padding : int, (h, w), ((top, bottom), (left, right)), "valid", "same" or "same_lower", default 0
        Zeros around the image.  "same" gives ``ceil(IH / stride)`` rows, the odd one of zeros at the end (TensorFlow's
        rule); "same_lower" puts it at the beginning.
    dilation : int or pair, default 1
        Input pixels from one tap of the kernel to the next.
    groups : int, default 1
        Independent convolutions side by side: output channels [g * OC / groups, (g + 1) * OC / groups) see only input
        channels [g * IC / groups, (g + 1) * IC / groups).  ``groups=IC`` is a depthwise convolution.
    activation : {None, "linear", "relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "gelu"}
        Applied to the result while it is in the cache.
    residual : ndarray of the shape of the result, optional
        Added before the activation.
    layout : {"NHWC", "NCHW"}
        With "NCHW", x, residual and the result have shape (N, C, H, W) and weight is (OC, IC / groups, KH, KW), as in
        PyTorch; they are converted at the door.
    algorithm : {"auto", "fastest", "depthwise", "winograd", "direct", "reference"}
        See Notes.
    precision : {None, "tf32", "bf16", "fp16"}
        For arrays on a GPU: round the factors of the products to 11, 8 or 11 bits (fp16 has the smaller range) and
        compute on tensor cores, which sum in float32.  By default nothing is rounded.
    out : ndarray, optional
        Array to write the result into.

    Returns
    -------
    ndarray of shape (N, OH, OW, OC)
        ``OH = (IH + top + bottom - (KH - 1) * dilation - 1) // stride + 1``, and the same for ``OW``.

    Raises
    ------
    TypeError
        If an array is neither float32 nor float64, or the dtypes differ.
    ValueError
        If the shapes do not fit together, an argument is out of range, or the algorithm refuses the problem.

    Notes
    -----
    "auto" takes "depthwise" where each group has one input channel; "winograd" for float32 without groups, where it
    multiplies much less and channels and images are large enough for it to pay; and "direct" elsewhere.  The choice
    depends on the shapes of one image and the kernel alone; "fastest" looks at the batch as well.  `explain` tells the
    choice and its reasons.  On a GPU, "auto" takes an algorithm with the bits of the CPU's; "fastest" may take
    "winograd_fused", which computes 2x2 outputs from 16 products and has bits of its own.

    "winograd" computes 4x4 outputs of 3x3 taps from 36 products in place of 144, 3x3 outputs from 25.  A larger kernel
    is a sum of pieces of 3x3 and fewer taps, with a stride of taps that lie a stride apart: 5x5 taps are 4 pieces,
    11x11 with stride 4 are 16.  3x3 taps with a stride, and 1x1, gain nothing.

    Inside a function that Numba compiles, the call computes on the calling thread and has the same bits; x and weight
    must be arrays in host memory there.

    The result has the same bits for any number of threads, any batch and any vector width.  "direct" and "depthwise"
    make each output element one chain of fused multiply-adds in the order kh, kw, ic.  Their error is at most
    ``eps * KH * KW * IC / groups`` times the sum of the absolute products, typically ``eps`` times the square root of
    that count.  "winograd", for float32 only, is typically within 5e-6 of the largest output, about three times the
    error of "direct", and within 2e-5 where neighbours differ by many orders of magnitude
    (`fastconv.cpu.winograd.error_bound` is the proven limit); `algorithm="direct"` asks for the plain sum.

    NaN and infinity reach the outputs that see them, and under "winograd" all outputs of the 4x4 tiles whose 6x6
    pixels, for any piece of the kernel, hold them.
    Zeros of the padding take part in the direct sum: a weight that is not finite makes NaN there.
    Denormal numbers, below 1.2e-38 in float32, count as zero, because many processors are very slow with them.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.arange(12, dtype=np.float32).reshape(3, 4, 1)
    >>> vertical_edges = np.array([[-1, 0, 1]] * 3, np.float32).reshape(3, 3, 1, 1)
    >>> conv2d(image, vertical_edges)[..., 0]
    array([[6., 6.]], dtype=float32)

    References
    ----------
    V. Dumoulin and F. Visin, A guide to convolution arithmetic for deep learning, arXiv:1603.07285.

    A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308.
    """
    images = image_format("x", x, layout, IMAGES)
    x = images.enter("x", x)
    weight, forms = enter_weight("weight", weight, layout, x)
    g = conv2d_geometry(x.shape, weight.shape, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if residual is not None:
        residual = images.enter("residual", residual, x)
    result = images.result(g.out_shape, x.dtype, out, (x, weight, residual))
    convolve(g, x, weight, bias, residual, activation, algorithm, result, forms, precision)
    return images.leave(result, out)


def convolve(
    geometry: Conv2dGeometry,
    x: FloatArray,
    weight: FloatArray,
    bias: ArrayLike | None,
    residual: FloatArray | None,
    activation: str | None,
    algorithm: str,
    out: FloatArray,
    forms: Forms | None = None,
    precision: str | None = None,
) -> None:
    """`conv2d` behind the door: all arrays are contiguous and channels last, but may lack axes of extent 1."""
    if bias is not None:
        bias = bias_in(bias, geometry.OC, x)
    if residual is not None and residual.shape != out.shape:
        raise ValueError(
            f"residual must have the shape of the result, {out.shape}. Received: residual.shape={residual.shape}"
        )
    code = activation_code(activation)
    compute = choose("conv2d_forward", geometry, x.itemsize, algorithm, room(x).engine, precision)
    if geometry.N:
        if x.ndim != 4:
            x, weight, out = (
                x.reshape(geometry.x_shape),
                weight.reshape(geometry.weight_shape),
                out.reshape(geometry.out_shape),
            )
        compute(geometry, x, weight, bias, residual, out, code, forms)


def conv2d_backward(
    grad_out: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    layout: str = "NHWC",
    algorithm: str = "auto",
    precision: str | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gradients of `conv2d` with respect to x, weight and bias.

    Parameters
    ----------
    grad_out : ndarray of shape (N, OH, OW, OC)
        Gradient with respect to the result before its activation.
    x, weight, stride, padding, dilation, groups, layout, algorithm, precision
        As given to `conv2d`.

    Returns
    -------
    grad_x : ndarray of the shape of x
    grad_weight : ndarray of the shape of weight
    grad_bias : ndarray of shape (OC,)

    Raises
    ------
    TypeError, ValueError
        As `conv2d`, and if *grad_out* does not have the shape of the result.

    Notes
    -----
    The three are what `conv2d_grad_x`, `conv2d_grad_weight` and `conv2d_grad_bias` return, with their accuracy and
    determinism; they can be asked for one by one.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.ones((1, 4, 4, 2), np.float32), np.ones((3, 3, 2, 5), np.float32)
    >>> grad_x, grad_weight, grad_bias = conv2d_backward(np.ones((1, 2, 2, 5), np.float32), x, weight)
    >>> grad_x[0, :, :, 0]
    array([[ 5., 10., 10.,  5.],
           [10., 20., 20., 10.],
           [10., 20., 20., 10.],
           [ 5., 10., 10.,  5.]], dtype=float32)
    >>> grad_weight.shape, float(grad_weight[0, 0, 0, 0]), grad_bias
    ((3, 3, 2, 5), 4.0, array([4., 4., 4., 4., 4.], dtype=float32))
    """
    images = image_format("x", x, layout, IMAGES)
    x = images.enter("x", x)
    grad_out = images.enter("grad_out", grad_out, x)
    weight = weight_in("weight", weight, layout, x)
    g = conv2d_geometry(x.shape, weight.shape, stride=stride, padding=padding, dilation=dilation, groups=groups)
    grad_x = room(x).empty(g.x_shape, x.dtype)
    input_gradient(g, grad_out, weight, algorithm, grad_x, precision=precision)
    grad_weight = weight_gradient(g, x, grad_out, algorithm, precision)
    grad_bias = room(x).reduction.column_sums(grad_out.reshape(-1, g.OC))
    return images.leave(grad_x), weight_out(grad_weight, layout), leave(grad_bias)


def conv2d_grad_x(
    grad_out: ArrayLike,
    weight: ArrayLike,
    x_shape: tuple[int, ...],
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    layout: str = "NHWC",
    algorithm: str = "auto",
    precision: str | None = None,
    out: FloatArray | None = None,
) -> FloatArray:
    """Gradient of `conv2d` with respect to x.

    ``grad_x[n, ih, iw, ic] = sum over kh, kw, oc of grad_out[n, oh, ow, oc] * weight[kh, kw, ic, oc]`` over the taps
    that saw the pixel: ``oh * stride = ih + top - kh * dilation``, and the same for ``ow``.

    Parameters
    ----------
    grad_out : ndarray of shape (N, OH, OW, OC) or (OH, OW, OC), float32 or float64
    weight : ndarray of shape (KH, KW, IC / groups, OC), dtype of grad_out, or a `PackedWeight`
    x_shape : tuple of int
        Shape of x in the caller's layout.
    stride, padding, dilation, groups, layout, algorithm, precision, out
        As in `conv2d`.

    Returns
    -------
    ndarray of shape *x_shape*

    Raises
    ------
    TypeError, ValueError
        As `conv2d`, and if *grad_out* does not have the shape of the result for an x of *x_shape*.

    Notes
    -----
    Pixels of x at one offset modulo the stride form a convolution of grad_out without stride, with the kernel's taps
    for that offset in reverse order; there are stride * stride of them, and none multiplies with an inserted zero.
    Small images with little or no padding are computed the other way around, from each pixel of grad_out, or tile of
    them with "winograd", to the pixels of x that it has seen: what lies outside of grad_out is not multiplied.
    The same bits for any number of threads, any batch and any vector width.

    Examples
    --------
    >>> import numpy as np
    >>> conv2d_grad_x(np.ones((1, 2, 1), np.float32), np.ones((1, 3, 1, 1), np.float32), (1, 4, 1)).ravel()
    array([1., 2., 2., 1.], dtype=float32)
    """
    images = image_format("grad_out", grad_out, layout, IMAGES)
    grad_out = images.enter("grad_out", grad_out)
    weight, forms = enter_weight("weight", weight, layout, grad_out, "grad_out")
    g = conv2d_geometry(
        images.nhwc("x_shape", x_shape), weight.shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    result = images.result(g.x_shape, grad_out.dtype, out, (grad_out, weight))
    input_gradient(g, grad_out, weight, algorithm, result, forms, precision)
    return images.leave(result, out)


def input_gradient(
    geometry: Conv2dGeometry,
    grad_out: FloatArray,
    weight: FloatArray,
    algorithm: str,
    out: FloatArray,
    forms: Forms | None = None,
    precision: str | None = None,
) -> None:
    """`conv2d_grad_x` behind the door."""
    check_grad_out(geometry, grad_out)
    compute = choose("conv2d_grad_x", geometry, grad_out.itemsize, algorithm, room(grad_out).engine, precision)
    if geometry.N:
        compute(geometry, grad_out, weight, out, forms)


def conv2d_grad_weight(
    grad_out: ArrayLike,
    x: ArrayLike,
    weight_shape: tuple[int, ...],
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    layout: str = "NHWC",
    algorithm: str = "auto",
    precision: str | None = None,
) -> FloatArray:
    """Gradient of `conv2d` with respect to weight.

    ``grad_weight[kh, kw, ic, oc] = sum over n, oh, ow of
    padded[n, oh * stride + kh * dilation, ow * stride + kw * dilation, ic] * grad_out[n, oh, ow, oc]``.

    Parameters
    ----------
    grad_out : ndarray of shape (N, OH, OW, OC) or (OH, OW, OC), float32 or float64
    x : ndarray of shape (N, IH, IW, IC) or (IH, IW, IC), dtype of grad_out
    weight_shape : tuple of int
        Shape of weight in the caller's layout.
    stride, padding, dilation, groups, layout, algorithm, precision
        As in `conv2d`.

    Returns
    -------
    ndarray of shape *weight_shape*
        Zeros for an empty batch.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`, and if *grad_out* does not have the shape of the result.

    Notes
    -----
    "direct" adds pixels in the order n, oh, ow, in chains of about 512, whole rows or images, or longer ones where the
    weight is large.  Where it is small, the chains are split into at most 16 parts; their sums are added in order, then
    those of the parts.  "winograd" adds tiles and "depthwise" short chains of pixels, split in the same way.  All this
    follows from the shapes alone, so the number of threads does not change a bit.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(4, dtype=np.float32).reshape(1, 4, 1)
    >>> conv2d_grad_weight(np.ones((1, 2, 1), np.float32), x, (1, 3, 1, 1)).ravel()
    array([1., 3., 5.], dtype=float32)
    """
    images = image_format("grad_out", grad_out, layout, IMAGES)
    grad_out = images.enter("grad_out", grad_out)
    x = images.enter("x", x, grad_out)
    shape = weight_shape_in("weight_shape", weight_shape, layout)
    g = conv2d_geometry(x.shape, shape, stride=stride, padding=padding, dilation=dilation, groups=groups)
    return weight_out(weight_gradient(g, x, grad_out, algorithm, precision), layout)


def weight_gradient(
    geometry: Conv2dGeometry, x: FloatArray, grad_out: FloatArray, algorithm: str, precision: str | None = None
) -> FloatArray:
    """`conv2d_grad_weight` behind the door."""
    check_grad_out(geometry, grad_out)
    here = room(x)
    compute = choose("conv2d_grad_weight", geometry, x.itemsize, algorithm, here.engine, precision)
    if geometry.N == 0:
        zeros: FloatArray = here.zeros(geometry.weight_shape, x.dtype)
        return zeros
    result: FloatArray = here.empty(geometry.weight_shape, x.dtype)
    compute(geometry, x, grad_out, result)
    return result


def conv2d_grad_bias(grad_out: ArrayLike, *, layout: str = "NHWC") -> FloatArray:
    """Gradient of `conv2d` with respect to bias: ``grad_bias[oc] = sum over n, oh, ow of grad_out[n, oh, ow, oc]``.

    Parameters
    ----------
    grad_out : ndarray of shape (N, OH, OW, OC) or (OH, OW, OC), float32 or float64
    layout : {"NHWC", "NCHW"}

    Returns
    -------
    ndarray of shape (OC,)

    Raises
    ------
    TypeError, ValueError
        If *grad_out* is neither float32 nor float64, or has another number of dimensions.

    Notes
    -----
    Summed in float64, over fixed blocks of pixels in a fixed order.

    Examples
    --------
    >>> import numpy as np
    >>> conv2d_grad_bias(np.ones((2, 3, 5, 2), np.float32))
    array([30., 30.], dtype=float32)
    """
    rows = image_format("grad_out", grad_out, layout, IMAGES).enter("grad_out", grad_out)
    return leave(room(rows).reduction.column_sums(rows.reshape(-1, rows.shape[-1])))


def bias_in(bias: ArrayLike, channels: int, like: FloatArray) -> FloatArray:
    """The bias as a contiguous array of one number per output channel."""
    array = float_array("bias", bias, like)
    if array.shape != (channels,):
        raise ValueError(f"bias must have shape ({channels},). Received: bias.shape={array.shape}")
    return array


def check_grad_out(geometry: Conv2dGeometry, grad_out: FloatArray) -> None:
    """A gradient with respect to the result has the result's shape."""
    if grad_out.shape != geometry.out_shape:
        raise ValueError(
            f"grad_out must have the shape of the result, {geometry.out_shape}. "
            f"Received: grad_out.shape={grad_out.shape}"
        )
