"""Values and the pixels they belong to: unpooling, its gradient, and the scattering that gradients of pooling share."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.arrays import IMAGES, FloatArray, ImageFormat, image_format, on_device, planes
from fastconv.geometry import IntOrPair, Pool2dGeometry, pair
from fastconv.rooms import room


def max_unpool2d(x: ArrayLike, indices: ArrayLike, output_size: IntOrPair, *, layout: str = "NHWC") -> FloatArray:
    """Put pooled pixels back where they came from, with zeros between them.

    ``out[n, indices[n, ih, iw, c], c] = x[n, ih, iw, c]``, pixels of ``out`` counted row by row.

    Parameters
    ----------
    x : ndarray of shape (N, IH, IW, C) or (IH, IW, C), float32 or float64
    indices : ndarray of the same shape, integer
        What `max_pool2d` returned with ``return_indices=True``.
    output_size : int or (OH, OW)
        Height and width of the image before it was pooled.
    layout : "NHWC" or "NCHW"

    Returns
    -------
    out : ndarray of shape (N, OH, OW, C)

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64, or *indices* are not integers.
    ValueError
        If the shapes differ, or an index lies outside the output.

    Notes
    -----
    Where overlapping windows took the same pixel, the last value in reading order stays, for any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> max_unpool2d(np.full((1, 1, 1), 7.0), np.full((1, 1, 1), 2), 2)[:, :, 0]
    array([[0., 0.],
           [7., 0.]])
    """
    image = image_format("x", x, layout, IMAGES)
    OH, OW = pair("output_size", output_size)
    N, _, _, C = image.enter("x", x).shape
    return scatter(image, "x", x, indices, (N, OH, OW, C), accumulate=False)


def max_unpool2d_backward(grad_out: ArrayLike, indices: ArrayLike, *, layout: str = "NHWC") -> FloatArray:
    """Gradient of `max_unpool2d` with respect to its input.

    ``grad_x[n, ih, iw, c] = grad_out[n, indices[n, ih, iw, c], c]``, pixels of ``grad_out`` counted row by row.

    Parameters
    ----------
    grad_out : ndarray of shape (N, OH, OW, C) or (OH, OW, C), float32 or float64
    indices : ndarray of shape (N, IH, IW, C) or (IH, IW, C), integer
    layout : "NHWC" or "NCHW"

    Returns
    -------
    grad_x : ndarray of the shape of *indices*

    Raises
    ------
    TypeError
        If *grad_out* is neither float32 nor float64, or *indices* are not integers.
    ValueError
        If the shapes do not fit together, or an index lies outside of *grad_out*.

    Notes
    -----
    Where several indices are equal, each of them receives the gradient of that pixel, as in PyTorch.  On a GPU an index
    outside takes 0.

    Examples
    --------
    >>> import numpy as np
    >>> max_unpool2d_backward(np.arange(4.0).reshape(2, 2, 1), np.full((1, 1, 1), 2)).ravel()
    array([2.])
    """
    image = image_format("grad_out", grad_out, layout, IMAGES)
    gradient = image.enter("grad_out", grad_out)
    where = _enter_indices(image, indices, gradient)
    N, OH, OW, C = gradient.shape
    if where.shape[0] != N or where.shape[3] != C:
        raise ValueError(
            f"indices must have the batch and the channels of grad_out. "
            f"Received: indices.shape={np.shape(indices)}, grad_out.shape={np.shape(grad_out)}"
        )
    here = room(gradient)
    grad_x = here.empty(where.shape, gradient.dtype)
    if not here.pool.take(gradient, where, grad_x):
        raise ValueError(_outside(OH * OW, where))
    taken: FloatArray = image.leave(grad_x)
    return taken


def scatter(
    image: ImageFormat,
    name: str,
    values: ArrayLike,
    indices: ArrayLike,
    shape: tuple[int, ...],
    accumulate: bool,
    windows: Pool2dGeometry | None = None,
) -> FloatArray:
    """Move *values* to their pixels in an array of *shape* (channels last), zero elsewhere; from *windows* if given."""
    arrived = image.enter(name, values)
    where = _enter_indices(image, indices, arrived)
    N, *plane, C = shape
    if arrived.shape != where.shape or (arrived.shape[0], arrived.shape[-1]) != (N, C):
        raise ValueError(
            f"{name} and indices must have one shape, with {N} images of {C} channels. "
            f"Received: {name}.shape={np.shape(values)}, indices.shape={np.shape(indices)}"
        )
    if windows is not None and planes(arrived).shape != windows.out_shape:
        raise ValueError(
            f"{name} must have the shape of the windows' results, NHWC {windows.out_shape}. "
            f"Received: {name}.shape={np.shape(values)}"
        )
    here = room(arrived)
    result = here.empty((N, *plane, C), arrived.dtype)
    source, places, target = planes(arrived), planes(where), planes(result)
    if windows is None:
        inside = here.pool.scatter(source, places, accumulate, target)
    else:
        inside = here.pool.extreme_backward(windows, source, places, target)
    if not inside:
        raise ValueError(_outside(prod(plane), where))
    moved: FloatArray = image.leave(result)
    return moved


def _enter_indices(image: ImageFormat, indices: ArrayLike, like: FloatArray) -> NDArray[np.int64]:
    """The caller's indices, channels last and with a batch axis."""
    if on_device(like) or on_device(indices):
        return image.enter("indices", indices, like, dtype=np.int64)  # type: ignore[return-value]
    array = np.asarray(indices)
    if array.dtype.kind not in "iu":
        raise TypeError(f"indices must be integers. Received: indices.dtype={array.dtype}")
    if array.ndim != image.dimensions:
        raise ValueError(f"indices must have {image.dimensions} dimensions. Received: indices.shape={array.shape}")
    batch = array if image.batched else array[np.newaxis]
    return np.ascontiguousarray(batch if image.layout.endswith("C") else np.moveaxis(batch, 1, -1), np.int64)


def _outside(pixels: int, indices: NDArray[np.int64]) -> str:
    return (
        f"indices must lie in the image: 0 <= index < {pixels}. "
        f"Received: indices.min()={indices.min()}, indices.max()={indices.max()}"
    )
