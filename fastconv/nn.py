"""The functions of ``tf.nn`` that tutorials on convolution use, under their names and with their arguments.

``import fastconv as tf`` serves code written for TensorFlow: ``tf.nn.conv2d(images, filters, strides=1,
padding="SAME")``.  Each function takes TensorFlow's words apart and calls the operation of `fastconv` that does the
work; see there for accuracy, determinism and algorithms.  Results are NumPy arrays.

Images are NHWC, or NCHW with ``data_format="NCHW"``; filters are always (height, width, channels in, channels out).
Strides, dilations and window sizes are an int, a pair, or four numbers, one for each axis of the images.  Padding is
"SAME", "VALID", or a pair for each axis of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.functional import gelu, leaky_relu, relu, relu6, sigmoid, silu, tanh
from fastconv.geometry import Pair, Sides

__all__ = [
    "avg_pool",
    "avg_pool2d",
    "bias_add",
    "conv1d",
    "conv2d",
    "conv2d_transpose",
    "depthwise_conv2d",
    "dropout",
    "gelu",
    "leaky_relu",
    "max_pool",
    "max_pool2d",
    "relu",
    "relu6",
    "separable_conv2d",
    "sigmoid",
    "silu",
    "softmax",
    "softmax_cross_entropy_with_logits",
    "sparse_softmax_cross_entropy_with_logits",
    "swish",
    "tanh",
]

swish = silu

#: Places of height and width among the axes of a layout.
_SPATIAL = {"NHWC": (1, 2), "NCHW": (2, 3)}
_SERIES = ("NWC", "NCW")
#: HWIO -> the order that a layout has in `fastconv`.
_WEIGHT_AXES = {"NHWC": (0, 1, 2, 3), "NCHW": (3, 2, 0, 1)}


def conv2d(
    input: ArrayLike,
    filters: ArrayLike,
    strides: int | Sequence[int],
    padding: str | Sequence[Sequence[int]],
    data_format: str = "NHWC",
    dilations: int | Sequence[int] | None = None,
) -> FloatArray:
    """Convolve images with filters: `fastconv.conv2d`.

    Filters of fewer input channels than the images have make a grouped convolution.

    Parameters
    ----------
    input : ndarray of shape (N, IH, IW, IC), float32 or float64
    filters : ndarray of shape (KH, KW, IC / groups, OC), dtype of *input*
    strides, dilations : int, pair or four ints
    padding : "SAME", "VALID" or four pairs
    data_format : "NHWC" or "NCHW"

    Returns
    -------
    ndarray of shape (N, OH, OW, OC)

    Raises
    ------
    TypeError
        If an array is neither float32 nor float64, or the dtypes differ.
    ValueError
        If shapes do not fit together, or strides, dilations or padding also concern batch or channels.

    Examples
    --------
    >>> images = np.ones((1, 4, 4, 1), np.float32)
    >>> conv2d(images, np.ones((3, 3, 1, 1), np.float32), strides=[1, 1, 1, 1], padding="SAME")[0, :, :, 0]
    array([[4., 6., 6., 4.],
           [6., 9., 9., 6.],
           [6., 9., 9., 6.],
           [4., 6., 6., 4.]], dtype=float32)
    """
    images, weight, layout = _operands(input, filters, data_format)
    channels = images.shape[layout.index("C")]
    inputs = weight.shape[2]
    if inputs < 1 or channels % inputs:
        raise ValueError(
            f"filters must have a number of input channels that divides the images' {channels}. "
            f"Received: filters.shape={weight.shape}, input.shape={images.shape}"
        )
    return functional.conv2d(
        images,
        weight.transpose(_WEIGHT_AXES[layout]),
        stride=_pair("strides", strides, layout),
        padding=_padding(padding, layout),
        dilation=_pair("dilations", dilations, layout),
        groups=channels // inputs,
        layout=layout,
    )


def depthwise_conv2d(
    input: ArrayLike,
    filter: ArrayLike,
    strides: int | Sequence[int],
    padding: str | Sequence[Sequence[int]],
    data_format: str = "NHWC",
    dilations: int | Sequence[int] | None = None,
) -> FloatArray:
    """Convolve each channel with filters of its own.

    Parameters
    ----------
    input : ndarray of shape (N, IH, IW, IC), float32 or float64
    filter : ndarray of shape (KH, KW, IC, M), dtype of *input*
        M filters for each channel.
    strides, padding, data_format, dilations
        As in `conv2d`, and so are errors.

    Returns
    -------
    ndarray of shape (N, OH, OW, IC * M)
        Channel ``ic * M + m`` is channel ``ic`` filtered with ``filter[:, :, ic, m]``.

    Examples
    --------
    >>> image = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    >>> depthwise_conv2d(image, np.array([1, 10], np.float32).reshape(1, 1, 2, 1), 1, "VALID").ravel()
    array([ 0., 10.,  2., 30.], dtype=float32)
    """
    images, weight, layout = _operands(input, filter, data_format)
    channels = images.shape[layout.index("C")]
    if weight.shape[2] != channels:
        raise ValueError(
            f"filter must be (height, width, {channels}, filters of a channel). Received: filter.shape={weight.shape}"
        )
    grouped = weight.reshape(*weight.shape[:2], 1, channels * weight.shape[3])
    return conv2d(images, grouped, strides, padding, layout, dilations)


def separable_conv2d(
    input: ArrayLike,
    depthwise_filter: ArrayLike,
    pointwise_filter: ArrayLike,
    strides: int | Sequence[int],
    padding: str | Sequence[Sequence[int]],
    data_format: str = "NHWC",
    dilations: int | Sequence[int] | None = None,
) -> FloatArray:
    """`depthwise_conv2d`, then a 1x1 `conv2d` over the channels that it gives.

    Parameters
    ----------
    input : ndarray of shape (N, IH, IW, IC), float32 or float64
    depthwise_filter : ndarray of shape (KH, KW, IC, M)
    pointwise_filter : ndarray of shape (1, 1, IC * M, OC)
    strides, padding, data_format, dilations
        Of the depthwise convolution, as in `conv2d`, and so are errors.

    Returns
    -------
    ndarray of shape (N, OH, OW, OC)

    Examples
    --------
    >>> image, ones = np.ones((1, 4, 4, 3), np.float32), np.ones((3, 3, 3, 1), np.float32)
    >>> separable_conv2d(image, ones, np.ones((1, 1, 3, 8), np.float32), 1, "SAME").shape
    (1, 4, 4, 8)
    """
    between = depthwise_conv2d(input, depthwise_filter, strides, padding, data_format, dilations)
    return conv2d(between, pointwise_filter, 1, "VALID", data_format)


def conv2d_transpose(
    input: ArrayLike,
    filters: ArrayLike,
    output_shape: Sequence[int],
    strides: int | Sequence[int],
    padding: str = "SAME",
    data_format: str = "NHWC",
    dilations: int | Sequence[int] | None = None,
) -> FloatArray:
    """Spread each pixel over the output through the filters: `fastconv.conv2d_grad_x`.

    Parameters
    ----------
    input : ndarray of shape (N, IH, IW, IC), float32 or float64
    filters : ndarray of shape (KH, KW, OC, IC), dtype of *input*
    output_shape : four ints
        The shape of the result; `conv2d` with these strides and this padding must take it to the shape of *input*.
    strides, padding, data_format, dilations
        As in `conv2d`, and so are errors.

    Returns
    -------
    ndarray of *output_shape*

    Examples
    --------
    >>> row = np.array([1, 2], np.float32).reshape(1, 1, 2, 1)
    >>> conv2d_transpose(row, np.ones((1, 2, 1, 1), np.float32), (1, 1, 4, 1), (1, 2)).ravel()
    array([1., 1., 2., 2.], dtype=float32)
    """
    images, weight, layout = _operands(input, filters, data_format)
    return functional.conv2d_grad_x(
        images,
        weight.transpose(_WEIGHT_AXES[layout]),
        tuple(int(extent) for extent in output_shape),
        stride=_pair("strides", strides, layout),
        padding=_padding(padding, layout),
        dilation=_pair("dilations", dilations, layout),
        layout=layout,
    )


def conv1d(
    input: ArrayLike,
    filters: ArrayLike,
    stride: int,
    padding: str,
    data_format: str = "NWC",
    dilations: int | None = None,
) -> FloatArray:
    """Convolve series with filters: `fastconv.conv1d`.

    Parameters
    ----------
    input : ndarray of shape (N, IW, IC), float32 or float64
    filters : ndarray of shape (KW, IC, OC), dtype of *input*
    stride, dilations : int
    padding : "SAME" or "VALID"
    data_format : "NWC" or "NCW"

    Returns
    -------
    ndarray of shape (N, OW, OC)

    Raises
    ------
    TypeError, ValueError
        As in `conv2d`.

    Examples
    --------
    >>> series = np.array([1, 3, 6, 10], np.float32).reshape(1, 4, 1)
    >>> conv1d(series, np.array([-1, 1], np.float32).reshape(2, 1, 1), stride=1, padding="VALID").ravel()
    array([2., 3., 4.], dtype=float32)
    """
    if data_format not in _SERIES:
        raise ValueError(f"data_format must be one of {', '.join(_SERIES)}. Received: data_format={data_format!r}")
    weight = np.asarray(filters)
    return functional.conv1d(
        input,
        weight if data_format == "NWC" else weight.transpose(2, 1, 0),
        stride=stride,
        padding=_word(padding),
        dilation=1 if dilations is None else dilations,
        layout=data_format,
    )


def max_pool(
    input: ArrayLike,
    ksize: int | Sequence[int],
    strides: int | Sequence[int],
    padding: str | Sequence[Sequence[int]],
    data_format: str = "NHWC",
) -> FloatArray:
    """Largest pixel of each window: `fastconv.max_pool2d`.

    Parameters
    ----------
    input : ndarray of shape (N, IH, IW, C), float32 or float64
    ksize, strides : int, pair or four ints
    padding : "SAME", "VALID" or four pairs
    data_format : "NHWC" or "NCHW"

    Returns
    -------
    ndarray of shape (N, OH, OW, C)

    Raises
    ------
    TypeError, ValueError
        As in `conv2d`.

    Examples
    --------
    >>> image = np.arange(36, dtype=np.float32).reshape(1, 6, 6, 1)
    >>> max_pool(image, ksize=[1, 3, 3, 1], strides=[1, 3, 3, 1], padding="VALID")[0, :, :, 0]
    array([[14., 17.],
           [32., 35.]], dtype=float32)
    """
    layout = _layout(data_format)
    pooled: FloatArray = functional.max_pool2d(
        input,
        _pair("ksize", ksize, layout),
        stride=_pair("strides", strides, layout),
        padding=_padding(padding, layout),
        layout=layout,
    )
    return pooled


def avg_pool(
    input: ArrayLike,
    ksize: int | Sequence[int],
    strides: int | Sequence[int],
    padding: str | Sequence[Sequence[int]],
    data_format: str = "NHWC",
) -> FloatArray:
    """Average of the pixels of each window that lie inside the image: `fastconv.avg_pool2d`.

    Parameters
    ----------
    input, ksize, strides, padding, data_format
        As in `max_pool`, and so are result and errors.

    Examples
    --------
    >>> image = np.arange(36, dtype=np.float32).reshape(1, 6, 6, 1)
    >>> avg_pool(image, ksize=3, strides=3, padding="VALID")[0, :, :, 0]
    array([[ 7., 10.],
           [25., 28.]], dtype=float32)
    """
    layout = _layout(data_format)
    return functional.avg_pool2d(
        input,
        _pair("ksize", ksize, layout),
        stride=_pair("strides", strides, layout),
        padding=_padding(padding, layout),
        count_include_pad=False,
        layout=layout,
    )


max_pool2d, avg_pool2d = max_pool, avg_pool


def bias_add(value: ArrayLike, bias: ArrayLike, data_format: str = "NHWC") -> FloatArray:
    """Add a number to each channel.

    Parameters
    ----------
    value : ndarray of shape (..., C), or (N, C, ...) with ``data_format="NCHW"``
    bias : ndarray of shape (C,)
    data_format : "NHWC" or "NCHW"

    Returns
    -------
    ndarray of the shape of *value*

    Raises
    ------
    ValueError
        If there is not one number for each channel.

    Examples
    --------
    >>> bias_add(np.zeros((1, 2), np.float32), np.array([1, 2], np.float32))
    array([[1., 2.]], dtype=float32)
    """
    array, numbers = np.asarray(value), np.asarray(bias)
    axis = array.ndim - 1 if _layout(data_format) == "NHWC" else 1
    if not axis < array.ndim or numbers.shape != (array.shape[axis],):
        raise ValueError(
            f"bias must have one number for each channel. Received: bias.shape={numbers.shape}, "
            f"value.shape={array.shape}, data_format={data_format!r}"
        )
    result: FloatArray = array + numbers.reshape(-1, *(1,) * (array.ndim - 1 - axis))
    return result


def softmax(logits: ArrayLike, axis: int = -1) -> FloatArray:
    """``exp(logits) / sum(exp(logits))`` along an axis: `fastconv.softmax`.

    Parameters
    ----------
    logits : ndarray, float32 or float64
    axis : int

    Returns
    -------
    ndarray of the shape of *logits*

    Raises
    ------
    TypeError, ValueError
        As `fastconv.softmax`.

    Examples
    --------
    >>> softmax(np.array([[0.0, 5.0], [0.0, 5.0]]), axis=0)
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    rows = np.moveaxis(np.asarray(logits), axis, -1)
    return np.moveaxis(functional.softmax(rows), -1, axis)


