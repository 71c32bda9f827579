"""Image files as arrays, through Pillow."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastconv.arrays import FloatArray

#: Keras's names of colour modes, Pillow's, and the number of channels.
COLOR_MODES = {"grayscale": ("L", 1), "rgb": ("RGB", 3), "rgba": ("RGBA", 4)}
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")
LAYOUTS = ("channels_last", "channels_first")
_LARGEST_BYTE = 255


def load_img(
    path: str | os.PathLike[str],
    color_mode: str = "rgb",
    target_size: tuple[int, int] | None = None,
    interpolation: str = "nearest",
) -> Any:
    """Read an image file.

    Parameters
    ----------
    path : path
        Of any format that Pillow reads.
    color_mode : "grayscale", "rgb" or "rgba"
    target_size : (height, width), optional
        Size to bring the image to; by default its own.
    interpolation : "nearest", "bilinear", "bicubic", "hamming", "box" or "lanczos"
        How.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    ValueError
        If *color_mode* or *interpolation* is unknown.
    ImportError
        If Pillow is not installed.

    Examples
    --------
    >>> from PIL import Image
    >>> Image.new("RGB", (4, 3)).save("photo.png")
    >>> load_img("photo.png", target_size=(6, 8)).size  # Pillow says width first
    (8, 6)
    """
    mode = one_of("color_mode", color_mode, COLOR_MODES)
    one_of("interpolation", interpolation, _INTERPOLATIONS)
    image_class = _pillow()
    with image_class.open(path) as picture:
        image = picture.convert(COLOR_MODES[mode][0])
    if target_size is not None and image.size != target_size[::-1]:
        image = image.resize(target_size[::-1], image_class.Resampling[interpolation.upper()])
    return image


def img_to_array(img: Any, data_format: str = "channels_last", dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """A Pillow image, or an array of one channel or more, as numbers with an axis for the channels.

    Parameters
    ----------
    img : PIL.Image.Image or array_like of shape (H, W) or (H, W, C)
    data_format : "channels_last" or "channels_first"
    dtype : dtype

    Returns
    -------
    ndarray of shape (H, W, C) or (C, H, W)

    Raises
    ------
    ValueError
        If the image has neither two nor three axes, or *data_format* is unknown.

    Examples
    --------
    >>> img_to_array(np.zeros((4, 3), np.uint8)).shape
    (4, 3, 1)
    """
    one_of("data_format", data_format, LAYOUTS)
    array = np.array(img, dtype=dtype)
    if array.ndim not in (2, 3):
        raise ValueError(f"img must have two or three axes. Received: img.shape={array.shape}")
    if array.ndim == 2:
        array = array[..., np.newaxis]
    return array if data_format == "channels_last" else np.ascontiguousarray(array.transpose(2, 0, 1))


def array_to_img(x: ArrayLike, data_format: str = "channels_last", scale: bool = True) -> Any:
    """An array as a Pillow image.

    Parameters
    ----------
    x : array_like of shape (H, W, C) or (C, H, W)
        With one, three or four channels.
    data_format : "channels_last" or "channels_first"
    scale : bool
        Whether to bring the smallest number to 0 and the largest to 255; otherwise numbers are taken as bytes.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    ValueError
        If the shape is that of no image, or *data_format* is unknown.
    ImportError
        If Pillow is not installed.

    Examples
    --------
    >>> array_to_img(np.zeros((4, 3, 1))).size
    (3, 4)
    """
    one_of("data_format", data_format, LAYOUTS)
    array: FloatArray = np.asarray(x, np.float32)
    if array.ndim == 3 and data_format == "channels_first":
        array = array.transpose(1, 2, 0)
    modes = {channels: mode for mode, channels in COLOR_MODES.values()}
    if array.ndim != 3 or array.shape[2] not in modes:
        raise ValueError(f"x must be an image of 1, 3 or 4 channels. Received: x.shape={np.shape(x)}")
    if scale:
        array = array - array.min(initial=np.inf)
        array = array * (_LARGEST_BYTE / (array.max(initial=0) or 1))
    pixels = np.rint(array).astype(np.uint8)
    return _pillow().fromarray(pixels[..., 0] if array.shape[2] == 1 else pixels)


def one_of(name: str, value: str, known: Any) -> str:
    """*value*, which must be one of the *known* words."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}. Received: {name}={value!r}")
    return value


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError('image files need Pillow: pip install "fastconv[images]"') from None
    return Image
