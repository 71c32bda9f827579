"""Layers that make one array of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.arrays import FloatArray
from fastconv.keras.layers.base import Layer, Shape
from fastconv.keras.layers.images import contiguous


class Add(Layer):
    """The sum of arrays of one shape, number by number: ``Add()([a, b])``.

    Two or more arrays (N, ...) become one of the same shape.

    Parameters
    ----------
    **kwargs
        ``name``, ``trainable``, ``dtype``.

    Raises
    ------
    ValueError
        If there are fewer than two inputs, or their shapes differ.

    Examples
    --------
    >>> Add().compute_output_shape([(None, 8, 8, 4), (None, 8, 8, 4)])
    (None, 8, 8, 4)
    """

    merges = True

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        if len(input_shape) < 2 or len({tuple(shape) for shape in input_shape}) > 1:
            raise ValueError(
                f"layer {self.name} takes two or more inputs of one shape. Received: input_shape={list(input_shape)}"
            )
        return input_shape[0]

    def forward(self, x: Sequence[FloatArray], training: bool = False) -> FloatArray:
        if training:
            self._count = len(x)
        total = np.add(x[0], x[1])
        for array in x[2:]:
            total += array
        return total

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> list[FloatArray]:
        return [grad_out] * self._count


class Concatenate(Layer):
    """Arrays behind each other along one axis: ``Concatenate()([a, b])``.

    Arrays (N, ..., C) become (N, ..., sum of their C) along the last axis, and alike along others.

    Parameters
    ----------
    axis : int
        The axis that grows; all others have the same extent in all inputs.
    **kwargs
        ``name``, ``trainable``, ``dtype``.

    Raises
    ------
    ValueError
        If there are fewer than two inputs, or they differ along another axis too.

    Examples
    --------
    >>> Concatenate().compute_output_shape([(None, 8, 8, 4), (None, 8, 8, 3)])
    (None, 8, 8, 7)
    """

    merges = True

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        shapes = [list(shape) for shape in input_shape]
        dimensions = len(shapes[0]) if shapes else 0
        inside = -dimensions < self.axis < dimensions and self.axis
        extents = [shape.pop(self.axis) for shape in shapes] if inside and len(set(map(len, shapes))) == 1 else []
        if len(extents) < 2 or None in extents or any(shape != shapes[0] for shape in shapes):
            raise ValueError(
                f"layer {self.name} takes two or more inputs that differ along one axis behind the batch axis only. "
                f"Received: axis={self.axis}, input_shape={list(input_shape)}"
            )
        axis = self.axis % dimensions
        return (*shapes[0][:axis], sum(extent or 0 for extent in extents), *shapes[0][axis:])

    def forward(self, x: Sequence[FloatArray], training: bool = False) -> FloatArray:
        if training:
            self._ends = np.cumsum([array.shape[self.axis] for array in x])
        return np.concatenate(x, axis=self.axis)

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> list[FloatArray]:
        return [contiguous(part) for part in np.split(grad_out, self._ends[:-1], axis=self.axis)]


def add(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """``Add(**kwargs)(inputs)``.

    Shapes and errors are those of the layer.

    Examples
    --------
    >>> from fastconv.keras import Input
    >>> add([Input((8, 8, 4)), Input((8, 8, 4))]).shape
    (None, 8, 8, 4)
    """
    return Add(**kwargs)(inputs)


def concatenate(inputs: Sequence[Any], axis: int = -1, **kwargs: Any) -> Any:
    """``Concatenate(axis, **kwargs)(inputs)``.

    Shapes and errors are those of the layer.

    Examples
    --------
    >>> from fastconv.keras import Input
    >>> concatenate([Input((8, 8, 4)), Input((8, 8, 3))]).shape
    (None, 8, 8, 7)
    """
    return Concatenate(axis, **kwargs)(inputs)
