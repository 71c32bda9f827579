"""Euclidean norms of arrays, and arrays made shorter, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def squares(arrays: Sequence[Any]) -> float:
    """The sum of the squares of all numbers of all arrays, in float64."""
    return math.fsum(float(np.square(array, dtype=np.float64).sum()) for array in arrays)


def shortened(array: Any, squares: float, longest: float) -> NDArray[Any]:
    """An *array* by the factor that shortens a vector with this sum of *squares* to the norm *longest*, or itself."""
    norm = math.sqrt(squares)
    result: NDArray[Any] = array * array.dtype.type(longest / norm) if norm > longest else array
    return result
