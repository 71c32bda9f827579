"""Random variations of images while a model trains."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.keras.preprocessing.image.files import LAYOUTS, one_of
from fastconv.keras.preprocessing.image.iterators import ArrayIterator, DirectoryIterator
from fastconv.keras.preprocessing.image.transform import FILL_MODES, apply_affine_transform

Range = float | Sequence[float]
#: Options of Keras that are not offered, with the values that say that they are off, as tutorials do.
LEFT_OUT = {
    "brightness_range": None,
    "channel_shift_range": 0,
    "dtype": None,
    "featurewise_center": False,
    "featurewise_std_normalization": False,
    "samplewise_center": False,
    "samplewise_std_normalization": False,
    "zca_epsilon": 1e-6,
    "zca_whitening": False,
}


class ImageDataGenerator:
    """Batches of randomly turned, moved, sheared, zoomed and mirrored images.

    Parameters
    ----------
    rotation_range : float
        Degrees: an image is turned by up to so many, either way.
    width_shift_range, height_shift_range : float or sequence
        Below 1 a share of the image's width or height, otherwise pixels: it is moved by up to so much, either way.
        Of a sequence of pixels one is chosen, either way.
    shear_range : float
        Degrees.
    zoom_range : float or (low, high)
        ``low`` to ``high``, or ``1 - zoom_range`` to ``1 + zoom_range``: how much of the image is shown, drawn for
        height and width apart; below 1 enlarges.
    fill_mode : "nearest", "constant", "reflect" or "wrap"
        What is outside the image: its border, *cval*, its mirror image, or the image again.
    cval : float
        The number outside where *fill_mode* is "constant".
    horizontal_flip, vertical_flip : bool
        Whether every second image, by chance, is mirrored.
    rescale : float, optional
        Every number is multiplied by it, after the variations.
    preprocessing_function : callable, optional
        Called with each image (H, W, C) after the variations and before *rescale*; returns one of the same shape.
    data_format : "channels_last" or "channels_first", optional
    validation_split : float
        Share of the images that is kept for ``subset="validation"``.
    **left_out
        Keras's other options, such as ``featurewise_center``, are not offered: they may be named to be left off.

    Raises
    ------
    ValueError
        If an argument is none of these values.
    TypeError
        If an option that is left out is on.

    Notes
    -----
    The numbers of an image follow from the seed, the epoch and the image's position in the data alone: the batch size
    and background threads do not change them.

    Examples
    --------
    >>> images, labels = np.zeros((10, 8, 8, 1)), np.arange(10)
    >>> batches = ImageDataGenerator(rotation_range=10, horizontal_flip=True).flow(images, labels, batch_size=4, seed=1)
    >>> x, y = next(batches)
    >>> x.shape, y.shape, len(batches)
    ((4, 8, 8, 1), (4,), 3)
    """

    def __init__(
        self,
        rotation_range: float = 0,
        width_shift_range: Range = 0.0,
        height_shift_range: Range = 0.0,
        shear_range: float = 0.0,
        zoom_range: Range = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[NDArray[np.float32]], ArrayLike] | None = None,
        data_format: str | None = None,
        validation_split: float = 0.0,
        **left_out: Any,
    ) -> None:
        for name, value in left_out.items():
            if name not in LEFT_OUT or value != LEFT_OUT[name]:
                raise TypeError(
                    f"ImageDataGenerator has no option {name}: change the images with NumPy before `flow`, or each one "
                    f"in preprocessing_function. Received: {name}={value!r}"
                )
        if not 0 <= validation_split < 1:
            raise ValueError(
                f"validation_split must be at least 0 and below 1. Received: validation_split={validation_split!r}"
            )
        self.rotation_range = rotation_range
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.shear_range = shear_range
        self.zoom_range = _low_and_high(zoom_range)
        self.fill_mode = one_of("fill_mode", fill_mode, FILL_MODES)
        self.cval = cval
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.rescale = rescale
        self.preprocessing_function = preprocessing_function
        self.data_format = one_of("data_format", data_format or LAYOUTS[0], LAYOUTS)
        self.validation_split = validation_split

    def flow(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        subset: str | None = None,
    ) -> ArrayIterator:
        """Batches of variations of the images of an array, for ever; `len` is the number of batches of an epoch.

        Parameters
        ----------
        x : array_like of shape (N, H, W, C), or (N, C, H, W) with channels first
        y : array_like of length N, optional
            Labels; without them batches are images alone.
        batch_size : int
        shuffle : bool
            Whether each epoch takes the images in a new random order.
        seed : int, optional
            Makes variations and order the same in every run.
        subset : "training" or "validation", optional
            The images behind, or those of, the share *validation_split* at the beginning.

        Returns
        -------
        ArrayIterator

        Raises
        ------
        ValueError
            If the shapes do not fit, or *subset* is unknown or nothing was split off for it.
        """
        return ArrayIterator(self, x, y, batch_size, shuffle, seed, subset)

    def flow_from_directory(
        self,
        directory: str | os.PathLike[str],
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        subset: str | None = None,
        interpolation: str = "nearest",
    ) -> DirectoryIterator:
        """Batches of variations of the image files in a folder that has one folder for each class.

        Parameters
        ----------
        directory : path
        target_size : (height, width)
            Size that every image is brought to.
        color_mode : "grayscale", "rgb" or "rgba"
        classes : sequence of str, optional
            The folders to read, in the order of the class numbers; by default all, in alphabetical order.
        class_mode : "categorical", "binary", "sparse", "input" or None
            Labels as one-hot rows, as 0.0 and 1.0, as class numbers, the images themselves, or none.
        batch_size, shuffle, seed, subset
            As in `flow`; each class is split by itself.
        interpolation : str
            As in `load_img`.

        Returns
        -------
        DirectoryIterator
            With `class_indices`, a dict from class names to numbers.

        Raises
        ------
        ValueError
            If there are no images, or an argument is not one of the words above.
        """
        return DirectoryIterator(
            self,
            directory,
            target_size,
            color_mode,
            classes,
            class_mode,
            batch_size,
            shuffle,
            seed,
            subset,
            interpolation,
        )

    def fit(self, x: ArrayLike) -> None:
        """Nothing: there are no statistics to take, but tutorials call it before `flow`."""

    def random_transform(self, x: ArrayLike, seed: Any = None) -> NDArray[np.float32]:
        """One random variation of an image.

        Parameters
        ----------
        x : array_like of shape (H, W, C), or (C, H, W) with channels first
        seed : int, sequence of ints or Generator, optional
            What decides the variation.

        Returns
        -------
        ndarray of the shape of *x*, float32
        """
        image = np.asarray(x, np.float32)
        first = self.data_format == "channels_first"
        varied = self._vary(image.transpose(1, 2, 0) if first else image, np.random.default_rng(seed))
        return np.ascontiguousarray(varied.transpose(2, 0, 1) if first else varied)

    def standardize(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """`preprocessing_function`, then `rescale`."""
        if self.preprocessing_function is not None:
            x = np.asarray(self.preprocessing_function(x), np.float32)
        return x if self.rescale is None else x * np.float32(self.rescale)

    def _vary(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw all numbers, so that each stays what it is when another range changes."""
        height, width = image.shape[:2]
        theta, shear, columns, rows = rng.uniform(-1, 1, 4)
        low, high = self.zoom_range
        zx, zy = rng.uniform(low, high, 2)
        mirrored, upside_down = rng.random(2) < 0.5
        image = apply_affine_transform(
            image,
            theta * self.rotation_range,
            _shift(self.width_shift_range, columns, width),
            _shift(self.height_shift_range, rows, height),
            shear * self.shear_range,
            zx,
            zy,
            fill_mode=self.fill_mode,
            cval=self.cval,
        )
        if mirrored and self.horizontal_flip:
            image = image[:, ::-1]
        if upside_down and self.vertical_flip:
            image = image[::-1]
        return image


def _low_and_high(zoom_range: Range) -> tuple[float, float]:
    if isinstance(zoom_range, int | float):
        return 1 - zoom_range, 1 + zoom_range
    low, high = zoom_range
    return float(low), float(high)


def _shift(shift_range: Range, number: float, extent: int) -> float:
    """Pixels to move by, for a random number from -1 to 1."""
    if isinstance(shift_range, int | float):
        return number * shift_range * (extent if shift_range < 1 else 1)
    pixels = shift_range[min(int(abs(number) * len(shift_range)), len(shift_range) - 1)]
    return pixels if number < 0 else -pixels
