"""Layers that only change how numbers are arranged, and the place where a model's input is declared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.arrays import FloatArray
from fastconv.keras.layers.base import Layer, Shape
from fastconv.keras.layers.images import channels_last, data_format_of


class InputLayer(Layer):
    """The declared input of a model; it passes arrays on.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample, without the batch axis.
    """

    def __init__(self, shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "input_shape": tuple(shape)})
        self.shape = tuple(shape)

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        return x

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        return grad_out


def Input(shape: tuple[int, ...], **kwargs: Any) -> InputLayer:  # noqa: N802 - Keras's name
    """Declare the input of a `Sequential` model: ``Sequential([Input((28, 28, 1)), ...])``.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample, without the batch axis.
    """
    return InputLayer(shape, **kwargs)


class Flatten(Layer):
    """All numbers of a sample in one row, channels last.

    Parameters
    ----------
    data_format : {"channels_last", "channels_first"}, optional
        Order of the input's axes.  Both give the same row for the same image.
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format_of(data_format)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[0], math.prod(extent or 0 for extent in input_shape[1:])

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        if self._swaps(x):
            x = channels_last(x)
        if training:
            self._unflattened = x.shape
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        grad_x = grad_out.reshape(self._unflattened)
        return np.ascontiguousarray(np.moveaxis(grad_x, -1, 1)) if self._swaps(grad_x) else grad_x

    def _swaps(self, x: FloatArray) -> bool:
        return self.data_format == "channels_first" and x.ndim > 2
