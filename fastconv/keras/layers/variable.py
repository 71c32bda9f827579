"""The arrays that layers own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.arrays import FloatArray


class Variable:
    """An array that a layer owns: a weight with its gradient, or a statistic that training keeps up to date."""

    def __init__(self, name: str, value: FloatArray, trainable: bool = True) -> None:
        self.name = name
        self.value = value
        self.trainable = trainable
        self.gradient: FloatArray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.value.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype of the array."""
        return self.value.dtype

    def numpy(self) -> FloatArray:
        """A copy of the array."""
        return self.value.copy()

    def assign(self, value: ArrayLike) -> None:
        """Overwrite the array's content; the shape must be the same."""
        array = np.asarray(value)
        if array.shape != self.shape:
            raise ValueError(f"{self.name} must have shape {self.shape}. Received: value.shape={array.shape}")
        self.value[...] = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        return np.array(self.value, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"<Variable {self.name}, shape={self.shape}, dtype={self.dtype}>"


def assign_all(owner: str, variables: list[Variable], weights: list[FloatArray]) -> None:
    """Overwrite *variables* with *weights*; nothing changes where one of them does not fit."""
    shapes = [np.shape(weight) for weight in weights]
    expected = [variable.shape for variable in variables]
    if shapes != expected:
        raise ValueError(f"{owner} has weights of shapes {expected}. Received: weights of shapes {shapes}")
    for variable, weight in zip(variables, weights, strict=True):
        variable.assign(weight)
