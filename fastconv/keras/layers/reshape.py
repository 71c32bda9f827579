"""Layers that only give an array another shape."""

from __future__ import annotations

import math
from typing import Any

from fastconv.arrays import FloatArray
from fastconv.keras.layers.base import Layer, Shape
from fastconv.keras.layers.images import channels_last, data_format_of, with_axis_moved


class Flatten(Layer):
    """All numbers of a sample in one row, channels last.

    Arrays (N, ...) become (N, numbers of a sample).

    Parameters
    ----------
    data_format : {"channels_last", "channels_first"}, optional
        Order of the input's axes.  Both give the same row for the same image.

    Raises
    ------
    ValueError
        If *data_format* is neither of these.

    Examples
    --------
    >>> Flatten().compute_output_shape((None, 3, 3, 64))
    (None, 576)
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format_of(data_format)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[0], math.prod(extent or 0 for extent in input_shape[1:])

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        if self._swaps(x.shape):
            x = channels_last(x)
        if training:
            self._unflattened = x.shape
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        grad_x = grad_out.reshape(self._unflattened)
        return with_axis_moved(grad_x, -1, 1) if self._swaps(grad_x.shape) else grad_x

    def _swaps(self, shape: Shape) -> bool:
        return self.data_format == "channels_first" and len(shape) > 2

    def training_bytes(self, input_shape: Shape) -> int:
        return super().training_bytes(input_shape) if self._swaps(input_shape) else 0


class Reshape(Layer):
    """The numbers of a sample in another shape, in the same order.

    Arrays (N, ...) become (N, *target_shape).

    Parameters
    ----------
    target_shape : tuple of int
        Shape of a sample; one extent may be -1: what is left for it.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        If a sample has another number of numbers.

    Examples
    --------
    >>> Reshape((7, -1)).compute_output_shape((None, 28))
    (None, 7, 4)
    """

    def __init__(self, target_shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_shape = tuple(target_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        numbers = math.prod(extent or 0 for extent in input_shape[1:])
        known = math.prod(extent for extent in self.target_shape if extent != -1)
        left = numbers // known if known > 0 else 0
        shape = tuple(left if extent == -1 else extent for extent in self.target_shape)
        if min(self.target_shape, default=1) < -1 or self.target_shape.count(-1) > 1 or math.prod(shape) != numbers:
            raise ValueError(
                f"target_shape must hold the {numbers} numbers of a sample. "
                f"Received: target_shape={self.target_shape}, input_shape={input_shape}"
            )
        return (input_shape[0], *shape)

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        if training:
            self._sample = x.shape[1:]
        _, *shape = self.compute_output_shape(x.shape)
        return x.reshape(len(x), *(extent or 0 for extent in shape))

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        return grad_out.reshape(len(grad_out), *self._sample)

    def training_bytes(self, input_shape: Shape) -> int:
        return 0
