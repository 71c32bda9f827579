"""Sums over the rows of a (rows, C) matrix on the GPU: bias gradients, batch statistics.

The CPU's bits: the same blocks of rows, the same joined rows, the same float64 chains in the same order
(`fastconv.cpu.reduction`), no atomics.  Memory decides how long they take, also where float64 is slow: a number that is
read needs one addition.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cpu.reduction import ROWS_OF_BLOCK, repeats
from fastconv.cuda.device import Engine, flat


def column_sums(engine: Engine, matrix: Any) -> Any:
    """Sums over the rows of a contiguous float32 (rows, C) matrix."""
    from fastconv.cuda.kernels import reduction as kernels

    return _sums(engine, kernels.sums(), matrix.shape, flat(matrix))


def column_products(engine: Engine, a: Any, b: Any, a_shift: Any, b_shift: Any) -> Any:
    """Sums over the rows of ``(a - a_shift) * (b - b_shift)``: float32 matrices (rows, C) and shifts (C,)."""
    from fastconv.cuda.kernels import reduction as kernels

    return _sums(engine, kernels.products(), a.shape, flat(a), flat(b), flat(a_shift), flat(b_shift))


def _sums(engine: Engine, kernel: Any, shape: tuple[int, int], *arrays: Any) -> Any:
    from fastconv.cuda.kernels import elements, reduction as kernels

    rows, C = shape
    elements.check_size(arrays[0])
    blocks, joined = -(-rows // ROWS_OF_BLOCK), repeats(C)
    partial = engine.empty((blocks * joined * C,), np.float64)
    out = engine.empty((C,), np.float32)
    elements.launch(engine, kernel, partial.size, *arrays, partial, C, C * joined)
    if joined > 1:
        folded = engine.empty((blocks * C,), np.float64)
        elements.launch(engine, kernels.folded_sums(), folded.size, partial, folded, joined, C)
        partial = folded
    elements.launch(engine, kernels.total_sums(), C, partial, out, blocks, C)
    return out
