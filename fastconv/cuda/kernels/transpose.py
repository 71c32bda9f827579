"""The kernel of copies with the axes in another order."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import NUMBERS, POSITIONS, element, kernel_of_elements
from fastconv.cuda.kernels.intrinsics import divide

cuda = target()
types = cuda.types
int32, int64 = types.int32, types.int64


class Strides(NamedTuple):
    """Extents of the copy, and the distances of neighbours in the original."""

    A: int
    B: int
    C: int
    D: int
    a_step: int
    b_step: int
    c_step: int
    d_step: int


@lru_cache
def gather(positions: bool) -> Kernel:
    """The kernel that reads with strides and writes side by side: 64-bit integers with *positions*, else float32."""

    def gather_strided(source, out, problem):
        """Neighbouring threads write neighbouring elements; what they read lies ``d_step`` apart."""
        p = problem
        i = element()
        if i < out.size:
            row = divide(int32(i), int32(p.D))
            d = int32(i - row * p.D)
            plane = divide(row, int32(p.C))
            c = int32(row - plane * p.C)
            a = divide(plane, int32(p.B))
            b = int32(plane - a * p.B)
            out[i] = source[a * p.a_step + b * p.b_step + c * p.c_step + d * p.d_step]

    numbers = POSITIONS if positions else NUMBERS
    return kernel_of_elements(
        gather_strided, numbers, numbers, types.NamedUniTuple(int64, len(Strides._fields), Strides)
    )
