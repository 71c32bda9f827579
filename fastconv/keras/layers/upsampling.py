"""Images made larger."""

from __future__ import annotations

from typing import Any

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.functional.upsample import INTERPOLATIONS
from fastconv.geometry import IntOrPair, pair
from fastconv.keras.layers.base import Shape
from fastconv.keras.layers.images import ImageLayer


class UpSampling2D(ImageLayer):
    """Images *size* times as high and wide.

    Images (N, H, W, C) become (N, H * size, W * size, C).

    Parameters
    ----------
    size : int or (int, int)
        Factors of height and width.
    data_format : {"channels_last", "channels_first"}, optional
        Order of the axes of input and output.
    interpolation : {"nearest", "bilinear"}
        Each pixel repeated, or straight lines between the centres of the pixels.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        If an argument is not one of these values, or an input is no batch of images.

    Examples
    --------
    >>> UpSampling2D(2).compute_output_shape((None, 7, 7, 64))
    (None, 14, 14, 64)
    """

    def __init__(
        self,
        size: IntOrPair = (2, 2),
        data_format: str | None = None,
        interpolation: str = "nearest",
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format=data_format, **kwargs)
        self.size = pair("size", size)
        self.interpolation = str(interpolation).lower()
        if self.interpolation not in INTERPOLATIONS:
            names = ", ".join(INTERPOLATIONS)
            raise ValueError(f"interpolation must be one of {names}. Received: interpolation={interpolation!r}")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        _, H, W, C = self.nhwc(input_shape)
        return self.from_nhwc(input_shape, H * self.size[0], W * self.size[1], C)

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        return self.leave(functional.upsample2d(self.enter(x), self.size, interpolation=self.interpolation))

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        grad_out = self.enter(grad_out)
        return self.leave(functional.upsample2d_backward(grad_out, self.size, interpolation=self.interpolation))
