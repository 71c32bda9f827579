"""Activation layers with arguments."""

from __future__ import annotations

from typing import Any

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.keras.layers.activation import ActivatedLayer
from fastconv.keras.layers.base import Layer, Shape
from fastconv.keras.layers.images import with_axis_moved


class ReLU(Layer):
    """``max(x, 0)``, with a slope below *threshold* and a limit above where they are given.

    ``out = max_value`` where ``x >= max_value``, ``x`` where ``threshold <= x < max_value``, and
    ``negative_slope * (x - threshold)`` below.

    Arrays of any shape keep it.

    Parameters
    ----------
    max_value : float, optional
        Largest output; no limit if left out.
    negative_slope, threshold : float
        What happens to small inputs; both at least 0.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        If an argument is negative.

    Examples
    --------
    >>> import numpy as np
    >>> ReLU(max_value=6)(np.array([[-1.0, 2.0, 9.0]]))
    array([[0., 2., 6.]], dtype=float32)
    """

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("max_value", max_value), ("negative_slope", negative_slope), ("threshold", threshold)):
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must be at least 0. Received: {name}={value!r}")
        self.max_value = None if max_value is None else float(max_value)
        self.negative_slope = float(negative_slope)
        self.threshold = float(threshold)

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        if training:
            self._x = x
        return functional.rectify(x, **self._corners())

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        return functional.rectify_backward(grad_out, self._x, **self._corners())

    def _corners(self) -> dict[str, Any]:
        return {"max_value": self.max_value, "negative_slope": self.negative_slope, "threshold": self.threshold}


class LeakyReLU(Layer):
    """x where it is positive and ``negative_slope * x`` elsewhere.

    Arrays of any shape keep it.

    Parameters
    ----------
    negative_slope : float
        Slope below 0, at least 0.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``; ``alpha`` is the older word for the slope.

    Raises
    ------
    ValueError
        If the slope is negative.

    References
    ----------
    A. Maas, A. Hannun, A. Ng, "Rectifier nonlinearities improve neural network acoustic models", ICML 2013.

    Examples
    --------
    >>> import numpy as np
    >>> LeakyReLU(0.5)(np.array([[-1.0, 2.0]]))
    array([[-0.5,  2. ]], dtype=float32)
    """

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        negative_slope = kwargs.pop("alpha", negative_slope)
        super().__init__(**kwargs)
        if not negative_slope >= 0:
            raise ValueError(f"negative_slope must be at least 0. Received: negative_slope={negative_slope!r}")
        self.negative_slope = float(negative_slope)

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        if training:
            self._x = x
        return functional.rectify(x, negative_slope=self.negative_slope)

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        return functional.rectify_backward(grad_out, self._x, negative_slope=self.negative_slope)


class Softmax(ActivatedLayer):
    """``exp(x) / sum(exp(x))`` along one axis.

    Arrays of any shape keep it.

    Parameters
    ----------
    axis : int
        The axis along which the results sum to 1.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        If *axis* is not one behind the batch axis.

    Examples
    --------
    >>> import numpy as np
    >>> Softmax()(np.array([[1.0, 1.0]]))
    array([[0.5, 0.5]], dtype=float32)
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(activation="softmax", **kwargs)
        self.axis = axis

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self._dimensions = len(input_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if not -len(input_shape) < self.axis < len(input_shape) or not self.axis:
            raise ValueError(
                f"axis must be an axis behind the batch axis. Received: axis={self.axis}, input_shape={input_shape}"
            )
        return input_shape

    def ends_in(self, activation: str | None) -> bool:
        return activation == "softmax" and self.axis in (-1, self._dimensions - 1)

    def linear(self, x: FloatArray, training: bool, activation: str | None = None) -> FloatArray:
        return x

    def linear_backward(self, grad_out: FloatArray, need_grad_x: bool) -> FloatArray:
        return grad_out

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        return with_axis_moved(super().forward(with_axis_moved(x, self.axis, -1), training), -1, self.axis)

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        grad_x = super().backward(with_axis_moved(grad_out, self.axis, -1))
        assert grad_x is not None
        return with_axis_moved(grad_x, -1, self.axis)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["activation"]
        return config
