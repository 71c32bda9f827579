"""The convolution layer, and what it shares with its relatives."""

from __future__ import annotations

from typing import Any

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.geometry import Conv2dGeometry, IntOrPair, conv2d_geometry
from fastconv.keras import initializers, regularizers
from fastconv.keras.layers.activation import ActivatedLayer
from fastconv.keras.layers.base import Shape, positive
from fastconv.keras.layers.images import ImageLayer, padding_of


class Convolution(ActivatedLayer, ImageLayer):
    """What `Conv2D`, `DepthwiseConv2D` and their relatives share: all but the shapes of the weights."""

    def __init__(
        self,
        kernel_size: IntOrPair,
        strides: IntOrPair = (1, 1),
        padding: str = "valid",
        dilation_rate: IntOrPair = (1, 1),
        use_bias: bool = True,
        bias_initializer: Any = "zeros",
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_size = self.extents("kernel_size", kernel_size)
        self.strides = self.extents("strides", strides)
        self.padding = padding_of(padding)
        self.dilation_rate = self.extents("dilation_rate", dilation_rate)
        self.window = self.plane(self.kernel_size)
        self._steps = {"stride": self.plane(self.strides), "dilation": self.plane(self.dilation_rate)}
        self.use_bias = use_bias
        self.bias_initializer = initializers.get(bias_initializer)
        self.bias_regularizer = regularizers.get(bias_regularizer)

    def weight_shape(self, channels: int) -> tuple[int, int, int, int]:
        """Shape (KH, KW, IC / groups, OC) of the weight for so many input channels."""
        raise NotImplementedError

    def groups_of(self, channels: int) -> int:
        """Number of groups for so many input channels."""
        raise NotImplementedError

    def geometry(self, input_shape: Shape) -> Conv2dGeometry:
        """The convolution for inputs of this shape."""
        x_shape = self.nhwc(input_shape)
        channels = x_shape[3]
        return conv2d_geometry(x_shape, self.weight_shape(channels), **self._options(channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        geometry = self.geometry(input_shape)
        return self.from_nhwc(input_shape, geometry.OH, geometry.OW, geometry.OC)

    def add_kernel(
        self,
        shape: tuple[int, ...],
        initializer: initializers.Initializer,
        regularizer: regularizers.Regularizer | None,
        outputs: int,
    ) -> None:
        """Create the kernel and, where one is used, the bias."""
        self.kernel = self.add_weight("kernel", shape, initializer, regularizer=regularizer)
        self.add_bias(outputs)

    def add_bias(self, outputs: int) -> None:
        """Create the bias, where one is used."""
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight("bias", (outputs,), self.bias_initializer, regularizer=self.bias_regularizer)

    def linear(self, x: FloatArray, training: bool, activation: str | None = None) -> FloatArray:
        x = self.enter(x)
        if training:
            self._x = x
        weight_shape = self.weight_shape(x.shape[3])
        # inference keeps what kernels make of the weight; training changes it before the next call
        weight = self.kernel.array.reshape(weight_shape) if training else self.kernel.packed(weight_shape)
        bias = self.bias.array if self.bias else None
        out: FloatArray = functional.conv2d(x, weight, bias, activation=activation, **self._options(x.shape[3]))
        return self.leave(out)

    def linear_backward(self, grad_out: FloatArray, need_grad_x: bool) -> FloatArray | None:
        grad_out = self.enter(grad_out)
        x = self._x
        weight_shape, options = self.weight_shape(x.shape[3]), self._options(x.shape[3])
        grad_weight = functional.conv2d_grad_weight(grad_out, x, weight_shape, **options)
        self.kernel.gradient = grad_weight.reshape(self.kernel.shape)
        if self.bias:
            self.bias.gradient = functional.conv2d_grad_bias(grad_out)
        if not need_grad_x:
            return None
        weight = self.kernel.array.reshape(weight_shape)
        return self.leave(functional.conv2d_grad_x(grad_out, weight, x.shape, **options))

    def _options(self, channels: int) -> dict[str, Any]:
        return {**self._steps, "padding": self.padding, "groups": self.groups_of(channels)}


class Conv2D(Convolution):
    """Convolution of images with learned filters, a bias and an activation.

    ``out[oh, ow, oc] = activation(bias[oc] + sum over kh, kw, ic of x[oh * stride + kh, ow * stride + kw, ic] *
    kernel[kh, kw, ic, oc])`` for each image: cross-correlation, the kernel is not flipped.

    Images (N, IH, IW, IC) become (N, OH, OW, filters), ``OH = floor((IH + top + bottom - (KH - 1) * dilation - 1) /
    stride) + 1`` and OW alike.

    Parameters
    ----------
    filters : int
        Number of output channels.
    kernel_size, strides, dilation_rate : int or (int, int)
        Height and width of the window, its step, and the distance between its taps.
    padding : {"valid", "same"}
        No padding, or as much as gives ``ceil(extent / stride)`` outputs, the odd pixel at the end.
    data_format : {"channels_last", "channels_first"}, optional
        Order of the axes of input and output.
    groups : int
        Both kinds of channels are split into so many groups that do not see each other.
    activation : str or function, optional
        ``"relu"``, ``"relu6"``, ``"leaky_relu"``, ``"sigmoid"``, ``"tanh"``, ``"silu"``, ``"gelu"`` or ``"softmax"``.
    use_bias : bool
        Whether to add a bias.
    kernel_initializer, bias_initializer : str or Initializer
        How the weights are drawn.
    kernel_regularizer, bias_regularizer : str or Regularizer, optional
        What is added to the loss for large weights: ``"l1"``, ``"l2"`` or an object of `fastconv.keras.regularizers`.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        If an argument is not one of these values, *groups* does not divide both kinds of channels, or an input is no
        batch of images or smaller than the window.

    Examples
    --------
    >>> Conv2D(32, 3, activation="relu").compute_output_shape((None, 28, 28, 1))
    (None, 26, 26, 32)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: IntOrPair,
        strides: IntOrPair = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: IntOrPair = (1, 1),
        groups: int = 1,
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
        self.groups = positive("groups", groups)
        if filters % groups:
            raise ValueError(f"groups must divide filters. Received: groups={groups}, filters={filters}")
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)

    def weight_shape(self, channels: int) -> tuple[int, int, int, int]:
        if channels % self.groups:
            raise ValueError(f"groups must divide the channels. Received: groups={self.groups}, channels={channels}")
        return (*self.window, channels // self.groups, self.filters)

    def groups_of(self, channels: int) -> int:
        return self.groups

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        shape = (*self.kernel_size, *self.weight_shape(self.nhwc(input_shape)[3])[2:])
        self.add_kernel(shape, self.kernel_initializer, self.kernel_regularizer, self.filters)
