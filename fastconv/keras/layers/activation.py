"""Activations: on their own, and behind the layers that compute a weighted sum."""

from __future__ import annotations

from typing import Any

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.cpu.activation import ACTIVATIONS
from fastconv.keras.layers.base import Layer

#: Activations whose derivative has the same value at the result as at the number that went in.  Training keeps only the
#: result of a layer that has one of them, so that the kernel may apply it as it stores.
_FROM_RESULT = ("linear", "relu", "relu6", "leaky_relu")
#: Those whose derivative is 0 or 1.
STEPS = ("relu", "relu6")


def activation_of(name: str | None) -> str:
    """A valid activation name; None is ``"linear"``."""
    name = "linear" if name is None else name
    if name != "softmax" and name not in ACTIVATIONS:
        names = [*filter(None, ACTIVATIONS), "softmax"]
        raise ValueError(f"activation must be None or one of {', '.join(names)}. Received: activation={name!r}")
    return name


class ActivatedLayer(Layer):
    """A linear map, `linear`, and an activation behind it.

    A loss that is computed from the numbers before a final softmax uses the two halves, `linear` and `linear_backward`.
    """

    def __init__(self, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activation_of(activation)

    def linear(self, x: FloatArray, training: bool, activation: str | None = None) -> FloatArray:
        """The linear map of *x*, with an element-wise *activation* of the result where one is named."""
        raise NotImplementedError

    def linear_backward(self, grad_out: FloatArray, need_grad_x: bool) -> FloatArray | None:
        """The gradient of the input, and of the weights, from that of the linear map's result."""
        raise NotImplementedError

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        if self.activation == "softmax":
            out = kept = functional.softmax(self.linear(x, training))
        elif training and self.activation not in _FROM_RESULT:
            kept = self.linear(x, training)
            out = functional.activation(kept, self.activation)
        else:
            out = kept = self.linear(x, training, self.activation)
        if training:
            self._kept = kept
        return out

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray | None:
        if self.activation == "softmax":
            grad_out = functional.softmax_backward(grad_out, self._kept)
        elif self.activation != "linear":
            grad_out = functional.activation_backward(grad_out, self._kept, self.activation)
        return self.linear_backward(grad_out, need_grad_x)


class Activation(ActivatedLayer):
    """An activation on its own.

    Parameters
    ----------
    activation : str
        As in `Conv2D`.  ``"softmax"`` is taken over the last axis.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.
    """

    def __init__(self, activation: str, **kwargs: Any) -> None:
        super().__init__(activation=activation, **kwargs)

    def linear(self, x: FloatArray, training: bool, activation: str | None = None) -> FloatArray:
        return x if activation in (None, "linear") else functional.activation(x, activation)

    def linear_backward(self, grad_out: FloatArray, need_grad_x: bool) -> FloatArray | None:
        return grad_out
