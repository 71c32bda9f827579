"""Comparison and selection (PTX ISA, Comparison and Selection Instructions)."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np

from fastconv.cuda.ptx.floating import flush
from fastconv.cuda.ptx.operations import Array, Form, Operation, builds, kind_of
from fastconv.cuda.ptx.types import DTYPE

_ORDERED: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    # the unsigned names
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}


def comparison(name: str, is_float: bool) -> Callable[[Array, Array], Array]:
    """The function of a comparison operator: ``lt`` is false and ``ltu`` true where an operand is NaN."""

    def unordered(x: Array, y: Array) -> Array:
        return np.isnan(x) | np.isnan(y)

    if name == "nan":
        return unordered
    if name == "num":
        return lambda x, y: ~unordered(x, y)
    if is_float and name == "ne":  # NumPy's != is true for NaN; PTX's ne is ordered
        return lambda x, y: (x != y) & ~unordered(x, y)
    if is_float and name.endswith("u") and name[:-1] in _ORDERED:
        ordered = _ORDERED[name[:-1]]
        return lambda x, y: ordered(x, y) | unordered(x, y)
    return _ORDERED[name]


_COMPARISONS = (*_ORDERED, "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan")


def _flushed(form: Form, compare: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    if not form.flag("ftz"):
        return compare
    return lambda x, y: compare(flush(x), flush(y))


@builds("setp", "set")
def _set(form: Form) -> Operation:
    """``setp.lt.and.f32 p|q, a, b, c``: p = (a < b) and c; q = not (a < b) and c."""
    combine_name = form.choice("and", "or", "xor")
    type_name = form.types[-1]
    name = form.choice(*_COMPARISONS)
    compare = _flushed(form, comparison(name, kind_of(type_name) == "f"))
    combine = {"and": operator.and_, "or": operator.or_, "xor": operator.xor, "": None}[combine_name]
    sources = (type_name, type_name) + (("pred",) if combine else ())
    if form.base == "set":
        result = form.types[0]
        true = DTYPE[result].type(1.0 if kind_of(result) == "f" else -1 if kind_of(result) == "i" else 0xFFFFFFFF)

        def as_number(x: Array, y: Array, *c: Array) -> Array:
            truth = compare(x, y)
            return np.where(combine(truth, c[0]) if combine else truth, true, true.dtype.type(0))

        return Operation(as_number, (result,), sources)
    if combine is None:
        return Operation(compare, ("pred",), sources)
    return Operation(lambda x, y, c: combine(compare(x, y), c), ("pred",), sources)


def complement_of(form: Form) -> Operation:
    """The second predicate that ``setp p|q`` writes."""
    first = Form(form.opcode)
    combine_name = first.choice("and", "or", "xor")
    plain = _set(first)
    combine = {"and": operator.and_, "or": operator.or_, "xor": operator.xor}.get(combine_name)
    if combine is None:
        return Operation(lambda x, y: ~plain.function(x, y), ("pred",), plain.sources)
    return Operation(lambda x, y, c: combine(~plain.function(x, y), c), ("pred",), (*plain.sources, "pred"))


@builds("selp")
def _select(form: Form) -> Operation:
    type_name = form.type()
    return Operation(lambda x, y, c: np.where(c, x, y), (type_name,), (type_name, type_name, "pred"))


@builds("slct")
def _select_by_sign(form: Form) -> Operation:
    form.flag("ftz")
    result, condition = form.types
    return Operation(lambda x, y, c: np.where(c >= 0, x, y), (result,), (result, result, condition))
