"""Copies with the axes in another order: an array of NCHW, or one whose numbers are not side by side.

Where neighbours of the copy lie far apart in the original, and its neighbours far apart in the copy, as from NCHW to
NHWC and back, tiles go through shared memory; all else is read from where it lies.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from fastconv.cuda.device import Engine

#: Axes that the kernels count; arrays with fewer get leading ones of extent 1.
AXES = 4
#: Positions are 32-bit integers in the kernels.
_LARGEST = 2**31 - 2**16


def gather(engine: Engine, memory: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """The array of *shape* whose element i, j, ... is ``memory[i * strides[0] + j * strides[1] + ...]``, flat."""
    from fastconv.cuda.kernels import elements, transpose as kernels

    extents, steps = _joined(shape, strides)
    if len(extents) > AXES or prod(shape) >= _LARGEST:
        raise ValueError(
            f"the GPU copies arrays of at most {AXES} axes and fewer than {_LARGEST} numbers. Received: shape={shape}"
        )
    out = engine.empty((prod(shape),), memory.dtype)
    positions = memory.dtype == np.int64
    tiles = _tiles(extents, steps)
    if tiles is not None:
        blocks = tiles.A * tiles.B * -(-tiles.R // kernels.TILE) * -(-tiles.C // kernels.TILE)
        engine.launch(kernels.transpose(positions), blocks, memory, out, tiles)
        return out
    missing = AXES - len(extents)
    problem = kernels.Strides(*(1,) * missing, *extents, *(0,) * missing, *steps)
    elements.launch(engine, kernels.gather(positions), out.size, memory, out, problem)
    return out


def _joined(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same elements in fewer axes: none of extent 1, and one for neighbours that one step runs through."""
    axes: list[tuple[int, int]] = []
    for extent, step in zip(shape, strides, strict=True):
        if extent == 1:
            continue
        if axes and axes[-1][1] == extent * step:
            axes[-1] = axes[-1][0] * extent, step
        else:
            axes.append((extent, step))
    return tuple(extent for extent, _ in axes), tuple(step for _, step in axes)


def _tiles(extents: tuple[int, ...], steps: tuple[int, ...]) -> Any:
    """How tiles are read and written, where the last axis is not the one whose elements lie side by side; or None."""
    from fastconv.cuda.kernels import transpose as kernels

    if len(extents) < 2 or steps[-1] == 1 or 1 not in steps:
        return None
    axis = steps.index(1)
    if min(extents[axis], extents[-1]) < kernels.LEAST:
        return None
    out_steps = tuple(prod(extents[other + 1 :]) for other in range(len(extents)))
    others = [(extents[other], steps[other], out_steps[other]) for other in range(len(extents) - 1) if other != axis]
    first, second = ([(1, 0, 0)] * (2 - len(others)) + others)[:2]
    return kernels.Tiles(*first, *second, extents[axis], out_steps[axis], extents[-1], steps[-1])
