"""Arithmetic of two arrays on the GPU, number by number, with NumPy's bits for float32."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from fastconv.cuda.device import Engine, flat


def add(engine: Engine, left: Any, right: Any, out: Any = None) -> Any:
    """``left + right``; *right* is broadcast as in `combined`."""
    return combined(engine, "add", left, right, out)


def subtract(engine: Engine, left: Any, right: Any, out: Any = None) -> Any:
    """``left - right``; *right* is broadcast as in `combined`."""
    return combined(engine, "subtract", left, right, out)


def multiply(engine: Engine, left: Any, right: Any, out: Any = None) -> Any:
    """``left * right``; *right* is broadcast as in `combined`."""
    return combined(engine, "multiply", left, right, out)


def divide(engine: Engine, left: Any, right: Any, out: Any = None) -> Any:
    """``left / right``; *right* is broadcast as in `combined`."""
    return combined(engine, "divide", left, right, out)


def maximum(engine: Engine, left: Any, right: Any, out: Any = None) -> Any:
    """The larger of the two, NaN where one is NaN; *right* is broadcast as in `combined`."""
    return combined(engine, "maximum", left, right, out)


def minimum(engine: Engine, left: Any, right: Any, out: Any = None) -> Any:
    """The smaller of the two, NaN where one is NaN; *right* is broadcast as in `combined`."""
    return combined(engine, "minimum", left, right, out)


def combined(engine: Engine, operation: str, left: Any, right: Any, out: Any = None) -> Any:
    """The result of a named operation on a contiguous float32 array and a number or another array.

    *right* has the shape of *left*, or (C,) for one number a channel, or (N, 1, ..., 1, C) for one number a channel of
    each image.  *out*, by default a new array, may be one of the two.
    """
    from fastconv.cuda import arithmetic_kernels as kernels, elements

    out = engine.empty(left.shape, np.float32) if out is None else out
    numbers, result = flat(left), flat(out)
    elements.check_size(numbers)
    if isinstance(right, float | int | np.number):
        others, number, image, channels = engine.empty((0,), np.float32), np.float32(right), 1, 1
    else:
        others, number = flat(right), np.float32(0)
        image, channels = _extents_of_broadcast(left.shape, right.shape)
    elements.launch(engine, kernels.combined(operation), result.size, numbers, others, number, result, image, channels)
    return out


def _extents_of_broadcast(shape: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, int]:
    """How many numbers of an array have their own row in the other, and the length of such a row."""
    if other == shape:
        return max(prod(shape), 1), max(prod(shape), 1)
    if other == shape[-1:]:
        return max(prod(shape), 1), max(shape[-1], 1)
    if len(shape) > 1 and other == (shape[0], *(1,) * (len(shape) - 2), shape[-1]):
        return max(prod(shape[1:]), 1), max(shape[-1], 1)
    raise ValueError(
        f"the GPU combines an array with another of its shape, (C,) or (N, 1, ..., 1, C). "
        f"Received: shapes {shape} and {other}"
    )
