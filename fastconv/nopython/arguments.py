"""Arguments of a call in compiled code: options as numbers of a key, arrays as the rows that kernels take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic, overload

from fastconv import _jit

_FLOATS = (types.float32, types.float64)
# A prime above the numbers of the characters that our words consist of.
_ALPHABET = 257


def check_array(name: str, array: Any, dimensions: tuple[int, ...], like: Any = None) -> None:
    """Raise a TypingError for what is no array of floats with so many dimensions, and of the dtype of *like*."""
    if not isinstance(array, types.Array) or array.dtype not in _FLOATS:
        raise TypingError(f"{name} must be an array of float32 or float64. Received: {name}: {array}")
    if array.ndim not in dimensions:
        wanted = " or ".join(map(str, dimensions))
        raise TypingError(f"{name} must have {wanted} dimensions. Received: {name}: {array}")
    if like is not None and array.dtype != like.dtype:
        raise TypingError(f"{name} must have the dtype of the first array, {like.dtype}. Received: {name}: {array}")


def is_given(argument: Any) -> bool:
    """Whether an argument of this type is something else than None."""
    return argument is not None and not isinstance(argument, types.NoneType | types.Omitted)


def is_true(name: str, flag: Any) -> bool:
    """The value of an argument that changes what a function returns, so that it must be known when it is compiled."""
    if isinstance(flag, types.Omitted):
        return bool(flag.value)
    if isinstance(flag, types.Literal):
        return bool(flag.literal_value)
    if isinstance(flag, bool):
        return flag
    raise TypingError(f"{name} must be True or False literally in compiled code. Received: {name}: {flag}")


# Each function below stands for compiled code alone, which the overload after it gives.


def numbers(option):
    """An option as numbers of a key: an int, a bool, None, a string, or pairs of these."""
    raise NotImplementedError


@_jit.kernel
def _string_numbers(option):
    """The length of a string, and its characters as digits of a number: no two of our words have the same."""
    digits = np.int64(0)
    for character in option:
        digits = digits * _ALPHABET + ord(character)
    return np.int64(len(option)), digits


@overload(numbers)
def _numbers(option):
    if isinstance(option, types.BaseTuple) and len(option) == 2:
        return lambda option: numbers(option[0]) + numbers(option[1])
    if isinstance(option, types.Integer | types.Boolean):
        return lambda option: (np.int64(option),)
    if isinstance(option, types.UnicodeType):
        return lambda option: _string_numbers(option)
    if not is_given(option):
        return lambda option: (np.int64(0),)
    return None


def extents(array):
    """The shape of an array as numbers of a key; nothing of None."""
    raise NotImplementedError


@overload(extents)
def _extents(array):
    return (lambda array: array.shape) if is_given(array) else (lambda array: ())


def row(array, like):
    """The numbers of an array in one row, which kernels only read; an empty row like *like* for None."""
    raise NotImplementedError


@overload(row)
def _row(array, like):
    if not is_given(array):
        return lambda array, like: as_row(like, 0)
    if array.layout == "C":
        return lambda array, like: as_row(array, array.size)
    return lambda array, like: as_row(array.copy(), array.size)


@_jit.inline
def exchanged(values, images, first, second):
    """*values*, flat (images, first, second), as flat (images, second, first)."""
    out = np.empty(values.size, values.dtype)
    for image in range(images):
        for i in range(first):
            for j in range(second):
                out[(image * second + j) * first + i] = values[(image * first + i) * second + j]
    return out


@intrinsic
def read_only(typingctx: Any, array: Any) -> Any:
    """The same array as one that must not be written: the type that kernels know for their tables."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return impl_ret_borrowed(context, builder, signature.return_type, arguments[0])

    return array.copy(readonly=True)(array), generate


@intrinsic
def as_row(typingctx: Any, array: Any, size: Any) -> Any:
    """The first numbers of an array without gaps in one row, and without its read-only flag.

    Kernels never write to their inputs, and are compiled for one type.  ``reshape`` would look at strides: a third more
    for a caller to compile.
    """
    row_type = types.Array(array.dtype, 1, "C")

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        memory = context.make_array(array)(context, builder, arguments[0])
        row = context.make_array(row_type)(context, builder)
        context.populate_array(
            row,
            data=memory.data,
            shape=[arguments[1]],
            strides=[memory.itemsize],
            itemsize=memory.itemsize,
            meminfo=memory.meminfo,
            parent=memory.parent,
        )
        return impl_ret_borrowed(context, builder, row_type, row._getvalue())

    return row_type(array, types.intp), generate


def leave(result, out):
    """The result, or the caller's array with the result in it."""
    raise NotImplementedError


@overload(leave)
def _leave(result, out):
    if not is_given(out):
        return lambda result, out: result

    def written(result, out):
        # what Numba makes of out[...] = result takes seconds to compile: it can also tell that the shapes differ
        for place, value in np.ndenumerate(result):
            out[place] = value
        return out

    return written


def result_of(shape, like, dtype):
    """An array of *shape*, four numbers, without the first where *like* has one dimension less."""
    raise NotImplementedError


@overload(result_of)
def _result_of(shape, like, dtype):
    if like.ndim == len(shape):
        return lambda shape, like, dtype: np.empty(shape, dtype)
    return lambda shape, like, dtype: np.empty(shape[1:], dtype)
