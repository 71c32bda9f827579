"""The depthwise convolution layer."""

from __future__ import annotations

from typing import Any

from fastconv.geometry import IntOrPair
from fastconv.keras import initializers, regularizers
from fastconv.keras.layers.base import Shape, positive
from fastconv.keras.layers.conv import Convolution


class DepthwiseConv2D(Convolution):
    """Convolution of each channel by itself with *depth_multiplier* filters.

    Output channel ``c * depth_multiplier + m`` is input channel ``c`` filtered with ``kernel[:, :, c, m]``.

    Images (N, IH, IW, IC) become (N, OH, OW, IC * depth_multiplier), OH and OW as in `Conv2D`.

    Parameters
    ----------
    kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, bias_initializer, bias_regularizer
        As in `Conv2D`.
    depth_multiplier : int
        Filters per channel.
    depthwise_initializer : str or Initializer
        How the kernel is drawn.
    depthwise_regularizer : str or Regularizer, optional
        What is added to the loss for a large kernel.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        As in `Conv2D`.

    Examples
    --------
    >>> DepthwiseConv2D(3, depth_multiplier=2).compute_output_shape((None, 28, 28, 32))
    (None, 26, 26, 64)
    """

    def __init__(
        self,
        kernel_size: IntOrPair,
        strides: IntOrPair = (1, 1),
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: IntOrPair = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
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
        self.depth_multiplier = positive("depth_multiplier", depth_multiplier)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)

    def weight_shape(self, channels: int) -> tuple[int, int, int, int]:
        return (*self.window, 1, channels * self.depth_multiplier)

    def groups_of(self, channels: int) -> int:
        return channels

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        channels = self.nhwc(input_shape)[3]
        kernel_shape = (*self.kernel_size, channels, self.depth_multiplier)
        outputs = channels * self.depth_multiplier
        self.add_kernel(kernel_shape, self.depthwise_initializer, self.depthwise_regularizer, outputs)