def softmax_cross_entropy_with_logits(labels: ArrayLike, logits: ArrayLike) -> FloatArray:
    """Cross-entropy of probabilities and the softmax of *logits*, of each sample: `fastconv.softmax_cross_entropy`.

    Parameters
    ----------
    labels : ndarray of shape (N, C)
        A probability for each class.
    logits : ndarray of shape (N, C), float32 or float64

    Returns
    -------
    ndarray of shape (N,)

    Raises
    ------
    TypeError, ValueError
        As `fastconv.softmax_cross_entropy`.

    Examples
    --------
    >>> softmax_cross_entropy_with_logits(labels=[[1.0, 0.0]], logits=np.zeros((1, 2)))
    array([0.69314718])
    """
    if np.shape(labels) != np.shape(logits):
        raise ValueError(
            f"labels must have the shape of logits. Received: labels.shape={np.shape(labels)}, "
            f"logits.shape={np.shape(logits)}"
        )
    return functional.softmax_cross_entropy(logits, labels)


def sparse_softmax_cross_entropy_with_logits(labels: ArrayLike, logits: ArrayLike) -> FloatArray:
    """Cross-entropy of classes and the softmax of *logits*, of each sample: `fastconv.softmax_cross_entropy`.

    Parameters
    ----------
    labels : integer array of shape (N,)
        The class of each sample.
    logits : ndarray of shape (N, C), float32 or float64

    Returns
    -------
    ndarray of shape (N,)

    Raises
    ------
    TypeError, ValueError
        As `fastconv.softmax_cross_entropy`.

    Examples
    --------
    >>> sparse_softmax_cross_entropy_with_logits(labels=[0], logits=np.zeros((1, 2)))
    array([0.69314718])
    """
    if np.ndim(labels) != 1:
        raise ValueError(f"labels must have one axis. Received: labels.shape={np.shape(labels)}")
    return functional.softmax_cross_entropy(logits, labels)


