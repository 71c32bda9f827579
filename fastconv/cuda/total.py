"""Sums of whole arrays on the GPU, with the bits of `fastconv.cpu.total`: losses, penalties, counts, squares of a norm.

An array of up to one block of threads needs one launch, a larger one two: many blocks, then one block for their sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cpu.total import BLOCK, BLOCKS
from fastconv.cuda.device import Engine, flat


def add_sum(engine: Engine, numbers: Any, totals: Any, at: int, times: float = 1.0, *, squared: bool = False) -> None:
    """``totals[at] += sum(numbers) * times``, or of their squares: float32 numbers, float64 totals."""
    from fastconv.cuda.kernels import total as kernels

    kernel = kernels.squares() if squared else kernels.numbers()
    _add_up(engine, kernel, kernels.sums(), flat(numbers), flat(totals, np.float64), at, times)


def add_count(engine: Engine, hits: Any, counts: Any, at: int) -> None:
    """``counts[at] += sum(hits)``: int32 ones and zeros, int64 counts."""
    from fastconv.cuda.kernels import total as kernels

    _add_up(engine, kernels.hits(), kernels.counts(), flat(hits, np.int32), flat(counts, np.int64), at, 1)


def _add_up(engine: Engine, first: Any, last: Any, numbers: Any, totals: Any, at: int, times: float) -> None:
    """Add with the kernel *first*, and the sums of its blocks with the kernel *last*."""
    from fastconv.cuda.kernels import elements

    elements.check_size(numbers)
    blocks = min(-(-numbers.size // BLOCK), BLOCKS)
    if blocks > 1:
        partial = engine.empty((blocks,), totals.dtype)
        engine.launch(first, blocks, numbers, partial, 0, False, 1)
        first, numbers = last, partial
    engine.launch(first, min(blocks, 1), numbers, totals, at, True, times)
