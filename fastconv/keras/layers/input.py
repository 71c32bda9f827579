"""Where a model's input is declared."""

from __future__ import annotations

from typing import Any

from fastconv.arrays import FloatArray
from fastconv.keras.layers.base import Layer
from fastconv.keras.layers.tensor import KerasTensor


class InputLayer(Layer):
    """The declared input of a model; it passes arrays on.

    Arrays (N, *shape) keep their shape.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample, without the batch axis; *input_shape* is the older word for it.
    **kwargs
        ``name``, ``dtype``.

    Raises
    ------
    ValueError
        If no shape is given.

    Examples
    --------
    >>> InputLayer((28, 28, 1)).output_shape
    (None, 28, 28, 1)
    """

    def __init__(
        self, shape: tuple[int, ...] | None = None, *, input_shape: tuple[int, ...] | None = None, **kwargs: Any
    ) -> None:
        shape = input_shape if shape is None else shape
        if shape is None:
            raise ValueError("shape must be the shape of one sample. Received: shape=None")
        super().__init__(input_shape=tuple(shape), **kwargs)
        self.shape = tuple(shape)
        self.build((None, *self.shape))
        self._output = KerasTensor(self, (), (None, *self.shape))

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        return x

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        return grad_out


def Input(shape: tuple[int, ...], **kwargs: Any) -> KerasTensor:  # noqa: N802 - Keras's name
    """Declare the input of a model: the `KerasTensor` that the first layer is called on.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample, without the batch axis.
    **kwargs
        ``name``, ``dtype``.

    Raises
    ------
    TypeError
        If an argument is none of these.

    Examples
    --------
    >>> from fastconv.keras import Input, layers
    >>> layers.Conv2D(32, 3)(Input((28, 28, 1)))
    <KerasTensor of conv2d, shape=(None, 26, 26, 32), dtype=float32>
    """
    return InputLayer(shape, **kwargs).output
