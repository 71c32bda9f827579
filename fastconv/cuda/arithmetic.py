"""Arithmetic on the GPU, number by number, with NumPy's bits for float32 where a sentence does not say otherwise."""

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


def mapped(engine: Engine, operation: str, x: Any, out: Any) -> None:
    """``out = operation(x)`` for contiguous float32 arrays.

    "absolute", "sign", "square" and "negative" have NumPy's bits; "exp" those of the activations, and "log1p", computed
    in float64, is rounded once: both may differ from NumPy's by a last bit.
    """
    from fastconv.cuda.kernels import arithmetic as kernels, elements

    elements.launch(engine, kernels.mapped(operation), out.size, flat(x), flat(out))


def combined(engine: Engine, operation: str, left: Any, right: Any, out: Any = None) -> Any:
    """The result of a named operation on a contiguous float32 array and a number or another array.

    *right* is broadcast to the shape of *left*: some leading axes and some trailing ones are the same, and those
    between have one number, as in (N, 1, 1, C) for images or in (C,).  Returns a new array, or nothing where there is
    an *out*, which may be one of the two.
    """
    from fastconv.cuda.kernels import arithmetic as kernels, elements

    made = engine.empty(left.shape, np.float32) if out is None else None
    numbers, result = flat(left), flat(made if out is None else out)
    elements.check_size(numbers)
    if isinstance(right, float | int | np.number):
        others, number, image, channels = engine.empty((0,), np.float32), np.float32(right), 1, 1
    else:
        others, number = flat(right), np.float32(0)
        image, channels = _extents_of_broadcast(left.shape, right.shape)
    elements.launch(engine, kernels.combined(operation), result.size, numbers, others, number, result, image, channels)
    return made


def _extents_of_broadcast(shape: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, int]:
    """How many numbers of an array have their own row in the other, and the length of such a row."""
    whole = (*(1,) * (len(shape) - len(other)), *other)
    same = [extent == wanted for extent, wanted in zip(whole, shape, strict=False)]
    axes = len(shape)
    first = next((axis for axis in range(axes) if not same[axis]), axes)
    last = next((axis for axis in reversed(range(axes)) if not same[axis]), first - 1)
    if len(whole) > axes or any(extent != 1 for extent in whole[first : last + 1]):
        raise ValueError(
            f"the GPU combines an array with one that has the same first and last axes and one number in the others. "
            f"Received: shapes {shape} and {other}"
        )
    return max(prod(shape[first:]), 1), max(prod(shape[last + 1 :]), 1)
