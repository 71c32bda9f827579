"""Images made larger by whole factors, and the gradient.

Both interpolations are transposed convolutions of each channel by itself with a fixed kernel, stepping by the factor:
a block of ones repeats each pixel, which forward is a plain copy; a triangle draws straight lines between the centres
of neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastconv.arrays import IMAGES, FloatArray, float_array, image_format
from fastconv.functional.conv import conv2d
from fastconv.functional.conv_transpose import conv_transpose2d
from fastconv.geometry import IntOrPair, Pair, pair
from fastconv.rooms import room

#: How pixels between the pixels are found.
INTERPOLATIONS = ("nearest", "bilinear")


def upsample2d(x: ArrayLike, size: IntOrPair, *, interpolation: str = "nearest", layout: str = "NHWC") -> FloatArray:
    """Images *size* times as high and wide.

    ``"nearest"``: ``out[n, oh, ow, c] = x[n, oh // size, ow // size, c]``.  ``"bilinear"``: the centre of output row
    ``oh`` lies at row ``(oh + 1/2) / size - 1/2`` of the image, on a straight line between the two rows around it;
    beyond the outermost centres the outermost pixel goes on.  The same for columns.

    Parameters
    ----------
    x : ndarray of shape (N, IH, IW, C) or (IH, IW, C), float32 or float64
    size : int or pair
        Factors of height and width.
    interpolation : "nearest" or "bilinear"
    layout : "NHWC" or "NCHW"

    Returns
    -------
    out : ndarray of shape (N, IH * size, IW * size, C)

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64.
    ValueError
        If *x* is no batch of images, or an argument is none of the above.

    Notes
    -----
    PyTorch's ``interpolate(..., align_corners=False)``, Keras's ``UpSampling2D``.  "nearest" copies; "bilinear" is a
    `conv_transpose2d` of each channel by itself, with its accuracy and determinism.

    Examples
    --------
    >>> import numpy as np
    >>> row = np.array([[[0.0], [4.0]]])
    >>> upsample2d(row, (1, 2)).ravel(), upsample2d(row, (1, 2), interpolation="bilinear").ravel()
    (array([0., 0., 4., 4.]), array([0., 1., 3., 4.]))
    """
    size = _checked(size, interpolation)
    image = image_format("x", x, layout, IMAGES)
    images = image.enter("x", x)
    rows, columns = size
    if interpolation == "nearest":
        return image.leave(np.repeat(np.repeat(images, columns, axis=2), rows, axis=1))
    padded = _with_borders(_with_borders(images, 1), 2)
    kernel = _triangles(size, images)
    larger = conv_transpose2d(padded, kernel, stride=size, padding=_cut(size), groups=images.shape[3])
    return image.leave(float_array("out", larger))


def upsample2d_backward(
    grad_out: ArrayLike, size: IntOrPair, *, interpolation: str = "nearest", layout: str = "NHWC"
) -> FloatArray:
    """Gradient of `upsample2d` with respect to *x*: each pixel collects what it gave, in the same shares.

    Parameters
    ----------
    grad_out : ndarray of shape (N, OH, OW, C) or (OH, OW, C), float32 or float64
    size, interpolation, layout
        As in the forward call.

    Returns
    -------
    grad_x : ndarray of shape (N, OH / size, OW / size, C)

    Raises
    ------
    TypeError
        If *grad_out* is neither float32 nor float64.
    ValueError
        If *size* does not divide the extents of *grad_out*, or an argument is none of the above.

    Notes
    -----
    A `conv2d` of each channel by itself, with its accuracy and determinism.

    Examples
    --------
    >>> import numpy as np
    >>> upsample2d_backward(np.ones((2, 4, 1)), 2)[:, :, 0]
    array([[4., 4.]])
    """
    size = _checked(size, interpolation)
    image = image_format("grad_out", grad_out, layout, IMAGES)
    gradient = image.enter("grad_out", grad_out)
    _, OH, OW, C = gradient.shape
    if OH % size[0] or OW % size[1]:
        raise ValueError(f"size must divide the image. Received: size={size}, grad_out.shape={np.shape(grad_out)}")
    if interpolation == "nearest":
        ones = np.ones_like(gradient, shape=(*size, 1, C))
        return image.leave(float_array("grad_x", conv2d(gradient, ones, stride=size, groups=C)))
    padded = conv2d(gradient, _triangles(size, gradient), stride=size, padding=_cut(size), groups=C)
    return image.leave(_without_borders(_without_borders(float_array("grad_x", padded), 2), 1))


def _with_borders(images: FloatArray, axis: int) -> FloatArray:
    """The first and the last pixel along an axis go on for one pixel more."""
    first, last = (images[:, :1], images[:, -1:]) if axis == 1 else (images[:, :, :1], images[:, :, -1:])
    return np.concatenate([first, images, last], axis=axis)


def _without_borders(padded: FloatArray, axis: int) -> FloatArray:
    """The gradient of `_with_borders`: each pixel at the border was used for the one beyond it, too."""
    extent = padded.shape[axis] - 2
    first, images, last = np.split(padded, [1, 1 + extent], axis=axis)
    none = [(0, 0)] * padded.ndim
    before, behind = ([*none[:axis], widths, *none[axis + 1 :]] for widths in ((0, extent - 1), (extent - 1, 0)))
    gradient: FloatArray = images + np.pad(first, before) + np.pad(last, behind)
    return gradient


def _checked(size: IntOrPair, interpolation: str) -> Pair:
    if interpolation not in INTERPOLATIONS:
        names = ", ".join(INTERPOLATIONS)
        raise ValueError(f"interpolation must be one of {names}. Received: interpolation={interpolation!r}")
    return pair("size", size)


def _triangles(size: Pair, like: FloatArray) -> FloatArray:
    """Weights (KH, KW, 1, C) that a pixel spreads to its neighbourhood: a triangle along each axis."""
    rows, columns = (_triangle(factor) for factor in size)
    kernel = np.outer(rows, columns).astype(like.dtype)
    weight: FloatArray = room(like).constant(np.repeat(kernel[:, :, None, None], like.shape[3], axis=3))
    return weight


def _triangle(factor: int) -> FloatArray:
    """How much of a pixel each output has whose centre lies within one pixel of the pixel's own."""
    taps = 2 * factor - factor % 2
    distance = (np.arange(taps) - factor // 2 + 0.5) / factor - 0.5
    weights: FloatArray = 1 - np.abs(distance)
    return weights


def _cut(size: Pair) -> tuple[Pair, Pair]:
    """What the pixels added around the image spread beyond it."""
    rows, columns = ((factor + factor // 2, 2 * factor - factor % 2 - factor // 2) for factor in size)
    return rows, columns
