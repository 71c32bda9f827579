"""Pooling of windows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.geometry import IntOrPair, pool2d_geometry
from fastconv.keras.layers.base import Shape
from fastconv.keras.layers.images import ImageLayer, SeriesLayer, padding_of


class _Pooling(ImageLayer):
    """What all poolings share: windows."""

    def __init__(
        self,
        pool_size: IntOrPair = 2,
        strides: IntOrPair | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format=data_format, **kwargs)
        self.pool_size = self.extents("pool_size", pool_size)
        self.strides = self.pool_size if strides is None else self.extents("strides", strides)
        self.padding = padding_of(padding)
        self._windows: dict[str, Any] = {
            "kernel_size": self.plane(self.pool_size),
            "stride": self.plane(self.strides),
            "padding": self.padding,
        }

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        geometry = pool2d_geometry(self.nhwc(input_shape), **self._windows, count_include_pad=False)
        return self.from_nhwc(input_shape, geometry.OH, geometry.OW, geometry.C)


class MaxPooling2D(_Pooling):
    """The largest pixel of each window, for each channel.

    Images (N, H, W, C) become (N, OH, OW, C), ``OH = floor((H - pool) / stride) + 1``, or ``ceil(H / stride)`` with
    ``"same"``, and OW alike.

    Parameters
    ----------
    pool_size : int or (int, int)
        Height and width of the window.
    strides : int or (int, int), optional
        Step of the window; the window's size if left out.
    padding : {"valid", "same"}
        Whether windows that reach over the border count.
    data_format : {"channels_last", "channels_first"}, optional
        Order of the axes of input and output.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        If an input is no batch of images, or the window does not fit into it, or an argument is not one of these
        values.

    Examples
    --------
    >>> MaxPooling2D(2).compute_output_shape((None, 26, 26, 32))
    (None, 13, 13, 32)
    """

    #: The operation on arrays; its backward function is that of `max_pool2d` whichever pixel it takes.
    operation = staticmethod(functional.max_pool2d)

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        x = self.enter(x)
        if not training:
            return self.leave(self.operation(x, **self._windows))
        self._x_shape = x.shape
        self._out, self._indices = self.operation(x, **self._windows, return_indices=True)
        return self.leave(self._out)

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        return self.backward_of_activated(grad_out, "linear")

    def backward_of_activated(self, grad_out: FloatArray, activation: str) -> FloatArray:
        """The gradient of the input of an element-wise *activation* whose result was pooled: both steps back at once.

        The pixel that was taken had the value that came out, so the slope there is known from the output; all others
        receive 0 whatever their slope.  So only the pooled numbers are multiplied with slopes, a quarter of the pixels
        for windows of 2 x 2.  For slopes of 0 and 1 not a bit changes, however many windows took one pixel.
        """
        grad_out = self.enter(grad_out)
        if activation != "linear":
            grad_out = functional.activation_backward(grad_out, self._out, activation)
        return self.leave(functional.max_pool2d_backward(grad_out, self._indices, self._x_shape, **self._windows))

    def training_bytes(self, input_shape: Shape) -> int:
        outputs = math.prod(extent or 0 for extent in self.compute_output_shape(input_shape))
        return super().training_bytes(input_shape) + outputs * np.dtype(np.int64).itemsize


class MinPooling2D(MaxPooling2D):
    """The smallest pixel of each window, for each channel.  Keras has no such layer.

    Shapes are those of `MaxPooling2D`.

    Parameters
    ----------
    pool_size, strides, padding, data_format, **kwargs
        As in `MaxPooling2D`.

    Raises
    ------
    ValueError
        As in `MaxPooling2D`.

    Examples
    --------
    >>> import numpy as np
    >>> MinPooling2D(2)(np.array([[[[3.0], [1.0]], [[2.0], [4.0]]]]))
    array([[[[1.]]]], dtype=float32)
    """

    operation = staticmethod(functional.min_pool2d)


class AveragePooling2D(_Pooling):
    """The average of each window, for each channel; padding is not counted.

    Shapes are those of `MaxPooling2D`.

    Parameters
    ----------
    pool_size, strides, padding, data_format, **kwargs
        As in `MaxPooling2D`.

    Raises
    ------
    ValueError
        As in `MaxPooling2D`.

    Examples
    --------
    >>> AveragePooling2D((2, 3)).compute_output_shape((None, 26, 27, 32))
    (None, 13, 9, 32)
    """

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        x = self.enter(x)
        if training:
            self._x_shape = x.shape
        return self.leave(functional.avg_pool2d(x, **self._windows, count_include_pad=False))

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        return self.leave(
            functional.avg_pool2d_backward(
                self.enter(grad_out), self._x_shape, **self._windows, count_include_pad=False
            )
        )


class MaxPooling1D(SeriesLayer, MaxPooling2D):
    """The largest number of each window of a series, for each channel.

    Series (N, W, C) become (N, OW, C), OW as in `MaxPooling2D`.

    Parameters
    ----------
    pool_size, strides : int
        Width of the window and its step, as in `MaxPooling2D`.
    padding, data_format, **kwargs
        As in `MaxPooling2D`.

    Raises
    ------
    ValueError
        As in `MaxPooling2D`.

    Examples
    --------
    >>> MaxPooling1D(2).compute_output_shape((None, 100, 8))
    (None, 50, 8)
    """


class AveragePooling1D(SeriesLayer, AveragePooling2D):
    """The average of each window of a series, for each channel; padding is not counted.

    Series (N, W, C) become (N, OW, C), OW as in `MaxPooling2D`.

    Parameters
    ----------
    pool_size, strides, padding, data_format, **kwargs
        As in `MaxPooling1D`.

    Raises
    ------
    ValueError
        As in `MaxPooling2D`.

    Examples
    --------
    >>> AveragePooling1D(2, strides=1).compute_output_shape((None, 100, 8))
    (None, 99, 8)
    """
