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
_OTHER_NAMES = {"swish": "silu"}


def activation_of(name: Any) -> str:
    """A valid activation name, given one or the function of that name; None is ``"linear"``."""
    found = "linear" if name is None else str(getattr(name, "__name__", name))
    found = _OTHER_NAMES.get(found, found)
    if found != "softmax" and found not in ACTIVATIONS:
        names = [*filter(None, ACTIVATIONS), "softmax"]
        raise ValueError(f"activation must be None or one of {', '.join(names)}. Received: activation={name!r}")
    return found


class ActivatedLayer(Layer):
    """A linear map, `linear`, and an activation behind it.

    A loss that is computed from the numbers before the last activation uses `linear` and `linear_backward` alone.
    """

    def __init__(self, activation: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activation_of(activation)

    def ends_in(self, activation: str | None) -> bool:
        """Whether the result is this activation of `linear`, a softmax being over the last axis."""
        return self.activation == activation

    def activate(self, linear: FloatArray) -> FloatArray:
        """The activation of a result of `linear`."""
        if self.activation == "softmax":
            return functional.softmax(linear)
        return functional.activation(linear, self.activation)

    def linear(self, x: FloatArray, training: bool, activation: str | None = None) -> FloatArray:
        """The linear map of *x*, with an element-wise *activation* of the result where one is named."""
        raise NotImplementedError

    def linear_backward(self, grad_out: FloatArray, need_grad_x: bool) -> FloatArray | None:
        """The gradient of the input, and of the weights, from that of the linear map's result."""
        raise NotImplementedError

    def training_bytes(self, input_shape: Any) -> int:
        keeps_both = self.activation not in (*_FROM_RESULT, "softmax")
        before = self.bytes_of(self.compute_output_shape(input_shape)) if keeps_both else 0
        return super().training_bytes(input_shape) + before

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        if self.activation == "softmax":
            out = kept = self.activate(self.linear(x, training))
        elif training and self.activation not in _FROM_RESULT:
            kept = self.linear(x, training)
            out = self.activate(kept)
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

    Arrays of any shape keep it.

    Parameters
    ----------
    activation : str
        As in `Conv2D`.  ``"softmax"`` is taken over the last axis.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        If *activation* is none of the known ones.

    Examples
    --------
    >>> import numpy as np
    >>> Activation("relu")(np.array([[-1.0, 2.0]]))
    array([[0., 2.]], dtype=float32)
    """

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(activation=activation, **kwargs)

    def linear(self, x: FloatArray, training: bool, activation: str | None = None) -> FloatArray:
        return x if activation in (None, "linear") else functional.activation(x, activation)

    def linear_backward(self, grad_out: FloatArray, need_grad_x: bool) -> FloatArray | None:
        return grad_out