def dropout(x: ArrayLike, rate: float, seed: int) -> FloatArray:
    """Set elements to 0 with probability *rate*, and divide the others by ``1 - rate``: `fastconv.dropout`.

    Parameters
    ----------
    x : ndarray, float32 or float64
    rate : float, at least 0 and below 1
    seed : int
        Which elements are dropped.  TensorFlow may draw it; here every call names it, so that a run can be repeated.

    Returns
    -------
    ndarray of the shape of *x*

    Raises
    ------
    TypeError, ValueError
        As `fastconv.dropout`.

    Examples
    --------
    >>> dropout(np.ones(8), 0.5, seed=1)
    array([2., 2., 2., 2., 2., 2., 0., 2.])
    """
    return functional.dropout(x, rate, seed=seed)


def _layout(data_format: str) -> str:
    if data_format not in _SPATIAL:
        raise ValueError(f"data_format must be one of {', '.join(_SPATIAL)}. Received: data_format={data_format!r}")
    return data_format


def _operands(images: ArrayLike, filters: ArrayLike, data_format: str) -> tuple[Any, Any, str]:
    layout = _layout(data_format)
    x, weight = np.asarray(images), np.asarray(filters)
    for name, array in (("input", x), ("filters", weight)):
        if array.ndim != len(layout):
            raise ValueError(f"{name} must have 4 dimensions. Received: {name}.shape={array.shape}")
    return x, weight, layout


