"""Pooling that takes one pixel of each window, the largest or the smallest, and its gradient; doors of all pooling."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike

from fastconv.arrays import (
    IMAGES,
    SERIES,
    FloatArray,
    ImageFormat,
    image_format,
    image_format_of_shape,
    on_device,
    planes,
)
from fastconv.functional.unpool import scatter
from fastconv.geometry import (
    IntOrPair,
    Padding,
    Pool2dGeometry,
    adaptive_pool2d_geometry,
    pair,
    pool2d_geometry,
)
from fastconv.rooms import room

Shape = tuple[int, ...]


def max_pool2d(
    x: ArrayLike,
    kernel_size: IntOrPair,
    *,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    layout: str = "NHWC",
    out: FloatArray | None = None,
) -> Any:
    """Largest pixel of each window, for every channel.

    ``out[n, oh, ow, c] = max over kh, kw of x[n, ih, iw, c]`` with ``ih = oh * stride + kh * dilation - top`` and
    ``iw = ow * stride + kw * dilation - left``; pixels in the padding do not take part.

    Parameters
    ----------
    x : ndarray of shape (N, IH, IW, C) or (IH, IW, C), float32 or float64
    kernel_size : int or (KH, KW)
    stride : int or pair, default *kernel_size*
    padding : int, (h, w), ((top, bottom), (left, right)), "valid", "same" or "same_lower"
        Numbers may be at most half of the dilated kernel.
    dilation : int or pair
        Distance between the pixels of a window.
    ceil_mode : bool
        Round the output size up: the last window may reach over the end, but must not start behind it.
    return_indices : bool
        Return the position of each maximum as well.
    layout : "NHWC" or "NCHW"
    out : ndarray, optional
        Array to write the result into.

    Returns
    -------
    out : ndarray of shape (N, OH, OW, C)
        ``OH = (IH + top + bottom - (KH - 1) * dilation - 1) // stride + 1``, and the same for ``OW``.
    indices : ndarray of the same shape, int64, only with *return_indices*
        ``ih * IW + iw`` of the pixel taken, in the image without padding.

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64.
    ValueError
        If the shapes do not fit, a window holds no pixel of the image, or *out* has another shape or dtype.

    Notes
    -----
    NaN wins over every number.  Of equal pixels the first wins, of several NaN the last, as in PyTorch.  The result is
    exact.  Large windows that overlap are pooled along the rows first, into an array of N * IH * OW * C elements.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.array([[1, 5, 2], [4, 3, 9]], np.float32)[:, :, np.newaxis]
    >>> values, indices = max_pool2d(image, 2, stride=1, return_indices=True)
    >>> values.ravel(), indices.ravel()
    (array([5., 9.], dtype=float32), array([1, 5]))
    """

    def geometry(shape: Shape) -> Pool2dGeometry:
        return pool2d_geometry(
            shape, kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
        )

    return _extreme(x, geometry, 1, return_indices, image_format("x", x, layout, IMAGES), out)


def min_pool2d(
    x: ArrayLike,
    kernel_size: IntOrPair,
    *,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    layout: str = "NHWC",
    out: FloatArray | None = None,
) -> Any:
    """Smallest pixel of each window, for every channel: ``-max_pool2d(-x)``.

    Parameters, results, errors and the rules for NaN and ties are those of `max_pool2d`; so is the backward function.

    Examples
    --------
    >>> import numpy as np
    >>> min_pool2d(np.array([[[1.0], [5.0]], [[4.0], [-3.0]]]), 2).ravel()
    array([-3.])
    """

    def geometry(shape: Shape) -> Pool2dGeometry:
        return pool2d_geometry(
            shape, kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
        )

    return _extreme(x, geometry, -1, return_indices, image_format("x", x, layout, IMAGES), out)


def max_pool1d(
    x: ArrayLike,
    kernel_size: int,
    *,
    stride: int | None = None,
    padding: int | str | tuple[int, int] = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    layout: str = "NWC",
    out: FloatArray | None = None,
) -> Any:
    """Largest element of each window of a series: `max_pool2d` with images of height 1.

    Parameters
    ----------
    x : ndarray of shape (N, IW, C) or (IW, C), float32 or float64
    kernel_size, stride, dilation : int
    padding : int, (left, right), "valid", "same" or "same_lower"
    ceil_mode, return_indices, out
        As in `max_pool2d`, as are errors and the rules for NaN and ties.
    layout : "NWC" or "NCW"

    Returns
    -------
    out : ndarray of shape (N, OW, C)
    indices : ndarray of the same shape, int64, only with *return_indices*
        For `max_pool2d_backward` with the same *layout*.

    Examples
    --------
    >>> import numpy as np
    >>> max_pool1d(np.array([[1.0], [3.0], [2.0], [7.0]]), 2).ravel()
    array([3., 7.])
    """

    def geometry(shape: Shape) -> Pool2dGeometry:
        return pool1d_geometry(shape, kernel_size, stride, padding, dilation=dilation, ceil_mode=ceil_mode)

    return _extreme(x, geometry, 1, return_indices, image_format("x", x, layout, SERIES), out)


def adaptive_max_pool2d(
    x: ArrayLike,
    output_size: IntOrPair,
    *,
    return_indices: bool = False,
    layout: str = "NHWC",
    out: FloatArray | None = None,
) -> Any:
    """Largest pixel of each window, with the windows chosen so that the output has the wanted size.

    Window ``oh`` holds the rows from ``floor(oh * IH / OH)`` up to, not with, ``ceil((oh + 1) * IH / OH)``.

    Parameters
    ----------
    x : ndarray of shape (N, IH, IW, C) or (IH, IW, C), float32 or float64
    output_size : int or (OH, OW)
    return_indices, layout, out
        As in `max_pool2d`, as are the results, errors, the rules for NaN and ties and the backward function.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_max_pool2d(np.arange(9.0).reshape(3, 3, 1), 2)[:, :, 0]
    array([[4., 5.],
           [7., 8.]])
    """
    size = pair("output_size", output_size)
    image = image_format("x", x, layout, IMAGES)
    return _extreme(x, lambda shape: adaptive_pool2d_geometry(shape, size), 1, return_indices, image, out)


def global_max_pool2d(
    x: ArrayLike, *, keepdims: bool = False, return_indices: bool = False, layout: str = "NHWC"
) -> Any:
    """Largest pixel of each channel: `adaptive_max_pool2d` with one window, the whole image.

    Parameters
    ----------
    x : ndarray of shape (N, IH, IW, C) or (IH, IW, C), float32 or float64
    keepdims : bool
        Keep the two axes of the image, with length 1.
    return_indices, layout
        As in `max_pool2d`, as are errors, the rules for NaN and ties and the backward function.

    Returns
    -------
    out : ndarray of shape (N, C), or (N, 1, 1, C) with *keepdims*
    indices : ndarray of the same shape, int64, only with *return_indices*

    Examples
    --------
    >>> import numpy as np
    >>> global_max_pool2d(np.arange(8.0).reshape(2, 2, 2))
    array([6., 7.])
    """
    axes = () if keepdims else spatial_axes(image_format("x", x, layout, IMAGES))
    result = adaptive_max_pool2d(x, 1, return_indices=return_indices, layout=layout)
    if return_indices:
        return without_axes(result[0], axes), without_axes(result[1], axes)
    return without_axes(result, axes)


def max_pool2d_backward(
    grad_out: ArrayLike,
    indices: ArrayLike,
    x_shape: Shape,
    *,
    kernel_size: Any = None,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    layout: str = "NHWC",
) -> FloatArray:
    """Gradient of every pooling that takes one pixel: plain, minimum, adaptive, global, and of a series.

    ``grad_x[n, p, c] = sum of grad_out[n, o, c] over all outputs o with indices[n, o, c] == p``, where pixels ``p`` are
    counted row by row.

    Parameters
    ----------
    grad_out : ndarray of the shape of the forward result, float32 or float64
    indices : ndarray of the same shape, integer
        What the forward function returned with ``return_indices=True``.
    x_shape : tuple of int
        Shape of the forward input, in *layout*, with or without the batch axis.
    kernel_size, stride, padding, dilation, ceil_mode : optional
        The windows, as in the forward call.  With a *kernel_size* a GPU looks only at the windows that hold a pixel;
        without one it looks through the indices of the whole image, several times.
    layout : "NHWC", "NCHW", "NWC" or "NCW"

    Returns
    -------
    grad_x : ndarray of shape *x_shape*

    Raises
    ------
    TypeError
        If *grad_out* is neither float32 nor float64, or *indices* are not integers.
    ValueError
        If the shapes do not fit together, or an index lies outside the image (a GPU leaves it out).

    Notes
    -----
    The gradients of one pixel are added in the order of the outputs, for any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1, 5], [4, 3]], np.float32)[:, :, np.newaxis]
    >>> values, indices = max_pool2d(x, 2, return_indices=True)
    >>> max_pool2d_backward(2 * values, indices, x.shape)[:, :, 0]
    array([[ 0., 10.],
           [ 0.,  0.]], dtype=float32)
    """
    image, shape = image_format_of_shape(x_shape, layout, (*IMAGES, *SERIES))
    grad_out, indices = (with_spatial_axes(image, array) for array in (grad_out, indices))
    windows = None
    if kernel_size is not None:
        options: Any = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
        N, *plane, C = shape
        windows = (
            pool2d_geometry(shape, kernel_size, **options)
            if len(plane) == 2
            else pool1d_geometry((N, 1, *plane, C), kernel_size, **options)
        )
    return scatter(image, "grad_out", grad_out, indices, shape, accumulate=True, windows=windows)


# ---- the doors that all pooling shares --------------------------------------------------------------------------


@lru_cache
def spatial_axes(image: ImageFormat) -> tuple[int, ...]:
    """Where the caller's arrays have height and width."""
    axes = image.layout if image.batched else image.layout[1:]
    return tuple(position for position, axis in enumerate(axes) if axis in "HW")


