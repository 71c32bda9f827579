"""The separable convolution layer: depthwise, then pointwise."""

from __future__ import annotations

from typing import Any

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.geometry import IntOrPair
from fastconv.keras import initializers, regularizers
from fastconv.keras.layers.base import Shape, positive
from fastconv.keras.layers.conv import Convolution


class SeparableConv2D(Convolution):
    """Convolution of each channel by itself, then a 1x1 convolution that mixes them, a bias and an activation.

    Images (N, IH, IW, IC) become (N, OH, OW, filters), OH and OW as in `Conv2D`.

    Parameters
    ----------
    filters : int
        Number of output channels.
    kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, bias_initializer, bias_regularizer
        As in `Conv2D`.
    depth_multiplier : int
        Filters per channel of the first step.
    depthwise_initializer, pointwise_initializer : str or Initializer
        How the kernels of the two steps are drawn.
    depthwise_regularizer, pointwise_regularizer : str or Regularizer, optional
        What is added to the loss for large kernels.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        As in `Conv2D`.

    References
    ----------
    F. Chollet, "Xception: deep learning with depthwise separable convolutions", CVPR 2017.

    Examples
    --------
    >>> SeparableConv2D(64, 3).compute_output_shape((None, 28, 28, 32))
    (None, 26, 26, 64)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: IntOrPair,
        strides: IntOrPair = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: IntOrPair = (1, 1),
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
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
        self.depth_multiplier = positive("depth_multiplier", depth_multiplier)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.pointwise_initializer = initializers.get(pointwise_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.pointwise_regularizer = regularizers.get(pointwise_regularizer)

    def weight_shape(self, channels: int) -> tuple[int, int, int, int]:
        return (*self.window, 1, channels * self.depth_multiplier)

    def groups_of(self, channels: int) -> int:
        return channels

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        channels = self.nhwc(input_shape)[3]
        self.depthwise_kernel = self.add_weight(
            "depthwise_kernel",
            (*self.kernel_size, channels, self.depth_multiplier),
            self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
        )
        self.pointwise_kernel = self.add_weight(
            "pointwise_kernel",
            (1, 1, channels * self.depth_multiplier, self.filters),
            self.pointwise_initializer,
            regularizer=self.pointwise_regularizer,
        )
        self.add_bias(self.filters)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        geometry = self.geometry(input_shape)
        return self.from_nhwc(input_shape, geometry.OH, geometry.OW, self.filters)

    def linear(self, x: FloatArray, training: bool, activation: str | None = None) -> FloatArray:
        x = self.enter(x)
        depthwise = self.depthwise_kernel.array.reshape(self.weight_shape(x.shape[3]))
        filtered = functional.conv2d(x, depthwise, **self._options(x.shape[3]))
        if training:
            self._x, self._filtered = x, filtered
        pointwise = self.pointwise_kernel.array if training else self.pointwise_kernel.packed()
        bias = self.bias.array if self.bias else None
        return self.leave(functional.conv2d(filtered, pointwise, bias, activation=activation))

    def linear_backward(self, grad_out: FloatArray, need_grad_x: bool) -> FloatArray | None:
        grad_filtered, self.pointwise_kernel.gradient, grad_bias = functional.conv2d_backward(
            self.enter(grad_out), self._filtered, self.pointwise_kernel.array
        )
        if self.bias:
            self.bias.gradient = grad_bias
        x = self._x
        shape, options = self.weight_shape(x.shape[3]), self._options(x.shape[3])
        grad_depthwise = functional.conv2d_grad_weight(grad_filtered, x, shape, **options)
        self.depthwise_kernel.gradient = grad_depthwise.reshape(self.depthwise_kernel.shape)
        if not need_grad_x:
            return None
        return self.leave(
            functional.conv2d_grad_x(grad_filtered, self.depthwise_kernel.array.reshape(shape), x.shape, **options)
        )

    def training_bytes(self, input_shape: Shape) -> int:
        geometry = self.geometry(input_shape)
        return super().training_bytes(input_shape) + self.bytes_of(geometry.out_shape)
