"""Dropout on the GPU: the numbers of `fastconv.cpu.dropout`, which depend on the seed and the position alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cuda.device import Engine, aligned, flat


def dropout(engine: Engine, x: Any, rate: float, seed: Any) -> Any:
    """A contiguous float32 array with a share *rate* of its elements 0 and the others divided by ``1 - rate``.

    *seed* is an int, or an array of the device with it.
    """
    from fastconv.cuda.kernels import dropout as kernels, elements

    out = engine.empty(x.shape, np.float32)
    source, result = flat(x), flat(out)
    told = isinstance(seed, int)
    seeds = engine.empty((0,), np.uint64) if told else flat(seed, np.uint64)
    numbers = np.uint64(seed if told else 0), np.uint32(rate * 2**32), np.float32(1 / (1 - rate))
    quads = -(-source.size // kernels.WORDS)
    elements.launch(engine, kernels.dropout(aligned(source, result)), quads, source, result, seeds, *numbers)
    return out