def with_spatial_axes(image: ImageFormat, array: Any) -> Any:
    """The result of global pooling without *keepdims* gets its axes of length 1 back."""
    axes = spatial_axes(image)
    if np.ndim(array) != image.dimensions - len(axes):
        return array
    array = array if on_device(array) else np.asarray(array)
    shape = iter(array.shape)
    return array.reshape(tuple(1 if axis in axes else next(shape) for axis in range(image.dimensions)))


def without_axes(array: Any, axes: tuple[int, ...]) -> Any:
    """The array of any library without *axes*, which have length 1."""
    return array.reshape(tuple(extent for axis, extent in enumerate(array.shape) if axis not in axes))


def result_like(image: ImageFormat, x: Any, geometry: Pool2dGeometry, out: Any) -> Any:
    """Array for the result, with as many axes as *x*, that shares no memory with *x*."""
    N, OH, OW, C = geometry.out_shape
    return image.result((N, OH, OW, C) if x.ndim == 4 else (N, OW, C), x.dtype, out, inputs=(x,))


def pool1d_geometry(
    shape: Shape, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1, **options: bool
) -> Pool2dGeometry:
    """Geometry of pooling a series, an image of height 1."""
    numbers = {"kernel_size": kernel_size, "stride": kernel_size if stride is None else stride, "dilation": dilation}
    for name, value in numbers.items():
        if not isinstance(value, SupportsIndex):
            raise TypeError(f"{name} must be an int. Received: {name}={value!r}")
    if not isinstance(padding, str):
        padding = ((0, 0), pair("padding", padding, 0))
    window, step, spread = ((1, value) for value in numbers.values())
    return pool2d_geometry(shape, window, stride=step, padding=padding, dilation=spread, **options)


# ---- from the doors to the kernels ------------------------------------------------------------------------------


def _extreme(
    x: ArrayLike,
    geometry_of: Callable[[Shape], Pool2dGeometry],
    sign: int,
    return_indices: bool,
    image: ImageFormat,
    out: FloatArray | None,
) -> Any:
    images = image.enter("x", x)
    geometry = geometry_of(planes(images).shape)
    result = result_like(image, images, geometry, out)
    here = room(images)
    indices = here.empty(result.shape, np.int64) if return_indices else None
    positions = () if indices is None else (planes(indices),)
    here.pool.extreme(planes(images), geometry.rows, geometry.columns, sign, planes(result), *positions)
    output = image.leave(result, out)
    return output if indices is None else (output, image.leave(indices))
