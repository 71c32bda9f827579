"""The kernels of the room in which an array lies: `fastconv.cpu` for host memory, `fastconv.cuda` for a GPU.

Both have files and functions of the same names.  On a GPU they take the engine first, which is filled in here, so that
an operation asks for ``room(x).reduction.column_sums(x)`` and never where x is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from math import prod
from types import ModuleType
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import DTypeLike

from fastconv import memory
from fastconv.cpu import (
    activation,
    dropout,
    normalization,
    norms,
    pool,
    rectify,
    reduction,
    scores,
    softmax,
    total,
    update,
)
from fastconv.cuda.array import Array
from fastconv.cuda.device import Engine


class Host:
    """The kernels for NumPy arrays."""

    engine = None
    activation, dropout, normalization, norms, pool = activation, dropout, normalization, norms, pool
    rectify, reduction, scores, softmax, total, update = rectify, reduction, scores, softmax, total, update
    empty = staticmethod(memory.empty)
    zeros = staticmethod(np.zeros)
    constant = staticmethod(np.asarray)

    @staticmethod
    def number(draw: Callable[[], int]) -> int:
        """What *draw* returns."""
        return draw()


class Gpu:
    """The kernels for arrays of one engine; an attribute for each file of `fastconv.cuda`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array of any contents."""
        return Array(self.engine, self.engine.empty((prod(shape),), dtype), shape)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array of zeros."""
        from fastconv.cuda.kernels import elements

        array = self.empty(shape, dtype)
        elements.launch(self.engine, elements.fill_zeros(), array.size, array.memory)
        return array

    def constant(self, values: ndarray) -> Array:
        """An array of the host that never changes, uploaded once."""
        return Array(self.engine, self.engine.constant(values.reshape(-1)), values.shape)

    def number(self, draw: Callable[[], int]) -> Array:
        """What *draw* returns, on the device; a replay of what is recorded draws anew."""
        return Array(self.engine, self.engine.number(draw), (1,))

    def __getattr__(self, file: str) -> Any:
        bound = _Bound(self.engine, import_module(f"fastconv.cuda.{file}"))
        setattr(self, file, bound)
        return bound


class _Bound:
    """A file of `fastconv.cuda` whose functions know the engine; what they return is an `Array` of it."""

    def __init__(self, engine: Engine, module: ModuleType) -> None:
        self._engine = engine
        self._module = module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function, engine = getattr(self._module, name), self._engine

        def as_array(made: Any) -> Any:
            is_memory = hasattr(made, "shape") and type(made) is not Array
            return Array(engine, made.reshape(made.size), made.shape) if is_memory else made

        def call(*arguments: Any, **options: Any) -> Any:
            made = function(engine, *arguments, **options)
            return tuple(map(as_array, made)) if isinstance(made, tuple) else as_array(made)

        setattr(self, name, call)
        return call


HOST = Host()


def room(array: Any) -> Any:
    """Where *array* lies: its attributes are the files with the kernels for it."""
    return HOST if type(array) is ndarray else _gpu(array.engine)


@lru_cache(maxsize=16)
def _gpu(engine: Engine) -> Gpu:
    return Gpu(engine)
