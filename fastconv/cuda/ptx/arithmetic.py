"""The arithmetic of PTX on NumPy arrays: any opcode that maps values to values, without a machine around it.

>>> import numpy as np
>>> evaluate("mul.hi.u32", np.array([1 << 31], np.uint32), np.array([6], np.uint32))
array([3], dtype=uint32)
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.cuda.ptx import compare, convert, floating, integer
from fastconv.cuda.ptx.faults import Unsupported
from fastconv.cuda.ptx.operations import BUILDERS, Form, Operation
from fastconv.cuda.ptx.types import DTYPE

__all__ = ["complement", "evaluate", "operation"]

# the files that fill the table
_FAMILIES = (integer, floating, compare, convert)


@functools.cache
def operation(opcode: str) -> Operation:
    """The operation of an opcode; :class:`Unsupported` where it, or one of its modifiers, is not known."""
    form = Form(opcode)
    builder = BUILDERS.get(form.base)
    if builder is None:
        raise form.unsupported()
    try:
        result = builder(form)
    except (KeyError, ValueError, IndexError) as error:
        raise form.unsupported(f"{type(error).__name__} {error}") from error
    form.finish()
    return result


@functools.cache
def complement(opcode: str) -> Operation:
    """The second predicate of ``setp p|q``."""
    return compare.complement_of(Form(opcode))


def is_arithmetic(opcode: str) -> bool:
    """Whether the opcode maps values to values."""
    return opcode.partition(".")[0] in BUILDERS


def evaluate(opcode: str, *operands: ArrayLike) -> Any:
    """The result of one instruction for every element of its operands."""
    found = operation(opcode)
    if found.reads_carry or found.writes_carry:
        raise Unsupported(f"`{opcode}` uses the condition code; run it in a kernel")
    arrays = [
        np.atleast_1d(np.asarray(value, DTYPE[name])) for value, name in zip(operands, found.sources, strict=True)
    ]
    size = np.broadcast_shapes(*(array.shape for array in arrays))
    with floating.floating_point_rules():
        result = found.function(*(np.ascontiguousarray(np.broadcast_to(array, size)) for array in arrays))
    return np.asarray(result)
