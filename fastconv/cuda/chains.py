"""Gradients of weights, in chains: many blocks of threads sum at the same time, each over a part of the pixels.

Which pixels form a chain, and which chains a split, is the CPU's choice, so that the bits are the same: chains are
added to the sum of their split, and these to the result, always in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.cuda.device import Engine


def add_chains(engine: Engine, write: Callable[[Any], None], starts: NDArray[np.int32], out: Any) -> None:
    """``out = `` the sum of what *write* leaves in the array that it is given, a row for each chain.

    Split i has the chains from ``starts[i]`` up to ``starts[i + 1]``.
    """
    from fastconv.cuda.kernels import elements

    splits, chains = starts.size - 1, int(starts[-1])
    sums = out if splits == 1 else engine.empty((splits * out.size,), np.float32)
    partial = sums if chains == splits else engine.empty((chains * out.size,), np.float32)
    write(partial)
    if chains > splits:
        elements.launch(engine, elements.sum_chains(), sums.size, partial, sums, engine.constant(starts), out.size)
    if splits > 1:
        elements.launch(engine, elements.sum_parts(), out.size, sums, out, splits)
