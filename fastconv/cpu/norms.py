"""Euclidean norms of arrays, and arrays made shorter, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.cpu import total


def squares(arrays: Sequence[Any]) -> float:
    """The sum of the squares of all numbers of all arrays, in float64."""
    # one after the other, as a GPU adds them
    result = 0.0
    for array in arrays:
        result += total.of(np.square(array, dtype=np.float64))
    return result


def shortened(array: Any, squares: float, longest: float) -> NDArray[Any]:
    """An *array* by the factor that shortens a vector with this sum of *squares* to the norm *longest*, or itself."""
    norm = math.sqrt(squares)
    result: NDArray[Any] = array * array.dtype.type(longest / norm) if norm > longest else array
    return result
