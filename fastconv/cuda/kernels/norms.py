"""The kernel of norms: the factor that shortens."""

from __future__ import annotations

import math
from functools import lru_cache

from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import NUMBERS, SUMS, element, kernel_of_elements

cuda = target()
types = cuda.types
float32, float64 = types.float32, types.float64


@lru_cache
def factor() -> Kernel:
    """The kernel that finds the factor, with one thread."""

    def find_factor(squares, out, longest):
        """``out[0] = longest / norm`` where the norm is larger than *longest*, else 1."""
        if element() == 0:
            norm = math.sqrt(squares[0])
            out[0] = float32(longest / norm) if norm > longest else float32(1)

    return kernel_of_elements(find_factor, SUMS, NUMBERS, float64)
