"""How an opcode becomes a function on arrays: the table that the files of arithmetic fill.

``fma.rn.ftz.f32`` is read once, when a kernel is decoded, into an :class:`Operation`: a function from arrays (one
element per thread) to an array, with the PTX type of every operand.  A builder takes the modifiers it knows out of the
:class:`Form`; one that is left over makes the instruction unsupported, so that no modifier is ever silently ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.cuda.ptx.faults import Unsupported
from fastconv.cuda.ptx.types import DTYPE

Array = NDArray[Any]

# The condition code register, read by addc and written by add.cc (PTX ISA, CC.CF): one hidden register per thread.
CARRY = "%cc"


class Form:
    """An opcode cut into its base, its modifiers and its types; builders take what they understand."""

    def __init__(self, opcode: str) -> None:
        self.opcode = opcode
        self.base, *rest = opcode.replace("::", "_").split(".")
        self.modifiers = [part for part in rest if part not in DTYPE]
        self.types = [part for part in rest if part in DTYPE]

    def flag(self, name: str) -> bool:
        """Whether the modifier is there."""
        if name in self.modifiers:
            self.modifiers.remove(name)
            return True
        return False

    def choice(self, *names: str, default: str = "") -> str:
        """The one of these modifiers that is there."""
        for name in names:
            if self.flag(name):
                return name
        return default

    def type(self) -> str:
        """The only type of the instruction."""
        if len(self.types) != 1:
            raise self.unsupported()
        return self.types[0]

    def unsupported(self, why: str = "") -> Unsupported:
        return Unsupported(f"`{self.opcode}` is not supported" + (f": {why}" if why else ""))

    def finish(self) -> None:
        """Complain about modifiers that nobody took."""
        if self.modifiers:
            raise self.unsupported("." + " .".join(self.modifiers))


@dataclass(frozen=True)
class Operation:
    """A function on arrays and the PTX types of what it takes and gives.

    ``function`` takes one array per source and returns one array, or a tuple of arrays where there are several results.
    An operation that uses the condition code lists it as its last source (``reads_carry``) or result
    (``writes_carry``).
    """

    function: Callable[..., Any]
    result: tuple[str, ...]
    sources: tuple[str, ...]
    reads_carry: bool = False
    writes_carry: bool = False
    may_divide_by_zero: bool = False


Builder = Callable[[Form], Operation]
BUILDERS: dict[str, Builder] = {}


def builds(*bases: str) -> Callable[[Builder], Builder]:
    """Register a builder for these opcodes."""

    def register(builder: Builder) -> Builder:
        for base in bases:
            BUILDERS[base] = builder
        return builder

    return register


def kind_of(type_name: str) -> str:
    """``"f"``, ``"i"``, ``"u"`` or ``"b"``, as in NumPy."""
    return DTYPE[type_name].kind


def scalar(value: int, type_name: str) -> np.generic:
    """A constant of the type's dtype, so that NumPy does not widen the other operand."""
    return DTYPE[type_name].type(value)
