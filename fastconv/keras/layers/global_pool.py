"""Pooling of whole images and series."""

from __future__ import annotations

from typing import Any

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.keras.layers.base import Shape
from fastconv.keras.layers.images import ImageLayer, SeriesLayer


class _GlobalPooling(ImageLayer):
    """What all poolings of whole images share: shapes."""

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(data_format=data_format, **kwargs)
        self.keepdims = keepdims

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        channels = self.nhwc(input_shape)[3]
        return self.from_nhwc(input_shape, 1, 1, channels) if self.keepdims else (input_shape[0], channels)

    def shaped(self, out: FloatArray) -> FloatArray:
        """The result (N, 1, 1, C) in the layer's shape."""
        return self.leave(out) if self.keepdims else out[:, 0, 0]


class GlobalMaxPooling2D(_GlobalPooling):
    """The largest pixel of each channel of the whole image.

    Images (N, H, W, C) become (N, C), or (N, 1, 1, C) with *keepdims*.

    Parameters
    ----------
    data_format : {"channels_last", "channels_first"}, optional
        Order of the input's axes.
    keepdims : bool
        Whether the output keeps two axes of extent 1 for the image.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        If an input is no batch of images.

    Examples
    --------
    >>> GlobalMaxPooling2D().compute_output_shape((None, 7, 7, 64))
    (None, 64)
    """

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        x = self.enter(x)
        if not training:
            return self.shaped(functional.global_max_pool2d(x, keepdims=True))
        self._x_shape = x.shape
        out, self._indices = functional.global_max_pool2d(x, keepdims=True, return_indices=True)
        return self.shaped(out)

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        grad_out, image = grad_out.reshape(self._indices.shape), self._x_shape[1:3]
        return self.leave(functional.max_pool2d_backward(grad_out, self._indices, self._x_shape, kernel_size=image))


class GlobalAveragePooling2D(_GlobalPooling):
    """The average of each channel over the whole image.

    Images (N, H, W, C) become (N, C), or (N, 1, 1, C) with *keepdims*.

    Parameters
    ----------
    data_format, keepdims, **kwargs
        As in `GlobalMaxPooling2D`.

    Raises
    ------
    ValueError
        If an input is no batch of images.

    Examples
    --------
    >>> GlobalAveragePooling2D(keepdims=True).compute_output_shape((None, 7, 7, 64))
    (None, 1, 1, 64)
    """

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        x = self.enter(x)
        if training:
            self._x_shape = x.shape
        return self.shaped(functional.global_avg_pool2d(x, keepdims=True))

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        N, _, _, C = self._x_shape
        return self.leave(functional.global_avg_pool2d_backward(grad_out.reshape(N, C), self._x_shape))


class GlobalMaxPooling1D(SeriesLayer, GlobalMaxPooling2D):
    """The largest number of each channel of the whole series; parameters as in `GlobalMaxPooling2D`.

    Series (N, W, C) become (N, C), or (N, 1, C) with *keepdims*.

    Raises
    ------
    ValueError
        If an input is no batch of series.

    Examples
    --------
    >>> GlobalMaxPooling1D().compute_output_shape((None, 100, 8))
    (None, 8)
    """


class GlobalAveragePooling1D(SeriesLayer, GlobalAveragePooling2D):
    """The average of each channel over the whole series; parameters as in `GlobalMaxPooling2D`.

    Series (N, W, C) become (N, C), or (N, 1, C) with *keepdims*.

    Raises
    ------
    ValueError
        If an input is no batch of series.

    Examples
    --------
    >>> GlobalAveragePooling1D().compute_output_shape((None, 100, 8))
    (None, 8)
    """
