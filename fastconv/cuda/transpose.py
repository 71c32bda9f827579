"""Copies with the axes in another order: an array of NCHW, or one whose numbers are not side by side."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from fastconv.cuda.device import Engine

#: Axes that the kernel counts; arrays with fewer get leading ones of extent 1.
AXES = 4
#: Positions are 32-bit integers in the kernel.
_LARGEST = 2**31 - 2**16


def gather(engine: Engine, memory: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """The array of *shape* whose element i, j, ... is ``memory[i * strides[0] + j * strides[1] + ...]``, flat."""
    from fastconv.cuda.kernels import elements, transpose as kernels

    if len(shape) > AXES or prod(shape) >= _LARGEST:
        raise ValueError(
            f"the GPU copies arrays of at most {AXES} axes and fewer than {_LARGEST} numbers. Received: shape={shape}"
        )
    out = engine.empty((prod(shape),), memory.dtype)
    missing = AXES - len(shape)
    problem = kernels.Strides(*(1,) * missing, *shape, *(0,) * missing, *strides)
    elements.launch(engine, kernels.gather(memory.dtype == np.int64), out.size, memory, out, problem)
    return out
