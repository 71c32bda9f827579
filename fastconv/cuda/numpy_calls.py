"""NumPy's functions and operators on device arrays: what code that is written with NumPy asks of an `Array`.

NumPy hands a call with an `Array` among its arguments to the array (``__array_ufunc__``, ``__array_function__``), and
the array to this file.  So a layer that adds with ``+`` or joins with ``np.concatenate`` runs on a device as it stands.
What is not in the tables is refused with its name: nothing is copied to the host unasked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from fastconv.cuda import arithmetic, copies, exchange
from fastconv.cuda.array import Array

_COMBINED = {
    np.add: "add",
    np.subtract: "subtract",
    np.multiply: "multiply",
    np.divide: "divide",
    np.maximum: "maximum",
    np.minimum: "minimum",
}
#: Those whose operands may change places, so that the larger array comes first.
_SYMMETRIC = (np.add, np.multiply, np.maximum, np.minimum)
_MAPPED = {
    np.absolute: "absolute",
    np.sign: "sign",
    np.square: "square",
    np.negative: "negative",
    np.exp: "exp",
    np.log1p: "log1p",
}


def universal_function(function: np.ufunc, inputs: tuple[Any, ...], out: Array | None) -> Array:
    """A function of NumPy that works number by number."""
    if function in _MAPPED:
        (x,) = inputs
        result = _result(x, out)
        arithmetic.mapped(x.engine, _MAPPED[function], x, result)
        return result
    if function not in _COMBINED:
        raise TypeError(_unknown(function.__name__))
    left, right = inputs
    if function in _SYMMETRIC and np.ndim(left) < np.ndim(right):
        left, right = right, left
    _check_place(function, left, right)
    result = _result(left, out)
    arithmetic.combined(left.engine, _COMBINED[function], left, right, result)
    return result


def array_function(function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Another function of NumPy."""
    known = _FUNCTIONS.get(function)
    if known is None:
        raise TypeError(_unknown(function.__name__))
    return known(*arguments, **options)


def item(array: Array, key: Any) -> Array:
    """``array[key]`` for ints, slices, None and ``...``: the same memory where the numbers lie side by side in it."""
    keys = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(part, int | np.integer | slice | EllipsisType | None) for part in keys):
        raise TypeError(f"a device array takes ints, slices, None and ... in brackets. Received: {_types(keys)}")
    keys = keys if Ellipsis in keys else (*keys, ...)
    # NumPy's own rules, on bytes that are not there: a view is made of them, and none is read
    model = as_strided(np.empty(1, np.uint8), array.shape, exchange.strides_of(array.shape))
    view = model[keys]
    if any(step < 0 for step in view.strides):
        raise ValueError(f"the steps of a slice of a device array must be positive. Received: {key!r}")
    first = view.__array_interface__["data"][0] - model.__array_interface__["data"][0] if view.size else 0
    memory = array.memory[first:] if first else array.memory
    return exchange.contiguous(exchange.Strided(array.engine, memory, view.shape, view.strides))  # type: ignore[no-any-return]


def copied(array: Array) -> Array:
    """The same numbers in memory of their own."""
    from fastconv.cuda.transpose import gather

    return Array(array.engine, gather(array.engine, array.memory, (array.size,), (1,)), array.shape)


def converted(array: Array, dtype: Any) -> Array:
    """The numbers in another dtype, which must be float32."""
    if np.dtype(dtype) != np.float32:
        raise TypeError(f"a device array of {array.dtype} can become float32. Received: dtype={np.dtype(dtype)}")
    return _array(array.engine, copies.to_float32(array.engine, array))


# ---- functions ----------------------------------------------------------------------------------------------------


def _moveaxis(a: Array, source: int, destination: int) -> Array:
    order = [axis for axis in range(a.ndim) if axis != source % a.ndim]
    order.insert(destination % a.ndim, source % a.ndim)
    return exchange.contiguous(exchange.enter("a", a).transpose(tuple(order)))  # type: ignore[no-any-return]


