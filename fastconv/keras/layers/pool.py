"""Pooling layers."""

from __future__ import annotations

from typing import Any

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.geometry import IntOrPair, pair, pool2d_geometry
from fastconv.keras.layers.base import Shape
from fastconv.keras.layers.images import ImageLayer, padding_of


class _Pooling2D(ImageLayer):
    """What `MaxPooling2D` and `AveragePooling2D` share: windows."""

    def __init__(
        self,
        pool_size: IntOrPair = (2, 2),
        strides: IntOrPair | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format=data_format, **kwargs)
        self.pool_size = pair("pool_size", pool_size)
        self.strides = self.pool_size if strides is None else pair("strides", strides)
        self.padding = padding_of(padding)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        geometry = pool2d_geometry(
            self.nhwc(input_shape), self.pool_size, stride=self.strides, padding=self.padding, count_include_pad=False
        )
        return self.from_nhwc(input_shape, geometry.OH, geometry.OW, geometry.C)


class MaxPooling2D(_Pooling2D):
    """The largest pixel of each window, for each channel.

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

    Examples
    --------
    >>> MaxPooling2D(2).compute_output_shape((None, 26, 26, 32))
    (None, 13, 13, 32)
    """

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        x = self.enter(x)
        if not training:
            return self.leave(functional.max_pool2d(x, self.pool_size, stride=self.strides, padding=self.padding))
        self._x_shape = x.shape
        self._out, self._indices = functional.max_pool2d(
            x, self.pool_size, stride=self.strides, padding=self.padding, return_indices=True
        )
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
        return self.leave(functional.max_pool2d_backward(grad_out, self._indices, self._x_shape))


class AveragePooling2D(_Pooling2D):
    """The average of each window, for each channel; padding is not counted.

    Parameters
    ----------
    pool_size, strides, padding, data_format, **kwargs
        As in `MaxPooling2D`.
    """

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        x = self.enter(x)
        if training:
            self._x_shape = x.shape
        return self.leave(functional.avg_pool2d(x, self.pool_size, **self._options()))

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        grad_x = functional.avg_pool2d_backward(self.enter(grad_out), self._x_shape, self.pool_size, **self._options())
        return self.leave(grad_x)

    def _options(self) -> dict[str, Any]:
        return {"stride": self.strides, "padding": self.padding, "count_include_pad": False}


class GlobalAveragePooling2D(ImageLayer):
    """The average of each channel over the whole image.

    Parameters
    ----------
    data_format : {"channels_last", "channels_first"}, optional
        Order of the input's axes.
    keepdims : bool
        Whether the output keeps two axes of extent 1 for the image.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.
    """

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(data_format=data_format, **kwargs)
        self.keepdims = keepdims

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        channels = self.nhwc(input_shape)[3]
        return self.from_nhwc(input_shape, 1, 1, channels) if self.keepdims else (input_shape[0], channels)

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        x = self.enter(x)
        if training:
            self._x_shape = x.shape
        out = functional.global_avg_pool2d(x, keepdims=True)
        return self.leave(out) if self.keepdims else out.reshape(len(x), x.shape[3])

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        N, _, _, C = self._x_shape
        return self.leave(functional.global_avg_pool2d_backward(grad_out.reshape(N, C), self._x_shape))
