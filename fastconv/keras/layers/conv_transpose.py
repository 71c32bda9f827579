"""The transposed convolution layer."""

from __future__ import annotations

from typing import Any

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.geometry import IntOrPair, pair
from fastconv.keras import initializers, regularizers
from fastconv.keras.layers.base import Shape, positive
from fastconv.keras.layers.conv import Convolution


class Conv2DTranspose(Convolution):
    """Transposed convolution: the way back of a `Conv2D`, from its output's size to its input's, as a layer.

    Images (N, IH, IW, IC) become (N, OH, OW, filters), ``OH = (IH - 1) * stride + (KH - 1) * dilation + 1 - padding``
    at least, and OW alike.

    Parameters
    ----------
    filters : int
        Number of output channels.
    kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias
        As in `Conv2D`, whose input this layer's output is, as are the initializers and regularizers.  ``"same"`` gives
        ``extent * stride`` outputs.
    output_padding : int or (int, int), optional
        Rows and columns added at the end, smaller than the stride; as many as give Keras's size if left out.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        As in `Conv2D`, and if *output_padding* is not smaller than the stride.

    Examples
    --------
    >>> Conv2DTranspose(8, 3, strides=2, padding="same").compute_output_shape((None, 14, 14, 16))
    (None, 28, 28, 8)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: IntOrPair,
        strides: IntOrPair = (1, 1),
        padding: str = "valid",
        output_padding: IntOrPair | None = None,
        data_format: str | None = None,
        dilation_rate: IntOrPair = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            dilation_rate,
            use_bias,
            bias_initializer,
            bias_regularizer,
            data_format=data_format,
            activation=activation,
            **kwargs,
        )
        self.filters = positive("filters", filters)
        self.output_padding = None if output_padding is None else pair("output_padding", output_padding, 0)
        for added, step in zip(self.output_padding or (), self.strides, strict=False):
            if added >= step:
                raise ValueError(
                    f"output_padding must be smaller than strides. "
                    f"Received: output_padding={self.output_padding}, strides={self.strides}"
                )
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        shape = (*self.kernel_size, self.filters, self.nhwc(input_shape)[3])
        self.add_kernel(shape, self.kernel_initializer, self.kernel_regularizer, self.filters)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        _, IH, IW, _ = self.nhwc(input_shape)
        return self.from_nhwc(input_shape, self._extent(0, IH), self._extent(1, IW), self.filters)

    def linear(self, x: FloatArray, training: bool, activation: str | None = None) -> FloatArray:
        x = self.enter(x)
        if training:
            self._x = x
        weight = self.kernel.array if training else self.kernel.packed()
        bias = self.bias.array if self.bias else None
        return self.leave(functional.conv_transpose2d(x, weight, bias, activation=activation, **self._sides(x.shape)))

    def linear_backward(self, grad_out: FloatArray, need_grad_x: bool) -> FloatArray | None:
        grad_x, self.kernel.gradient, grad_bias = functional.conv_transpose2d_backward(
            self.enter(grad_out), self._x, self.kernel.array, **self._sides(self._x.shape)
        )
        if self.bias:
            self.bias.gradient = grad_bias
        return self.leave(grad_x) if need_grad_x else None

    def _spread(self, axis: int, extent: int) -> int:
        """Rows that the kernels put at *extent* input rows reach over; axis 1: columns."""
        window = (self.kernel_size[axis] - 1) * self.dilation_rate[axis] + 1
        return (extent - 1) * self.strides[axis] + window

    def _extent(self, axis: int, extent: int) -> int:
        """Keras's number of output rows for *extent* input rows; axis 1: columns."""
        stride, spread = self.strides[axis], self._spread(axis, extent)
        if self.output_padding is not None:
            window = spread - (extent - 1) * stride
            return spread + self.output_padding[axis] - (2 * (window // 2) if self.padding == "same" else 0)
        return extent * stride if self.padding == "same" else max(spread, extent * stride)

    def _sides(self, x_shape: tuple[int, ...]) -> dict[str, Any]:
        """What is cut off the spread kernels, half of it at either side, or added at the end, to give Keras's size."""
        cut, added = [], []
        for axis, extent in enumerate(x_shape[1:3]):
            surplus = self._spread(axis, extent) - self._extent(axis, extent)
            first = max(surplus, 0) // 2
            cut.append((first, max(surplus, 0) - first))
            added.append(max(-surplus, 0))
        return {
            "stride": self.strides,
            "padding": tuple(cut),
            "output_padding": tuple(added),
            "dilation": self.dilation_rate,
        }