def _pair(name: str, value: int | Sequence[int] | None, layout: str) -> Pair:
    """TensorFlow's one, two or four numbers as (vertical, horizontal)."""
    if value is None:
        return 1, 1
    numbers = [value] if isinstance(value, int | np.integer) else list(value)
    if len(numbers) == len(layout):
        vertical, horizontal = _SPATIAL[layout]
        others = [number for axis, number in enumerate(numbers) if axis not in (vertical, horizontal)]
        if others != [1, 1]:
            raise ValueError(f"{name} must be 1 for batch and channels ({layout}). Received: {name}={value}")
        numbers = [numbers[vertical], numbers[horizontal]]
    if len(numbers) not in (1, 2):
        raise ValueError(f"{name} must be one, two or four ints. Received: {name}={value}")
    return int(numbers[0]), int(numbers[-1])


def _padding(padding: str | Sequence[Sequence[int]], layout: str) -> str | Sides:
    """TensorFlow's word, or its four pairs as those of height and width."""
    if isinstance(padding, str):
        return _word(padding)
    pairs = [tuple(int(number) for number in pair) for pair in padding]
    vertical, horizontal = _SPATIAL[layout]
    if [len(pair) for pair in pairs] != [2] * len(layout) or any(
        pair != (0, 0) for axis, pair in enumerate(pairs) if axis not in (vertical, horizontal)
    ):
        raise ValueError(
            f'padding must be "SAME", "VALID" or four pairs, (0, 0) for batch and channels ({layout}). '
            f"Received: padding={padding}"
        )
    (top, bottom), (left, right) = pairs[vertical], pairs[horizontal]
    return (top, bottom), (left, right)


def _word(padding: str) -> str:
    if padding.upper() not in ("SAME", "VALID"):
        raise ValueError(f'padding must be "SAME" or "VALID". Received: padding={padding!r}')
    return padding.lower()
