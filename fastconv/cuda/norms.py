"""Euclidean norms of arrays on the GPU, and arrays made shorter: `fastconv.cpu.norms` without a look from the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.cuda import arithmetic
from fastconv.cuda.device import Engine, flat
from fastconv.cuda.total import add_sum


def squares(engine: Engine, arrays: Sequence[Any]) -> Any:
    """The sum of the squares of all numbers of all float32 arrays: one float64 number on the device."""
    total = engine.upload(np.zeros(1))
    for array in arrays:
        add_sum(engine, array, total, 0, squared=True)
    return total


def shortened(engine: Engine, array: Any, squares: Any, longest: float) -> Any:
    """An *array* by the factor that shortens a vector with this sum of *squares* to the norm *longest*, or by 1."""
    from fastconv.cuda.kernels import elements, norms as kernels

    factor = engine.empty((1,), np.float32)
    elements.launch(engine, kernels.factor(), 1, flat(squares, np.float64), factor, longest)
    return arithmetic.multiply(engine, array, factor)
