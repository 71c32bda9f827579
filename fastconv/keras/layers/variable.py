"""The arrays that layers own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.arrays import FloatArray
from fastconv.cuda.device import Engine
from fastconv.keras.devices import placed
from fastconv.keras.regularizers import Regularizer
from fastconv.packed_weight import PackedWeight


class Variable:
    """An array that a layer owns: a weight with its gradient, or a statistic that training keeps up to date.

    `value` is read-only, so that nothing changes the array unseen: `assign` and `changing` do, and tell `packed` that
    what has been kept is out of date.  The array may lie on a device; `to` moves it.
    """

    def __init__(
        self, name: str, value: FloatArray, trainable: bool = True, regularizer: Regularizer | None = None
    ) -> None:
        self.name = name
        self.trainable = trainable
        self.regularizer = regularizer
        self.gradient: FloatArray | None = None
        self._array = value
        #: The engine of the device on which the array lies, None in host memory.
        self.engine: Engine | None = getattr(value, "engine", None)
        # an object for each content of the array, and what has been packed with the content it was packed from
        self._content = object()
        self._packed: tuple[object, PackedWeight] | None = None

    @property
    def array(self) -> FloatArray:
        """The array itself, for kernels, which only read it."""
        return self._array

    @property
    def value(self) -> FloatArray:
        """The array, read-only.  Setting it is `assign`."""
        view = self._array
        if type(view) is np.ndarray:
            view = view.view()
            view.flags.writeable = False
        array: FloatArray = view
        return array

    @value.setter
    def value(self, value: ArrayLike) -> None:
        self.assign(value)

    @contextmanager
    def changing(self) -> Iterator[FloatArray]:
        """The array itself, to be changed in place and then let go."""
        try:
            yield self._array
        finally:
            self._content, self._packed = object(), None

    def to(self, engine: Engine | None) -> None:
        """Move the array to a device, or to host memory; the gradient is let go."""
        if engine is not self.engine:
            self._array, self.engine, self.gradient = placed(self._array, engine), engine, None
            self._content, self._packed = object(), None

    def packed(self, shape: tuple[int, ...] | None = None) -> Any:
        """The array, in another *shape* where one is given, for calls that keep what they make of it.

        The same object until the array changes; on a device, where nothing is packed, the array itself.
        """
        if self.engine is not None:
            return self._array.reshape(shape or self.shape)
        content, packed, shape = self._content, self._packed, shape or self.shape
        if packed is None or packed[0] is not content or packed[1].shape != shape:
            # not a copy: once the array changes this is not handed out again
            self._packed = packed = content, PackedWeight(self._array.reshape(shape), copy=False)
        return packed[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        shape: tuple[int, ...] = self._array.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype of the array."""
        dtype: np.dtype[Any] = self._array.dtype
        return dtype

    def numpy(self) -> FloatArray:
        """A copy of the array in host memory."""
        array: FloatArray = placed(self._array, None)
        return array.copy() if self.engine is None else array

    def assign(self, value: ArrayLike) -> None:
        """Overwrite the array's content; the shape must be the same."""
        array = np.asarray(value, self.dtype)
        if array.shape != self.shape:
            raise ValueError(f"{self.name} must have shape {self.shape}. Received: value.shape={array.shape}")
        with self.changing() as own:
            if self.engine is None:
                own[...] = array
            else:
                self._array = placed(array, self.engine)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        return np.array(placed(self.value, None), dtype=dtype, copy=copy)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}

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
