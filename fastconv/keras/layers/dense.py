"""The fully connected layer."""

from __future__ import annotations

from typing import Any

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.keras import initializers, regularizers
from fastconv.keras.layers.activation import ActivatedLayer
from fastconv.keras.layers.base import Shape, positive


class Dense(ActivatedLayer):
    """``out = activation(x @ kernel + bias)`` over the last axis.

    Arrays (..., inputs) become (..., units).

    Parameters
    ----------
    units : int
        Number of outputs.
    activation : str, optional
        As in `Conv2D`.
    use_bias : bool
        Whether to add a bias.
    kernel_initializer, bias_initializer : str or Initializer
        How the weights are drawn.
    kernel_regularizer, bias_regularizer : str or Regularizer, optional
        As in `Conv2D`.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        If *units* is below 1, an argument is not one of these values, or the last extent of an input is not known.

    Examples
    --------
    >>> Dense(10).compute_output_shape((None, 64))
    (None, 10)
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activation=activation, **kwargs)
        self.units = positive("units", units)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        shape = input_shape[-1] or 0, self.units
        self.kernel = self.add_weight("kernel", shape, self.kernel_initializer, regularizer=self.kernel_regularizer)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight("bias", (self.units,), self.bias_initializer, regularizer=self.bias_regularizer)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) < 2 or not input_shape[-1]:
            raise ValueError(
                f"layer {self.name} needs an input whose last extent is known. Received: input_shape={input_shape}"
            )
        return *input_shape[:-1], self.units

    def linear(self, x: FloatArray, training: bool, activation: str | None = None) -> FloatArray:
        if training:
            self._x = x
        # inference keeps what kernels make of the weight; training changes it before the next call
        weight = self.kernel.array if training else self.kernel.packed()
        bias = self.bias.array if self.bias else None
        out: FloatArray = functional.dense(x, weight, bias, activation=activation)
        return out

    def linear_backward(self, grad_out: FloatArray, need_grad_x: bool) -> FloatArray | None:
        grad_x, self.kernel.gradient, grad_bias = functional.dense_backward(grad_out, self._x, self.kernel.array)
        if self.bias:
            self.bias.gradient = grad_bias
        return grad_x if need_grad_x else None
