"""Copies on the GPU that move or convert numbers: batches to float32, padding and cropping, concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from fastconv.cuda.device import Engine, flat

#: What can be converted: pixels, labels, and host arrays of the other float.
CONVERTIBLE = tuple(np.dtype(kind) for kind in (np.uint8, np.int32, np.int64, np.float32, np.float64))


def filled(engine: Engine, shape: tuple[int, ...], value: float) -> Any:
    """A new float32 array of one number."""
    from fastconv.cuda.kernels import copies as kernels, elements

    out = engine.empty(shape, np.float32)
    elements.launch(engine, kernels.fill(), out.size, flat(out), np.float32(value))
    return out


def to_float32(engine: Engine, x: Any, scale: float = 1.0) -> Any:
    """``float32(x) * scale`` for a contiguous array of any dtype of `CONVERTIBLE`."""
    from fastconv.cuda.kernels import copies as kernels, elements

    if x.dtype not in CONVERTIBLE:
        names = ", ".join(str(dtype) for dtype in CONVERTIBLE)
        raise TypeError(f"the GPU converts arrays of {names}. Received: {x.dtype}")
    out = engine.empty(x.shape, np.float32)
    elements.launch(engine, kernels.convert(x.dtype.name), out.size, flat(x, x.dtype), flat(out), np.float32(scale))
    return out


def window(engine: Engine, x: Any, first: tuple[int, int], extents: tuple[int, int]) -> Any:
    """The pixels of (N, H, W, C) images from row and column *first* on, zeros where they lie outside.

    Negative firsts pad; larger ones, and *extents* that end inside, crop.
    """
    from fastconv.cuda.kernels import copies as kernels, elements

    N, IH, IW, C = x.shape
    out = engine.empty((N, *extents, C), np.float32)
    numbers, result = flat(x), flat(out)
    elements.check_size(numbers, result)
    problem = kernels.Window(IH, IW, *extents, C, *first)
    elements.launch(engine, kernels.window(), result.size, numbers, result, problem)
    return out


def concatenate(engine: Engine, arrays: Sequence[Any], axis: int) -> Any:
    """Contiguous float32 arrays behind each other along an axis."""
    shape = arrays[0].shape
    axis %= len(shape)
    whole = sum(array.shape[axis] for array in arrays)
    out = engine.empty((*shape[:axis], whole, *shape[axis + 1 :]), np.float32)
    start = 0
    for array in arrays:
        extent = array.shape[axis]
        inner = prod(shape[axis + 1 :])
        _copy_runs(engine, array, out, extent * inner, extent * inner, whole * inner, 0, start * inner)
        start += extent
    return out


def split(engine: Engine, x: Any, extents: Sequence[int], axis: int) -> tuple[Any, ...]:
    """The parts of a contiguous float32 array that have these *extents* along an axis: what `concatenate` undoes."""
    shape = x.shape
    axis %= len(shape)
    inner = prod(shape[axis + 1 :])
    parts, start = [], 0
    for extent in extents:
        part = engine.empty((*shape[:axis], extent, *shape[axis + 1 :]), np.float32)
        _copy_runs(engine, x, part, extent * inner, shape[axis] * inner, extent * inner, start * inner, 0)
        parts.append(part)
        start += extent
    return tuple(parts)


def _copy_runs(
    engine: Engine, source: Any, target: Any, run: int, source_step: int, target_step: int, *starts: int
) -> None:
    """Copy runs of numbers, which lie *source_step* apart here and *target_step* there."""
    from fastconv.cuda.kernels import copies as kernels, elements

    numbers, result = flat(source), flat(target)
    elements.check_size(numbers, result)
    count = min(numbers.size // source_step, result.size // target_step) * run if run else 0
    problem = kernels.Runs(count, run, source_step, target_step, *starts)
    elements.launch(engine, kernels.copy_runs(), count, numbers, result, problem)
