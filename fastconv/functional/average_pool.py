"""Pooling that averages the pixels of each window, and its gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from fastconv.arrays import IMAGES, SERIES, FloatArray, ImageFormat, image_format, image_format_of_shape, planes
from fastconv.functional.pool import (
    Shape,
    pool1d_geometry,
    result_like,
    spatial_axes,
    with_spatial_axes,
    without_axes,
)
from fastconv.geometry import (
    IntOrPair,
    Padding,
    Pool2dGeometry,
    adaptive_pool2d_geometry,
    pair,
    pool2d_geometry,
    single_pixels,
    windows_of_pixels,
)
from fastconv.rooms import room


def avg_pool2d(
    x: ArrayLike,
    kernel_size: IntOrPair,
    *,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NHWC",
    out: FloatArray | None = None,
) -> FloatArray:
    """Average of each window, for every channel.

    ``out[n, oh, ow, c] = sum over kh, kw of x[n, oh * stride + kh - top, ow * stride + kw - left, c] / count``, where
    pixels in the padding are zeros.

    Parameters
    ----------
    x, kernel_size, stride, padding, ceil_mode, layout, out
        As in `max_pool2d`.
    count_include_pad : bool
        Whether ``count`` includes the padding.  Keras's ``padding="same"`` does not.  Where *ceil_mode* lets a window
        reach over the padded image, that part is never counted.

    Returns
    -------
    out : ndarray of shape (N, OH, OW, C)
        ``OH`` and ``OW`` as in `max_pool2d`.

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64.
    ValueError
        If the shapes do not fit, or *out* has another shape or dtype.

    Notes
    -----
    Sums are formed in the dtype of *x*, in a fixed order of short chains: rounding errors stay below
    ``129 + KH / 64 + KW / 64`` times the unit roundoff times the average magnitude, for windows of any size.

    Examples
    --------
    >>> import numpy as np
    >>> row = np.array([[[2.0], [4.0], [6.0]]])
    >>> avg_pool2d(row, (1, 3), stride=1, padding=(0, 1)).ravel()
    array([2.        , 4.        , 3.33333333])
    >>> avg_pool2d(row, (1, 3), stride=1, padding="same", count_include_pad=False).ravel()
    array([3., 4., 5.])
    """

    def geometry(shape: Shape) -> Pool2dGeometry:
        return pool2d_geometry(
            shape,
            kernel_size,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )

    return _average(x, geometry, image_format("x", x, layout, IMAGES), out)


def avg_pool2d_backward(
    grad_out: ArrayLike,
    x_shape: Shape,
    kernel_size: IntOrPair,
    *,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NHWC",
) -> FloatArray:
    """Gradient of `avg_pool2d` with respect to *x*.

    ``grad_x[n, ih, iw, c] = sum of grad_out[n, oh, ow, c] / count[oh, ow] over the windows that hold pixel (ih, iw)``.

    Parameters
    ----------
    grad_out : ndarray of shape (N, OH, OW, C) or (OH, OW, C), float32 or float64
    x_shape : tuple of int
        Shape of the forward input, in *layout*, with or without the batch axis.
    kernel_size, stride, padding, ceil_mode, count_include_pad, layout
        As in the forward call.

    Returns
    -------
    grad_x : ndarray of shape *x_shape*

    Raises
    ------
    TypeError
        If *grad_out* is neither float32 nor float64.
    ValueError
        If *grad_out* does not have the shape of the forward result.

    Notes
    -----
    Every pixel collects its gradient in the order of the windows, for any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool2d_backward(np.full((1, 1, 1), 8.0), (2, 2, 1), 2)[:, :, 0]
    array([[2., 2.],
           [2., 2.]])
    """
    image, shape = image_format_of_shape(x_shape, layout, IMAGES)
    geometry = pool2d_geometry(
        shape,
        kernel_size,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )
    return average_backward(grad_out, geometry, image)


def avg_pool1d(
    x: ArrayLike,
    kernel_size: int,
    *,
    stride: int | None = None,
    padding: int | str | tuple[int, int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NWC",
    out: FloatArray | None = None,
) -> FloatArray:
    """Average of each window of a series: `avg_pool2d` with images of height 1.

    Parameters
    ----------
    x : ndarray of shape (N, IW, C) or (IW, C), float32 or float64
    kernel_size, stride : int
    padding : int, (left, right), "valid", "same" or "same_lower"
    ceil_mode, count_include_pad, out
        As in `avg_pool2d`, as are errors and accuracy.
    layout : "NWC" or "NCW"

    Returns
    -------
    out : ndarray of shape (N, OW, C)

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool1d(np.array([[1.0], [3.0], [2.0], [7.0]]), 2).ravel()
    array([2. , 4.5])
    """

    def geometry(shape: Shape) -> Pool2dGeometry:
        return pool1d_geometry(
            shape, kernel_size, stride, padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad
        )

    return _average(x, geometry, image_format("x", x, layout, SERIES), out)


def avg_pool1d_backward(
    grad_out: ArrayLike,
    x_shape: Shape,
    kernel_size: int,
    *,
    stride: int | None = None,
    padding: int | str | tuple[int, int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NWC",
) -> FloatArray:
    """Gradient of `avg_pool1d` with respect to *x*: `avg_pool2d_backward` with images of height 1.

    Parameters
    ----------
    grad_out : ndarray of shape (N, OW, C) or (OW, C), float32 or float64
    x_shape : tuple of int
        Shape of the forward input, in *layout*, with or without the batch axis.
    kernel_size, stride, padding, ceil_mode, count_include_pad, layout
        As in the forward call; errors as in `avg_pool2d_backward`.

    Returns
    -------
    grad_x : ndarray of shape *x_shape*

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool1d_backward(np.array([[4.0], [6.0]]), (4, 1), 2).ravel()
    array([2., 2., 3., 3.])
    """
    image, (N, IW, C) = image_format_of_shape(x_shape, layout, SERIES)
    geometry = pool1d_geometry(
        (N, 1, IW, C), kernel_size, stride, padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad
    )
    return average_backward(grad_out, geometry, image)


def adaptive_avg_pool2d(
    x: ArrayLike, output_size: IntOrPair, *, layout: str = "NHWC", out: FloatArray | None = None
) -> FloatArray:
    """Average of each window, with the windows chosen so that the output has the wanted size.

    Window ``oh`` holds the rows from ``floor(oh * IH / OH)`` up to, not with, ``ceil((oh + 1) * IH / OH)``.

    Parameters
    ----------
    x : ndarray of shape (N, IH, IW, C) or (IH, IW, C), float32 or float64
    output_size : int or (OH, OW)
    layout, out
        As in `avg_pool2d`, as are errors and accuracy.

    Returns
    -------
    out : ndarray of shape (N, OH, OW, C)

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool2d(np.arange(9.0).reshape(3, 3, 1), 2)[:, :, 0]
    array([[2., 3.],
           [5., 6.]])
    """
    size = pair("output_size", output_size)
    image = image_format("x", x, layout, IMAGES)
    return _average(x, lambda shape: adaptive_pool2d_geometry(shape, size), image, out)


def adaptive_avg_pool2d_backward(grad_out: ArrayLike, x_shape: Shape, *, layout: str = "NHWC") -> FloatArray:
    """Gradient of `adaptive_avg_pool2d` with respect to *x*.

    ``grad_x[n, ih, iw, c] = sum of grad_out[n, oh, ow, c] / count[oh, ow] over the windows that hold pixel (ih, iw)``.

    Parameters
    ----------
    grad_out : ndarray of shape (N, OH, OW, C) or (OH, OW, C), float32 or float64
        ``(OH, OW)`` is the forward call's *output_size*.
    x_shape : tuple of int
        Shape of the forward input, in *layout*, with or without the batch axis.
    layout : "NHWC" or "NCHW"

    Returns
    -------
    grad_x : ndarray of shape *x_shape*

    Raises
    ------
    TypeError
        If *grad_out* is neither float32 nor float64.
    ValueError
        If *grad_out* does not have the batch and the channels of *x_shape*.

    Notes
    -----
    Every pixel collects its gradient in the order of the windows, for any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool2d_backward(np.full((1, 1, 1, 1), 8.0), (1, 2, 2, 1)).ravel()
    array([2., 2., 2., 2.])
    """
    image, shape = image_format_of_shape(x_shape, layout, IMAGES)
    _, OH, OW, _ = image.enter("grad_out", grad_out).shape
    return average_backward(grad_out, adaptive_pool2d_geometry(shape, (OH, OW)), image)


def global_avg_pool2d(x: ArrayLike, *, keepdims: bool = False, layout: str = "NHWC") -> FloatArray:
    """Average of each channel: `adaptive_avg_pool2d` with one window, the whole image.

    Parameters
    ----------
    x : ndarray of shape (N, IH, IW, C) or (IH, IW, C), float32 or float64
    keepdims : bool
        Keep the two axes of the image, with length 1.
    layout : "NHWC" or "NCHW"
        Errors and accuracy as in `avg_pool2d`.

    Returns
    -------
    out : ndarray of shape (N, C), or (N, 1, 1, C) with *keepdims*

    Examples
    --------
    >>> import numpy as np
    >>> global_avg_pool2d(np.arange(8.0).reshape(2, 2, 2))
    array([3., 4.])
    """
    axes = () if keepdims else spatial_axes(image_format("x", x, layout, IMAGES))
    result: FloatArray = without_axes(adaptive_avg_pool2d(x, 1, layout=layout), axes)
    return result


def global_avg_pool2d_backward(grad_out: ArrayLike, x_shape: Shape, *, layout: str = "NHWC") -> FloatArray:
    """Gradient of `global_avg_pool2d` with respect to *x*: every pixel receives its share.

    Parameters
    ----------
    grad_out : ndarray of shape (N, C) or (N, 1, 1, C), float32 or float64
    x_shape : tuple of int
        Shape of the forward input, in *layout*, with or without the batch axis.
    layout : "NHWC" or "NCHW"

    Returns
    -------
    grad_x : ndarray of shape *x_shape*

    Raises
    ------
    TypeError
        If *grad_out* is neither float32 nor float64.
    ValueError
        If *grad_out* does not have the shape of the forward result.

    Examples
    --------
    >>> import numpy as np
    >>> global_avg_pool2d_backward(np.array([[8.0]]), (1, 2, 2, 1)).ravel()
    array([2., 2., 2., 2.])
    """
    image, shape = image_format_of_shape(x_shape, layout, IMAGES)
    return average_backward(with_spatial_axes(image, grad_out), adaptive_pool2d_geometry(shape, (1, 1)), image)


def _average(
    x: ArrayLike, geometry_of: Callable[[Shape], Pool2dGeometry], image: ImageFormat, out: FloatArray | None
) -> FloatArray:
    images = image.enter("x", x)
    geometry = geometry_of(planes(images).shape)
    result = result_like(image, images, geometry, out)
    room(images).pool.average(planes(images), geometry.rows, geometry.columns, planes(result))
    output: FloatArray = image.leave(result, out)
    return output


def average_backward(grad_out: ArrayLike, geometry: Pool2dGeometry, image: ImageFormat) -> FloatArray:
    """Sum over the windows that hold each pixel: the forward kernel with its tables reversed.

    Where all windows divide by the same count, so do their sums; otherwise the gradients are divided first.
    """
    arrived = image.enter("grad_out", grad_out)
    gradient = planes(arrived)
    if gradient.shape != geometry.out_shape:
        raise ValueError(
            f"grad_out must have the shape of the forward result, {geometry.out_shape} in NHWC. "
            f"Received: grad_out.shape={np.shape(grad_out)}, x={geometry.x_shape} {geometry.arguments}"
        )
    here = room(gradient)
    rows, columns, counts_differ = windows_of_pixels(geometry)
    if counts_differ:
        shares = here.empty(gradient.shape, gradient.dtype)
        every_row = single_pixels(geometry.OH).divided_by(geometry.rows.counts)
        every_column = single_pixels(geometry.OW).divided_by(geometry.columns.counts)
        here.pool.average(gradient, every_row, every_column, shares)
        gradient = shares
    grad_x = here.empty(geometry.x_shape, gradient.dtype)
    here.pool.average(gradient, rows, columns, grad_x)
    N, _, IW, C = geometry.x_shape
    result: FloatArray = image.leave(grad_x if arrived.ndim == 4 else grad_x.reshape(N, IW, C))
    return result