def _concatenate(arrays: Sequence[Array], axis: int = 0) -> Array:
    _check_place(np.concatenate, *arrays)
    engine = arrays[0].engine
    return _array(engine, copies.concatenate(engine, arrays, axis))


def _split(ary: Array, indices_or_sections: Sequence[int], axis: int = 0) -> list[Array]:
    ends = [0, *map(int, indices_or_sections), ary.shape[axis]]
    extents = [end - start for start, end in pairwise(ends)]
    return [_array(ary.engine, part) for part in copies.split(ary.engine, ary, extents, axis)]


def _repeat(a: Array, repeats: int, axis: int) -> Array:
    inner = prod(a.shape[axis + 1 :])
    repeated = exchange.Strided(a.engine, a.memory, (a.size // max(inner, 1), repeats, inner), (inner, 0, 1))
    shape = (*a.shape[:axis], a.shape[axis] * repeats, *a.shape[axis + 1 :])
    return exchange.contiguous(repeated).reshape(shape)  # type: ignore[no-any-return]


def _pad(array: Array, pad_width: Sequence[tuple[int, int]]) -> Array:
    """Zeros around two neighbouring axes."""
    padded = [axis for axis, widths in enumerate(pad_width) if any(widths)]
    first = padded[0] if padded else 0
    if padded and padded[-1] > first + 1:
        raise ValueError(f"the GPU pads two neighbouring axes. Received: pad_width={pad_width}")
    shape = (*array.shape, 1)
    images = array.reshape(prod(shape[:first]), *shape[first : first + 2], prod(shape[first + 2 :]))
    (top, bottom), (left, right) = (*pad_width, (0, 0))[first : first + 2]
    extents = images.shape[1] + top + bottom, images.shape[2] + left + right
    result = _array(array.engine, copies.window(array.engine, images, (-top, -left), extents))
    return result.reshape(tuple(n + sum(widths) for n, widths in zip(array.shape, pad_width, strict=True)))


def _clip(a: Array, a_min: float, a_max: float) -> Array:
    above: Any = np.maximum(a, a_min)
    inside: Any = np.minimum(above, a_max)
    return inside  # type: ignore[no-any-return]


def _full_like(number: float) -> Callable[..., Array]:
    def make(a: Array, shape: Any = None) -> Array:
        extents = a.shape if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)
        return _array(a.engine, copies.filled(a.engine, extents, number))

    return make


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.shape: lambda a: a.shape,
    np.ndim: lambda a: a.ndim,
    np.size: lambda a: a.size,
    np.ravel: lambda a: a.reshape(a.size),
    np.moveaxis: _moveaxis,
    np.concatenate: _concatenate,
    np.split: _split,
    np.repeat: _repeat,
    np.pad: _pad,
    np.clip: _clip,
    np.zeros_like: _full_like(0),
    np.ones_like: _full_like(1),
}


def _array(engine: Any, memory: Any) -> Array:
    """Memory with a shape as an array."""
    return Array(engine, memory.reshape(prod(memory.shape)), memory.shape)


def _result(like: Array, out: Array | None) -> Array:
    return Array(like.engine, like.engine.empty((like.size,), np.float32), like.shape) if out is None else out


def _check_place(function: Any, *operands: Any) -> None:
    """Raise TypeError where one of the operands lies elsewhere than the first, which must be an array."""
    first, *others = operands
    for other in (first, *others):
        number = isinstance(other, float | int | np.number) and other is not first
        if not number and (type(other) is not Array or type(first) is not Array or other.engine is not first.engine):
            raise TypeError(
                f"{function.__name__} takes arrays on one device, the largest first, and numbers. "
                f"Received: {_types(operands)}"
            )


def _types(values: Sequence[Any]) -> str:
    return ", ".join(type(value).__name__ for value in values)


def _unknown(name: str) -> str:
    return f"{name} has no kernel for arrays on a device; array.numpy() makes a copy in host memory"


Array.calls = sys.modules[__name__]
