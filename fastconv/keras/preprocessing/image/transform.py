"""Turning, moving, shearing and zooming an image, all in one resampling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.keras.preprocessing.image.files import one_of

FILL_MODES = ("nearest", "constant", "reflect", "wrap")


def affine_matrix(
    shape: tuple[int, int],
    theta: float = 0,
    tx: float = 0,
    ty: float = 0,
    shear: float = 0,
    zx: float = 1,
    zy: float = 1,
) -> NDArray[np.float64]:
    """The matrix that takes a place (row, column, 1) of the new image to the place of the old one that it shows.

    The product of a rotation, a shift, a shear and a zoom around the middle of the image, in this order.

    Parameters
    ----------
    shape : (height, width)
    theta : float
        Degrees to turn by.
    tx, ty : float
        Columns and rows to move by.
    shear : float
        Degrees to shear by.
    zx, zy : float
        Size of the part of the old image that is shown, in columns and rows: below 1 enlarges.

    Returns
    -------
    ndarray of shape (2, 3), float64

    Examples
    --------
    >>> affine_matrix((4, 4), ty=1)
    array([[1., 0., 1.],
           [0., 1., 0.]])
    """
    turn, slant = math.radians(theta), math.radians(shear)
    middle = [extent / 2 - 0.5 for extent in shape]
    matrix = (
        _shift(*middle)
        @ [[math.cos(turn), math.sin(turn), 0], [-math.sin(turn), math.cos(turn), 0], [0, 0, 1]]
        @ _shift(ty, tx)
        @ [[math.cos(slant), 0, 0], [-math.sin(slant), 1, 0], [0, 0, 1]]
        @ np.diag([zy, zx, 1])
        @ _shift(*(-place for place in middle))
    )
    return matrix[:2]


def apply_affine_transform(
    x: ArrayLike,
    theta: float = 0,
    tx: float = 0,
    ty: float = 0,
    shear: float = 0,
    zx: float = 1,
    zy: float = 1,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    order: int = 1,
) -> NDArray[np.float32]:
    """Turn, move, shear and zoom an image, resampled once.

    Parameters
    ----------
    x : array_like of shape (H, W, C)
    theta, tx, ty, shear, zx, zy : float
        As in `affine_matrix`.
    fill_mode : "nearest", "constant", "reflect" or "wrap"
        What is outside the image: its border, *cval*, its mirror image, or the image again.
    cval : float
        The number outside where *fill_mode* is "constant".
    order : int from 0 to 5
        Of the spline between pixels: 0 takes the nearest pixel, 1 is linear.

    Returns
    -------
    ndarray of shape (H, W, C), float32

    Raises
    ------
    ValueError
        If *x* has not three axes, or *fill_mode* is unknown.
    ImportError
        If SciPy is not installed.

    Notes
    -----
    Computed by `scipy.ndimage.affine_transform`, as in Keras, which turns images that are not square around another
    point than the middle.  Without any change asked for, *x* comes back as it is.

    Examples
    --------
    >>> image = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    >>> apply_affine_transform(image, tx=1)[..., 0]
    array([[2., 2.],
           [4., 4.]], dtype=float32)
    """
    one_of("fill_mode", fill_mode, FILL_MODES)
    image = np.asarray(x, np.float32)
    if image.ndim != 3:
        raise ValueError(f"x must have shape (H, W, C). Received: x.shape={image.shape}")
    if (theta, tx, ty, shear, zx, zy) == (0, 0, 0, 0, 1, 1):
        return image.copy()
    matrix = affine_matrix(image.shape[:2], theta, tx, ty, shear, zx, zy)
    out = np.empty_like(image)
    resample = _ndimage().affine_transform
    for channel in range(image.shape[2]):
        resample(
            image[..., channel],
            matrix[:, :2],
            matrix[:, 2],
            output=out[..., channel],
            order=order,
            mode=fill_mode,
            cval=cval,
        )
    return out


def _shift(rows: float, columns: float) -> NDArray[np.float64]:
    return np.array([[1, 0, rows], [0, 1, columns], [0, 0, 1]])


def _ndimage() -> Any:
    try:
        from scipy import ndimage
    except ImportError:
        raise ImportError('random image variations need SciPy: pip install "fastconv[images]"') from None
    return ndimage
