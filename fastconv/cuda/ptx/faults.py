"""What can go wrong in a kernel: one class per rule that a launch checks.

Every fault names the kernel, the line of PTX, the thread and its CTA, the address where there is one, and the rule that
was broken; the parts are also attributes, so that a test can assert on them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where in the PTX text, and which thread of which CTA."""

    kernel: str
    line: int
    text: str
    thread: tuple[int, int, int] | None = None
    cta: tuple[int, int, int] | None = None

    def __str__(self) -> str:
        who = f", thread {self.thread} of CTA {self.cta}" if self.thread is not None else ""
        return f"{self.kernel}, line {self.line}: `{self.text}`{who}"


class PtxError(RuntimeError):
    """Base class of everything this package raises about a kernel."""


class ParseError(PtxError):
    """The text is not PTX as this package reads it."""


class Unsupported(PtxError):  # noqa: N818 - named after what happened, as the faults are
    """The kernel executed an instruction, or a form of one, that the interpreter does not have."""


class Fault(PtxError):  # noqa: N818
    """The kernel broke a rule of the PTX ISA.

    Attributes
    ----------
    rule : str
        What was broken, in one sentence.
    place : Place
        Kernel, line of PTX, thread and CTA.
    address : int or None
        The byte address inside its state space (an offset into the CTA's shared memory, for ``.shared``).
    """

    def __init__(self, rule: str, place: Place, address: int | None = None) -> None:
        where = f" at address {address:#x}" if address is not None else ""
        super().__init__(f"{rule}{where}\n  in {place}")
        self.rule = rule
        self.place = place
        self.address = address


class OutOfBounds(Fault):
    """An access outside every array the kernel was given, its shared memory or its local memory."""


class ReadOnly(Fault):
    """A store to a constant, or to an array that the caller marked as not writeable."""


class SecondWriter(Fault):
    """Two threads store to one element of global memory (``one_writer=True``)."""


class Misaligned(Fault):
    """An address that is not a multiple of the access size."""


class Uninitialised(Fault):
    """A load of shared memory that no thread of the CTA has written."""


class Race(Fault):
    """Two threads touch the same shared memory between two barriers, one of them writes, and no rule orders them."""


class AsyncHazard(Fault):
    """Shared memory touched while a ``cp.async`` to it is in flight."""


class BarrierDivergence(Fault):
    """Threads of one CTA wait at different barriers, or a part of a warp waits at an aligned one."""


class Deadlock(Fault):
    """Threads wait for threads that will never come."""


class WarpDivergence(Fault):
    """A warp-wide instruction that threads it needs do not execute."""


class ArithmeticFault(Fault):
    """An operation whose result the PTX ISA leaves undefined: an integer division by zero."""


class Trapped(Fault):
    """The kernel executed ``trap``: a failed assertion, an exception raised in the kernel."""
