"""Zeros around images."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.arrays import FloatArray
from fastconv.geometry import IntOrPair, Sides, pair
from fastconv.keras.layers.base import Shape
from fastconv.keras.layers.images import ImageLayer, contiguous


class ZeroPadding2D(ImageLayer):
    """Images with rows and columns of zeros around them.

    Images (N, H, W, C) become (N, top + H + bottom, left + W + right, C).

    Parameters
    ----------
    padding : int, (int, int) or ((int, int), (int, int))
        Zeros on all sides; above and below, left and right; or ((top, bottom), (left, right)).
    data_format : {"channels_last", "channels_first"}, optional
        Order of the axes of input and output.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        If *padding* is none of these, or an input is no batch of images.

    Examples
    --------
    >>> ZeroPadding2D(((1, 0), (2, 2))).compute_output_shape((None, 8, 8, 3))
    (None, 9, 12, 3)
    """

    def __init__(
        self,
        padding: IntOrPair | tuple[IntOrPair, IntOrPair] = (1, 1),
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format=data_format, **kwargs)
        rows, columns = padding if isinstance(padding, list | tuple) and len(padding) == 2 else (padding, padding)
        self.padding: Sides = (pair("padding", rows, 0), pair("padding", columns, 0))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        _, H, W, C = self.nhwc(input_shape)
        rows, columns = self.padding
        return self.from_nhwc(input_shape, H + sum(rows), W + sum(columns), C)

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        none = (0, 0)
        return np.pad(x, (none, none, *self.padding) if self._channels_first else (none, *self.padding, none))

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        everything, image = slice(None), self._image(grad_out)
        kept = (everything, everything, *image) if self._channels_first else (everything, *image, everything)
        return contiguous(grad_out[kept])

    def _image(self, padded: FloatArray) -> tuple[slice, slice]:
        """Where the image lies in the padded one."""
        H, W = padded.shape[2:] if self._channels_first else padded.shape[1:3]
        (top, bottom), (left, right) = self.padding
        return slice(top, H - bottom), slice(left, W - right)
